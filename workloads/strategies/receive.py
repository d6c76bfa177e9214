"""The receiving side: recv(2) into memory, and splice(2) from the socket to a file."""

from __future__ import annotations

import zlib

from zctrace.probes.model import Path
from zctrace.workloads import libc
from zctrace.workloads.marker import Role
from zctrace.workloads.pipe import Pipe
from zctrace.workloads.route import By, Leg, Place
from zctrace.workloads.strategy import Ends, Strategy, Task, Transfer


class _Recv(Transfer):
    """The buffer holds the whole payload, so that it can be checked afterwards."""

    def __init__(self, task: Task) -> None:
        self._task = task
        self._buffer = libc.Buffer(task.size)

    def run(self) -> None:
        task, address = self._task, self._buffer.address
        received = 0
        while received < task.size:
            got = libc.recv(task.sock, address + received, min(task.step, task.size - received))
            if not got:
                raise EOFError(f"the connection ended {task.size - received} bytes early")
            received += got

    def crc(self) -> int:
        return zlib.crc32(self._buffer.view())

    def close(self) -> None:
        self._buffer.close()


class Recv(Strategy):
    name = "recv"
    summary = "recv(socket, buffer)"
    paths = frozenset({Path.TCP})
    route = (Leg(Place.SOCKET, Place.USER),)
    role = Role.RECEIVER
    ends = Ends.SOCKET_TO_MEMORY

    def prepare(self, task: Task) -> Transfer:
        return _Recv(task)


class _RecvSplice(Transfer):
    def __init__(self, task: Task) -> None:
        self._task = task
        self._pipe = Pipe(task.pipe_size)

    def run(self) -> None:
        task, pipe = self._task, self._pipe
        left = task.size
        while left:
            taken = libc.splice(task.sock, pipe.into, min(task.step, left), libc.SPLICE_F_MOVE)
            if not taken:
                raise EOFError(f"the connection ended {left} bytes early")
            left -= taken
            pipe.drain(task.out, taken, libc.SPLICE_F_MOVE)

    def close(self) -> None:
        self._pipe.close()


class RecvSplice(Strategy):
    name = "recv-splice"
    summary = "splice(socket, pipe); splice(pipe, file)"
    paths = frozenset({Path.FILE, Path.PIPE, Path.TCP})
    route = (Leg(Place.SOCKET, Place.TARGET, By.REFERENCE, "by reference"),)
    role = Role.RECEIVER
    ends = Ends.SOCKET_TO_FILE

    def prepare(self, task: Task) -> Transfer:
        return _RecvSplice(task)
