"""What the meter's tables say."""

from __future__ import annotations

import ctypes
import struct
from typing import Any, NamedTuple

from zctrace.probes import compat, operations
from zctrace.probes.model import Direction
from zctrace.probes.syscall_numbers import SYSCALLS
from zctrace.workloads import marker

NO_SYSCALL = 0xFFFFFFFF
"""In the place of a system call's number: outside of one."""
_NAMES = {number: name for name, number in SYSCALLS.items()}

SECTOR_BYTES = 512
_MAPPED = {
    0: (Direction.KERNEL_TO_DEVICE, Direction.DEVICE_TO_KERNEL),
    1: (Direction.KERNEL_TO_DEVICE,),
    2: (Direction.DEVICE_TO_KERNEL,),
}
"""enum dma_data_direction (include/linux/dma-direction.h)."""


class DiskRequest(NamedTuple):
    """One place on a disk that was read or written; ``start`` and ``bytes`` in bytes.

    ``device`` is its number, ``259:0``; ``operation`` in the block layer's letters
    (Documentation/trace/events.rst and blktrace's: R, RA, RM, W, …).
    """

    role: marker.RoleName
    device: str
    operation: str
    start: int
    bytes: int
    times: int


class Mapped(NamedTuple):
    """What the driver of ``device`` has mapped for DMA."""

    device: str
    direction: tuple[Direction, ...]
    calls: int
    bytes: int


def requests(bpf: Any) -> list[DiskRequest]:
    """The requests to disks since the last reset, while work was watched."""
    return sorted(
        DiskRequest(
            role=marker.role_name(key.role),
            device=f"{key.device >> 20}:{key.device & 0xFFFFF}",
            operation=struct.pack("=Q", key.operation).split(b"\0")[0].decode(),
            start=key.sector * SECTOR_BYTES,
            bytes=key.bytes,
            times=ctypes.c_int64(times.value).value,
        )
        for key, times in bpf["requests"].items()
    )


def mappings(bpf: Any) -> list[Mapped]:
    """What was mapped for DMA since the last reset, while work was watched."""
    return [
        Mapped(
            device=bytes(key.device).split(b"\0")[0].decode(errors="replace"),
            direction=_MAPPED[key.direction],
            calls=cell.calls,
            bytes=cell.bytes,
        )
        for key, cell in bpf["mappings"].items()
        if key.direction in _MAPPED
    ]


def modules(bpf: Any) -> set[str]:
    """Names of modules that were loaded since the last reset, but for those that failed to."""
    names = (bytes(key.text) for key in bpf["loaded_modules"])
    return {name.partition(b"\0")[0].decode(errors="replace") for name in names}


def syscall_name(number: int) -> str | None:
    if number == NO_SYSCALL:
        return None
    if number & (compat.MARK | compat.X32):
        return compat.name(number)
    if operations.IO_URING_FIRST <= number < operations.MAX_NUMBER:
        return operations.name(number)
    return _NAMES.get(number, f"syscall_{number}")
