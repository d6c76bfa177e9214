"""The other processes of a run: sink, source and neighbour.

The sink receives what a strategy sends, the source sends what a strategy receives, the
neighbour disturbs. All are forked before the strategies' process touches its buffers, so
that no page of it is shared with them and none is copied on write during the transfer.
All die with it.
"""

from __future__ import annotations

import mmap
import os
import signal
import socket
import struct
import sys
import zlib
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass
from typing import NoReturn

from zctrace.workloads import libc, loopback
from zctrace.workloads.control_stimuli import Stimulus, UserMemory, stimuli
from zctrace.workloads.known import Known
from zctrace.workloads.marker import Role, Scope, settled, window
from zctrace.workloads.pipe import Pipe

_PR_SET_PDEATHSIG = 1
_REPORT = struct.Struct("=QI")
_RECEIVE_BYTES = 256 * 1024
_PATH_MAX = 4096
_ORDER = struct.Struct("=iQ?")
_PIECE_BYTES = 64 * 1024
_TIMESTAMP_BYTES = 12
_SEGMENT_BYTES = 7 * libc.PAGE_BYTES


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


def listen_as_sink(address: str = loopback.ADDRESS) -> socket.socket:
    """The socket that a sink accepts connections on."""
    return socket.create_server((address, 0))


def listen_as_source(address: str = loopback.ADDRESS) -> socket.socket:
    """The socket that a source accepts connections on; see :class:`Source`."""
    listener = socket.socket()
    listener.setsockopt(
        socket.IPPROTO_TCP, socket.TCP_MAXSEG, _SEGMENT_BYTES + _TIMESTAMP_BYTES
    )
    listener.bind((address, 0))
    listener.listen()
    return listener


class Sink:
    """A process that accepts one connection after another and receives to the end.

    ``listener`` is from :func:`listen_as_sink`; its network namespace is the sink's.
    """

    def __init__(self, nonce: int, listener: socket.socket) -> None:
        self._listener = listener
        self._expected = mmap.mmap(-1, _PATH_MAX + mmap.PAGESIZE)
        self._reports, reports = os.pipe()
        self.pid = fork(lambda: self._serve(nonce, reports))
        os.close(reports)

    @property
    def address(self) -> tuple[str, int]:
        """Where it accepts connections."""
        host, port = self._listener.getsockname()[:2]
        return host, port

    def expect(self, *, watched: bool, certificate: str = "") -> None:
        """Of the next connection: receiving has a window only if ``watched``.

        With a ``certificate``, a file of that and its key, what comes is TLS: received is
        then what was encrypted.
        """
        self._expected.seek(0)
        self._expected.write(bytes([watched]) + os.fsencode(certificate) + b"\0")

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
            certificate = os.fsdecode(self._expected[1:].split(b"\0", 1)[0])
            if certificate:
                connection = _secured(connection, certificate)
            receive = self._receiver(connection, buffer, view, secured=bool(certificate))
            got = crc = 0
            watched = window(nonce, Role.SINK, Scope.THREAD)
            with watched if self._expected[0] else nullcontext():
                while n := receive():
                    crc = zlib.crc32(view[:n], crc)
                    got += n
            connection.close()
            os.write(reports, _REPORT.pack(got, crc))

    @staticmethod
    def _receiver(
        connection: socket.socket, buffer: libc.Buffer, view: memoryview, *, secured: bool
    ) -> Callable[[], int]:
        """What fills the buffer, and returns how many bytes it did; 0 at the end."""
        if secured:
            return lambda: connection.recv_into(view)
        fd = connection.fileno()
        return lambda: libc.read(fd, buffer.address, buffer.size)


def _secured(connection: socket.socket, certificate: str) -> socket.socket:
    """The connection after the handshake of TLS, in which nothing more is sent."""
    import ssl  # hardly anybody needs it

    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate)
    # Tickets would come to the sender while it sends.
    context.num_tickets = 0
    return context.wrap_socket(connection, server_side=True)


