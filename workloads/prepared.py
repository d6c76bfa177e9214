"""What a performer needs that no distribution has: made once, kept, and staged for others.

It is made in a cache, on the machine that zctrace is called on. What is measured may be another
one, or run as somebody who cannot look into that cache: so the tracer stages a copy in its copy
of this package. A reason why there is none is staged alike.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

STAGED = "staged"
"""The folder in this package that has a folder for each performer."""
_HERE = Path(__file__).resolve().parent
_DESCRIPTION = "prepared.json"


class NotPreparedError(Exception):
    """Something is missing, or cannot be made; says why, and what mends it."""


@dataclass(frozen=True)
class Prepared:
    """Folders by name; where to find the rest, and the versions of everything, by name."""

    folders: Mapping[str, Path]
    facts: Mapping[str, str]
    versions: Mapping[str, str]


def stage(prepared: Prepared | NotPreparedError, folder: Path) -> None:
    """Put into ``folder``, which is new, what :func:`read_staged` reads."""
    folder.mkdir(parents=True)
    if isinstance(prepared, NotPreparedError):
        description: dict[str, object] = {"reason": str(prepared)}
    else:
        for name, path in prepared.folders.items():
            shutil.copytree(path, folder / name)
        description = {
            "folders": [*prepared.folders],
            "facts": {**prepared.facts},
            "versions": {**prepared.versions},
        }
    (folder / _DESCRIPTION).write_text(json.dumps(description))


def read_staged(folder: Path) -> Prepared | None:
    """What was staged in ``folder``, if anything was.

    Raises :class:`NotPreparedError` with a reason that was.
    """
    try:
        description = json.loads((folder / _DESCRIPTION).read_text())
    except FileNotFoundError:
        return None
    if "reason" in description:
        raise NotPreparedError(description["reason"])
    folders = {name: folder / name for name in description["folders"]}
    return Prepared(folders, description["facts"], description["versions"])


def staged(key: str) -> Prepared | None:
    """What the tracer has staged for the performer of that key; as :func:`read_staged`."""
    return read_staged(_HERE / STAGED / key)


def whole(folder: Path, fill: Callable[[Path], None]) -> None:
    """Have a folder filled elsewhere and put where it belongs when it is."""
    # Late: it imports random, which has the kernel copy 2496 B into every forked child.
    import tempfile

    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder.parent, prefix=".") as temporary:
        filled = Path(temporary) / "filled"
        fill(filled)
        try:
            filled.rename(folder)
        except OSError:
            if not folder.is_dir():  # else somebody else was faster
                raise


def own_cache() -> Path:
    """Where the user's programs keep what can be made again."""
    if folder := os.environ.get("ZCTRACE_CACHE"):
        return Path(folder)
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "zctrace"
