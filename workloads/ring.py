"""A minimal io_uring: one request at a time, each one system call.

Standard library only, and nothing that Linux 5.10 does not have. Indices are read and
written as plain words: every access is followed or preceded by a system call of the same
thread, and that orders them. Source: io_uring_setup(2), io_uring_enter(2),
io_uring_register(2), linux/io_uring.h.
"""

from __future__ import annotations

import ctypes
import errno
import os
from dataclasses import dataclass

from zctrace.workloads import libc

_SETUP, _ENTER, _REGISTER = 425, 426, 427
_ENTRIES = 4
_OFFSET_RINGS, _OFFSET_ENTRIES = 0, 0x10000000
_FEAT_SINGLE_MMAP = 1 << 0
_ENTER_GETEVENTS, _ENTER_SQ_WAKEUP = 1 << 0, 1 << 1
_REGISTER_BUFFERS, _UNREGISTER_BUFFERS, _REGISTER_FILES, _REGISTER_PROBE = 0, 1, 2, 8
_OP_SUPPORTED = 1 << 0

SETUP_SQPOLL = 1 << 1
OP_READ_FIXED = 4
OP_READ = 22
OP_SEND = 26
OP_SEND_ZC = 47
"""Since Linux kernel commit b48c312be05e ("io_uring/net: simplify zerocopy send user
API") (in v6.0)."""
RECVSEND_FIXED_BUF = 1 << 2
SEND_ZC_REPORT_USAGE = 1 << 3
"""Since Linux kernel commit e307e6698165 ("io_uring/net: introduce
IORING_SEND_ZC_REPORT_USAGE flag") (in v6.2)."""
CQE_F_MORE = 1 << 1
CQE_F_NOTIF = 1 << 3
NOTIF_USAGE_ZC_COPIED = 1 << 31


def _words(*names: str) -> tuple[tuple[str, type[ctypes.c_uint32]], ...]:
    return tuple((name, ctypes.c_uint32) for name in names)


class _SubmissionOffsets(ctypes.Structure):
    """``struct io_sqring_offsets``."""

    _fields_ = (
        *_words("head", "tail", "mask", "entries", "flags", "dropped", "array", "reserved"),
        ("user_address", ctypes.c_uint64),
    )


class _CompletionOffsets(ctypes.Structure):
    """``struct io_cqring_offsets``."""

    _fields_ = (
        *_words("head", "tail", "mask", "entries", "overflow", "cqes", "flags", "reserved"),
        ("user_address", ctypes.c_uint64),
    )


class _Parameters(ctypes.Structure):
    """``struct io_uring_params``."""

    _fields_ = (
        *_words("sq_entries", "cq_entries", "flags", "sq_thread_cpu", "sq_thread_idle"),
        *_words("features", "wq_fd"),
        ("reserved", ctypes.c_uint32 * 3),
        ("sq", _SubmissionOffsets),
        ("cq", _CompletionOffsets),
    )


class _Submission(ctypes.Structure):
    """``struct io_uring_sqe``."""

    _fields_ = (
        ("opcode", ctypes.c_uint8),
        ("flags", ctypes.c_uint8),
        ("ioprio", ctypes.c_uint16),
        ("fd", ctypes.c_int32),
        ("offset", ctypes.c_uint64),
        ("address", ctypes.c_uint64),
        ("length", ctypes.c_uint32),
        ("operation_flags", ctypes.c_uint32),
        ("user_data", ctypes.c_uint64),
        ("buffer_index", ctypes.c_uint16),
        ("personality", ctypes.c_uint16),
        ("file_index", ctypes.c_int32),
        ("reserved", ctypes.c_uint64 * 2),
    )


class _Completion(ctypes.Structure):
    """``struct io_uring_cqe``."""

    _fields_ = (
        ("user_data", ctypes.c_uint64),
        ("result", ctypes.c_int32),
        ("flags", ctypes.c_uint32),
    )


class _ProbedOperation(ctypes.Structure):
    """``struct io_uring_probe_op``."""

    _fields_ = (
        ("opcode", ctypes.c_uint8),
        ("reserved", ctypes.c_uint8),
        ("flags", ctypes.c_uint16),
        ("reserved2", ctypes.c_uint32),
    )


class _Probe(ctypes.Structure):
    """``struct io_uring_probe``."""

    _fields_ = (
        ("last", ctypes.c_uint8),
        ("count", ctypes.c_uint8),
        ("reserved", ctypes.c_uint16),
        ("reserved2", ctypes.c_uint32 * 3),
        ("operations", _ProbedOperation * 256),
    )


@dataclass(frozen=True)
class _Indices:
    """The addresses of a ring's indices, as objects that read and write there."""

    head: ctypes.c_uint32
    tail: ctypes.c_uint32
    mask: int


