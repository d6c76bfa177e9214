"""Where a transfer's payload comes from and goes to, and what arrived there."""

from __future__ import annotations

import fcntl
import os
import socket
import struct
import sys
import termios
import time
import zlib
from abc import ABC, abstractmethod
from dataclasses import dataclass
from pathlib import Path

from zctrace.workloads import libc
from zctrace.workloads.kernel_account import KernelAccount
from zctrace.workloads.peers import Received, Sink, Source
from zctrace.workloads.strategy import Address, Ends, Strategy, Transfer

_UNACKED, _BYTES_SENT, _BYTES_RETRANS = 24, 200, 208
"""Where struct tcp_info has tcpi_unacked, in packets, tcpi_bytes_sent, and tcpi_bytes_retrans,
which is a part of it (include/uapi/linux/tcp.h)."""
_READ_BYTES = 1024 * 1024
_REMOTE_SECONDS, _POLL_SECONDS = 60.0, 0.01
_SURPLUS_SECONDS = 10.0
_ACKNOWLEDGED_SECONDS = 10.0


@dataclass(frozen=True)
class Payload:
    """``size`` bytes from the beginning of an open file, and their CRC-32.

    ``refused`` is why no file can be made in its folder; empty if one can. ``workshop`` is the
    folder where self-tests make their files, ``same_disk`` whether that is on the payload's
    file system.
    """

    path: Path
    file: int
    size: int
    crc: int
    refused: str
    workshop: str
    same_disk: bool

    @property
    def folder(self) -> str:
        """Where it is, and where files for it to be moved into are made."""
        return str(self.path.parent)


def read_through(file: int, size: int) -> Received:
    """Read ``size`` bytes, fewer where the file is shorter, from the position on."""
    buffer = libc.Buffer(min(size, _READ_BYTES))
    view, crc, left = buffer.view(), 0, size
    while left and (got := libc.read(file, buffer.address, min(buffer.size, left))):
        crc = zlib.crc32(view[:got], crc)
        left -= got
    buffer.close()
    return Received(size - left, crc)


def sent(connection: socket.socket) -> tuple[int, int]:
    """Bytes that TCP has sent, each counted once, and those that it has sent again."""
    info = _tcp_info(connection)
    (every,) = struct.unpack_from("=Q", info, _BYTES_SENT)
    (again,) = struct.unpack_from("=Q", info, _BYTES_RETRANS)
    return int(every) - int(again), int(again)


def _tcp_info(connection: socket.socket) -> bytes:
    return connection.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 256)


def acknowledged(connection: socket.socket) -> None:
    """Wait until all that was sent is acknowledged: TCP will send nothing of it again.

    What has arrived, it may send again while the acknowledgement is still on its way (a tail
    loss probe, tcp_send_loss_probe() in net/ipv4/tcp_output.c). Gives up after a while.
    """
    deadline = time.monotonic() + _ACKNOWLEDGED_SECONDS
    while any(_tcp_info(connection)[_UNACKED : _UNACKED + 4]) and time.monotonic() < deadline:
        time.sleep(_POLL_SECONDS)


class _Connection:
    """The connection to the receiver, with TCP's account of what is sent from now on."""

    def __init__(
        self, strategy: Strategy, address: Address, seconds: float | None = None
    ) -> None:
        self._secured = bool(strategy.certificate())
        self.socket = strategy.connect(address, seconds)
        self._before, _ = sent(self.socket)

    def account(self) -> KernelAccount:
        """Besides what was sent again, of what is encrypted how much that is."""
        acknowledged(self.socket)
        once, again = sent(self.socket)
        return KernelAccount(
            retransmitted_bytes=again,
            secured_bytes=once - self._before if self._secured else None,
        )


class OpenEnds(ABC):
    """The open ends of one transfer; ``sock`` and ``out`` as in a task.

    In order: :meth:`begin`, the transfer, :meth:`settle`, :meth:`received`,
    :meth:`close`.
    """

    sock = -1
    out = -1

    def begin(self) -> None:  # noqa: B027 - most have nothing to do
        """Let the other side begin: the last thing before the window."""

    def settle(self) -> None:  # noqa: B027 - most have it at once
        """Wait until everything is where it belongs. Copies nothing in this process."""

    def account(self) -> KernelAccount:
        """What the kernel itself said of the way between the ends; after :meth:`settle`."""
        return KernelAccount()

    @abstractmethod
    def received(self, transfer: Transfer) -> Received:
        """What is there, after :meth:`settle`."""

    @abstractmethod
    def close(self) -> None: ...


