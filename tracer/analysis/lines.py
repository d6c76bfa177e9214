"""Rows of tables about a traced program: by call, file or socket, copy site, and thread."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Hashable, Iterable
from dataclasses import dataclass, field

from zctrace.analysis import border
from zctrace.analysis.explained import PLAINLY
from zctrace.evidence.account import NO_CALL, Booking, Flow, FlowWay
from zctrace.evidence.schema import Count, Trace
from zctrace.probes.model import Direction, Quantity, plain
from zctrace.probes.syscalls import OTHER_ENDS
from zctrace.workloads.marker import RoleName

_PROGRAM = RoleName.PROGRAM


@dataclass
class Line:
    """One row of a table: how many calls, what they moved, what was copied for it. Bytes.

    ``copied`` is by direction; the key is ``None`` where the direction is not known.
    """

    name: str
    calls: int = 0
    received: int = 0
    delivered: int = 0
    copied: dict[Direction | None, int] = field(default_factory=lambda: defaultdict(int))
    descriptors: set[int] = field(default_factory=set)

    @property
    def copied_bytes(self) -> int:
        return sum(self.copied.values())

    @property
    def weight(self) -> tuple[int, int, int]:
        return self.copied_bytes, self.received + self.delivered, self.calls


def moves(syscall: str | None) -> bool:
    """Whether bytes copied in it, or outside of any, are payload."""
    return syscall not in OTHER_ENDS


def _lines(
    flows: Iterable[Flow],
    bookings: Iterable[Booking],
    of_flow: Callable[[Flow], tuple[Hashable, str]],
    of_booking: Callable[[Booking], tuple[Hashable, str]],
) -> list[Line]:
    """What moved and what was copied, by a key; the most copied first."""
    lines: dict[Hashable, Line] = {}
    for flow in flows:
        key, name = of_flow(flow)
        line = lines.setdefault(key, Line(name))
        line.calls += flow.calls
        if flow.descriptor is not None:
            line.descriptors.add(flow.descriptor)
        if flow.way is FlowWay.OUT:
            line.delivered += flow.bytes
        else:
            line.received += flow.bytes
    for booking in bookings:
        key, name = of_booking(booking)
        lines.setdefault(key, Line(name)).copied[booking.direction] += booking.bytes
    return sorted(lines.values(), key=lambda line: line.weight, reverse=True)


def of_calls(trace: Trace, bookings: Iterable[Booking]) -> list[Line]:
    """By system call; how often each was made, whether or not it moved anything."""
    lines = _lines(
        trace.account.flows,
        [b for b in bookings if moves(b.syscall)],
        lambda f: (f.syscall, f.syscall or NO_CALL),
        lambda b: (b.syscall, b.syscall or NO_CALL),
    )
    how_often = made(trace)
    for line in lines:
        line.calls = how_often.get(line.name, line.calls)
    return lines


def made(trace: Trace) -> dict[str, int]:
    return _by_call(trace, Quantity.SYSCALL_ENTER)


def completed(trace: Trace) -> dict[str, int]:
    """Operations of io_uring that moved no bytes, or did not say how many."""
    return _by_call(trace, Quantity.RING_COMPLETED)


def _by_call(trace: Trace, quantity: Quantity) -> dict[str, int]:
    found: Counter[str] = Counter()
    for count in trace.run.counts:
        if (count.role, count.quantity) == (_PROGRAM, quantity) and count.syscall:
            found[count.syscall] += count.calls
    return dict(found)


def of_things(trace: Trace, bookings: Iterable[Booking]) -> list[Line]:
    """By file, socket or pipe."""

    def of(number: int | None, known: bool) -> tuple[Hashable, str]:
        thing = border.thing(trace.account, number)
        return (number, known), thing.name if known else "in the kernel, outside of calls"

    moving = {flow.syscall for flow in trace.account.flows}

    def of_booking(booking: Booking) -> tuple[Hashable, str]:
        if booking.thing is None and booking.syscall and booking.syscall not in moving:
            return booking.syscall, f"in {booking.syscall}"
        return of(booking.thing, booking.thing is not None or booking.syscall is not None)

    return _lines(
        trace.account.flows,
        [b for b in bookings if moves(b.syscall)],
        lambda f: of(f.thing, True),
        of_booking,
    )


def _site_name(count: Count) -> str:
    caller = plain((count.caller or "").partition("+")[0])
    where = f"{count.function} ← {caller}" if caller else count.function
    return f"{where}, {count.syscall or NO_CALL}"


def of_sites(
    payload: Iterable[tuple[Count, Direction | None]], plain: Iterable[Booking]
) -> list[Line]:
    """By copy site, who called it and in which system call."""
    lines: dict[str, Line] = {}
    for count, way in payload:
        name = _site_name(count)
        line = lines.setdefault(name, Line(name))
        line.calls += count.calls
        line.copied[way] += count.bytes
    for booking in plain:
        name = f"{PLAINLY}, {booking.syscall or NO_CALL}"
        line = lines.setdefault(name, Line(name))
        line.calls += booking.calls
        line.copied[booking.direction] += booking.bytes
    return sorted(
        (line for line in lines.values() if line.copied_bytes),
        key=lambda line: line.weight,
        reverse=True,
    )


def of_threads(trace: Trace, plain: Iterable[Booking]) -> list[Line]:
    lines = []
    if not_told := sum(booking.bytes for booking in plain):
        lines.append(Line("unknown threads"))
        lines[0].copied[None] = not_told
    for worker in trace.account.workers:
        if not worker.calls:
            continue  # it moved bytes, and none were copied on it
        named = f"{worker.name} {worker.thread}" if worker.thread else worker.name
        named = named or "softirqs"
        line = Line(named, worker.calls)
        line.copied[None] = worker.bytes
        lines.append(line)
    return sorted(lines, key=lambda line: line.weight, reverse=True)