class Source:
    """A process that sends the beginning of a file to one connection after another.

    The payload leaves in whole pages of their own, which is what a receiver must be sent
    to get them mapped: it is written into a pipe, where the kernel puts it into single pages
    that belong to no file, and these are spliced into the socket. A segment is a whole
    number of pages, so that none of them is cut in two: 7, the most that TCP_MAXSEG
    admits, besides the timestamps that loopback segments carry. ``listener`` is from
    :func:`listen_as_source`; its network namespace is the source's.
    """

    def __init__(self, nonce: int, listener: socket.socket) -> None:
        self._listener = listener
        orders, self._order = os.pipe()
        self.pid = fork(lambda: self._serve(nonce, orders))
        os.close(orders)

    def connect(self) -> socket.socket:
        """A fresh connection, on which nothing is sent yet."""
        return socket.create_connection(self._listener.getsockname())

    def send(self, file: int, size: int, *, watched: bool) -> None:
        """Let it send to the connection made last, and close; with a window if ``watched``.

        ``file`` is a descriptor from before the fork; its position stays.
        """
        os.write(self._order, _ORDER.pack(file, size, watched))

    def close(self) -> None:
        self._listener.close()
        os.close(self._order)
        _end(self.pid)

    def _serve(self, nonce: int, orders: int) -> None:
        os.close(self._order)  # or its own copy would keep the read below from ending
        buffer = libc.Buffer(_PIECE_BYTES)
        while order := os.read(orders, _ORDER.size):
            file, size, watched = _ORDER.unpack(order)
            connection, _ = self._listener.accept()
            with connection:
                stretch = window(nonce, Role.SOURCE, Scope.THREAD)
                with stretch if watched else nullcontext():
                    self._send(file, connection.fileno(), size, buffer)

    @staticmethod
    def _send(file: int, sock: int, size: int, buffer: libc.Buffer) -> None:
        pipe = Pipe()
        view, sent = buffer.view(), 0
        while sent < size:
            got = os.preadv(file, [view[: size - sent]], sent)
            if not got:
                raise EOFError(f"the file ended {size - sent} bytes early")
            sent += got
            more = libc.SPLICE_F_MORE if sent < size else 0
            written = 0
            while written < got:
                inside = libc.write(pipe.into, buffer.address + written, got - written)
                written += inside
                pipe.drain(sock, inside, libc.SPLICE_F_MOVE | more)
        pipe.close()


class Neighbour:
    """A process that copies known amounts while the sender's window is open.

    The two meet in shared memory, so that waiting for each other copies nothing.
    """

    _WAIT, _GO, _DONE, _FAILED = 0, 1, 2, 3
    """What a byte in that memory says; a performer knows them, too."""

    def __init__(self, nonce: int) -> None:
        self._memory = os.memfd_create("zctrace-stage")
        os.ftruncate(self._memory, mmap.PAGESIZE)
        self._stage = mmap.mmap(self._memory, mmap.PAGESIZE)
        calls, self._call = os.pipe()
        self._ready, readies = os.pipe()
        self.pid = fork(lambda: self._work(nonce, calls, readies))
        os.close(calls)
        os.close(readies)

    @property
    def stage(self) -> str:
        """The memory's path, for other processes of this user."""
        return f"/proc/{os.getpid()}/fd/{self._memory}"

    def disturb(self, folder: str, idle: Callable[[Callable[[], None]], None]) -> Known:
        """Have the neighbour copy while ``idle`` runs; returns what it did.

        Its own file is made in ``folder``. ``idle`` gets a function that lets the neighbour
        go and returns when it is done.
        """
        self._stage[0] = self._WAIT
        os.write(self._call, os.fsencode(folder))
        if not os.read(self._ready, 1):
            raise OSError("the neighbouring process ended early")
        idle(self._let_go)
        return total(_undeferred())

    def close(self) -> None:
        os.close(self._call)
        os.close(self._ready)
        os.close(self._memory)
        _end(self.pid)

    def _let_go(self) -> None:
        self._stage[0] = self._GO
        self._await(self._DONE)

    def _await(self, stage: int) -> None:
        while self._stage[0] != stage:
            os.sched_yield()
            if self._stage[0] == self._FAILED:
                raise OSError("the neighbouring process failed")

    def _work(self, nonce: int, calls: int, readies: int) -> None:
        try:
            self._serve(nonce, calls, readies)
        except BaseException as error:
            # The reason first: when the sender hears of the failure, it ends this process.
            _complain(error)
            self._stage[0] = self._FAILED
            os._exit(1)

    def _serve(self, nonce: int, calls: int, readies: int) -> None:
        os.close(self._call)  # or its own copy would keep the read below from ending
        while folder := os.fsdecode(os.read(calls, _PATH_MAX)):
            own = _undeferred()
            # What is still shared with the sender would be copied when it is written to.
            libc.own_all_memory()
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


def exercise(
    nonce: int, role: Role, folder: str, *, disk: bool, user_memory: bool = False
) -> Known:
    """Drive every copy site in this thread under ``role``, with ``disk`` also the disk.

    With ``user_memory`` also what copies within a program's own. Files are made in
    ``folder``. Returns what was done.
    """
    own = [*stimuli(disk=disk), *([UserMemory()] if user_memory else [])]
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


def total(of: list[Stimulus]) -> Known:
    """What the stimuli do together."""
    return sum((Known(stimulus.expected, stimulus.syscalls) for stimulus in of), Known())


def _undeferred() -> list[Stimulus]:
    """What a softirq may do on top of another thread proves nothing about threads."""
    return [stimulus for stimulus in stimuli(disk=False) if not stimulus.deferred]


def _complain(error: BaseException) -> None:
    print(f"{type(error).__name__}: {error}", file=sys.stderr, flush=True)


def _end(pid: int) -> None:
    try:
        os.kill(pid, signal.SIGKILL)
    except ProcessLookupError:
        return
    os.waitpid(pid, 0)
