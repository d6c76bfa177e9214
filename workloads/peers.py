"""The other processes of a run: the sink that receives, the neighbour that disturbs.

Both are forked before the sender touches its buffers, so that no page of the sender's is
shared with them and none is copied on write during the transfer. Both die with the
sender.
"""

from __future__ import annotations

import mmap
import os
import signal
import socket
import struct
import sys
import zlib
from collections import Counter
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass
from typing import NoReturn

from workloads import libc
from workloads.exercise import Stimulus, stimuli
from workloads.marker import Role, Scope, settled, window

_PR_SET_PDEATHSIG = 1
_REPORT = struct.Struct("=QI")
_RECEIVE_BYTES = 256 * 1024


def fork(body: Callable[[], None]) -> int:
    """Run ``body`` in a child that dies with this process; returns the child's pid."""
    parent = os.getpid()
    pid = os.fork()
    if pid:
        return pid
    status = 1
    try:
        libc.marker(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
        if os.getppid() == parent:
            body()
            status = 0
    except BaseException as error:
        _complain(error)
    finally:
        os._exit(status)


@dataclass(frozen=True)
class Received:
    """What arrived at the sink: bytes, and their CRC-32."""

    size: int
    crc: int


class Sink:
    """A process that accepts one connection after another and receives to the end."""

    def __init__(self, nonce: int) -> None:
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._watched = mmap.mmap(-1, mmap.PAGESIZE)
        self._reports, reports = os.pipe()
        self.pid = fork(lambda: self._serve(nonce, reports))
        os.close(reports)

    def connect(self, *, watched: bool) -> socket.socket:
        """A fresh connection to the sink; receiving has a window only if ``watched``."""
        self._watched[0] = watched
        return socket.create_connection(self._listener.getsockname())

    def received(self) -> Received:
        """What the sink has got of the connection closed last; waits for it."""
        report = os.read(self._reports, _REPORT.size)
        if len(report) != _REPORT.size:
            raise OSError("the receiving process ended early")
        return Received(*_REPORT.unpack(report))

    def close(self) -> None:
        self._listener.close()
        os.close(self._reports)
        _end(self.pid)

    def _serve(self, nonce: int, reports: int) -> NoReturn:
        buffer = libc.Buffer(_RECEIVE_BYTES)
        view = buffer.view()
        while True:
            connection, _ = self._listener.accept()
            fd = connection.fileno()
            got = crc = 0
            watched = window(nonce, Role.SINK, Scope.THREAD)
            with watched if self._watched[0] else nullcontext():
                while n := libc.read(fd, buffer.address, buffer.size):
                    crc = zlib.crc32(view[:n], crc)
                    got += n
            connection.close()
            os.write(reports, _REPORT.pack(got, crc))


class Neighbour:
    """A process that copies known amounts while the sender's window is open.

    The two meet in shared memory, so that waiting for each other copies nothing.
    """

    _WAIT, _GO, _DONE, _FAILED = 0, 1, 2, 3

    def __init__(self, nonce: int, folder: str) -> None:
        self._stage = mmap.mmap(-1, mmap.PAGESIZE)
        calls, self._call = os.pipe()
        self._ready, readies = os.pipe()
        self.pid = fork(lambda: self._work(nonce, folder, calls, readies))
        os.close(calls)
        os.close(readies)

    def disturb(self, idle: Callable[[Callable[[], None]], None]) -> dict[str, int]:
        """Have the neighbour copy while ``idle`` runs; returns its bytes per quantity.

        ``idle`` gets a function that lets the neighbour go and returns when it is done.
        """
        self._stage[0] = self._WAIT
        os.write(self._call, b"!")
        if not os.read(self._ready, 1):
            raise OSError("the neighbouring process ended early")
        idle(self._let_go)
        return total(_undeferred())

    def close(self) -> None:
        os.close(self._call)
        os.close(self._ready)
        _end(self.pid)

    def _let_go(self) -> None:
        self._stage[0] = self._GO
        self._await(self._DONE)

    def _await(self, stage: int) -> None:
        while self._stage[0] != stage:
            os.sched_yield()
            if self._stage[0] == self._FAILED:
                raise OSError("the neighbouring process failed")

    def _work(self, nonce: int, folder: str, calls: int, readies: int) -> None:
        try:
            self._serve(nonce, folder, calls, readies)
        except BaseException as error:
            # The reason first: when the sender hears of the failure, it ends this process.
            _complain(error)
            self._stage[0] = self._FAILED
            os._exit(1)

    def _serve(self, nonce: int, folder: str, calls: int, readies: int) -> None:
        os.close(self._call)  # or its own copy would keep the read below from ending
        while os.read(calls, 1):
            own = _undeferred()
            for stimulus in own:
                stimulus.prepare(folder)
            os.write(readies, b"!")
            self._await(self._GO)
            with window(nonce, Role.NEIGHBOUR, Scope.THREAD):
                for stimulus in own:
                    stimulus.run()
            self._stage[0] = self._DONE
            for stimulus in own:
                stimulus.settle()


def exercise(nonce: int, role: Role, folder: str) -> dict[str, int]:
    """Drive every copy site in this thread under ``role``; returns bytes per quantity."""
    own = stimuli()
    for stimulus in own:
        stimulus.prepare(folder)
    try:
        with window(nonce, role, Scope.THREAD):
            for stimulus in own:
                stimulus.run()
    finally:
        for stimulus in own:
            stimulus.settle()
        settled(nonce, role)
    return total(own)


def total(of: list[Stimulus]) -> dict[str, int]:
    """What the stimuli move together, bytes per quantity."""
    moved: Counter[str] = Counter()
    for stimulus in of:
        moved.update(stimulus.expected)
    return dict(moved)


def _undeferred() -> list[Stimulus]:
    """What a softirq may do on top of another thread proves nothing about threads."""
    return [stimulus for stimulus in stimuli() if not stimulus.deferred]


def _complain(error: BaseException) -> None:
    print(f"{type(error).__name__}: {error}", file=sys.stderr, flush=True)


def _end(pid: int) -> None:
    try:
        os.kill(pid, signal.SIGKILL)
    except ProcessLookupError:
        return
    os.waitpid(pid, 0)
