"""Where what was found in kernels is kept: in the cache, by machine and kernel.

A guest cannot write there. It gets copies in the run's own folder, and what it has added comes
back from there, but only to what later guests of the same image get.
"""

from __future__ import annotations

import os
import re
from contextlib import suppress
from pathlib import Path

from zctrace.kernel import remembered
from zctrace.machine.kernels import Kernel, cache_folder

_ANEW = ("ZCTRACE_OBSERVE", "anew")
"""Environment variable, and its value with which nothing is remembered."""
_HOST = "host"
_NAME = re.compile(r"[0-9a-f]{32}\.json")
_MOST_FILES = 16


def home(kernel: Kernel | None) -> Path | None:
    """The folder for a kernel that is booted, or this machine's own; made if need be.

    ``None`` where nothing is to be remembered, or cannot be.
    """
    name, value = _ANEW
    if os.environ.get(name) == value:
        return None
    with suppress(OSError):
        folder = cache_folder() / "observed" / (kernel.identity if kernel else _HOST)
        folder.mkdir(mode=0o755, parents=True, exist_ok=True)
        return folder
    return None


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
            for path in _files(kept)[_MOST_FILES:]:
                path.unlink()


def _copy(source: Path, target: Path) -> None:
    for path in _files(source)[:_MOST_FILES]:
        content = remembered.read(path)
        if content and content != remembered.read(target / path.name):
            remembered.write(target / path.name, content)


def _files(folder: Path) -> list[Path]:
    """Newest first."""
    files = [path for path in folder.iterdir() if _NAME.fullmatch(path.name)]
    return sorted(files, key=lambda path: path.lstat().st_mtime, reverse=True)
