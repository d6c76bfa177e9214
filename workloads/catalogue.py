"""All strategies, in the order in which they are run and shown."""

from __future__ import annotations

from workloads.direct_io import DirectIO
from workloads.file_copy import CopyFileRange, Reflink, SendfileFile
from workloads.io_uring import IoUring, IoUringZc
from workloads.jvm.strategies import (
    JavaDirectBuffer,
    JavaHeapBuffer,
    JavaMmap,
    JavaTraditional,
    JavaTransferTo,
    NettyChunkedFile,
    NettyComposite,
    NettyCopied,
    NettyDirectBuffer,
    NettyFileRegion,
    NettyFileRegionEpoll,
    NettyHeapBuffer,
    NettySlice,
    NettyTls,
    NettyWrapped,
)
from workloads.mmap_write import MmapWrite
from workloads.msg_zerocopy import MsgZerocopy
from workloads.read_write import ReadWrite
from workloads.receive import Recv, RecvSplice
from workloads.sendfile import Sendfile
from workloads.splice import Splice, Tee, Vmsplice
from workloads.strategy import Strategy
from workloads.tcp_zerocopy_receive import TcpZerocopyReceive

TEXTBOOK: tuple[Strategy, ...] = (ReadWrite(), MmapWrite(), Sendfile(), Splice())
"""Those of which the textbook claims something."""

STRATEGIES: tuple[Strategy, ...] = (
    *TEXTBOOK,
    MsgZerocopy(),
    Vmsplice(),
    Tee(),
    CopyFileRange(),
    SendfileFile(),
    Reflink(),
    DirectIO(),
    IoUring(),
    IoUringZc(),
    Recv(),
    RecvSplice(),
    TcpZerocopyReceive(),
    JavaTraditional(),
    JavaMmap(),
    JavaTransferTo(),
    JavaHeapBuffer(),
    JavaDirectBuffer(),
    NettyDirectBuffer(),
    NettyHeapBuffer(),
    NettyComposite(),
    NettyWrapped(),
    NettySlice(),
    NettyCopied(),
    NettyFileRegion(),
    NettyFileRegionEpoll(),
    NettyChunkedFile(),
    NettyTls(),
)


def strategy_named(name: str) -> Strategy:
    """The strategy called ``name``; raises ``KeyError`` where there is none."""
    for strategy in STRATEGIES:
        if strategy.name == name:
            return strategy
    raise KeyError(name)
