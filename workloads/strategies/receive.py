"""The receiving side: recv(2) into memory, and splice(2) from the socket to a file."""

from __future__ import annotations

import zlib

from zctrace.probes.model import Path
from zctrace.workloads import libc
from zctrace.workloads.marker import Role
from zctrace.workloads.route import By, Leg, Place
from zctrace.workloads.strategies.splice import ThroughPipe
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


class RecvSplice(Strategy):
    name = "recv-splice"
    summary = "splice(socket, pipe); splice(pipe, file)"
    paths = frozenset({Path.FILE, Path.PIPE, Path.TCP})
    route = (Leg(Place.SOCKET, Place.TARGET, By.REFERENCE, "by reference"),)
    role = Role.RECEIVER
    ends = Ends.SOCKET_TO_FILE

    def prepare(self, task: Task) -> Transfer:
        return ThroughPipe(task, "connection", task.sock, task.out)
