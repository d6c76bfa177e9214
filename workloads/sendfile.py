"""sendfile(2): page cache to socket without passing through user memory."""

from __future__ import annotations

from probes.site import Path
from workloads import libc
from workloads.strategy import Expected, Task, Transfer


class _Sendfile:
    def __init__(self, task: Task) -> None:
        self._task = task

    def run(self) -> None:
        task = self._task
        left = task.size
        while left:
            sent = libc.sendfile(task.sock, task.file, min(task.step, left))
            if not sent:
                raise EOFError(f"the file ended {left} bytes early")
            left -= sent

    def close(self) -> None:
        """Nothing was taken."""


class Sendfile:
    name = "sendfile"
    summary = "sendfile(socket, file)"
    # With scatter/gather, which loopback has; without it the textbook says one copy.
    expected = Expected(cpu_copies=0, switches=2, dma_copies=2)
    paths = frozenset({Path.FILE, Path.PIPE, Path.TCP})

    def prepare(self, task: Task) -> Transfer:
        return _Sendfile(task)