class Ring:
    """Submission and completion queue of one thread. Raises ``OSError``."""

    def __init__(self, flags: int = 0) -> None:
        """``flags`` as io_uring_setup(2) has them."""
        parameters = _Parameters(flags=flags)
        where = ctypes.addressof(parameters)
        self._polled = bool(flags & SETUP_SQPOLL)
        self._fd = libc.syscall("io_uring_setup", _SETUP, _ENTRIES, where)
        if not parameters.features & _FEAT_SINGLE_MMAP:
            os.close(self._fd)
            raise OSError(errno.EOPNOTSUPP, "io_uring without IORING_FEAT_SINGLE_MMAP")
        sq, cq = parameters.sq, parameters.cq
        self._rings_size = max(
            sq.array + parameters.sq_entries * ctypes.sizeof(ctypes.c_uint32),
            cq.cqes + parameters.cq_entries * ctypes.sizeof(_Completion),
        )
        self._entries_size = parameters.sq_entries * ctypes.sizeof(_Submission)
        self._rings = self._map(self._rings_size, _OFFSET_RINGS)
        self._entries = self._map(self._entries_size, _OFFSET_ENTRIES)
        self._sq = self._indices(sq.head, sq.tail, sq.mask)
        self._cq = self._indices(cq.head, cq.tail, cq.mask)
        self._submissions = (_Submission * parameters.sq_entries).from_address(self._entries)
        self._completions = (_Completion * parameters.cq_entries).from_address(
            self._rings + cq.cqes
        )
        order = (ctypes.c_uint32 * parameters.sq_entries).from_address(self._rings + sq.array)
        for index in range(parameters.sq_entries):
            order[index] = index

    def supports(self, operation: int) -> bool:
        """Whether the kernel knows it, by its own word."""
        probe = _Probe()
        self._register(_REGISTER_PROBE, ctypes.addressof(probe), len(probe.operations))
        return bool(probe.operations[operation].flags & _OP_SUPPORTED)

    def register(self, buffer: libc.Buffer) -> None:
        """Make it the ring's registered buffer number 0: pinned, and charged as locked."""
        span = libc.Span(buffer.address, buffer.size)
        self._register(_REGISTER_BUFFERS, ctypes.addressof(span), 1)

    def unregister(self) -> None:
        """Unpin the registered buffer now; closing the ring would do so some time later."""
        self._register(_UNREGISTER_BUFFERS, 0, 0)

    def submit(
        self,
        operation: int,
        fd: int,
        address: int,
        length: int,
        offset: int = 0,
        ioprio: int = 0,
    ) -> None:
        """Hand in one request and wait for a completion, in one system call."""
        self.prepare(
            operation, fd=fd, address=address, length=length, offset=offset, ioprio=ioprio
        )
        self.enter(1)

    def prepare(self, operation: int, **members: int) -> None:
        """Fill in a request, with members of :class:`_Submission`, for :meth:`enter`."""
        tail = self._sq.tail.value
        entry = self._submissions[tail & self._sq.mask]
        ctypes.memset(ctypes.addressof(entry), 0, ctypes.sizeof(entry))
        entry.opcode = operation
        for name, value in members.items():
            setattr(entry, name, value)
        self._sq.tail.value = tail + 1

    def completion(self) -> tuple[int, int]:
        """The next completion's result and flags; waits where there is none yet.

        A result below zero is an errno, but for notifications: see :func:`moved`.
        """
        head = self._cq.head.value
        while self._cq.tail.value == head:
            self.enter(0)
        entry = self._completions[head & self._cq.mask]
        answer = entry.result, entry.flags
        self._cq.head.value = head + 1
        return answer

    def close(self) -> None:
        libc.munmap(self._entries, self._entries_size)
        libc.munmap(self._rings, self._rings_size)
        os.close(self._fd)

    def enter(self, submit: int, wait: int = 1) -> None:
        """Hand in what is prepared, and wait for so many completions."""
        flags = _ENTER_GETEVENTS | (self._polled and _ENTER_SQ_WAKEUP)
        libc.syscall("io_uring_enter", _ENTER, self._fd, submit, wait, flags)

    def register_files(self, *files: int) -> None:
        """Make these the ring's registered files, from number 0 on."""
        numbers = (ctypes.c_int32 * len(files))(*files)
        self._register(_REGISTER_FILES, ctypes.addressof(numbers), len(files))

    def _register(self, what: int, where: int, count: int) -> None:
        libc.syscall("io_uring_register", _REGISTER, self._fd, what, where, count)

    def _map(self, size: int, offset: int) -> int:
        shared = libc.MAP_SHARED | libc.MAP_POPULATE
        return libc.mmap(
            size, libc.PROT_READ | libc.PROT_WRITE, shared, self._fd, offset=offset
        )

    def _indices(self, head: int, tail: int, mask: int) -> _Indices:
        word = ctypes.c_uint32.from_address
        return _Indices(
            word(self._rings + head), word(self._rings + tail), word(self._rings + mask).value
        )


def moved(result: int, operation: str) -> int:
    """A completion's result as bytes; raises the ``OSError`` that it may stand for."""
    if result < 0:
        raise OSError(-result, f"{operation}: {os.strerror(-result)}")
    return result


def refusal() -> str:
    """Why this process cannot have a ring, in words; "" where it can."""
    try:
        Ring().close()
    except OSError as error:
        if error.errno == errno.ENOSYS:
            return "this kernel has no io_uring"
        if error.errno == errno.EPERM:
            return "this kernel forbids io_uring: sysctl kernel.io_uring_disabled, or seccomp"
        return f"this kernel refuses io_uring: {error.strerror}"
    return ""
