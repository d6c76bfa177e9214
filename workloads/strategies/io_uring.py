"""io_uring: file into a buffer and buffer to the socket, one request at a time.

Kernel workers that io_uring may use are threads of the process, so the window covers
the process.
"""

from __future__ import annotations

import errno
import functools

from zctrace.probes.model import Path
from zctrace.workloads import libc, loopback, ring
from zctrace.workloads.kernel_account import KernelAccount
from zctrace.workloads.marker import Scope
from zctrace.workloads.memlock import most_pinned
from zctrace.workloads.route import IN_AND_OUT, PINNED, Leg, Place
from zctrace.workloads.strategy import Strategy, Task, Transfer

_REGISTERED_BYTES = 1024 * 1024
"""The most that is registered at a time: it is pinned, and charged to RLIMIT_MEMLOCK."""


class _IoUring(Transfer):
    _read, _read_name = ring.OP_READ, "IORING_OP_READ"

    def __init__(self, task: Task, step: int) -> None:
        self._task = task
        self._buffer = libc.Buffer(step)
        self._ring = ring.Ring()

    def run(self) -> None:
        task, queue, buffer = self._task, self._ring, self._buffer
        done = 0
        while done < task.size:
            most = min(buffer.size, task.size - done)
            queue.submit(self._read, task.file, buffer.address, most, done)
            got = ring.moved(queue.completion()[0], self._read_name)
            if not got:
                raise EOFError(f"the file ended {task.size - done} bytes early")
            done += got
            sent = 0
            while sent < got:
                sent += self._send(buffer.address + sent, got - sent)

    def _send(self, address: int, size: int) -> int:
        self._ring.submit(ring.OP_SEND, self._task.sock, address, size)
        return ring.moved(self._ring.completion()[0], "IORING_OP_SEND")

    def close(self) -> None:
        self._ring.close()
        self._buffer.close()


class IoUring(Strategy):
    name = "io-uring"
    summary = "io_uring: READ(file, buffer), SEND(socket, buffer)"
    paths = frozenset({Path.FILE, Path.TCP})
    route = IN_AND_OUT
    scope = Scope.PROCESS

    def prepare(self, task: Task) -> Transfer:
        return _IoUring(task, task.step)

    def unavailable(self, file: int) -> str:
        return ring.refusal()


class _Sender:
    """Zero-copy sends from a ring's registered buffer, each waited for to its end."""

    def __init__(self, queue: ring.Ring, *, reports: bool) -> None:
        self._ring = queue
        self._ioprio = ring.RECVSEND_FIXED_BUF
        if reports:
            self._ioprio |= ring.SEND_ZC_REPORT_USAGE
        self.sends = self.copied = 0

    def send(self, sock: int, address: int, size: int) -> int:
        """Bytes sent, once the kernel does not need them any more."""
        queue = self._ring
        queue.submit(ring.OP_SEND_ZC, sock, address, size, ioprio=self._ioprio)
        result, flags = queue.completion()
        if flags & ring.CQE_F_MORE:
            usage, kind = queue.completion()
            assert kind & ring.CQE_F_NOTIF
            self.sends += 1
            if usage & ring.NOTIF_USAGE_ZC_COPIED:
                self.copied += 1
        return ring.moved(result, "IORING_OP_SEND_ZC")


class _IoUringZc(_IoUring):
    _read, _read_name = ring.OP_READ_FIXED, "IORING_OP_READ_FIXED"

    def __init__(self, task: Task) -> None:
        super().__init__(task, min(task.step, _REGISTERED_BYTES, most_pinned()))
        self._reports = _reports_usage()
        self._sender = _Sender(self._ring, reports=self._reports)
        try:
            self._ring.register(self._buffer)
        except OSError:
            super().close()
            raise

    def _send(self, address: int, size: int) -> int:
        return self._sender.send(self._task.sock, address, size)

    def account(self) -> KernelAccount:
        return KernelAccount(
            zerocopy_sends=self._sender.sends,
            zerocopy_copied=self._sender.copied if self._reports else None,
        )

    def close(self) -> None:
        self._ring.unregister()
        super().close()


class IoUringZc(Strategy):
    name = "io-uring-zc"
    summary = "io_uring: READ_FIXED(file, buffer), SEND_ZC(socket, buffer)"
    paths = frozenset({Path.FILE, Path.TCP})
    route = (Leg(Place.CACHE, Place.USER), PINNED)
    scope = Scope.PROCESS

    def prepare(self, task: Task) -> Transfer:
        return _IoUringZc(task)

    def unavailable(self, file: int) -> str:
        if reason := ring.refusal():
            return reason
        queue = ring.Ring()
        try:
            if not queue.supports(ring.OP_SEND_ZC):
                return "this kernel's io_uring has no IORING_OP_SEND_ZC: that is since v6.0"
        finally:
            queue.close()
        return ""


@functools.cache
def _reports_usage() -> bool:
    """Whether the kernel tells of a zero-copy send that it copied after all; tries it."""
    queue, buffer = ring.Ring(), libc.Buffer(libc.PAGE_BYTES)
    try:
        queue.register(buffer)
        sender, receiver = loopback.connection()
        with sender, receiver:
            try:
                _Sender(queue, reports=True).send(sender.fileno(), buffer.address, 1)
            except OSError as error:
                if error.errno == errno.EINVAL:
                    return False
                raise
            finally:
                queue.unregister()
        return True
    finally:
        queue.close()
        buffer.close()
