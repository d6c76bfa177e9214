"""read(2) into a user buffer, write(2) from it: the traditional path."""

from __future__ import annotations

from zctrace.probes.model import Path
from zctrace.workloads import libc
from zctrace.workloads.route import IN_AND_OUT
from zctrace.workloads.strategy import Expected, Strategy, Task, Transfer


class _ReadWrite(Transfer):
    def __init__(self, task: Task) -> None:
        self._task = task
        self._buffer = libc.Buffer(task.step)

    def run(self) -> None:
        task, address = self._task, self._buffer.address
        left = task.size
        while left:
            got = libc.read(task.file, address, min(task.step, left))
            if not got:
                raise EOFError(f"the file ended {left} bytes early")
            left -= got
            libc.write_all(task.sock, address, got, got)

    def close(self) -> None:
        self._buffer.close()


class ReadWrite(Strategy):
    name = "read-write"
    summary = "read(file, buffer); write(socket, buffer)"
    expected = Expected(cpu_copies=2, switches=4, dma_copies=2)
    paths = frozenset({Path.FILE, Path.TCP})
    route = IN_AND_OUT

    def prepare(self, task: Task) -> Transfer:
        return _ReadWrite(task)
