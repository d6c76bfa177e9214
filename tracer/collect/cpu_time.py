"""CPU time of a traced program, as the kernel accounts it. Part of collecting."""

from __future__ import annotations

import os
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

from zctrace.collect import processes

_TICKS = os.sysconf("SC_CLK_TCK")
_UTIME, _STIME = 11, 12
"""Of the fields behind the name in /proc/PID/stat (proc(5)), from 0."""


def of_cgroup(folder: Path) -> float | None:
    """Seconds of all processes that are or were in it; ``None`` where it is of version 1."""
    with suppress(OSError, ValueError):
        for line in (folder / "cpu.stat").read_text().splitlines():
            name, _, value = line.partition(" ")
            if name == "usage_usec":
                return int(value) / 1e6
    return None


def of_processes(pids: Iterable[int]) -> float:
    """Seconds of those that are there, with their threads that have ended."""
    total = 0
    for process in pids:
        with suppress(OSError, ValueError):
            fields = processes.behind_name(Path(f"/proc/{process}/stat"))
            total += int(fields[_UTIME]) + int(fields[_STIME])
    return total / _TICKS
