"""What is below a file or device: the file systems and the drivers that its bytes pass.

Sources: Documentation/admin-guide/sysfs-rules.rst, Documentation/filesystems/overlayfs.rst.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

from zctrace.collect.mounts import Mount

UNKNOWN = "unknown"
"""In the place of a driver that could not be found."""
_SYSFS = Path("/sys/dev")
_PLAN9 = "9p"
_OVERLAY, _LAYERS = "overlay", ("lowerdir", "upperdir")
_SCSI_DISK = "sd"
"""The driver of a disk whose bytes another driver moves: that of the adapter."""
_NOTHING_IN_COMMON = ("mem", "misc")
"""The subsystems of /dev/null and /dev/zero, of /dev/fuse and the like."""
_MINOR_BITS = 20


def of_block_device(number: int) -> str:
    """The driver that moves a block device's bytes: ``nvme``, ``ahci``, ``loop``, ``dm``.

    ``number`` is the device's as the kernel has it inside. Of a device that is made by software
    it is the name without its number.
    """
    node = _node("block", number)
    if node is None:
        return UNKNOWN
    if (node / "partition").exists():
        node = node.parent
    if "virtual" in node.parts:
        return re.sub(r"[-\d].*", "", node.name)
    for above in node.parents:
        driver = (above / "driver").resolve()
        if driver.exists() and driver.name not in ("driver", _SCSI_DISK):
            return driver.name
    return UNKNOWN


def of_character_device(number: int) -> str:
    """Its subsystem, ``tty``; of some its name: ``null``, ``fuse``."""
    node = _node("char", number)
    if node is None:
        return UNKNOWN
    subsystem = (node / "subsystem").resolve().name
    return node.name if subsystem in _NOTHING_IN_COMMON else subsystem


def of_file_system(device: int, mounted: Iterable[Mount]) -> tuple[str, ...]:
    """What a file system is on, from its device's number; nothing where it is on nothing.

    The driver of its disk; of an overlay the file systems of its layers, and their drivers.
    """
    if device >> _MINOR_BITS:
        return (of_block_device(device),)
    mounted = tuple(mounted)
    for mount in mounted:
        if mount.device != device:
            continue
        if mount.file_system == _OVERLAY:
            return _of_layers(mount, mounted)
        if mount.file_system == _PLAN9:
            return (f"9pnet_{_options(mount).get('trans', UNKNOWN)}",)
        # Some, btrfs for one, have a number of their own.
        with suppress(OSError):
            if mount.source.startswith("/") and (at := Path(mount.source).stat().st_rdev):
                return (of_block_device(_inside(at)),)
        return ()
    return ()


def _of_layers(overlay: Mount, mounted: tuple[Mount, ...]) -> tuple[str, ...]:
    found: set[str] = set()
    options = _options(overlay)
    for layer in ":".join(options.get(name, "") for name in _LAYERS).split(":"):
        if not layer:
            continue
        # What the overlay itself hides: a layer may be the folder that it is mounted on.
        around = [
            mount
            for mount in mounted
            if mount.device != overlay.device and Path(layer).is_relative_to(mount.point)
        ]
        below = max(around, key=lambda mount: len(mount.point.parts), default=None)
        if below is None or below.file_system == _OVERLAY:
            return (UNKNOWN,)
        found |= {below.file_system, *of_file_system(below.device, mounted)}
    return tuple(sorted(found)) or (UNKNOWN,)


def _options(mount: Mount) -> dict[str, str]:
    return dict(option.partition("=")[::2] for option in mount.options)


def _inside(number: int) -> int:
    """A device's number as the kernel has it inside."""
    return os.major(number) << _MINOR_BITS | os.minor(number)


def _node(kind: str, number: int) -> Path | None:
    major, minor = number >> _MINOR_BITS, number & (1 << _MINOR_BITS) - 1
    node = _SYSFS / kind / f"{major}:{minor}"
    return node.resolve() if node.exists() else None
