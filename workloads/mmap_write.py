"""mmap(2) the file, write(2) from the mapping: no copy into a user buffer."""

from __future__ import annotations

from probes.site import Path
from workloads import libc
from workloads.strategy import Expected, Task, Transfer

_FAULT_AROUND_BYTES = 64 * 1024
_PAGE_BYTES = 4096


def _free_address(size: int) -> int:
    """Free memory for ``size`` bytes that begins just behind a multiple of 64 KiB.

    The kernel maps what lies around a fault in aligned pieces of 64 KiB. Fifteen of
    sixteen places that it would choose by itself are not aligned to that; taking always
    such a one keeps the number of page faults from depending on chance.
    """
    room = size + 2 * _FAULT_AROUND_BYTES
    address = libc.mmap(room, libc.PROT_NONE, libc.MAP_PRIVATE | libc.MAP_ANONYMOUS)
    libc.munmap(address, room)
    return -(-address // _FAULT_AROUND_BYTES) * _FAULT_AROUND_BYTES + _PAGE_BYTES


class _MmapWrite:
    def __init__(self, task: Task) -> None:
        self._task = task
        self._address: int | None = None
        self._hint = _free_address(task.size)

    def run(self) -> None:
        task = self._task
        # Mapping is part of the transfer: the textbook counts the call. Unmapping is not.
        self._address = libc.mmap(
            task.size, libc.PROT_READ, libc.MAP_SHARED, task.file, self._hint
        )
        sent = 0
        while sent < task.size:
            sent += libc.write(
                task.sock, self._address + sent, min(task.step, task.size - sent)
            )

    def close(self) -> None:
        if self._address is not None:
            libc.munmap(self._address, self._task.size)


class MmapWrite:
    name = "mmap-write"
    summary = "map = mmap(file); write(socket, map)"
    expected = Expected(cpu_copies=1, switches=4, dma_copies=2)
    paths = frozenset({Path.FILE, Path.TCP})

    def prepare(self, task: Task) -> Transfer:
        return _MmapWrite(task)
