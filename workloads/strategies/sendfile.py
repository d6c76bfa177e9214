"""sendfile(2): page cache to socket without passing through user memory."""

from __future__ import annotations

from collections.abc import Callable

from zctrace.probes.model import Path
from zctrace.workloads import libc
from zctrace.workloads.route import PASSED
from zctrace.workloads.strategy import Expected, Strategy, Task, Transfer


class InKernel(Transfer):
    """One call after another, each moving bytes between descriptors by itself.

    ``move`` gets the most that it may move, and returns the bytes moved, 0 at the end.
    """

    def __init__(self, task: Task, move: Callable[[int], int]) -> None:
        self._task = task
        self._move = move

    def run(self) -> None:
        left, step = self._task.size, self._task.step
        while left:
            moved = self._move(min(step, left))
            if not moved:
                raise EOFError(f"the file ended {left} bytes early")
            left -= moved


class Sendfile(Strategy):
    name = "sendfile"
    summary = "sendfile(socket, file)"
    expected = Expected(cpu_copies=0, switches=2, dma_copies=2)
    expected_without_gather = Expected(cpu_copies=1, switches=2, dma_copies=2)
    paths = frozenset({Path.FILE, Path.PIPE, Path.TCP})
    route = (PASSED,)

    def prepare(self, task: Task) -> Transfer:
        return InKernel(task, lambda count: libc.sendfile(task.sock, task.file, count))
