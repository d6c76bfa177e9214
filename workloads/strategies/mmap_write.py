"""mmap(2) the file, write(2) from the mapping: no copy into a user buffer."""

from __future__ import annotations

from zctrace.probes.model import Path
from zctrace.workloads import libc
from zctrace.workloads.mapping import FileMapping
from zctrace.workloads.route import MAPPED, Leg, Place
from zctrace.workloads.strategy import Expected, Strategy, Task, Transfer


class _MmapWrite(Transfer):
    def __init__(self, task: Task) -> None:
        self._task = task
        self._mapping = FileMapping(task.file, task.size)

    def run(self) -> None:
        task = self._task
        # Mapping is part of the transfer: the textbook counts the call. Unmapping is not.
        address = self._mapping.map()
        libc.write_all(task.sock, address, task.size, task.step)

    def close(self) -> None:
        self._mapping.close()


class MmapWrite(Strategy):
    name = "mmap-write"
    summary = "map = mmap(file); write(socket, map)"
    expected = Expected(cpu_copies=1, switches=4, dma_copies=2)
    paths = frozenset({Path.FILE, Path.TCP})
    route = (MAPPED, Leg(Place.USER, Place.SOCKET))

    def prepare(self, task: Task) -> Transfer:
        return _MmapWrite(task)
