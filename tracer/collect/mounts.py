"""What is mounted where, in this process's mount namespace.

Source: proc_pid_mountinfo(5).
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

_FILE = Path("/proc/self/mountinfo")
_DEVICE_BITS = 20
_ESCAPED = re.compile(rb"\\([0-7]{3})")


@dataclass(frozen=True)
class Mount:
    """A line of it.

    ``device`` is the number of the file system's device as the kernel has it, and ``root``
    the folder of the file system that is seen at ``point``. ``options`` are the file
    system's own.
    """

    device: int
    root: str
    point: Path
    file_system: str
    source: str
    options: tuple[str, ...]


def mounts() -> list[Mount]:
    """Everything that is mounted now, in the order in which it was."""
    return list(parse(_FILE.read_bytes().splitlines()))


def parse(lines: Iterable[bytes]) -> Iterator[Mount]:
    """What such lines say. Characters that would end a field are escaped in them."""
    for line in lines:
        before, _, after = line.partition(b" - ")
        _, _, device, root, point, *_ = map(_text, before.split(b" "))
        kind, source, options = after.split(b" ", 2)
        major, _, minor = device.partition(":")
        number = int(major) << _DEVICE_BITS | int(minor)
        # A comma within an option is escaped: first the options, then what they say.
        each = tuple(map(_text, options.split(b",")))
        yield Mount(number, root, Path(point), _text(kind), _text(source), each)


def _text(field: bytes) -> str:
    return os.fsdecode(_ESCAPED.sub(lambda found: bytes([int(found[1], 8)]), field))
