"""send(2) with MSG_ZEROCOPY from a mapping of the file: the network pins its pages.

The transfer ends when the kernel has reported, for every send, that its pages are free.
Source: Documentation/networking/msg_zerocopy.rst.
"""

from __future__ import annotations

import ctypes
import errno
import os
import socket
import struct

from zctrace.probes.model import Path
from zctrace.workloads import libc
from zctrace.workloads.kernel_account import KernelAccount
from zctrace.workloads.mapping import FileMapping
from zctrace.workloads.memlock import most_pinned
from zctrace.workloads.route import MAPPED, PINNED
from zctrace.workloads.strategy import Strategy, Task, Transfer

_SO_EE_ORIGIN_ZEROCOPY = 5
_SO_EE_CODE_ZEROCOPY_COPIED = 1
_SOL_IP, _IP_RECVERR = 0, 11
_COMPLETION_MILLISECONDS = 10_000

_EXTENDED_ERROR = struct.Struct("=QiiIBBBxII")
"""``struct cmsghdr``, and of ``struct sock_extended_err`` behind it: ee_errno, ee_origin,
ee_type, ee_code, ee_info, ee_data."""


class _MessageHeader(ctypes.Structure):
    """``struct msghdr``."""

    _fields_ = (
        ("name", ctypes.c_void_p),
        ("name_size", ctypes.c_uint32),
        ("spans", ctypes.c_void_p),
        ("span_count", ctypes.c_size_t),
        ("control", ctypes.c_void_p),
        ("control_size", ctypes.c_size_t),
        ("flags", ctypes.c_int),
    )


class _Completions:
    """The kernel's word on the sends of one socket, in sends."""

    def __init__(self, sock: int) -> None:
        self._sock = sock
        self.issued = self.completed = self.copied = 0
        self._control = ctypes.create_string_buffer(128)
        self._message = _MessageHeader(control=ctypes.addressof(self._control))
        # No events: an error, which a completion counts as, is always reported.
        self._poll = libc.PollDescriptor(fd=sock)

    def wait(self) -> None:
        """Take in one completion, which may tell of several sends."""
        if not libc.poll(ctypes.addressof(self._poll), _COMPLETION_MILLISECONDS):
            pending = self.issued - self.completed
            raise OSError(errno.ETIMEDOUT, f"{pending} zero-copy sends never completed")
        self._message.control_size = len(self._control)
        libc.recvmsg(self._sock, ctypes.addressof(self._message), libc.MSG_ERRQUEUE)
        _, level, kind, error, origin, _, code, first, last = _EXTENDED_ERROR.unpack_from(
            self._control
        )
        if (level, kind, error, origin) != (_SOL_IP, _IP_RECVERR, 0, _SO_EE_ORIGIN_ZEROCOPY):
            raise OSError(error, f"not a zero-copy completion: {os.strerror(error)}")
        # An inclusive range of 32 bit numbers that may wrap around.
        sends = ((last - first) & 0xFFFFFFFF) + 1
        self.completed += sends
        if code & _SO_EE_CODE_ZEROCOPY_COPIED:
            self.copied += sends


class _MsgZerocopy(Transfer):
    def __init__(self, task: Task) -> None:
        self._task = task
        self._mapping = FileMapping(task.file, task.size)
        self._completions = _Completions(task.sock)
        # A send is charged as a whole, and one beyond the limit is refused even where
        # nothing else is pinned.
        self._step = min(task.step, most_pinned())
        libc.setsockopt(task.sock, socket.SOL_SOCKET, libc.SO_ZEROCOPY, 1)

    def run(self) -> None:
        task, completions, step = self._task, self._completions, self._step
        address = self._mapping.map()
        sent = 0
        while sent < task.size:
            try:
                sent += libc.send(
                    task.sock, address + sent, min(step, task.size - sent), libc.MSG_ZEROCOPY
                )
                completions.issued += 1
            except OSError as error:
                if error.errno != errno.ENOBUFS:
                    raise
                # Too much is pinned, or too many completions are outstanding.
                if completions.completed < completions.issued:
                    completions.wait()
                elif step > libc.PAGE_BYTES:
                    step //= 2
                else:
                    raise
        while completions.completed < completions.issued:
            completions.wait()

    def account(self) -> KernelAccount:
        return KernelAccount(
            zerocopy_sends=self._completions.completed,
            zerocopy_copied=self._completions.copied,
        )

    def close(self) -> None:
        self._mapping.close()


class MsgZerocopy(Strategy):
    name = "msg-zerocopy"
    summary = "map = mmap(file); send(socket, map, MSG_ZEROCOPY)"
    paths = frozenset({Path.FILE, Path.TCP})
    route = (MAPPED, PINNED)

    def prepare(self, task: Task) -> Transfer:
        return _MsgZerocopy(task)

    def unavailable(self, file: int) -> str:
        with socket.socket() as sock:
            try:
                sock.setsockopt(socket.SOL_SOCKET, libc.SO_ZEROCOPY, 1)
            except OSError as error:
                return f"this kernel has no SO_ZEROCOPY for TCP: {error.strerror}"
        return ""
