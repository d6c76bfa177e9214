"""Where what was found in kernels, and compiled for them, is kept: in the cache, by machine and
kernel.

A guest cannot write there. It gets copies in the run's own folder, and what it has added comes
back from there, but only to what later guests of the same image get.
"""

from __future__ import annotations

import itertools
import os
import re
from contextlib import suppress
from pathlib import Path

from zctrace import trust
from zctrace.collect.compile_request import COMPILED
from zctrace.kernel import remembered
from zctrace.machine.kernels import Kernel, cache_folder

_ANEW = ("ZCTRACE_OBSERVE", "anew")
"""Environment variable, and its value with which nothing is remembered."""
_FOLDER, _HOST = "observed", "host"
_KINDS = (re.compile(r"[0-9a-f]{32}\.json"), COMPILED)
"""Names of what was found, and of what was compiled."""
_MOST_FILES = 16
"""Of each kind."""


def home(kernel: Kernel | None) -> Path | None:
    """The folder for a kernel that is booted, or this machine's own; made if need be.

    ``None`` where nothing is to be remembered, or cannot be, or others can write there.
    """
    name, value = _ANEW
    if os.environ.get(name) == value:
        return None
    with suppress(OSError):
        folder = cache_folder() / _FOLDER / (kernel.identity if kernel else _HOST)
        # The mode is not for parents: with a umask of 002 the group could write there.
        cache_folder().mkdir(mode=0o755, parents=True, exist_ok=True)
        folder.parent.mkdir(mode=0o755, exist_ok=True)
        folder.mkdir(mode=0o700, exist_ok=True)
        return None if trust.why_not(folder, trust.owners()) else folder
    return None


def has_compiled() -> bool:
    """Whether anything is kept that was compiled, for whatever kernel."""
    name, value = _ANEW
    kept = (cache_folder() / _FOLDER).glob("*/*.json")
    return os.environ.get(name) != value and any(COMPILED.fullmatch(p.name) for p in kept)


def lend(kernel: Kernel | None, folder: Path) -> None:
    """Put what is kept for a kernel into ``folder``; without it, nothing is remembered."""
    if kept := home(kernel):
        with suppress(OSError):
            folder.mkdir(mode=0o755)
            _copy(kept, folder)


def take_back(kernel: Kernel | None, folder: Path) -> None:
    """Keep what is new in ``folder``, and of everything that was kept the newest."""
    if (kept := home(kernel)) and folder.is_dir():
        with suppress(OSError):
            _copy(folder, kept)
            for files in _files(kept):
                for path in files[_MOST_FILES:]:
                    path.unlink()


def _copy(source: Path, target: Path) -> None:
    for path in itertools.chain(*(files[:_MOST_FILES] for files in _files(source))):
        content = remembered.read(path)
        if content and content != remembered.read(target / path.name):
            remembered.write(target / path.name, content)


def _files(folder: Path) -> list[list[Path]]:
    """Of each kind, newest first."""
    there = sorted(folder.iterdir(), key=lambda path: path.lstat().st_mtime, reverse=True)
    return [[path for path in there if kind.fullmatch(path.name)] for kind in _KINDS]
