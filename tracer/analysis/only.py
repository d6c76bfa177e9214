"""A part of a traced program: some ports, files, descriptors or system calls alone.

Everything was counted; here the rest is left out. What was copied for no file or socket that is
known may belong to the part, and is said to.
"""

from __future__ import annotations

import dataclasses
import re
from collections import Counter
from collections.abc import Iterable
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING

from zctrace.analysis import border, explained, lines
from zctrace.analysis.explained import Explanation
from zctrace.evidence.account import FILE, SOCKET, Account, Booking, FlowWay, Only, Thing
from zctrace.probes.model import Direction
from zctrace.workloads.marker import RoleName

if TYPE_CHECKING:
    from zctrace.analysis.program import Answer

_PORTS = re.compile(r":(\d+)(?= |$)")
"""In the name of a socket: its own, and its peer's."""
_CUT = "…"
"""In the name of a file that is in too many folders."""


def narrowed(found: Answer, only: Only) -> Answer:
    """The answer for that part of the program."""
    account = found.trace.account
    things = _things(account, only)
    calls = set(only.calls)

    def is_part(thing: int | None, syscall: str | None) -> bool:
        return (things is None or thing in things) and (not calls or syscall in calls)

    flows = tuple(flow for flow in account.flows if is_part(flow.thing, flow.syscall))
    bookings = tuple(b for b in account.bookings if is_part(b.thing, b.syscall))
    plain = tuple(b for b in found.explanation.plain if is_part(b.thing, b.syscall))
    unexplained = tuple(u for u in found.explanation.unexplained if is_part(u.thing, u.syscall))
    run = dataclasses.replace(
        found.trace.run,
        counts=tuple(c for c in found.trace.run.counts if c.role is not RoleName.PROGRAM),
    )
    part = dataclasses.replace(account, flows=flows, bookings=bookings, stacks=())
    trace = dataclasses.replace(found.trace, account=part, run=run)
    payload = [b for b in (*bookings, *plain) if lines.moves(b.syscall)]
    others = [
        b
        for b in (*account.bookings, *found.explanation.plain)
        if not is_part(b.thing, b.syscall) and lines.moves(b.syscall)
    ]
    copied: Counter[Direction | None] = Counter()
    for booking in payload:
        copied[booking.direction] += booking.bytes
    beyond = explained.unexplained_of(trace, payload) - sum(u.bytes for u in unexplained)
    return dataclasses.replace(
        found,
        trace=trace,
        # What of it stayed in the program, only all of the program tells.
        border=dataclasses.replace(border.of(part), from_memory=copied.total()),
        copied=None if found.copied is None else dict(copied),
        beside={},
        unassigned=found.unassigned + _of_others(found, part, others, calls, beyond),
        calls=lines.of_calls(trace, payload),
        things=lines.of_things(trace, payload),
        sites=[line for line in found.sites if things is None and _call_of(line.name) in calls],
        threads=[],
        reasons=[],
        transformed=dataclasses.replace(found.transformed, by=()),
        explanation=Explanation(unexplained, plain, ()),
        doubts=(*found.doubts, *_doubts(account, only, things)),
        notes=(*found.notes, *_notes(found, only)),
    )


def words(only: Only) -> str:
    """What the part is, for people."""
    parts = [
        *(f"port {port}" for port in only.ports),
        *(f"file {file}" for file in only.files),
        *(f"descriptor {number}" for number in only.descriptors),
        *only.calls,
    ]
    return ", ".join(parts)


def _call_of(site: str) -> str:
    return site.rpartition(", ")[2]


def _things(account: Account, only: Only) -> set[int | None] | None:
    """Those that are part of it; ``None`` where every one may be."""
    if not (only.ports or only.files or only.descriptors):
        return None
    had: dict[int | None, set[int]] = {}
    for flow in account.flows:
        if flow.descriptor is not None:
            had.setdefault(flow.thing, set()).add(flow.descriptor)
    return {
        number
        for number, thing in enumerate(account.things)
        if (not only.ports or _has_port(thing, only.ports))
        and (not only.files or _is_named(thing, only.files))
        and (not only.descriptors or had.get(number, set()) & set(only.descriptors))
    }


def _has_port(thing: Thing, ports: Iterable[int]) -> bool:
    return thing.kind == SOCKET and bool(_ports(thing) & set(ports))


def _ports(thing: Thing) -> set[int]:
    """Its own and its peer's; 0: when it was first seen, it had none."""
    return {int(port) for port in _PORTS.findall(thing.name)}


def _is_named(thing: Thing, patterns: Iterable[str]) -> bool:
    """By a pattern of a shell's for its path, or, without a folder, for its name alone."""
    if thing.kind == SOCKET:
        return False
    name = thing.name.rpartition("/")[2]
    return any(fnmatchcase(thing.name if "/" in p else name, p) for p in patterns)


def _of_others(
    found: Answer, part: Account, others: Iterable[Booking], calls: set[str], beyond: int
) -> int:
    """Bytes copied for something else, or for nothing that is known, that may be the part's.

    ``beyond`` are those of its own that nothing of its own explains.
    """
    two_ended = {flow.syscall for flow in part.flows if flow.way is FlowWay.IN}
    unknown = handed_on = inside = 0
    for booking in others:
        thing = border.thing(part, booking.thing)
        of_another_call = bool(calls) and booking.syscall not in (None, *calls)
        is_known = of_another_call or (booking.thing is not None and not thing.many)
        if not is_known or booking.syscall is None:
            unknown += booking.bytes
        elif booking.direction is not Direction.KERNEL_TO_KERNEL:
            continue
        elif booking.syscall in two_ended:
            # Between two kernel buffers: counted for where it goes, and read from this part.
            handed_on += booking.bytes
        else:
            inside += booking.bytes
    if any(border.thing(part, flow.thing).kind == SOCKET for flow in part.flows):
        # Packets are copied in softirqs, on top of any call.
        whole = found.evidence.trace
        assert whole is not None
        unknown += min(inside, explained.of_socket_buffers(whole))
    return unknown + max(handed_on, beyond, 0)


def _doubts(account: Account, only: Only, things: set[int | None] | None) -> Iterable[str]:
    if things is None:
        return
    unsure = {
        number
        for number, thing in enumerate(account.things)
        if number not in things
        and (
            thing.many
            or (bool(only.ports) and thing.kind == SOCKET and 0 in _ports(thing))
            or (bool(only.files) and thing.kind == FILE and _CUT in thing.name)
        )
    }
    size = sum(flow.bytes for flow in account.flows if flow.thing in {None, *unsure})
    if size:
        yield (
            f"{size} B went through files or sockets whose names or ports are not known, or "
            f"not one by one: which of them belong to {words(only)} is not known"
        )


def _notes(found: Answer, only: Only) -> Iterable[str]:
    yield (
        f"only {words(only)}; the numbers of system calls, page faults and context switches "
        "are those of the whole program"
    )
    if found.transformed.by and found.transformed.bytes:
        yield (
            f"{found.transformed.bytes} B were encrypted or checksummed by the CPU for the "
            "whole program"
        )
