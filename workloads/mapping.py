"""A file's mapping whose page faults do not depend on chance."""

from __future__ import annotations

from zctrace.workloads import libc

_FAULT_AROUND_BYTES = 64 * 1024


class FileMapping:
    """The first ``size`` bytes of ``file``, read-only and shared, once it is mapped."""

    def __init__(self, file: int, size: int) -> None:
        self._file, self._size = file, size
        self._address: int | None = None
        self._hint = _free_address(size)

    def map(self) -> int:
        """mmap(2); returns the address."""
        self._address = libc.mmap(
            self._size, libc.PROT_READ, libc.MAP_SHARED, self._file, self._hint
        )
        return self._address

    def close(self) -> None:
        if self._address is not None:
            libc.munmap(self._address, self._size)


def _free_address(size: int) -> int:
    """Free memory for ``size`` bytes that begins just behind a multiple of 64 KiB.

    The kernel maps the pages around a fault in aligned pieces of 64 KiB. Fifteen of sixteen
    places that it would choose itself are not aligned to that. Always taking such a place
    keeps the number of page faults from depending on chance.
    """
    room = size + 2 * _FAULT_AROUND_BYTES
    address = libc.mmap(room, libc.PROT_NONE, libc.MAP_PRIVATE | libc.MAP_ANONYMOUS)
    libc.munmap(address, room)
    aligned = -(-address // _FAULT_AROUND_BYTES) * _FAULT_AROUND_BYTES
    return aligned + libc.PAGE_BYTES
