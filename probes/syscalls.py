"""System calls that say how many bytes they moved, and between which descriptors.

What a program delivers, and what it receives, is the sum of what these return. To add a
call, add a row. Numbers are x86-64's (arch/x86/entry/syscalls/syscall_64.tbl). Operations of
io_uring and of io_submit(2) have rows, too (:mod:`zctrace.probes.operations`).
"""

from __future__ import annotations

import enum
from dataclasses import dataclass

from zctrace.probes import compat, operations
from zctrace.probes.model import Quantity


class Told(enum.Enum):
    """What the return value says."""

    BYTES = 1
    """Their number."""
    MESSAGES = 2
    """The number of messages; how long each is stands in the caller's array of them."""
    WHOLE_FILE = 3
    """0 for the source as a whole, or for the range that the structure behind the third
    argument names; only where the second is ``FICLONE``, or ``FICLONERANGE``."""
    THIRD = 4
    """0; the third argument is the number of bytes."""


class Nameless(enum.Enum):
    """What bytes come from, or go to, that no descriptor names; the meter's numbers."""

    MEMORY = 2
    """Another process's."""
    QUEUE = 3
    """System V message queues."""
    KERNEL = 4
    """Nothing: the kernel makes them up."""


@dataclass(frozen=True)
class Transfer:
    """One system call.

    ``source`` and ``destination`` are the numbers, from 1, of the arguments that are the
    descriptors bytes come from and go to; 0 is the program's own memory, or what
    ``source_kind`` and ``destination_kind`` say. ``by_mode`` is whether the one descriptor is
    either, by what it is open for. ``copies``: the call has no other way than to copy each
    byte that it moves, whether or not a probe sees that.

    Of an operation, argument 1 is the file that it is for, and 2 is the file that a splice
    takes bytes from.
    """

    syscall: str
    number: int
    source: int = 0
    destination: int = 0
    told: Told = Told.BYTES
    by_mode: bool = False
    source_kind: Nameless | None = None
    destination_kind: Nameless | None = None
    copies: bool = False


TRANSFERS: tuple[Transfer, ...] = (
    Transfer("read", 0, source=1),
    Transfer("write", 1, destination=1),
    Transfer("ioctl", 16, source=3, destination=1, told=Told.WHOLE_FILE),
    Transfer("pread64", 17, source=1),
    Transfer("pwrite64", 18, destination=1),
    Transfer("readv", 19, source=1),
    Transfer("writev", 20, destination=1),
    Transfer("sendfile", 40, source=2, destination=1),
    Transfer("sendto", 44, destination=1),
    Transfer("recvfrom", 45, source=1),
    Transfer("sendmsg", 46, destination=1),
    Transfer("recvmsg", 47, source=1),
    Transfer("msgsnd", 69, destination_kind=Nameless.QUEUE, told=Told.THIRD, copies=True),
    Transfer("msgrcv", 70, source_kind=Nameless.QUEUE, copies=True),
    Transfer("mq_timedsend", 242, destination=1, told=Told.THIRD, copies=True),
    Transfer("mq_timedreceive", 243, source=1, copies=True),
    Transfer("splice", 275, source=1, destination=3),
    Transfer("tee", 276, source=1, destination=2),
    Transfer("vmsplice", 278, destination=1, by_mode=True),
    Transfer("preadv", 295, source=1),
    Transfer("pwritev", 296, destination=1),
    Transfer("recvmmsg", 299, source=1, told=Told.MESSAGES),
    Transfer("sendmmsg", 307, destination=1, told=Told.MESSAGES),
    Transfer("process_vm_readv", 310, source_kind=Nameless.MEMORY, copies=True),
    Transfer("process_vm_writev", 311, destination_kind=Nameless.MEMORY, copies=True),
    Transfer("getrandom", 318, source_kind=Nameless.KERNEL, copies=True),
    Transfer("copy_file_range", 326, source=1, destination=3),
    Transfer("preadv2", 327, source=1),
    Transfer("pwritev2", 328, destination=1),
    *(
        Transfer(name, operations.number(name), source=1)
        for name in (
            *("IORING_OP_READ", "IORING_OP_READV", "IORING_OP_READ_FIXED"),
            *("IORING_OP_READV_FIXED", "IORING_OP_READ_MULTISHOT"),
            *("IORING_OP_RECV", "IORING_OP_RECVMSG", "IORING_OP_RECV_ZC"),
            *("IOCB_CMD_PREAD", "IOCB_CMD_PREADV"),
        )
    ),
    *(
        Transfer(name, operations.number(name), destination=1)
        for name in (
            *("IORING_OP_WRITE", "IORING_OP_WRITEV", "IORING_OP_WRITE_FIXED"),
            *("IORING_OP_WRITEV_FIXED", "IORING_OP_SEND", "IORING_OP_SENDMSG"),
            *("IORING_OP_SEND_ZC", "IORING_OP_SENDMSG_ZC"),
            *("IOCB_CMD_PWRITE", "IOCB_CMD_PWRITEV"),
        )
    ),
    Transfer("IORING_OP_SPLICE", operations.number("IORING_OP_SPLICE"), 2, 1),
    Transfer("IORING_OP_TEE", operations.number("IORING_OP_TEE"), 2, 1),
)

NAMES = frozenset(transfer.syscall for transfer in TRANSFERS)


@dataclass(frozen=True)
class Ring:
    """What operations are handed in by. ``seen_by`` are the hooks and events that see what they
    move; a kernel may lack them."""

    name: str
    seen_by: frozenset[str]


RINGS = {
    "io_uring_enter": Ring(
        "io_uring",
        frozenset({operations.RING_BEGUN, operations.RING_DONE, Quantity.RING_COMPLETED}),
    ),
    "io_submit": Ring(
        "asynchronous I/O (io_submit)",
        frozenset(
            {
                *(operations.AIO_READ_BEGUN, operations.AIO_WRITE_BEGUN),
                *(operations.AIO_READ_DONE, operations.AIO_WRITE_DONE),
                operations.AIO_COMPLETED,
            }
        ),
    ),
}
"""By the call that hands in operations."""
MOVING = NAMES | RINGS.keys() | compat.UNTOLD
ALWAYS_COPY = frozenset(transfer.syscall for transfer in TRANSFERS if transfer.copies)
"""Calls that have no other way than to copy what they move."""
OTHER_ENDS = frozenset(
    {
        *("execve", "execveat", "init_module", "finit_module", "kexec_load", "kexec_file_load"),
        *("getdents", "getdents64", "readlink", "readlinkat"),
    }
)
"""In these, what is copied through an iterator is for other ends: programs, and names. In all
others, and outside of calls, it is payload."""
MAX_NUMBER = operations.MAX_NUMBER
"""Larger than the number of any of them."""
