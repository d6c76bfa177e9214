"""The page cache, for one file."""

from __future__ import annotations

import ctypes
import os

from zctrace.workloads import libc


def evict(file: int) -> None:
    """Write the file back and drop its pages from the page cache, as far as they are free.

    Needs no rights but an open descriptor. Pages that somebody has mapped stay.
    """
    os.fsync(file)  # dirty pages would stay
    os.posix_fadvise(file, 0, 0, os.POSIX_FADV_DONTNEED)


def resident_bytes(file: int, size: int) -> int | None:
    """How many bytes of the file's first ``size`` are in the page cache, in whole pages.

    ``None`` where mincore(2) does not tell: since Linux 5.2 it calls every page of a file
    resident that the caller neither owns nor may write to.
    """
    path = f"/proc/self/fd/{file}"
    if os.fstat(file).st_uid != os.geteuid() and not os.access(path, os.W_OK):
        return None
    pages = -(-size // libc.PAGE_BYTES)
    address = libc.mmap(size, libc.PROT_READ, libc.MAP_SHARED, file)
    try:
        present = ctypes.create_string_buffer(pages)
        libc.mincore(address, size, ctypes.addressof(present))
    finally:
        libc.munmap(address, size)
    return libc.PAGE_BYTES * sum(page & 1 for page in present.raw)
