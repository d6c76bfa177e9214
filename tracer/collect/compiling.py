"""What the meter is compiled from: its sources, and its parameters as ``-D``."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from zctrace.collect import compat, flows, settings, stacks
from zctrace.collect.readings import NO_SYSCALL
from zctrace.plan.attachments import AttachPlan
from zctrace.plan.places import REGISTER_NUMBERS, Amount
from zctrace.probes.model import DIRECTION_NUMBERS, LARGE, Mechanism, Quantity, Returned
from zctrace.probes.user_functions import PROGRAM_COPIES
from zctrace.workloads import marker

_THREADS = "threads.c"
_SOURCES = (
    "settings.h",
    "registers.h",
    "direction.h",
    "window.c",
    _THREADS,
    "tally.c",
    "calls.c",
    "owner.c",
    "devices.c",
)
_FLOWS = ("compat.c", "flows.c", "rings.c")
_TRANSFORMS, _COPIES = "transforms.c", "copies.c"
_USER_MEMORY, _METER = "user_memory.c", "meter.c"
_ALL = {*_SOURCES, *_FLOWS, _TRANSFORMS, _COPIES, _USER_MEMORY, _METER}
_BEGINNING = re.compile(r'^#line 1 "(.+)"$', re.MULTILINE)
_MAX_TALLIES, _MAX_WINDOWS, _MAX_THREADS, _MAX_OWNERS = 8192, 10240, 10240, 65536
_MAX_REQUESTS, _MAX_MAPPINGS, _MAX_CPUS = 65536, 256, 8192
_SOME_SITES, _SOME_CALL_SITES = 1009, 1013
"""What stands in the text for numbers that depend on the run; no other table's."""
_LATER_CALL_SITES = 1024
"""Room for those in modules that are loaded later."""
_TASK_REPORT_MAX = 0x100
"""Set in sched_switch's prev_state for a preempted task (include/linux/sched.h)."""
LOST = ("tally", "window", "syscall", "call", "part", "owner", "request", "mapping")
"""Causes of loss, in the order of their numbers; of flows there is one more."""
LOST_FLOWS = ("flow", "completion")
INSTRUCTION_POINTERS = (0, 1)
"""What the instruction pointer may say in a probe: the place probed, or, on x86, the byte
behind the breakpoint instruction that the probe puts there."""

SUBJECT, PEER = 1, 2
"""What the meter calls the ends of a transfer."""

_ROOM = flows.Room()


@dataclass(frozen=True)
class MeterOptions:
    """What a meter does in addition to counting copies and events.

    With ``follow_flows`` it keeps account of files, sockets and pipes
    (:mod:`zctrace.collect.flows`), in as much ``room``, and with ``keep_stacks`` also of the
    stack of each copy (:mod:`zctrace.collect.stacks`). Copies of at least
    ``user_copies_from`` bytes within a program's own memory are counted; ``None``: not.
    """

    follow_flows: bool = False
    room: flows.Room = _ROOM
    keep_stacks: bool = False
    user_copies_from: int | None = None

    @property
    def own_memory(self) -> bool:
        """Whether the own memory of a traced program is watched."""
        return self.follow_flows and self.user_copies_from is not None


def source(probes: Path, options: MeterOptions) -> str:
    """The text that BCC compiles, of the files in ``probes``."""
    names = (
        *(name for name in _SOURCES if options.follow_flows or name != _THREADS),
        *(_FLOWS if options.follow_flows else ()),
        _TRANSFORMS,
        _COPIES,
        *([] if options.user_copies_from is None else [_USER_MEMORY]),
        _METER,
    )
    return _together(probes, names)


def is_ours(probes: Path, text: str) -> bool:
    """Whether :func:`source` can have given that text."""
    names = _BEGINNING.findall(text)
    each_once = len(names) == len(set(names))
    return bool(names) and each_once and set(names) <= _ALL and text == _together(probes, names)


def _together(probes: Path, names: Iterable[str]) -> str:
    return "".join(f'#line 1 "{name}"\n{(probes / "bpf" / name).read_text()}' for name in names)


def tables(options: MeterOptions) -> tuple[str, ...]:
    """Those that are cleared between one stretch of work and the next."""
    return (
        *("tallies", "windows", "syscall_of", "calls", "transforming", "owners"),
        *(flows.TABLES if options.follow_flows else ("requests", "mappings")),
        *(stacks.TABLES if options.keep_stacks else ()),
        *(("programs", "executed") if options.own_memory else ()),
    )


