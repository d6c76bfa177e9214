"""splice(2) file to pipe, pipe to socket: references to pages change hands."""

from __future__ import annotations

import fcntl
import os

from probes.site import Path
from workloads import libc
from workloads.strategy import Expected, Task, Transfer


class _Splice:
    def __init__(self, task: Task) -> None:
        self._task = task
        self._out, self._in = os.pipe()
        try:
            if task.pipe_size is not None:
                fcntl.fcntl(self._in, fcntl.F_SETPIPE_SZ, task.pipe_size)
        except OSError:
            self.close()
            raise

    def run(self) -> None:
        task = self._task
        left = task.size
        while left:
            taken = libc.splice(task.file, self._in, min(task.step, left), libc.SPLICE_F_MOVE)
            if not taken:
                raise EOFError(f"the file ended {left} bytes early")
            left -= taken
            more = libc.SPLICE_F_MORE if left else 0
            while taken:
                taken -= libc.splice(self._out, task.sock, taken, libc.SPLICE_F_MOVE | more)

    def close(self) -> None:
        os.close(self._in)
        os.close(self._out)


class Splice:
    name = "splice"
    summary = "splice(file, pipe); splice(pipe, socket)"
    expected = Expected(cpu_copies=0, switches=2, dma_copies=2)
    paths = frozenset({Path.FILE, Path.PIPE, Path.TCP})

    def prepare(self, task: Task) -> Transfer:
        return _Splice(task)
