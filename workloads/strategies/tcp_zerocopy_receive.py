"""TCP_ZEROCOPY_RECEIVE: the network's pages are mapped into the receiver's memory.

The kernel maps a page only if a fragment of a packet is exactly that page: a single one,
of no file, from its first byte to its last (``can_map_frag()`` in ``net/ipv4/tcp.c``).
So it depends on the sender. Over loopback, Linux 6.18, payload 64 MiB and 3 bytes:

- the sender writes to the socket: nothing is mapped, as TCP copies into larger pages;
- it writes to a pipe and splices that into the socket: 93.8 %. A segment of 65483 bytes
  begins or ends within a page, which is then part of two packets;
- likewise, with segments of 7 pages (TCP_MAXSEG): all but 8 KiB;
- likewise, and the receiver asks for 256 KiB (SO_RCVLOWAT): all but the last 3 bytes.

What the sender can do of this the source does; see ``workloads/peers.py``. Where the
receiver falls behind, the sender fills the rest of a window by a part of a page, and a
page or two are copied there: with ``--chunk 4096`` about 5 %.
"""

from __future__ import annotations

import ctypes
import errno
import socket
import zlib

from zctrace.probes.model import Path
from zctrace.workloads import libc
from zctrace.workloads.kernel_account import KernelAccount
from zctrace.workloads.marker import Role
from zctrace.workloads.route import By, Leg, Place
from zctrace.workloads.strategy import Ends, Strategy, Task, Transfer

_TCP_ZEROCOPY_RECEIVE = 35
_ARRIVAL_MILLISECONDS = 10_000
_LOW_WATER_BYTES = 256 * 1024
"""What is waited for, but for the end. The kernel enlarges the receive buffer to twice
that at once; in the usual one the sender would run into the window's end at first."""


class _ZerocopyReceive(ctypes.Structure):
    """The beginning of ``struct tcp_zerocopy_receive``, which is all that v5.10 has."""

    _fields_ = (
        ("address", ctypes.c_uint64),
        ("length", ctypes.c_uint32),
        ("recv_skip_hint", ctypes.c_uint32),
        ("inq", ctypes.c_uint32),
        ("err", ctypes.c_int32),
    )


class _TcpZerocopyReceive(Transfer):
    """Mapped pages follow each other in the mapping. Bytes that had to be copied are in the
    buffer, at their offset in the payload. ``_mapped_at`` has the order of the pieces: bytes
    mapped, bytes copied, bytes mapped, and so on.
    """

    def __init__(self, task: Task) -> None:
        self._task = task
        page = libc.PAGE_BYTES
        pages = -(-task.size // page)
        self._map_size = pages * page
        self._map = libc.mmap(self._map_size, libc.PROT_READ, libc.MAP_SHARED, task.sock)
        self._buffer = libc.Buffer(task.size)
        # A mapped piece is a page at least, so pieces of either kind are no more than pages.
        self._pieces = (ctypes.c_uint64 * (2 * pages + 4))()
        self._zerocopy = _ZerocopyReceive()
        self._size = ctypes.c_uint32()
        self._poll = libc.PollDescriptor(fd=task.sock, events=libc.POLLIN)
        self._mapped = self._copied = 0
        low_water = min(task.size, _LOW_WATER_BYTES)
        libc.setsockopt(task.sock, socket.SOL_SOCKET, socket.SO_RCVLOWAT, low_water)

    def run(self) -> None:
        task, zerocopy, pieces, page = self._task, self._zerocopy, self._pieces, libc.PAGE_BYTES
        step = max(task.step // page, 1) * page
        piece = 0
        while (left := task.size - self._mapped - self._copied) > 0:
            if not libc.poll(ctypes.addressof(self._poll), _ARRIVAL_MILLISECONDS):
                raise OSError(errno.ETIMEDOUT, f"the last {left} bytes never arrived")
            skip = min(left, page)
            if left >= page:
                zerocopy.address = self._map + self._mapped
                zerocopy.length = min(step, left // page * page)
                self._ask()
                if zerocopy.length:
                    piece += piece & 1
                    pieces[piece] += zerocopy.length
                    self._mapped += zerocopy.length
                skip = zerocopy.recv_skip_hint
            if skip:
                piece |= 1
                pieces[piece] += self._copy(min(skip, step))

    def _ask(self) -> None:
        zerocopy = self._zerocopy
        self._size.value = ctypes.sizeof(zerocopy)
        try:
            libc.getsockopt(
                self._task.sock,
                socket.IPPROTO_TCP,
                _TCP_ZEROCOPY_RECEIVE,
                ctypes.addressof(zerocopy),
                ctypes.addressof(self._size),
            )
        except OSError as error:
            # The kernel's way of saying that the queue is empty and nothing will come.
            if error.errno == errno.EIO:
                raise self._early_end() from error
            raise
        if zerocopy.err:
            raise OSError(-zerocopy.err, "TCP_ZEROCOPY_RECEIVE")

    def _copy(self, most: int) -> int:
        at = self._mapped + self._copied
        left = self._task.size - at
        got = libc.recv(self._task.sock, self._buffer.address + at, min(most, left))
        if not got:
            raise self._early_end()
        self._copied += got
        return got

    def _early_end(self) -> EOFError:
        left = self._task.size - self._mapped - self._copied
        return EOFError(f"the connection ended {left} bytes early")

    def account(self) -> KernelAccount:
        return KernelAccount(mapped_bytes=self._mapped, copied_bytes=self._copied)

    def crc(self) -> int:
        copied = self._buffer.view()
        mapped = memoryview((ctypes.c_char * self._map_size).from_address(self._map)).cast("B")
        crc = at = page = 0
        for piece, size in enumerate(self._pieces):
            if piece & 1:
                crc = zlib.crc32(copied[at : at + size], crc)
            else:
                crc = zlib.crc32(mapped[page : page + size], crc)
                page += size
            at += size
        return crc

    def close(self) -> None:
        libc.munmap(self._map, self._map_size)
        self._buffer.close()


class TcpZerocopyReceive(Strategy):
    name = "tcp-zerocopy-receive"
    summary = "map = mmap(socket); getsockopt(TCP_ZEROCOPY_RECEIVE, map)"
    paths = frozenset({Path.TCP})
    route = (Leg(Place.SOCKET, Place.USER, By.REFERENCE, "mapped"),)
    role = Role.RECEIVER
    ends = Ends.SOCKET_TO_MEMORY

    def prepare(self, task: Task) -> Transfer:
        return _TcpZerocopyReceive(task)

    def unavailable(self, file: int) -> str:
        with socket.socket() as sock:
            try:
                page = libc.PAGE_BYTES
                address = libc.mmap(page, libc.PROT_READ, libc.MAP_SHARED, sock.fileno())
                libc.munmap(address, page)
            except OSError as error:
                return f"this kernel maps no TCP sockets: {error.strerror}"
        return ""
