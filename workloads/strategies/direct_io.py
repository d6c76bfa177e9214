"""read(2) with O_DIRECT, past the page cache into a user buffer; write(2) from it."""

from __future__ import annotations

import os

from zctrace.probes.model import Path
from zctrace.workloads import libc
from zctrace.workloads.route import Leg, Place
from zctrace.workloads.strategy import Strategy, Task, Transfer

_BLOCK_BYTES = 4096
"""At least the logical block of any usual device: offset, count and address of a direct
read are multiples of it."""


def _open(file: int) -> int:
    return os.open(f"/proc/self/fd/{file}", os.O_RDONLY | os.O_DIRECT)


class _DirectIO(Transfer):
    def __init__(self, task: Task) -> None:
        self._task = task
        self._step = -(-task.step // _BLOCK_BYTES) * _BLOCK_BYTES
        # A direct read writes dirty pages back first; that is not the transfer's.
        os.fdatasync(task.file)
        self._file = _open(task.file)
        self._buffer = libc.Buffer(self._step)

    def run(self) -> None:
        task, address = self._task, self._buffer.address
        left = task.size
        while left:
            rounded = -(-left // _BLOCK_BYTES) * _BLOCK_BYTES
            got = libc.read(self._file, address, min(self._step, rounded))
            if not got:
                raise EOFError(f"the file ended {left} bytes early")
            got = min(got, left)
            left -= got
            libc.write_all(task.sock, address, got, got)

    def close(self) -> None:
        self._buffer.close()
        os.close(self._file)


class DirectIO(Strategy):
    name = "direct-io"
    summary = "read(file with O_DIRECT, buffer); write(socket, buffer)"
    paths = frozenset({Path.FILE, Path.TCP})
    route = (Leg(Place.USER, Place.SOCKET),)

    def prepare(self, task: Task) -> Transfer:
        return _DirectIO(task)

    def unavailable(self, file: int) -> str:
        buffer = libc.Buffer(_BLOCK_BYTES)
        try:
            direct = _open(file)
            try:
                # Some file systems refuse at the first read only.
                libc.read(direct, buffer.address, buffer.size)
            finally:
                os.close(direct)
        except OSError as error:
            return f"this file system refuses O_DIRECT: {error.strerror}"
        finally:
            buffer.close()
        return ""
