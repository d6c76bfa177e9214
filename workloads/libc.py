"""System calls as the C library makes them: exactly one each, no buffer in between.

Python's own ``os.read`` allocates its result, which may map memory in the middle of a
measured stretch, and it has no ``mmap`` that returns a bare address. Every function
here raises ``OSError`` with the C library's errno.
"""

from __future__ import annotations

import ctypes
import os
from collections.abc import Callable
from typing import Any

_libc = ctypes.CDLL(None, use_errno=True)

PROT_NONE = 0
PROT_READ = 1
PROT_WRITE = 2
MAP_SHARED = 0x01
MAP_PRIVATE = 0x02
MAP_ANONYMOUS = 0x20
MAP_POPULATE = 0x8000
SPLICE_F_MOVE = 1
SPLICE_F_MORE = 4
MSG_ZEROCOPY = 0x4000000
MSG_ERRQUEUE = 0x2000
SO_ZEROCOPY = 60
POLLIN = 0x001
POLLERR = 0x008

CLONE_NEWNS = 0x00020000
CLONE_NEWNET = 0x40000000

PAGE_BYTES = os.sysconf("SC_PAGESIZE")

MADV_POPULATE_WRITE = 23
"""Since Linux kernel commit 4ca9b3859dac ("mm/madvise: introduce
MADV_POPULATE_(READ|WRITE) to prefault page tables") (in v5.14)."""

_LOCKED_BYTES = 32 * 1024
"""Half of what unprivileged processes may lock by default before Linux 5.16."""

_MAP_FAILED = ctypes.c_void_p(-1).value


def _bind(name: str, result: type, *arguments: type) -> Callable[..., Any]:
    function: Any = getattr(_libc, name)
    function.restype = result
    function.argtypes = arguments
    bound: Callable[..., Any] = function
    return bound


_int, _long, _size, _pointer = ctypes.c_int, ctypes.c_long, ctypes.c_size_t, ctypes.c_void_p
_read = _bind("read", _long, _int, _pointer, _size)
_write = _bind("write", _long, _int, _pointer, _size)
_send = _bind("send", _long, _int, _pointer, _size, _int)
_mmap = _bind("mmap", _pointer, _pointer, _size, _int, _int, _int, _long)
_munmap = _bind("munmap", _int, _pointer, _size)
_sendfile = _bind("sendfile", _long, _int, _int, _pointer, _size)
_splice = _bind("splice", _long, _int, _pointer, _int, _pointer, _size, ctypes.c_uint)
_madvise = _bind("madvise", _int, _pointer, _size, _int)
_recv = _bind("recv", _long, _int, _pointer, _size, _int)
_recvmsg = _bind("recvmsg", _long, _int, _pointer, _int)
_setsockopt = _bind("setsockopt", _int, _int, _int, _int, _pointer, ctypes.c_uint)
_getsockopt = _bind("getsockopt", _int, _int, _int, _int, _pointer, _pointer)
_poll = _bind("poll", _int, _pointer, ctypes.c_ulong, _int)
_tee = _bind("tee", _long, _int, _int, _size, ctypes.c_uint)
_vmsplice = _bind("vmsplice", _long, _int, _pointer, ctypes.c_ulong, ctypes.c_uint)
_copy_file_range = _bind(
    "copy_file_range", _long, _int, _pointer, _int, _pointer, _size, ctypes.c_uint
)
_ftruncate = _bind("ftruncate", _int, _int, _long)
_ioctl = _bind("ioctl", _int, _int, ctypes.c_ulong, _pointer)
_syscall = _bind("syscall", _long, _long, *[ctypes.c_ulong] * 6)
_mincore = _bind("mincore", _int, _pointer, _size, _pointer)
_mlock = _bind("mlock", _int, _pointer, _size)
_munlock = _bind("munlock", _int, _pointer, _size)
_setns = _bind("setns", _int, _int, _int)
_unshare = _bind("unshare", _int, _int)
_prctl = _bind("prctl", _int, _int, *[ctypes.c_ulong] * 4)


def _checked(result: int, call: str) -> int:
    if result < 0:
        errno = ctypes.get_errno()
        raise OSError(errno, f"{call}: {os.strerror(errno)}")
    return result


def read(fd: int, address: int, count: int) -> int:
    """read(2) up to ``count`` bytes to ``address``; returns the bytes read, 0 at the end."""
    return _checked(_read(fd, address, count), "read")


def write(fd: int, address: int, count: int) -> int:
    """write(2) up to ``count`` bytes from ``address``; returns the bytes written."""
    return _checked(_write(fd, address, count), "write")


def write_all(fd: int, address: int, count: int, step: int) -> None:
    """write(2), again and again, ``count`` bytes from ``address``, ``step`` at most at once."""
    written = 0
    while written < count:
        written += write(fd, address + written, min(step, count - written))


def send(fd: int, address: int, count: int, flags: int) -> int:
    """send(2) up to ``count`` bytes from ``address``; returns the bytes sent."""
    return _checked(_send(fd, address, count, flags), "send")


def recv(fd: int, address: int, count: int, flags: int = 0) -> int:
    """recv(2) up to ``count`` bytes to ``address``; returns the bytes received."""
    return _checked(_recv(fd, address, count, flags), "recv")


def recvmsg(fd: int, message: int, flags: int) -> int:
    """recvmsg(2) into the ``struct msghdr`` at ``message``; returns the bytes received."""
    return _checked(_recvmsg(fd, message, flags), "recvmsg")


