"""splice(2) through a pipe: references to pages change hands."""

from __future__ import annotations

import ctypes
import os

from zctrace.probes.model import Path
from zctrace.workloads import libc
from zctrace.workloads.mapping import FileMapping
from zctrace.workloads.pipe import Pipe
from zctrace.workloads.route import MAPPED, PASSED, By, Leg, Place
from zctrace.workloads.strategy import Expected, Strategy, Task, Transfer


class ThroughPipe(Transfer):
    """From one descriptor, called ``name``, through a pipe to another.

    Until the last bytes, SPLICE_F_MORE announces more to the target.
    """

    def __init__(self, task: Task, name: str, source: int, target: int) -> None:
        self._task, self._name = task, name
        self._source, self._target = source, target
        self._pipe = Pipe(task.pipe_size)

    def run(self) -> None:
        pipe, step, move = self._pipe, self._task.step, libc.SPLICE_F_MOVE
        left = self._task.size
        while left:
            taken = libc.splice(self._source, pipe.into, min(step, left), move)
            if not taken:
                raise EOFError(f"the {self._name} ended {left} bytes early")
            left -= taken
            more = libc.SPLICE_F_MORE if left else 0
            pipe.drain(self._target, taken, move | more)

    def close(self) -> None:
        self._pipe.close()


class Splice(Strategy):
    name = "splice"
    summary = "splice(file, pipe); splice(pipe, socket)"
    expected = Expected(cpu_copies=0, switches=2, dma_copies=2)
    paths = frozenset({Path.FILE, Path.PIPE, Path.TCP})
    route = (PASSED,)

    def prepare(self, task: Task) -> Transfer:
        return ThroughPipe(task, "file", task.file, task.sock)


class _Vmsplice(Transfer):
    def __init__(self, task: Task) -> None:
        self._task = task
        self._pipe = Pipe(task.pipe_size)
        self._mapping = FileMapping(task.file, task.size)
        self._span = libc.Span()

    def run(self) -> None:
        task, pipe, span = self._task, self._pipe, self._span
        span.address = self._mapping.map()
        where = ctypes.addressof(span)
        left = task.size
        while left:
            span.size = min(task.step, left)
            # Not SPLICE_F_GIFT: the pages stay the file's.
            taken = libc.vmsplice(pipe.into, where)
            span.address += taken
            left -= taken
            more = libc.SPLICE_F_MORE if left else 0
            pipe.drain(task.sock, taken, libc.SPLICE_F_MOVE | more)

    def close(self) -> None:
        self._mapping.close()
        self._pipe.close()


class Vmsplice(Strategy):
    name = "vmsplice"
    summary = "map = mmap(file); vmsplice(pipe, map); splice(pipe, socket)"
    paths = frozenset({Path.FILE, Path.PIPE, Path.TCP})
    route = (MAPPED, Leg(Place.USER, Place.SOCKET, By.REFERENCE, "by reference"))

    def prepare(self, task: Task) -> Transfer:
        return _Vmsplice(task)


class _Tee(Transfer):
    def __init__(self, task: Task) -> None:
        self._task = task
        self._first, self._second = Pipe(task.pipe_size), Pipe(task.pipe_size)
        self._null = os.open(os.devnull, os.O_WRONLY)

    def run(self) -> None:
        task, first, second = self._task, self._first, self._second
        left = task.size
        while left:
            taken = libc.splice(task.file, first.into, min(task.step, left), libc.SPLICE_F_MOVE)
            if not taken:
                raise EOFError(f"the file ended {left} bytes early")
            left -= taken
            while taken:
                # It may duplicate less than asked. What it did leaves both pipes before
                # the next, so that the second begins where the first goes on.
                twice = libc.tee(first.out, second.into, taken)
                taken -= twice
                more = libc.SPLICE_F_MORE if left or taken else 0
                second.drain(task.sock, twice, libc.SPLICE_F_MOVE | more)
                first.drain(self._null, twice, libc.SPLICE_F_MOVE)

    def close(self) -> None:
        self._first.close()
        self._second.close()
        os.close(self._null)


class Tee(Strategy):
    name = "tee"
    summary = "splice(file, a); tee(a, b); splice(b, socket); splice(a, null)"
    paths = frozenset({Path.FILE, Path.PIPE, Path.TCP})
    route = (PASSED,)

    def prepare(self, task: Task) -> Transfer:
        return _Tee(task)
