"""What processes have mapped to be executed. Part of collecting."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Mapping:
    """A stretch of memory that a file is mapped at, to be executed; ``offset`` in the file."""

    start: int
    end: int
    offset: int
    path: str


def mappings(process: int | str) -> list[Mapping]:
    """What the process has mapped to be executed, of files; raises ``OSError``."""
    found = []
    for line in Path(f"/proc/{process}/maps").read_bytes().split(b"\n"):
        fields = os.fsdecode(line).split(maxsplit=5)
        if len(fields) == 6 and "x" in fields[1] and fields[5].startswith("/"):
            start, _, end = fields[0].partition("-")
            found.append(Mapping(int(start, 16), int(end, 16), int(fields[2], 16), fields[5]))
    return found


def as_seen_by(process: int, path: str) -> str:
    """The same file for us, who may be in another mount namespace."""
    return f"/proc/{process}/root{path}"
