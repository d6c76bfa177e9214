"""Operations that programs hand to the kernel by a ring, or by ``io_submit``: their numbers.

In the meter they have numbers of their own, behind those of system calls. To name a new
operation, add its name at its number; what it moves is a row of
:data:`zctrace.probes.syscalls.TRANSFERS`.
"""

from __future__ import annotations

from collections.abc import Iterable

IO_URING_FIRST = 512
"""The number of io_uring's first operation; system calls have smaller ones."""
IO_URING = tuple(
    f"IORING_OP_{name}"
    for name in """
    NOP READV WRITEV FSYNC READ_FIXED WRITE_FIXED POLL_ADD POLL_REMOVE SYNC_FILE_RANGE SENDMSG
    RECVMSG TIMEOUT TIMEOUT_REMOVE ACCEPT ASYNC_CANCEL LINK_TIMEOUT CONNECT FALLOCATE OPENAT
    CLOSE FILES_UPDATE STATX READ WRITE FADVISE MADVISE SEND RECV OPENAT2 EPOLL_CTL SPLICE
    PROVIDE_BUFFERS REMOVE_BUFFERS TEE SHUTDOWN RENAMEAT UNLINKAT MKDIRAT SYMLINKAT LINKAT
    MSG_RING FSETXATTR SETXATTR FGETXATTR GETXATTR SOCKET URING_CMD SEND_ZC SENDMSG_ZC
    READ_MULTISHOT WAITID FUTEX_WAIT FUTEX_WAKE FUTEX_WAITV FIXED_FD_INSTALL FTRUNCATE BIND
    LISTEN RECV_ZC EPOLL_WAIT READV_FIXED WRITEV_FIXED PIPE NOP128 URING_CMD128
    """.split()
)
"""By number: ``enum io_uring_op`` of include/uapi/linux/io_uring.h, as of Linux 7.3."""
IO_URING_END = IO_URING_FIRST + 100
"""Behind the last; the last one stands for all that are newer."""
AIO_FIRST = IO_URING_END
AIO = {
    0: "IOCB_CMD_PREAD",
    1: "IOCB_CMD_PWRITE",
    7: "IOCB_CMD_PREADV",
    8: "IOCB_CMD_PWRITEV",
}
"""Operations of io_submit(2) that move bytes: include/uapi/linux/aio_abi.h."""
MAX_NUMBER = AIO_FIRST + 16
"""Larger than the number of any."""
_NEWER = "an operation newer than Linux 7.3"
_UNTOLD = frozenset({"IORING_OP_URING_CMD", "IORING_OP_URING_CMD128", _NEWER})
"""Their completions do not say what they moved: each driver has its own."""

RING_BEGUN = "io_uring operation begun"
RING_BEGUN_AGAIN = "io_uring operation begun again"
RING_DONE = "io_uring operation performed"
AIO_READ_BEGUN, AIO_WRITE_BEGUN = "asynchronous read begun", "asynchronous write begun"
AIO_READ_DONE, AIO_WRITE_DONE = "asynchronous read performed", "asynchronous write performed"
AIO_COMPLETED = "asynchronous operation completed"
"""What hooks see (:mod:`zctrace.probes.hooks`)."""


def name(number: int) -> str:
    """Of an operation, by the meter's number."""
    if number >= AIO_FIRST:
        return AIO.get(number - AIO_FIRST, f"IOCB_CMD_{number - AIO_FIRST}")
    index = number - IO_URING_FIRST
    return IO_URING[index] if index < len(IO_URING) else _NEWER


def number(operation: str) -> int:
    """The meter's number of an operation; raises ``ValueError``."""
    if operation in IO_URING:
        return IO_URING_FIRST + IO_URING.index(operation)
    (index,) = (index for index, aio in AIO.items() if aio == operation)
    return AIO_FIRST + index


def is_operation(name: str | None) -> bool:
    """Whether what stands in a system call's place is an operation."""
    return bool(name) and (str(name).startswith(("IORING_OP_", "IOCB_CMD_")) or name == _NEWER)


def untold(names: Iterable[str]) -> list[str]:
    """Those that may move bytes and do not say how many."""
    return sorted(_UNTOLD.intersection(names))
