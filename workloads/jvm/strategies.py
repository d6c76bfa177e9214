"""The ways that Java has of moving a file to a socket.

Nothing is done in Python here but asking the virtual machine: the transfer and its window are
in ``src/Transfer.java`` and ``src/Main.java``.
"""

from __future__ import annotations

import socket
from collections.abc import Sequence
from typing import ClassVar

from probes.site import Path
from workloads.jvm.process import Jvm
from workloads.marker import Window
from workloads.strategy import Address, Expected, Strategy, Task, Transfer

_JVM = Jvm()


class _JavaTransfer(Transfer):
    def __init__(self, name: str, task: Task) -> None:
        _JVM.prepare(name, task.file, task.size, task.step)

    def run(self) -> None:
        _JVM.run(None)

    def run_in(self, stretch: Window | None) -> None:
        _JVM.run(stretch)

    def close(self) -> None:
        _JVM.release()


class _Java(Strategy):
    performer = _JVM
    paths = frozenset({Path.FILE, Path.TCP})
    user_memory = True
    _channel: ClassVar[bool] = True
    """Whether the socket is a channel; else it is a stream."""

    def prepare(self, task: Task) -> Transfer:
        return _JavaTransfer(self.name, task)

    def connect(self, address: Address, seconds: float | None = None) -> socket.socket:
        return _JVM.connect(address, channel=self._channel)

    def rehearsals(self, size: int) -> Sequence[int]:
        # It keeps buffers for the next call, as large as the last one has needed.
        return (size,)

    def unavailable(self, file: int) -> str:
        return _JVM.refusal()


class JavaTraditional(_Java):
    name = "java-traditional"
    summary = "RandomAccessFile.read(array); OutputStream.write(array)"
    expected = Expected(cpu_copies=2, switches=4, dma_copies=2)
    _channel = False


class JavaMmap(_Java):
    name = "java-mmap"
    summary = "map = FileChannel.map(); SocketChannel.write(map)"
    expected = Expected(cpu_copies=1, switches=4, dma_copies=2)


class JavaTransferTo(_Java):
    name = "java-transfer-to"
    summary = "FileChannel.transferTo(channel)"
    expected = Expected(cpu_copies=0, switches=2, dma_copies=2)
    expected_without_gather = Expected(cpu_copies=1, switches=2, dma_copies=2)
    paths = frozenset({Path.FILE, Path.PIPE, Path.TCP})


class JavaHeapBuffer(_Java):
    name = "java-heap-buffer"
    summary = "FileChannel.read(b); SocketChannel.write(b); b in the heap"


class JavaDirectBuffer(_Java):
    name = "java-direct-buffer"
    summary = "the same; b = ByteBuffer.allocateDirect(), outside the heap"
