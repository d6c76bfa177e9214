"""mmap(2) the file, write(2) from the mapping: no copy into a user buffer."""

from __future__ import annotations

from probes.site import Path
from workloads import libc
from workloads.strategy import Expected, Task, Transfer


class _MmapWrite:
    def __init__(self, task: Task) -> None:
        self._task = task
        self._address: int | None = None

    def run(self) -> None:
        task = self._task
        # Mapping is part of the transfer: the textbook counts the call. Unmapping is not.
        self._address = libc.mmap(task.size, libc.PROT_READ, libc.MAP_SHARED, task.file)
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