def parameters(plan: AttachPlan, options: MeterOptions) -> dict[str, str]:
    """Names and values for ``-D``: of a kernel, of no run."""
    watched = sorted(marker.WATCHED)
    return {
        **settings.parameters(),
        **_numbers(),
        "ROLE_UNATTRIBUTED": hex(marker.OUTSIDE),
        "ROLE_TAPPED": hex(marker.TAPPED),
        "IS_TRACKED(role)": f"({' || '.join(f'(role) == {r:d}' for r in watched)})",
        "MAX_SITES": str(_SOME_SITES),
        "MAX_TALLIES": str(_MAX_TALLIES),
        "MAX_WINDOWS": str(_MAX_WINDOWS),
        "MAX_THREADS": str(_MAX_THREADS),
        "MAX_CPUS": str(_MAX_CPUS),
        "MAX_OWNERS": str(_MAX_OWNERS),
        "MAX_REQUESTS": str(_MAX_REQUESTS),
        "MAX_MAPPINGS": str(_MAX_MAPPINGS),
        "PEER_OF(role)": (
            f"((role) == {marker.Role.RECEIVER:d} ? {marker.Role.SOURCE:d}"
            f" : {marker.Role.SINK:d})"
        ),
        "MAX_CALL_SITES": str(_SOME_CALL_SITES),
        "END_SUBJECT": str(SUBJECT),
        "SWITCH_PREEMPTED": hex(_TASK_REPORT_MAX),
        **(flows.parameters(options.room) | compat.PARAMETERS if options.follow_flows else {}),
        **(stacks.PARAMETERS if options.keep_stacks else {}),
        **dict(plan.parameters),
    }


def entries(plan: AttachPlan) -> dict[int, int]:
    """What is made of tables with as many entries as stand in the text."""
    sites = first_user_copy(plan) + len(PROGRAM_COPIES)
    places = len(INSTRUCTION_POINTERS) * sum(len(c.calls) for c in plan.calls)
    return {_SOME_SITES: max(sites, 1), _SOME_CALL_SITES: places + _LATER_CALL_SITES}


def first_user_copy(plan: AttachPlan) -> int:
    """The meter's number of the first function that copies within user memory."""
    numbers = [
        *(copy.number for copy in plan.copies),
        *(call.number for call in plan.calls),
        *(event.number for event in plan.events),
    ]
    return 1 + max(numbers, default=-1)


def names(plan: AttachPlan) -> dict[int, tuple[str, Quantity, Mechanism]]:
    """Function, quantity and mechanism by the meter's site numbers."""
    calls = {
        c.number: (c.target.function, c.target.quantity, Mechanism.CALL_SITE)
        for c in plan.calls
    }
    copies = {c.number: (c.site.function, c.site.quantity, c.mechanism) for c in plan.copies}
    events = {
        e.number: (e.site.tracepoint, e.site.quantity, Mechanism.TRACEPOINT)
        for e in plan.events
    }
    first = first_user_copy(plan)
    within = {
        number: (copy.function, Quantity.USER_MEMORY, Mechanism.UPROBE)
        for number, copy in enumerate(PROGRAM_COPIES, start=first)
    }
    return calls | copies | events | within


def _numbers() -> dict[str, str]:
    """For the meter's ``-D``: what it and its readers have numbers for."""
    causes = (*LOST, *LOST_FLOWS)
    return {
        "MARKER_OPTION": hex(marker.OPTION),
        "NO_SYSCALL": f"{NO_SYSCALL:#x}U",
        "LOST_CAUSES": str(len(causes)),
        **{f"LOST_{cause.upper()}": str(number) for number, cause in enumerate(causes)},
        **{f"MARKER_{o.name}": str(o.value) for o in marker.Operation},
        **{f"SCOPE_{scope.name}": str(scope.value) for scope in marker.Scope},
        **{way.name: str(number) for way, number in DIRECTION_NUMBERS.items()},
        "IS_LARGE": str(LARGE),
        **{f"RETURNED_{returned.name}": str(returned.value) for returned in Returned},
        **{f"AMOUNT_{amount.name}": str(amount.value) for amount in Amount},
        **{f"REGISTER_{name.upper()}": str(n) for name, n in REGISTER_NUMBERS.items()},
    }
