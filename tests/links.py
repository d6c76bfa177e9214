"""``python -m tests.links``: the package as a tree of links, under the names that it has.

Its three folders have names of their own. What reads source files where an import would look
for them (mypy, import-linter) finds them in ``build/links``.
"""

from pathlib import Path

ROOT = Path(__file__).parents[1]
LINKS = ROOT / "build" / "links"


def link():
    """Make them, and take away those of files that are gone; returns the folder."""
    package = LINKS / "zctrace"
    package.mkdir(parents=True, exist_ok=True)
    wanted = {path.name: path for path in (ROOT / "tracer").iterdir()}
    wanted |= {name: ROOT / name for name in ("probes", "workloads")}
    wanted.pop("__pycache__", None)
    for path in package.iterdir():
        # Python's own folder of what it has compiled is none of the links.
        if path.is_symlink() and path.name not in wanted:
            path.unlink()
    for name, path in wanted.items():
        if not (package / name).is_symlink():
            (package / name).symlink_to(path)
    return LINKS


if __name__ == "__main__":
    link()
