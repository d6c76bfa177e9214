"""Switches of the kernel's with which it takes probes, and never runs them."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path
from typing import NamedTuple


class Switch(NamedTuple):
    """A file that says ``0`` where what it is for is off, and how to put it on again."""

    path: Path
    what: str
    remedy: str


_SWITCHES = (
    Switch(
        Path("/proc/sys/kernel/ftrace_enabled"),
        "sysctl kernel.ftrace_enabled is 0: functions run none of their probes",
        "sysctl kernel.ftrace_enabled=1",
    ),
    Switch(
        Path("/sys/kernel/debug/kprobes/enabled"),
        "/sys/kernel/debug/kprobes/enabled is 0: no kprobe runs",
        "echo 1 > /sys/kernel/debug/kprobes/enabled",
    ),
)


def off(switches: tuple[Switch, ...] = _SWITCHES) -> list[Switch]:
    """Those that are off; of one that cannot be read nothing is known."""
    found = []
    for switch in switches:
        with suppress(OSError):
            if switch.path.read_text().strip() == "0":
                found.append(switch)
    return found
