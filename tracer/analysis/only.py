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

from zctrace.analysis import border, lines
from zctrace.analysis.explained import Explanation
from zctrace.evidence.account import SOCKET, Account, Only, Thing
from zctrace.probes.model import Direction
from zctrace.workloads.marker import RoleName

if TYPE_CHECKING:
    from zctrace.analysis.program import Answer

_PORTS = re.compile(r":(\d+)(?= |$)")
"""In the name of a socket: its own, and its peer's."""


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
    copied: Counter[Direction | None] = Counter()
    for booking in payload:
        copied[booking.direction] += booking.bytes
    return dataclasses.replace(
        found,
        trace=trace,
        border=border.of(part),
        copied=None if found.copied is None else dict(copied),
        beside={},
        unassigned=found.unassigned + _of_no_thing(found, only, calls),
        calls=lines.of_calls(trace, payload),
        things=lines.of_things(trace, payload),
        sites=[line for line in found.sites if things is None and _call_of(line.name) in calls],
        threads=[],
        reasons=[],
        transformed=dataclasses.replace(found.transformed, by=()),
        explanation=Explanation(unexplained, plain, ()),
        within=[],
        doubts=(*found.doubts, *_doubts(account, only)),
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
    found = {int(port) for port in _PORTS.findall(thing.name)}
    return thing.kind == SOCKET and bool(found & set(ports))


def _is_named(thing: Thing, patterns: Iterable[str]) -> bool:
    """By a pattern of a shell's for its path, or, without a folder, for its name alone."""
    if thing.kind == SOCKET:
        return False
    name = thing.name.rpartition("/")[2]
    return any(fnmatchcase(thing.name if "/" in p else name, p) for p in patterns)


def _of_no_thing(found: Answer, only: Only, calls: set[str]) -> int:
    """Bytes that were copied for what is not known: they may be the part's."""
    if not (only.ports or only.files or only.descriptors):
        return sum(b.bytes for b in found.trace.account.bookings if b.syscall is None and calls)
    return sum(
        booking.bytes
        for booking in (*found.trace.account.bookings, *found.explanation.plain)
        if booking.thing is None and lines.moves(booking.syscall)
        if not calls or booking.syscall in (None, *calls)
    )


def _doubts(account: Account, only: Only) -> Iterable[str]:
    if not (only.ports or only.files or only.descriptors):
        return
    many = {number for number, thing in enumerate(account.things) if thing.many}
    size = sum(flow.bytes for flow in account.flows if flow.thing in {None, *many})
    if size:
        yield (
            f"{size} B went through files or sockets that are not known one by one: which of "
            f"them belong to {words(only)} is not known"
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
