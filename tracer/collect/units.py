"""What units and other cgroups have moved up to now, and the CPU has copied for them.

Reads a table of probes/bpf/flows.c. Part of collecting.
"""

from __future__ import annotations

import ctypes
import os
from collections import defaultdict
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

from zctrace.collect.mounts import mounts
from zctrace.evidence.account import NO_CALL, UnitBytes
from zctrace.probes.syscalls import ALWAYS_COPY, OTHER_ENDS

KERNEL, GONE = "kernel", "gone"
"""What is copied outside of any process, and cgroups that were not there when it was looked."""
_UNITS = (".service", ".scope", ".socket", ".mount", ".swap")


class Units:
    """The rows of a meter's ``tables``, from now on.

    Names of cgroups are remembered when they are gone.
    """

    def __init__(self, tables: Any, syscall_name: Callable[[int], str | None]) -> None:
        self._table, self._syscall_name = tables["units"], syscall_name
        self._names = {0: KERNEL}
        tables["by_unit"][ctypes.c_int(0)] = ctypes.c_uint32(1)

    def rows(self) -> tuple[UnitBytes, ...]:
        """By unit and call, all that there is by now."""
        rows = [
            (key.cgroup, self._syscall_name(key.syscall) or NO_CALL, row)
            for key, row in self._table.items()
        ]
        if not {number for number, _, _ in rows} <= self._names.keys():
            self._look()
        sums: dict[tuple[str, str], list[int]] = defaultdict(lambda: [0, 0, 0])
        for number, call, row in rows:
            copied = row.copied
            if call in ALWAYS_COPY:
                # Some of it, or all, where no copy site counts it.
                copied = max(copied, row.received + row.delivered)
            own = sums[self._names.get(number, GONE), call]
            own[0] += row.received
            own[1] += row.delivered
            # As in the answer.
            own[2] += 0 if call in OTHER_ENDS else copied
        return tuple(UnitBytes(*key, *figures) for key, figures in sorted(sums.items()))

    def _look(self) -> None:
        for root in [m.point for m in mounts() if m.file_system == "cgroup2"][:1]:
            for folder, _, _ in os.walk(root):
                with suppress(OSError):
                    number = Path(folder).stat().st_ino
                    self._names[number] = unit_of(Path(folder).relative_to(root))


def unit_of(cgroup: Path) -> str:
    """The unit that a cgroup is, or is inside of; without one its path.

    With those around it: one of a user, or in a container, may have the name of a system's.
    """
    units = [part for part in cgroup.parts if part.endswith(_UNITS)]
    name = "/".join(units) or f"/{'/'.join(cgroup.parts)}"
    return os.fsencode(name).decode(errors="replace")
