"""The ways that Java has of moving a file to a socket.

Nothing is done in Python here but asking the virtual machine: the transfer and its window are
in ``src/Transfer.java`` and ``src/Main.java``.
"""

from __future__ import annotations

import socket
from collections.abc import Sequence
from typing import ClassVar

from zctrace.probes.model import Path
from zctrace.workloads.jvm.performers import JAVA, NETTY, Java, Kind
from zctrace.workloads.marker import Window
from zctrace.workloads.route import IN_AND_OUT, MAPPED, PASSED, Leg, Place
from zctrace.workloads.strategy import Address, Expected, Strategy, Task, Transfer

_CHUNK_BYTES = 8192
"""ChunkedStream.DEFAULT_CHUNK_SIZE."""


class _JavaTransfer(Transfer):
    def __init__(self, performer: Java) -> None:
        self._performer = performer

    def run(self) -> None:
        self._performer.run(None)

    def run_in(self, stretch: Window | None) -> None:
        self._performer.run(stretch)

    def close(self) -> None:
        self._performer.release()


class _Java(Strategy):
    performer: Java = JAVA
    paths = frozenset({Path.FILE, Path.TCP})
    route: tuple[Leg, ...] = IN_AND_OUT
    user_memory = True
    _kind: ClassVar[Kind] = Kind.CHANNEL

    def prepare(self, task: Task) -> Transfer:
        return self._open(task, task.step)

    def _open(self, task: Task, step: int) -> Transfer:
        self.performer.open(self.name, task.file, task.size, step)
        return _JavaTransfer(self.performer)

    def connect(self, address: Address, seconds: float | None = None) -> socket.socket:
        return self.performer.connect(address, self._kind)

    def rehearsals(self, size: int) -> Sequence[int]:
        # It keeps buffers for the next call, as large as the last one has needed.
        return (size,)


class JavaTraditional(_Java):
    name = "java-traditional"
    summary = "RandomAccessFile.read(array); OutputStream.write(array)"
    expected = Expected(cpu_copies=2, switches=4, dma_copies=2)
    _kind = Kind.STREAM


class JavaMmap(_Java):
    name = "java-mmap"
    summary = "map = FileChannel.map(); SocketChannel.write(map)"
    expected = Expected(cpu_copies=1, switches=4, dma_copies=2)
    route = (MAPPED, Leg(Place.USER, Place.SOCKET))


class JavaTransferTo(_Java):
    name = "java-transfer-to"
    summary = "FileChannel.transferTo(channel)"
    expected = Expected(cpu_copies=0, switches=2, dma_copies=2)
    expected_without_gather = Expected(cpu_copies=1, switches=2, dma_copies=2)
    paths = frozenset({Path.FILE, Path.PIPE, Path.TCP})
    route = (PASSED,)


class JavaHeapBuffer(_Java):
    name = "java-heap-buffer"
    summary = "FileChannel.read(b); SocketChannel.write(b); b in the heap"


class JavaDirectBuffer(_Java):
    name = "java-direct-buffer"
    summary = "the same; b = ByteBuffer.allocateDirect(), outside the heap"


class Netty(_Java):
    """Those of its library."""

    performer = NETTY
    _kind = Kind.NETTY_NIO


class NettyDirectBuffer(Netty):
    name = "netty-direct-buffer"
    summary = "b.writeBytes(file); channel.write(b); b outside the heap"
    expected = Expected(cpu_copies=2, switches=None, dma_copies=2)


class NettyHeapBuffer(Netty):
    name = "netty-heap-buffer"
    summary = "the same; b in the heap"


class NettyComposite(Netty):
    name = "netty-composite"
    summary = "4 × writeBytes; write(CompositeByteBuf)"
    expected = Expected(cpu_copies=2, switches=None, dma_copies=2)


class NettyWrapped(Netty):
    name = "netty-wrapped"
    summary = "4 × writeBytes; write(wrappedBuffer(…))"
    expected = Expected(cpu_copies=2, switches=None, dma_copies=2)


class NettySlice(Netty):
    name = "netty-slice"
    summary = "writeBytes; 4 × write(retainedSlice())"
    expected = Expected(cpu_copies=2, switches=None, dma_copies=2)


class NettyCopied(Netty):
    name = "netty-copied"
    summary = "4 × writeBytes; write(copiedBuffer(…))"


class _NettyRegion(Netty):
    paths = frozenset({Path.FILE, Path.PIPE, Path.TCP})
    route = (PASSED,)
    expected = Expected(cpu_copies=0, switches=None, dma_copies=2)
    expected_without_gather = Expected(cpu_copies=1, switches=None, dma_copies=2)


class NettyFileRegion(_NettyRegion):
    name = "netty-file-region"
    summary = "channel.write(DefaultFileRegion)"


class NettyFileRegionEpoll(_NettyRegion):
    name = "netty-file-region-epoll"
    summary = "the same, over Netty's own epoll"
    _kind = Kind.NETTY_EPOLL


class NettyChunkedFile(Netty):
    name = "netty-chunked-file"
    summary = "channel.write(ChunkedFile), of 8 KiB each"

    def prepare(self, task: Task) -> Transfer:
        # A chunk is what Netty reads and writes at a time; Netty's own size by default.
        return self._open(task, task.chunk or _CHUNK_BYTES)


class NettyTls(NettyChunkedFile):
    name = "netty-tls"
    summary = "the same, encrypted by SslHandler"
    _kind = Kind.NETTY_TLS

    def certificate(self) -> str:
        return str(NETTY.certificate())
