"""Known amounts of bytes through every copy site: the controls' raw material.

A meter that says "0 bytes" is worth something only if it would have seen bytes. Each
stimulus here drives one copy site with a known number of bytes, in the calling thread,
without privileges. All amounts are primes below and above 64, the size at which the
kernel changes its copy loop, so that no mixture of lost and doubled hits adds up.

Sources: ``net/core/filter.c`` (a socket filter's load from a paged buffer),
``net/core/skbuff.c`` (``linear_to_page``),
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

from zctrace.probes.quantities import Direction, Quantity
from zctrace.workloads import cache, libc, loopback
from zctrace.workloads.known import Moved

_SO_ATTACH_FILTER = 26
_ANSWER_SECONDS = 10.0

FROM_USER = Moved(Quantity.COPY_FROM_ITER, Direction.USER_TO_KERNEL)
TO_USER = Moved(Quantity.COPY_TO_ITER, Direction.KERNEL_TO_USER)
INTO_CACHE = Moved(Quantity.COPY_FROM_ITER_ATOMIC, Direction.USER_TO_KERNEL)
PAGE_TO_PAGE = Moved(Quantity.COPY_FROM_ITER_ATOMIC, Direction.KERNEL_TO_KERNEL)
WHOLE_PAGES = Moved(Quantity.COPY_PAGE, Direction.KERNEL_TO_KERNEL)
PACKET_BITS = Moved(Quantity.SKB_COPY_BITS, Direction.KERNEL_TO_KERNEL)
CHECKSUMMED = Moved(Quantity.SKB_COPY_AND_CSUM_BITS, Direction.KERNEL_TO_KERNEL)
ZEROCOPY_COPIED = Moved(Quantity.SKB_COPY_UBUFS, Direction.KERNEL_TO_KERNEL)
INTO_PAGE = Moved(Quantity.LINEAR_TO_PAGE, Direction.KERNEL_TO_KERNEL)
WITHIN = Moved(Quantity.USER_MEMORY, Direction.USER_TO_USER)
DISK_READ = Moved(Quantity.DISK_READ, Direction.DEVICE_TO_KERNEL)


class Stimulus(Protocol):
    """One way to make the kernel copy a known number of bytes.

    ``expected`` is how many bytes of what it moves; ``syscalls`` maps the names of the
    system calls made for it to how many.
    ``prepare`` and ``settle`` are called outside the window, ``run`` inside; ``settle`` waits
    for what is deferred.
    """

    expected: ClassVar[dict[Moved, int]]
    syscalls: ClassVar[dict[str, int]]
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
    expected: ClassVar[dict[Moved, int]] = {
        FROM_USER: sum(_SIZES),
        TO_USER: sum(_SIZES),
    }
    syscalls: ClassVar[dict[str, int]] = {"write": 2, "read": 2}

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


class UserMemory:
    """From one place in this process's memory to another, by the C library's function."""

    deferred: ClassVar[bool] = False
    _SIZES = (65537, 99991)
    """More than the most from which on such copies may be asked to count."""
    expected: ClassVar[dict[Moved, int]] = {WITHIN: sum(_SIZES)}
    syscalls: ClassVar[dict[str, int]] = {}

    def prepare(self, folder: str) -> None:
        self._from, self._to = (libc.Buffer(max(self._SIZES)) for _ in range(2))

    def run(self) -> None:
        for size in self._SIZES:
            ctypes.memmove(self._to.address, self._from.address, size)

    def settle(self) -> None:
        self._from.close()
        self._to.close()


class FileWriteAndRead:
    """Into the page cache of a file, never synced, and out of it."""

    deferred: ClassVar[bool] = False
    _WRITTEN, _READ = (53, 5003), (59, 4507)
    expected: ClassVar[dict[Moved, int]] = {
        INTO_CACHE: sum(_WRITTEN),
        TO_USER: sum(_READ),
    }
    syscalls: ClassVar[dict[str, int]] = {"write": 2, "read": 2, "lseek": 1}

    def prepare(self, folder: str) -> None:
        self._buffer = libc.Buffer(2 * max(self._WRITTEN))
        self._file = _fresh_file(folder, self._buffer, sum(self._WRITTEN))

    def run(self) -> None:
        for size in self._WRITTEN:
            _all(libc.write(self._file, self._buffer.address, size), size)
        os.lseek(self._file, 0, os.SEEK_SET)
        for size in self._READ:
            _all(libc.read(self._file, self._buffer.address, size), size)

    def settle(self) -> None:
        os.close(self._file)
        self._buffer.close()


class SpliceIntoFile:
    """From a pipe into a file: a copy from page to page, without user memory."""

    deferred: ClassVar[bool] = False
    _SIZE = 4001
    expected: ClassVar[dict[Moved, int]] = {PAGE_TO_PAGE: _SIZE}
    syscalls: ClassVar[dict[str, int]] = {"splice": 1}

    def prepare(self, folder: str) -> None:
        self._buffer = libc.Buffer(self._SIZE)
        self._file = _fresh_file(folder, self._buffer, self._SIZE)
        self._out, self._in = os.pipe()
        _all(libc.write(self._in, self._buffer.address, self._SIZE), self._SIZE)

    def run(self) -> None:
        _all(libc.splice(self._out, self._file, self._SIZE, 0), self._SIZE)

    def settle(self) -> None:
        for descriptor in (self._in, self._out, self._file):
            os.close(descriptor)
        self._buffer.close()


class SpliceOutOfSocket:
    """From a Unix socket into a pipe: bytes that are in no page of their own are copied."""

    deferred: ClassVar[bool] = False
    _SIZE = 1213
    expected: ClassVar[dict[Moved, int]] = {INTO_PAGE: _SIZE}
    syscalls: ClassVar[dict[str, int]] = {"splice": 1}

    def prepare(self, folder: str) -> None:
        self._sender, self._receiver = socket.socketpair()
        _all(self._sender.send(bytes(self._SIZE)), self._SIZE)
        self._out, self._in = os.pipe()

    def run(self) -> None:
        _all(libc.splice(self._receiver.fileno(), self._in, self._SIZE, 0), self._SIZE)

    def settle(self) -> None:
        os.close(self._in)
        os.close(self._out)
        self._sender.close()
        self._receiver.close()


class CopyOnWrite:
    """Two private mappings of a file: one is read before it is written, one is not."""

    deferred: ClassVar[bool] = False
    _MAPPINGS = 2
    expected: ClassVar[dict[Moved, int]] = {WHOLE_PAGES: _MAPPINGS * libc.PAGE_BYTES}
    syscalls: ClassVar[dict[str, int]] = {}

    def prepare(self, folder: str) -> None:
        buffer = libc.Buffer(libc.PAGE_BYTES)
        self._file = _fresh_file(folder, buffer, buffer.size)
        buffer.close()
        protection = libc.PROT_READ | libc.PROT_WRITE
        self._maps = [
            libc.mmap(libc.PAGE_BYTES, protection, libc.MAP_PRIVATE, self._file)
            for _ in range(self._MAPPINGS)
        ]
        ctypes.string_at(self._maps[0], 1)

    def run(self) -> None:
        for address in self._maps:
            ctypes.memset(address, 1, 1)

    def settle(self) -> None:
        for address in self._maps:
            libc.munmap(address, libc.PAGE_BYTES)
        os.close(self._file)


class TcpSendAndReceive:
    """Over loopback, in one thread."""

    deferred: ClassVar[bool] = False
    _SIZES = (47, 4003)
    expected: ClassVar[dict[Moved, int]] = {
        FROM_USER: sum(_SIZES),
        TO_USER: sum(_SIZES),
    }
    syscalls: ClassVar[dict[str, int]] = {"sendto": 2, "recvfrom": 2}

    def prepare(self, folder: str) -> None:
        self._sender, self._receiver = loopback.connection()
        self._buffer = libc.Buffer(max(self._SIZES))

    def run(self) -> None:
        out, into = self._sender.fileno(), self._receiver.fileno()
        for size in self._SIZES:
            _all(libc.send(out, self._buffer.address, size, 0), size)
            _all(libc.recv(into, self._buffer.address, size, socket.MSG_WAITALL), size)

    def settle(self) -> None:
        self._sender.close()
        self._receiver.close()
        self._buffer.close()


class FilteredDatagram:
    """A socket filter that loads from the paged part of a datagram.

    Each load of a word or a byte beyond the linear part is one ``skb_copy_bits`` of that
    size, in the sender's own thread.
    """

    deferred: ClassVar[bool] = False
    _WORDS, _BYTES = 17, 3
    _SIZE = 150_011
    expected: ClassVar[dict[Moved, int]] = {
        FROM_USER: _SIZE,
        PACKET_BITS: 4 * _WORDS + _BYTES,
    }
    syscalls: ClassVar[dict[str, int]] = {"sendto": 1}

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
    expected: ClassVar[dict[Moved, int]] = {
        FROM_USER: _PAYLOAD,
        CHECKSUMMED: _IP_AND_UDP_HEADERS + _PAYLOAD,
    }
    syscalls: ClassVar[dict[str, int]] = {"sendto": 1}

    def prepare(self, folder: str) -> None:
        self._socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as other:
            other.bind((loopback.ADDRESS, 0))
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
    expected: ClassVar[dict[Moved, int]] = {ZEROCOPY_COPIED: _SIZE}
    syscalls: ClassVar[dict[str, int]] = {"sendto": 1}

    def prepare(self, folder: str) -> None:
        self._sender, self._receiver = loopback.connection()
        self._sender.setsockopt(socket.SOL_SOCKET, libc.SO_ZEROCOPY, 1)
        self._buffer = libc.Buffer(self._SIZE)

    def run(self) -> None:
        fd = self._sender.fileno()
        _all(libc.send(fd, self._buffer.address, self._SIZE, libc.MSG_ZEROCOPY), self._SIZE)

    def settle(self) -> None:
        self._receiver.recv(self._SIZE, socket.MSG_WAITALL)
        self._sender.close()
        self._receiver.close()
        self._buffer.close()


class ColdRead:
    """Some pages of a file that are on the disk and not in the page cache."""

    deferred: ClassVar[bool] = False
    _SIZE = 3 * libc.PAGE_BYTES
    expected: ClassVar[dict[Moved, int]] = {TO_USER: _SIZE, DISK_READ: _SIZE}
    syscalls: ClassVar[dict[str, int]] = {"read": 1}

    def prepare(self, folder: str) -> None:
        self._buffer = libc.Buffer(self._SIZE)
        self._file = _fresh_file(folder, self._buffer, self._SIZE)
        cache.evict(self._file)

    def run(self) -> None:
        _all(libc.read(self._file, self._buffer.address, self._SIZE), self._SIZE)

    def settle(self) -> None:
        os.close(self._file)
        self._buffer.close()


def stimuli(*, disk: bool = True) -> list[Stimulus]:
    """A fresh set, one for each copy site that a verdict on TCP relies on.

    With ``disk`` also one for that.
    """
    return [
        *([ColdRead()] if disk else []),
        PipeWriteAndRead(),
        FileWriteAndRead(),
        SpliceIntoFile(),
        SpliceOutOfSocket(),
        CopyOnWrite(),
        TcpSendAndReceive(),
        FilteredDatagram(),
        RefusedDatagram(),
        LoopedZerocopy(),
    ]


def _fresh_file(folder: str, buffer: libc.Buffer, size: int) -> int:
    """A file without a name, with blocks for ``size`` bytes, in the page cache.

    The first write allocates blocks; let that happen before anybody counts.
    """
    file = os.open(folder, os.O_TMPFILE | os.O_RDWR, 0o600)
    _all(libc.write(file, buffer.address, size), size)
    os.lseek(file, 0, os.SEEK_SET)
    return file


def _all(moved: int, size: int) -> None:
    if moved != size:
        raise OSError(f"a self-test moved {moved} bytes instead of {size}")
