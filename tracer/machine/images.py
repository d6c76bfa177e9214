"""Disk images that the payload lives on, and whether there is room for them."""

from __future__ import annotations

import shutil
import subprocess
import tempfile
from collections.abc import Sequence
from pathlib import Path

from zctrace import packages, trust
from zctrace.errors import MissingError, ResourceError
from zctrace.machine import qemu
from zctrace.machine.places import Place

_DISK_RESERVE = 64 << 20
FILE_SYSTEMS = {
    "ext4": ("mkfs.ext4 -q -F", 0),
    "xfs": ("mkfs.xfs -q -f", 320 << 20),
    "btrfs": ("mkfs.btrfs -q -f", 128 << 20),
    "tmpfs": ("", 0),
}
"""How each is made (empty: by mounting it), and the least size in bytes that it takes."""


def image_size(payload_bytes: int, file_system: str) -> int:
    """Bytes of the image that a payload, and a copy of it, live on."""
    _, least = FILE_SYSTEMS[file_system]
    return max(payload_bytes * 9 // 4 + _DISK_RESERVE, least)


def check_resources(
    payload_bytes: int,
    file_systems: Sequence[str],
    places: list[Place],
    more_bytes: int = 0,
) -> None:
    """Raise :class:`ResourceError` where memory or disk is too small for the payload.

    Without ``file_systems`` the payload is a file that is there. ``more_bytes`` of memory are
    for what is not as large as the payload.
    """
    cached = payload_bytes * max(len(file_systems), 1)
    wanted = cached * 5 // 2 + more_bytes
    if any(place.kernel for place in places):
        wanted = qemu.memory_for(cached) + more_bytes
    available = available_memory()
    if wanted > available:
        raise ResourceError(
            f"a payload of {payload_bytes} B needs {wanted >> 20} MiB of memory, "
            f"{available >> 20} MiB are available",
            "the page cache and a user buffer hold the payload at the same time",
            "a smaller --size",
        )
    folder = Path(tempfile.gettempdir())
    free = shutil.disk_usage(folder).free
    images = sum(image_size(payload_bytes, kind) for kind in file_systems)
    if images > free:
        raise ResourceError(
            f"a payload of {payload_bytes} B needs {images >> 20} MiB in "
            f"{folder}, {free >> 20} MiB are free",
            hint="TMPDIR=FOLDER puts temporary files elsewhere",
        )


def available_memory() -> int:
    with open("/proc/meminfo") as file:
        for line in file:
            if line.startswith("MemAvailable:"):
                return int(line.split()[1]) << 10
    return 0


def make_image(image: Path, kind: str, payload_bytes: int) -> None:
    """Make an empty file system for a payload; raises ``ZctraceError``."""
    program, _ = FILE_SYSTEMS[kind]
    with image.open("wb") as file:
        file.truncate(image_size(payload_bytes, kind))
    try:
        result = subprocess.run(
            [*program.split(), str(image)],
            capture_output=True,
            text=True,
            env=trust.system_environment(),
        )
    except FileNotFoundError as error:
        raise MissingError(
            f"{program.split()[0]} is not installed",
            f"the payload lives on a file system of its own, {kind} here",
            packages.remedy(kind),
        ) from error
    if result.returncode:
        raise ResourceError(
            f"{program.split()[0]} failed", result.stderr.strip(), "more room in TMPDIR"
        )