class _ToSink(OpenEnds):
    def __init__(self, strategy: Strategy, sink: Sink, *, watched: bool) -> None:
        self._sink = sink
        sink.expect(watched=watched, certificate=strategy.certificate())
        self._connection = _Connection(strategy, sink.address)
        self._socket = self._connection.socket
        self.sock = self._socket.fileno()

    def settle(self) -> None:
        self._socket.shutdown(socket.SHUT_WR)
        self._received = self._sink.received()
        self._account = self._connection.account()
        self._socket.close()

    def account(self) -> KernelAccount:
        return self._account

    def received(self, transfer: Transfer) -> Received:
        return self._received

    def close(self) -> None:
        self._socket.close()


class _ToRemote(OpenEnds):
    """To a program of somebody else's, which is believed to throw away what it gets.

    That everything has arrived is the word of its kernel: all bytes were acknowledged.
    """

    def __init__(
        self, strategy: Strategy, address: Address, payload: Payload, size: int
    ) -> None:
        self._size, self._crc = size, payload.crc
        self._connection = _Connection(strategy, address, _REMOTE_SECONDS)
        self._socket = self._connection.socket
        self.sock = self._socket.fileno()

    def settle(self) -> None:
        self._socket.shutdown(socket.SHUT_WR)
        deadline = time.monotonic() + _REMOTE_SECONDS
        while self._unacknowledged():
            if time.monotonic() > deadline:
                raise OSError("the other side does not acknowledge everything")
            time.sleep(_POLL_SECONDS)

    def account(self) -> KernelAccount:
        return self._connection.account()

    def received(self, transfer: Transfer) -> Received:
        # Of the bytes themselves nothing is known here.
        return Received(self._size, self._crc)

    def close(self) -> None:
        self._socket.close()

    def _unacknowledged(self) -> int:
        if error := self._socket.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR):
            raise OSError(error, os.strerror(error))
        answer = fcntl.ioctl(self._socket, termios.TIOCOUTQ, bytes(4))
        return int.from_bytes(answer, sys.byteorder)


class _ToFile(OpenEnds):
    def __init__(self, payload: Payload) -> None:
        self.out = os.open(payload.folder, os.O_TMPFILE | os.O_RDWR, 0o600)

    def received(self, transfer: Transfer) -> Received:
        os.lseek(self.out, 0, os.SEEK_SET)
        return read_through(self.out, max(os.fstat(self.out).st_size, 1))

    def close(self) -> None:
        os.close(self.out)


class _FromSource(OpenEnds):
    def __init__(self, source: Source, payload: Payload, size: int, *, watched: bool) -> None:
        self._source, self._payload = source, payload
        self._size, self._watched = size, watched
        self._socket = source.connect()
        self.sock = self._socket.fileno()

    def begin(self) -> None:
        self._source.send(self._payload.file, self._size, watched=self._watched)

    def received(self, transfer: Transfer) -> Received:
        return Received(self._size + self._surplus(), transfer.crc())

    def close(self) -> None:
        self._socket.close()

    def _surplus(self) -> int:
        """1 where the source has sent more than the transfer took."""
        self._socket.settimeout(_SURPLUS_SECONDS)
        return len(self._socket.recv(1))


class _FromSourceToFile(_FromSource):
    def __init__(self, source: Source, payload: Payload, size: int, *, watched: bool) -> None:
        super().__init__(source, payload, size, watched=watched)
        self._file = _ToFile(payload)
        self.out = self._file.out

    def received(self, transfer: Transfer) -> Received:
        there = self._file.received(transfer)
        return Received(there.size + self._surplus(), there.crc)

    def close(self) -> None:
        self._file.close()
        super().close()


class Peers:
    """The processes at the other ends, which listen on these sockets.

    What is sent goes to ``remote`` instead, if that is given.
    """

    def __init__(
        self,
        nonce: int,
        sink: socket.socket,
        source: socket.socket,
        remote: Address | None = None,
    ) -> None:
        self.sink, self.source = Sink(nonce, sink), Source(nonce, source)
        self._remote = remote

    def open(
        self, strategy: Strategy, payload: Payload, size: int, *, watched: bool
    ) -> OpenEnds:
        """Fresh ends for ``size`` bytes; the peer has a window only if ``watched``."""
        match strategy.ends:
            case Ends.FILE_TO_SOCKET if self._remote:
                return _ToRemote(strategy, self._remote, payload, size)
            case Ends.FILE_TO_SOCKET:
                return _ToSink(strategy, self.sink, watched=watched)
            case Ends.FILE_TO_FILE:
                return _ToFile(payload)
            case Ends.SOCKET_TO_MEMORY:
                return _FromSource(self.source, payload, size, watched=watched)
            case Ends.SOCKET_TO_FILE:
                return _FromSourceToFile(self.source, payload, size, watched=watched)

    def close(self) -> None:
        self.sink.close()
        self.source.close()
