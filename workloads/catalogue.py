"""All strategies, in the order in which they are run and shown."""

from __future__ import annotations

from zctrace.workloads.jvm.strategies import (
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
from zctrace.workloads.performer import Performer
from zctrace.workloads.strategies.direct_io import DirectIO
from zctrace.workloads.strategies.file_copy import CopyFileRange, Reflink, SendfileFile
from zctrace.workloads.strategies.io_uring import IoUring, IoUringZc
from zctrace.workloads.strategies.mmap_write import MmapWrite
from zctrace.workloads.strategies.msg_zerocopy import MsgZerocopy
from zctrace.workloads.strategies.read_write import ReadWrite
from zctrace.workloads.strategies.receive import Recv, RecvSplice
from zctrace.workloads.strategies.sendfile import Sendfile
from zctrace.workloads.strategies.splice import Splice, Tee, Vmsplice
from zctrace.workloads.strategies.tcp_zerocopy_receive import TcpZerocopyReceive
from zctrace.workloads.strategy import Strategy, performers_of

TEXTBOOK: tuple[Strategy, ...] = (ReadWrite(), MmapWrite(), Sendfile(), Splice())
"""The strategies that the textbook makes a claim about."""

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


def performers() -> tuple[Performer, ...]:
    """Everything that performs one of them, in the same order."""
    return performers_of(STRATEGIES)
