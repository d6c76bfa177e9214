"""The disk under a file: which device it is, and where on it the file's bytes are.

Sources: Documentation/filesystems/fiemap.rst, Documentation/admin-guide/sysfs-rules.rst.
"""

from __future__ import annotations

import fcntl
import os
import struct
from dataclasses import dataclass
from pathlib import Path

from zctrace.collect.mounts import mounts
from zctrace.collect.network import on_bus
from zctrace.evidence.devices import DiskFacts

_FS_IOC_FIEMAP = 0xC020660B
_FIEMAP_FLAG_SYNC = 1
_EXTENT_LAST = 0x1
_UNPLACED = 0x2 | 0x4 | 0x8 | 0x80 | 0x200
"""Unknown, delayed, encoded, encrypted, inside metadata: not plain bytes at a place."""
_HEADER = struct.Struct("=QQIIII")
_EXTENT = struct.Struct("=QQQQQIIII")
_EXTENTS_AT_ONCE = 512
_SECTOR_BYTES = 512
_BLOCK_DEVICES = Path("/sys/dev/block")
_OWN_ADDRESSES = ("btrfs",)
"""File systems whose extents are not addresses on the device: they have their own."""


@dataclass(frozen=True)
class Disk:
    """Where a file's bytes are.

    ``device`` is the disk's name, ``number`` its ``major:minor``, as the block layer's
    requests name it; ``bus_device`` the device that its driver maps memory for. ``extents``
    are pairs of offset and length in bytes on the disk, of the file from its beginning;
    ``None`` where the file system does not tell. ``trouble`` says why nothing on this disk
    can be measured; empty if it can.
    """

    device: str = ""
    number: str = ""
    driver: str = ""
    bus_device: str = ""
    extents: tuple[tuple[int, int], ...] | None = None
    trouble: str = ""

    def facts(self) -> DiskFacts:
        """For the evidence."""
        extents = None if self.extents is None else len(self.extents)
        return DiskFacts(self.device, self.driver, self.bus_device, extents, self.trouble)


def under(path: Path, size: int) -> Disk:
    """The disk under the first ``size`` bytes of a file, which are written back already."""
    source, kind = mounted(path)
    try:
        number = Path(source).stat().st_rdev if source.startswith("/") else 0
    except OSError:
        number = 0
    if not number:
        return Disk(trouble=f"{kind} is not on a disk")
    node = (_BLOCK_DEVICES / f"{os.major(number)}:{os.minor(number)}").resolve()
    begin = 0
    if (node / "partition").exists():
        begin = int((node / "start").read_text()) * _SECTOR_BYTES
        node = node.parent
    bus = on_bus(node)
    if bus is None:
        return Disk(
            device=node.name,
            trouble=f"{node.name} is no device that could transfer by itself",
        )
    extents = None if kind in _OWN_ADDRESSES else _extents(path, size, begin)
    return Disk(
        device=node.name,
        number=(node / "dev").read_text().strip(),
        driver=(bus / "driver").resolve().name,
        bus_device=bus.name,
        extents=extents,
    )


def overlap(extents: tuple[tuple[int, int], ...], start: int, length: int) -> int:
    """How many of ``length`` bytes from ``start`` lie in the extents."""
    return sum(
        max(0, min(start + length, begin + many) - max(start, begin)) for begin, many in extents
    )


def mounted(path: Path) -> tuple[str, str]:
    """What the file system of ``path`` is mounted from, and its kind."""
    wanted, best, found = path.resolve(), -1, ("", "")
    for mount in mounts():
        if wanted.is_relative_to(mount.point) and len(mount.point.parts) >= best:
            best, found = len(mount.point.parts), (mount.source, mount.file_system)
    return found


def _extents(path: Path, size: int, begin: int) -> tuple[tuple[int, int], ...] | None:
    """Where on the disk the bytes are, in whole pages; ``None`` if that is not known."""
    page = os.sysconf("SC_PAGE_SIZE")
    end = (size + page - 1) // page * page
    found: list[tuple[int, int]] = []
    at = 0
    file = os.open(path, os.O_RDONLY)
    try:
        while at < end:
            buffer = bytearray(_HEADER.size + _EXTENTS_AT_ONCE * _EXTENT.size)
            _HEADER.pack_into(
                buffer, 0, at, end - at, _FIEMAP_FLAG_SYNC, 0, _EXTENTS_AT_ONCE, 0
            )
            fcntl.ioctl(file, _FS_IOC_FIEMAP, buffer)
            mapped = _HEADER.unpack_from(buffer)[3]
            if not mapped:
                break
            for number in range(mapped):
                logical, physical, length, _, _, flags, *_ = _EXTENT.unpack_from(
                    buffer, _HEADER.size + number * _EXTENT.size
                )
                if flags & _UNPLACED:
                    return None
                skip = max(0, at - logical)
                inside = min(length, end - logical) - skip
                if inside > 0:
                    found.append((begin + physical + skip, inside))
                at = logical + length
                if flags & _EXTENT_LAST:
                    return tuple(found)
    except OSError:
        return None
    finally:
        os.close(file)
    return tuple(found)
