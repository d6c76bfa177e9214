"""What units and other cgroups have moved, where the meter's rows are of these.

Part of collecting.
"""

from __future__ import annotations

import os
from collections import defaultdict
from contextlib import suppress
from pathlib import Path

from zctrace.collect.mounts import mounts
from zctrace.evidence.account import NO_CALL, Account, FlowWay, UnitBytes

KERNEL, GONE = "kernel", "gone"
"""What is copied outside of any process, and cgroups that were not there when it was looked."""
_UNITS = (".service", ".scope", ".socket", ".mount", ".swap")
_KEPT = (1 << 32) - 1
"""Of a cgroup's number the meter keeps the lower half (probes/bpf/threads.c)."""


class Units:
    """Names of cgroups, remembered when they are gone."""

    def __init__(self) -> None:
        self._names = {0: KERNEL}

    def rows(self, account: Account) -> tuple[UnitBytes, ...]:
        """By unit and call, all that ``account`` has; its processes are numbers of cgroups."""
        sums: dict[tuple[int, str], list[int]] = defaultdict(lambda: [0, 0, 0])
        for flow in account.flows:
            own = sums[flow.process, flow.syscall or NO_CALL]
            own[flow.way is FlowWay.OUT] += flow.bytes
        for booking in account.bookings:
            sums[booking.process or 0, booking.syscall or NO_CALL][2] += booking.bytes
        if not {number for number, _ in sums} <= self._names.keys():
            self._look()
        found: dict[tuple[str, str], list[int]] = defaultdict(lambda: [0, 0, 0])
        for (number, call), figures in sums.items():
            row = found[self._names.get(number, GONE), call]
            row[:] = [one + more for one, more in zip(row, figures, strict=True)]
        return tuple(UnitBytes(*key, *figures) for key, figures in sorted(found.items()))

    def _look(self) -> None:
        for root in [m.point for m in mounts() if m.file_system == "cgroup2"][:1]:
            for folder, _, _ in os.walk(root):
                with suppress(OSError):
                    number = Path(folder).stat().st_ino & _KEPT
                    self._names[number] = unit_of(Path(folder).relative_to(root))


def unit_of(cgroup: Path) -> str:
    """The unit that a cgroup is, or is inside of; without one its path."""
    units = [part for part in cgroup.parts if part.endswith(_UNITS)]
    return units[-1] if units else f"/{'/'.join(cgroup.parts)}"
