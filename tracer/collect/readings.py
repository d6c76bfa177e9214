"""What the meter's tables say, and what BCC knows of numbers and files in them."""

from __future__ import annotations

import ctypes
import struct
from contextlib import suppress
from typing import Any, NamedTuple

import bcc
import bcc.syscall

from zctrace.probes import compat
from zctrace.probes.model import Direction
from zctrace.workloads import marker

NO_SYSCALL = 0xFFFFFFFF
"""In the place of a system call's number: outside of one."""
_SYSCALLS: dict[int, str] = {
    **{number: name.decode() for number, name in bcc.syscall.syscalls.items()},
    # Not in the table that BCC has in itself.
    **{425: "io_uring_setup", 426: "io_uring_enter", 427: "io_uring_register"},
}
SYSCALLS = {name: number for number, name in _SYSCALLS.items()}
"""Numbers of x86-64's system calls, by name."""

SECTOR_BYTES = 512
_MAPPED = {
    0: (Direction.KERNEL_TO_DEVICE, Direction.DEVICE_TO_KERNEL),
    1: (Direction.KERNEL_TO_DEVICE,),
    2: (Direction.DEVICE_TO_KERNEL,),
}
"""enum dma_data_direction (include/linux/dma-direction.h)."""

_BUILD_ID_DIGITS = 40


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
    """What disks were told to do since the last reset, while work was watched."""
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


def empty(table: Any) -> None:
    """Take everything out of a table, also while the meter's programs do.

    BCC takes it for an error when a row is gone that it has just seen: that of a process which
    ends at this moment, say.
    """
    while True:
        with suppress(KeyError):
            table.clear()
            return


def build_id(path: str) -> str:
    """Of a program or library, in hexadecimal digits; empty if it has none."""
    digits = ctypes.create_string_buffer(_BUILD_ID_DIGITS + 1)
    found = bcc.lib.bcc_elf_get_buildid(path.encode(), digits) == 0
    return digits.value.decode() if found else ""


def offset_of(path: str, name: str) -> int | None:
    """Where in the file a function's code is; ``None`` if there is no such symbol."""
    symbol = bcc.bcc_symbol()
    found = bcc.lib.bcc_resolve_symname(
        path.encode(), name.encode(), 0, 0, None, ctypes.byref(symbol)
    )
    if found < 0:
        return None
    bcc.lib.bcc_procutils_free(symbol.module)
    return int(symbol.offset)


def syscall_name(number: int) -> str | None:
    if number == NO_SYSCALL:
        return None
    if number & (compat.MARK | compat.X32):
        return compat.name(number)
    return _SYSCALLS.get(number, f"syscall_{number}")
