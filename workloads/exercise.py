"""Known amounts of bytes through every copy site: the controls' raw material.

A meter that says "0 bytes" is worth something only if it would have seen bytes. Each
stimulus here drives one copy site with a known number of bytes, in the calling thread,
without privileges. All amounts are primes below and above 64, the size at which the
kernel changes its copy loop, so that no mixture of lost and doubled hits adds up.

Sources: ``net/core/filter.c`` (a socket filter's load from a paged buffer),
``net/ipv4/icmp.c`` (a port-unreachable message quotes the packet),
``net/core/dev.c`` (zero-copy packets that loop back are copied).
"""

from __future__ import annotations

import ctypes
import os
import socket
import struct
from contextlib import suppress
from typing import ClassVar, Protocol

from workloads import libc

_SO_ATTACH_FILTER = 26
_SO_ZEROCOPY = 60
_LOOPBACK = "127.0.0.1"
_ANSWER_SECONDS = 10.0


class Stimulus(Protocol):
    """One way to make the kernel copy a known number of bytes.

    ``expected`` maps the catalogue's quantities to bytes. ``prepare`` and ``settle`` are
    called outside the window, ``run`` inside; ``settle`` waits for what is deferred.
    """

    expected: ClassVar[dict[str, int]]
    deferred: ClassVar[bool]
    """Whether a softirq does the copy: mostly at once, on top of the same thread, but
    that is not promised."""

    def prepare(self, folder: str) -> None: ...

    def run(self) -> None: ...

    def settle(self) -> None: ...


class PipeWriteAndRead:
    """Through a pipe and back: the iterator copies in both directions."""

    deferred: ClassVar[bool] = False
    _SIZES = (61, 4999)
    expected: ClassVar[dict[str, int]] = {
        "copy-from-iter": sum(_SIZES),
        "copy-to-iter": sum(_SIZES),
    }

    def prepare(self, folder: str) -> None:
        self._buffer = libc.Buffer(max(self._SIZES))
        self._out, self._in = os.pipe()

    def run(self) -> None:
        for size in self._SIZES:
            _all(libc.write(self._in, self._buffer.address, size), size)
            _all(libc.read(self._out, self._buffer.address, size), size)

    def settle(self) -> None:
        os.close(self._in)
        os.close(self._out)
        self._buffer.close()


class FileWrite:
    """Into the page cache of a file beside the payload, never synced."""

    deferred: ClassVar[bool] = False
    _SIZES = (53, 5003)
    expected: ClassVar[dict[str, int]] = {"copy-from-iter-atomic": sum(_SIZES)}

    def prepare(self, folder: str) -> None:
        self._buffer = libc.Buffer(max(self._SIZES))
        self._file = os.open(folder, os.O_TMPFILE | os.O_RDWR, 0o600)
        # The first write allocates blocks; let that happen before anybody counts.
        _all(libc.write(self._file, self._buffer.address, max(self._SIZES)), 5003)
        os.lseek(self._file, 0, os.SEEK_SET)

    def run(self) -> None:
        for size in self._SIZES:
            _all(libc.write(self._file, self._buffer.address, size), size)

    def settle(self) -> None:
        os.close(self._file)
        self._buffer.close()


class FilteredDatagram:
    """A socket filter that loads from the paged part of a datagram.

    Each load of a word or a byte beyond the linear part is one ``skb_copy_bits`` of that
    size, in the sender's own thread.
    """

    deferred: ClassVar[bool] = False
    _WORDS, _BYTES = 17, 3
    _SIZE = 150_011
    expected: ClassVar[dict[str, int]] = {
        "copy-from-iter": _SIZE,
        "skb-copy-bits": 4 * _WORDS + _BYTES,
    }

    def prepare(self, folder: str) -> None:
        self._sender, self._receiver = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._buffer = libc.Buffer(self._SIZE)
        for size in (socket.SO_SNDBUF, socket.SO_RCVBUF):
            self._sender.setsockopt(socket.SOL_SOCKET, size, 4 * self._SIZE)
        load_word, load_byte, accept = 0x20, 0x30, 0x06  # BPF_LD|BPF_ABS|BPF_W, _B; BPF_RET
        last = self._SIZE - 8
        program = [(load_word, 0, 0, last)] * self._WORDS
        program += [(load_byte, 0, 0, last)] * self._BYTES
        program += [(accept, 0, 0, 0xFFFFFFFF)]
        code = b"".join(struct.pack("=HBBI", *instruction) for instruction in program)
        self._code = ctypes.create_string_buffer(code)
        filter_program = struct.pack("@HP", len(program), ctypes.addressof(self._code))
        self._receiver.setsockopt(socket.SOL_SOCKET, _SO_ATTACH_FILTER, filter_program)

    def run(self) -> None:
        fd = self._sender.fileno()
        _all(libc.send(fd, self._buffer.address, self._SIZE, 0), self._SIZE)

    def settle(self) -> None:
        self._sender.close()
        self._receiver.close()
        self._buffer.close()


class RefusedDatagram:
    """UDP to a closed port: the kernel's ICMP answer quotes headers and payload."""

    deferred: ClassVar[bool] = True
    _PAYLOAD = 73
    _IP_AND_UDP_HEADERS = 28
    expected: ClassVar[dict[str, int]] = {
        "copy-from-iter": _PAYLOAD,
        "skb-copy-and-csum-bits": _IP_AND_UDP_HEADERS + _PAYLOAD,
    }

    def prepare(self, folder: str) -> None:
        self._socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as other:
            other.bind((_LOOPBACK, 0))
            closed = other.getsockname()
        self._socket.connect(closed)
        self._buffer = libc.Buffer(self._PAYLOAD)

    def run(self) -> None:
        fd = self._socket.fileno()
        _all(libc.send(fd, self._buffer.address, self._PAYLOAD, 0), self._PAYLOAD)

    def settle(self) -> None:
        self._socket.settimeout(_ANSWER_SECONDS)
        with suppress(ConnectionRefusedError):
            self._socket.recv(1)
        self._socket.close()
        self._buffer.close()


class LoopedZerocopy:
    """MSG_ZEROCOPY over loopback: the packet is copied before it is received."""

    deferred: ClassVar[bool] = True
    _SIZE = 4001
    expected: ClassVar[dict[str, int]] = {"skb-copy-ubufs": _SIZE}

    def prepare(self, folder: str) -> None:
        with socket.create_server((_LOOPBACK, 0)) as listener:
            self._sender = socket.create_connection(listener.getsockname())
            self._receiver, _ = listener.accept()
        self._sender.setsockopt(socket.SOL_SOCKET, _SO_ZEROCOPY, 1)
        self._buffer = libc.Buffer(self._SIZE)

    def run(self) -> None:
        fd = self._sender.fileno()
        _all(libc.send(fd, self._buffer.address, self._SIZE, libc.MSG_ZEROCOPY), self._SIZE)

    def settle(self) -> None:
        self._receiver.recv(self._SIZE, socket.MSG_WAITALL)
        self._sender.close()
        self._receiver.close()
        self._buffer.close()


def stimuli() -> list[Stimulus]:
    """A fresh set, one for each copy site that a verdict on TCP relies on."""
    return [
        PipeWriteAndRead(),
        FileWrite(),
        FilteredDatagram(),
        RefusedDatagram(),
        LoopedZerocopy(),
    ]


def _all(moved: int, size: int) -> None:
    if moved != size:
        raise OSError(f"a control moved {moved} bytes instead of {size}")
