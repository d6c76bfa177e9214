"""File to file inside the kernel: copy_file_range(2), sendfile(2) and the reflink ioctl.

The target is a new, unnamed file on the payload's own file system.
"""

from __future__ import annotations

import ctypes
import os

from zctrace.probes.model import Path
from zctrace.workloads import libc
from zctrace.workloads.route import SHARED, Leg, Place
from zctrace.workloads.strategies.sendfile import InKernel
from zctrace.workloads.strategy import Ends, Strategy, Task, Transfer

_FICLONERANGE = 0x4020940D
"""_IOW(0x94, 13, struct file_clone_range), see linux/fs.h."""


class CopyFileRange(Strategy):
    name = "copy-file-range"
    summary = "copy_file_range(file, file2)"
    # File systems that can share extents do that instead, see Reflink; for all others the
    # kernel splices through a pipe of its own.
    paths = frozenset({Path.FILE, Path.PIPE})
    route = (SHARED,)
    ends = Ends.FILE_TO_FILE

    def prepare(self, task: Task) -> Transfer:
        return InKernel(task, lambda count: libc.copy_file_range(task.file, task.out, count))


class SendfileFile(Strategy):
    name = "sendfile-file"
    summary = "sendfile(file2, file)"
    paths = frozenset({Path.FILE, Path.PIPE})
    route = (Leg(Place.CACHE, Place.TARGET),)
    ends = Ends.FILE_TO_FILE

    def prepare(self, task: Task) -> Transfer:
        return InKernel(task, lambda count: libc.sendfile(task.out, task.file, count))


class _CloneRange(ctypes.Structure):
    """``struct file_clone_range``."""

    _fields_ = (
        ("source", ctypes.c_int64),
        ("source_offset", ctypes.c_uint64),
        ("length", ctypes.c_uint64),
        ("offset", ctypes.c_uint64),
    )


class _Reflink(Transfer):
    """Extents are shared in whole blocks, but for the file's own last one.

    Where ``size`` ends inside a block, that block is shared whole and the target cut.
    """

    def __init__(self, task: Task) -> None:
        self._task = task
        self._range = _CloneRange(source=task.file)
        block = os.fstatvfs(task.file).f_bsize
        end = os.fstat(task.file).st_size
        self._end = min(-(-task.size // block) * block, end)
        self._step = -(-task.step // block) * block
        # Sharing writes dirty pages back first; that is not the transfer's.
        os.fdatasync(task.file)

    def run(self) -> None:
        task, span = self._task, self._range
        where = ctypes.addressof(span)
        done = 0
        while done < self._end:
            span.source_offset = span.offset = done
            span.length = min(self._step, self._end - done)
            libc.ioctl(task.out, _FICLONERANGE, where)
            done += span.length
        if self._end < task.size:
            raise EOFError(f"the file ended {task.size - self._end} bytes early")
        if self._end != task.size:
            libc.ftruncate(task.out, task.size)


class Reflink(Strategy):
    name = "reflink"
    summary = "ioctl(file2, FICLONERANGE, file)"
    paths = frozenset({Path.FILE})
    route = (SHARED,)
    file_systems = ("xfs", "btrfs")
    ends = Ends.FILE_TO_FILE

    def prepare(self, task: Task) -> Transfer:
        return _Reflink(task)

    def unavailable(self, file: int) -> str:
        folder = os.path.dirname(os.readlink(f"/proc/self/fd/{file}"))
        out = os.open(folder, os.O_TMPFILE | os.O_RDWR, 0o600)
        whole = _CloneRange(source=file)
        try:
            libc.ioctl(out, _FICLONERANGE, ctypes.addressof(whole))
        except OSError as error:
            return f"this file system does not share extents: {error.strerror}"
        finally:
            os.close(out)
        return ""