def setsockopt(fd: int, level: int, option: int, value: int) -> None:
    """setsockopt(2) with an ``int``."""
    word = _int(value)
    size = ctypes.sizeof(word)
    _checked(_setsockopt(fd, level, option, ctypes.addressof(word), size), "setsockopt")


def getsockopt(fd: int, level: int, option: int, value: int, size: int) -> None:
    """getsockopt(2) to the address ``value``; ``size`` is that of an ``unsigned int``."""
    _checked(_getsockopt(fd, level, option, value, size), "getsockopt")


class PollDescriptor(ctypes.Structure):
    """``struct pollfd``."""

    _fields_ = (("fd", _int), ("events", ctypes.c_short), ("revents", ctypes.c_short))


def poll(descriptor: int, milliseconds: int) -> int:
    """poll(2) the one ``struct pollfd`` at ``descriptor``; returns 0 after the time."""
    return _checked(_poll(descriptor, 1, milliseconds), "poll")


def mmap(
    size: int, protection: int, flags: int, fd: int = -1, hint: int = 0, offset: int = 0
) -> int:
    """mmap(2) ``size`` bytes of the file from ``offset``; returns the address.

    That is ``hint`` where the memory there is free.
    """
    address = _mmap(hint or None, size, protection, flags, fd, offset)
    if address is None or address == _MAP_FAILED:
        _checked(-1, "mmap")
    assert isinstance(address, int)
    return address


def munmap(address: int, size: int) -> None:
    """munmap(2)."""
    _checked(_munmap(address, size), "munmap")


def mincore(address: int, size: int, vector: int) -> None:
    """mincore(2) into one byte per page at ``vector``."""
    _checked(_mincore(address, size, vector), "mincore")


def sendfile(out_fd: int, in_fd: int, count: int) -> int:
    """sendfile(2) from ``in_fd``'s own position; returns the bytes sent."""
    return _checked(_sendfile(out_fd, in_fd, None, count), "sendfile")


def splice(in_fd: int, out_fd: int, count: int, flags: int) -> int:
    """splice(2) between the descriptors' own positions; returns the bytes moved."""
    return _checked(_splice(in_fd, None, out_fd, None, count, flags), "splice")


def tee(in_fd: int, out_fd: int, count: int, flags: int = 0) -> int:
    """tee(2) from pipe to pipe; returns the bytes that are now in both."""
    return _checked(_tee(in_fd, out_fd, count, flags), "tee")


class Span(ctypes.Structure):
    """``struct iovec``."""

    _fields_ = (("address", ctypes.c_uint64), ("size", ctypes.c_uint64))


def vmsplice(fd: int, span: int, flags: int = 0) -> int:
    """vmsplice(2) the one ``struct iovec`` at ``span``; returns the bytes in the pipe."""
    return _checked(_vmsplice(fd, span, 1, flags), "vmsplice")


def copy_file_range(in_fd: int, out_fd: int, count: int) -> int:
    """copy_file_range(2) between the descriptors' own positions; returns the bytes."""
    return _checked(_copy_file_range(in_fd, None, out_fd, None, count, 0), "copy_file_range")


def ftruncate(fd: int, size: int) -> None:
    """ftruncate(2)."""
    _checked(_ftruncate(fd, size), "ftruncate")


def ioctl(fd: int, request: int, argument: int) -> int:
    """ioctl(2) with the address of its argument."""
    return _checked(_ioctl(fd, request, argument), "ioctl")


def setns(namespace: int, kind: int) -> None:
    """setns(2): this thread into an open namespace. Python has it since 3.12."""
    _checked(_setns(namespace, kind), "setns")


def unshare(kind: int) -> None:
    """unshare(2): this thread into a new namespace. Python has it since 3.12."""
    _checked(_unshare(kind), "unshare")


def syscall(name: str, number: int, *arguments: int) -> int:
    """syscall(2), for what the C library has no function for; ``name`` is for errors."""
    padded = (*arguments, 0, 0, 0, 0, 0, 0)[:6]
    return _checked(_syscall(number, *padded), name)


def marker(option: int, *arguments: int) -> None:
    """prctl(2) with an option that the kernel refuses; the refusal is expected."""
    _prctl(option, *arguments)


def own_all_memory() -> None:
    """Make every writable page of this process its own, now.

    After a fork the pages are shared until a process writes. The first writer takes a page
    fault and a copy. These should happen before a measured stretch, not inside.
    """
    with open("/proc/self/maps") as maps:
        writable = [line.split()[0] for line in maps if " rw-p " in line]
    for span in writable:
        first, last = (int(end, 16) for end in span.split("-"))
        if _madvise(first, last - first, MADV_POPULATE_WRITE):
            # A kernel without it: locking a page that may be written makes it one's own.
            for address in range(first, last, _LOCKED_BYTES):
                size = min(_LOCKED_BYTES, last - address)
                _mlock(address, size)
                _munlock(address, size)


class Buffer:
    """``size`` bytes of anonymous memory, every page present before first use.

    A transfer's buffer is touched beforehand, as a running server's is, so that the
    transfer itself takes no page fault on its behalf.
    """

    def __init__(self, size: int, fill: int = 0xA5) -> None:
        self.size = size
        self.address = mmap(size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS)
        ctypes.memset(self.address, fill, size)

    def view(self) -> memoryview:
        """The buffer's bytes, without a copy; valid until :meth:`close`."""
        return memoryview((ctypes.c_char * self.size).from_address(self.address)).cast("B")

    def close(self) -> None:
        munmap(self.address, self.size)
