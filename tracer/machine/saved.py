"""Machines that were saved once they had booted, to go on from there.

A file for each is in the cache, by kernel; its name stands for all that it depends on, so that
what is stale is not found. It ends with a checksum: what is damaged is made anew.
"""

from __future__ import annotations

import fcntl
import os
import time
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO

_SUFFIX = ".saved"
_MOST = 3
"""How many a kernel has: of each memory size one, and one that is being replaced."""
_CHUNK_BYTES = 1 << 22
_CHECKSUM_BYTES = 4
_POLL_SECONDS = 0.05


def opened(
    folder: Path, key: str, make: Callable[[Path], bool], meanwhile: Callable[[], None]
) -> BinaryIO | None:
    """The saved machine ``key``, at its beginning; ``None`` where it cannot be had.

    If there is none, ``make`` saves one under the path that it gets, or returns false.
    ``meanwhile`` is called while somebody else may be doing so.
    """
    path = folder / f"{key}{_SUFFIX}"
    with suppress(OSError), _locked(folder, meanwhile):
        if not _is_sound(path):
            partial = folder / f"{key}.partial"
            try:
                if not make(partial):
                    return None
                _seal(partial)
                partial.rename(path)
            finally:
                partial.unlink(missing_ok=True)
        os.utime(path)
        prune(folder, _SUFFIX)
        return path.open("rb")
    return None


def discard(folder: Path, key: str) -> None:
    """Remove one that does not go on."""
    (folder / f"{key}{_SUFFIX}").unlink(missing_ok=True)


def prune(folder: Path, suffix: str) -> None:
    """Keep those that were used last."""
    files = sorted(folder.glob(f"*{suffix}"), key=lambda path: path.stat().st_mtime)
    for path in files[:-_MOST]:
        path.unlink()


@contextmanager
def _locked(folder: Path, meanwhile: Callable[[], None]) -> Iterator[None]:
    with (folder / "lock").open("w") as lock:
        while True:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                meanwhile()
                time.sleep(_POLL_SECONDS)
        yield


def _checksum(file: BinaryIO, size: int) -> bytes:
    """Of the next ``size`` bytes."""
    checksum = 0
    while size:
        chunk = file.read(min(size, _CHUNK_BYTES))
        if not chunk:
            break
        checksum = zlib.crc32(chunk, checksum)
        size -= len(chunk)
    return checksum.to_bytes(_CHECKSUM_BYTES, "little")


def _seal(path: Path) -> None:
    with path.open("r+b") as file:
        file.write(_checksum(file, path.stat().st_size))


def _is_sound(path: Path) -> bool:
    try:
        size = path.stat().st_size - _CHECKSUM_BYTES
        with path.open("rb") as file:
            return size > 0 and _checksum(file, size) == file.read()
    except FileNotFoundError:
        return False
