"""The version, which names the commit: 0.1.0.dev377+g1825c75.

A package that was built has it in ``_version.txt``, as does what is staged for a guest. A copy
of the repository asks git, once, when somebody wants to know.
"""

from __future__ import annotations

import functools
from pathlib import Path

RELEASE = "0.1.0"
"""This one, or the next one. A commit that has the tag ``v0.1.0`` is the release itself."""
FILE = "_version.txt"
"""In the same folder as this module; not in the repository."""


@functools.cache
def version() -> str:
    """By PEP 440: the release, how many commits there are, and the last one's name.

    ``.dirty`` at the end: with changes that are in no commit. ``.dev0`` and no name: nothing
    tells the commit.
    """
    try:
        return Path(__file__).with_name(FILE).read_text(encoding="ascii").strip()
    except FileNotFoundError:
        return of_repository(Path(__file__).resolve().parents[1])


def of_repository(folder: Path) -> str:
    """As git tells it of the repository in ``folder``, not of one further up."""
    unknown = f"{RELEASE}.dev0"
    if not (folder / ".git").exists():
        return unknown
    tag = f"v{RELEASE}"
    described = _git(
        folder,
        *("describe", "--tags", "--always", "--long", "--dirty", "--abbrev=7"),
        f"--match={tag}",
    )
    count = _git(folder, "rev-list", "--count", "HEAD")
    if not described or not count:
        return unknown
    commit = described.removesuffix("-dirty")
    dirty = commit != described
    if commit.startswith(f"{tag}-0-g") and not dirty:
        return RELEASE
    name = commit.rpartition("-g")[2]
    return f"{RELEASE}.dev{count}+g{name}{'.dirty' if dirty else ''}"


def _git(folder: Path, *words: str) -> str:
    """What git says; empty if it is not there, or refuses."""
    import os  # a built package needs neither
    import subprocess

    # The folder may belong to another user than root. Root runs its programs anyway; its
    # index must stay that user's.
    # A hook of another repository has that one in GIT_DIR.
    environment = {k: v for k, v in os.environ.items() if not k.startswith("GIT_")}
    command = ["git", "--no-optional-locks", "-c", "safe.directory=*", "-C", str(folder)]
    try:
        result = subprocess.run(
            [*command, *words], env=environment, capture_output=True, text=True, check=True
        )
    except (OSError, subprocess.CalledProcessError):
        return ""
    return result.stdout.strip()


if __name__ == "__main__":
    print(version())
