"""What a traced program's evidence means: is it zero-copy, and if not, who copies?

Pure functions of evidence. Payload is what system calls say they moved, and what was copied
in them through an iterator; everything else is shown beside it.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Hashable, Iterable, Sequence
from dataclasses import dataclass, field

from zctrace.analysis import controls, counted, doubts, reasons
from zctrace.analysis.controls import Control
from zctrace.analysis.reasons import Why
from zctrace.evidence.account import (
    DEVICE,
    FILE,
    NO_CALL,
    PIPE,
    SOCKET,
    Booking,
    Flow,
    FlowWay,
    Stack,
    Thing,
    ThingKind,
)
from zctrace.evidence.schema import Count, Evidence, Trace, losses
from zctrace.probes.model import Direction, Kind, Purpose, Quantity, plain
from zctrace.probes.syscalls import MOVING, RINGS
from zctrace.workloads.marker import RoleName

DIRECTIONS = (Direction.USER_TO_KERNEL, Direction.KERNEL_TO_USER, Direction.KERNEL_TO_KERNEL)
_PROGRAM = RoleName.PROGRAM
_DELIVERING = (SOCKET, FILE, PIPE, DEVICE)
UNKNOWN = Thing(ThingKind.UNKNOWN, "calls that had begun before the tracing did")


@dataclass
class Line:
    """One row of a table: how many calls, what they moved, what was copied for it. Bytes.

    ``copied`` is by direction, under ``None`` where none is told.
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


@dataclass(frozen=True)
class Answer:
    """What is to be said of one program.

    ``delivered`` and ``received`` are bytes by the kind of thing. ``copied`` is payload
    copied by the CPU, by direction, ``None`` where the controls failed. ``beside`` are bytes
    copied for other ends, by what for. ``unassigned`` are bytes copied inside the kernel
    meanwhile of which nothing tells for whom. ``doubts`` are why figures may be too small by
    nobody knows how much, ``notes`` what else is to be known, and changes no total.
    """

    evidence: Evidence
    trace: Trace
    delivered: dict[ThingKind, int]
    received: dict[ThingKind, int]
    copied: dict[Direction | None, int] | None
    beside: dict[str, int]
    unassigned: int
    calls: Sequence[Line]
    things: Sequence[Line]
    sites: Sequence[Line]
    threads: Sequence[Line]
    reasons: Sequence[tuple[Why, int]]
    events: dict[Quantity, int]
    checked: Sequence[Control]
    doubts: Sequence[str]
    notes: Sequence[str]

    @property
    def stacks(self) -> list[Stack]:
        """Those of payload, the most bytes first; none if they were not asked for."""
        kept = [stack for stack in self.trace.account.stacks if moves(stack.syscall)]
        return sorted(kept, key=lambda stack: -stack.bytes) if self.copied is not None else []

    @property
    def without_stack(self) -> int:
        """Bytes copied of which no stack is known although stacks were asked for."""
        return (self.copied_bytes or 0) - sum(stack.bytes for stack in self.stacks)

    @property
    def failed(self) -> list[Control]:
        return [control for control in self.checked if not control.passed]

    @property
    def copied_bytes(self) -> int | None:
        return None if self.copied is None else sum(self.copied.values())

    @property
    def basis(self) -> tuple[str, int]:
        """What copies are related to: bytes delivered; or received, if there were none."""
        delivered, received = sum(self.delivered.values()), sum(self.received.values())
        return ("delivered", delivered) if delivered else ("received", received)

    @property
    def copies(self) -> float | None:
        """Bytes copied by the CPU for each byte of :attr:`basis`."""
        _, many = self.basis
        return None if self.copied_bytes is None or not many else self.copied_bytes / many

    @property
    def most_copies(self) -> float | None:
        """The same if all that is nobody's were this program's."""
        _, many = self.basis
        return None if self.copies is None else self.copies + self.unassigned / many


def answer(evidence: Evidence) -> Answer:
    """Add up the evidence of one traced program."""
    trace = evidence.trace
    assert trace is not None
    checked = controls.check_program(evidence, trace.run)
    failed = any(not c.passed and c.figures == controls.COPIES for c in checked)
    payload: list[tuple[Count, Direction | None]] = []
    beside: Counter[str] = Counter()
    for count in trace.run.counts:
        site = evidence.site_of(count)
        if count.role != _PROGRAM or not site or site.kind is not Kind.COPY:
            continue
        way = counted.direction_of(count.direction, site.direction, count.syscall)
        if site.purpose is Purpose.PAYLOAD and moves(count.syscall):
            payload.append((count, way))
        elif count.bytes:
            named = site.purpose is not Purpose.PAYLOAD
            beside[str(site.purpose if named else count.syscall)] += count.bytes
    copied: Counter[Direction | None] = Counter()
    for count, way in payload:
        copied[way] += count.bytes
    delivered, received = _moved(trace)
    calls = _calls(trace)
    return Answer(
        evidence,
        trace,
        delivered,
        received,
        None if failed else dict(copied),
        dict(beside),
        _unassigned(trace),
        calls,
        _things(trace),
        _sites(payload),
        _threads(trace),
        _reasons(payload),
        _events(trace),
        tuple(checked),
        tuple(_doubts(evidence, trace)),
        tuple(_notes(trace)),
    )


def moves(syscall: str | None) -> bool:
    """Whether bytes copied in it, or outside of any, can be payload."""
    return syscall is None or syscall in MOVING


def delivering(trace: Trace) -> frozenset[int | None]:
    """Things that deliver to the program, or it to them: no pipes inside the program."""
    things, flows = trace.account.things, trace.account.flows
    read = {flow.thing for flow in flows if flow.way is FlowWay.IN}
    written = {flow.thing for flow in flows if flow.way is FlowWay.OUT}
    inside = {
        number
        for number, thing in enumerate(things)
        if thing.kind == PIPE and number in read and number in written
    }
    kinds = (*_DELIVERING, UNKNOWN.kind)
    seen = frozenset(flow.thing for flow in flows)
    return frozenset(n for n in seen - inside if _thing(trace, n).kind in kinds)


def _moved(trace: Trace) -> tuple[dict[ThingKind, int], dict[ThingKind, int]]:
    """Bytes delivered and received, by kind of thing."""
    delivers = delivering(trace)
    total: dict[FlowWay, Counter[ThingKind]] = {way: Counter() for way in FlowWay}
    for flow in trace.account.flows:
        if flow.thing in delivers:
            total[flow.way][_thing(trace, flow.thing).kind] += flow.bytes
    return dict(total[FlowWay.OUT]), dict(total[FlowWay.IN])


def _thing(trace: Trace, number: int | None) -> Thing:
    return UNKNOWN if number is None else trace.account.things[number]


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


def _calls(trace: Trace) -> list[Line]:
    """By system call; how often each was made, whether or not it moved anything."""
    bookings = [b for b in trace.account.bookings if moves(b.syscall)]
    lines = _lines(
        trace.account.flows,
        bookings,
        lambda f: (f.syscall, f.syscall or NO_CALL),
        lambda b: (b.syscall, b.syscall or NO_CALL),
    )
    made = _made(trace)
    for line in lines:
        line.calls = made.get(line.name, line.calls)
    return lines


def _made(trace: Trace) -> dict[str, int]:
    made: Counter[str] = Counter()
    for count in trace.run.counts:
        if (count.role, count.quantity) == (_PROGRAM, Quantity.SYSCALL_ENTER) and count.syscall:
            made[count.syscall] += count.calls
    return dict(made)


def _things(trace: Trace) -> list[Line]:
    """By file, socket or pipe."""

    def of(number: int | None, known: bool) -> tuple[Hashable, str]:
        thing = _thing(trace, number)
        return (number, known), thing.name if known else "in the kernel, outside of calls"

    return _lines(
        trace.account.flows,
        [b for b in trace.account.bookings if moves(b.syscall)],
        lambda f: of(f.thing, True),
        lambda b: of(b.thing, b.thing is not None or b.syscall is not None),
    )


def _site_name(count: Count) -> str:
    caller = plain((count.caller or "").partition("+")[0])
    where = f"{count.function} ← {caller}" if caller else count.function
    return f"{where}, {count.syscall or NO_CALL}"


def _sites(payload: Iterable[tuple[Count, Direction | None]]) -> list[Line]:
    """By copy site, who called it and in which system call."""
    lines: dict[str, Line] = {}
    for count, way in payload:
        name = _site_name(count)
        line = lines.setdefault(name, Line(name))
        line.calls += count.calls
        line.copied[way] += count.bytes
    return sorted(
        (line for line in lines.values() if line.copied_bytes),
        key=lambda line: line.weight,
        reverse=True,
    )


def _threads(trace: Trace) -> list[Line]:
    lines = []
    for worker in trace.account.workers:
        named = f"{worker.name} {worker.thread}" if worker.thread else worker.name
        named = named or "softirqs"
        line = Line(named, worker.calls)
        line.copied[None] = worker.bytes
        lines.append(line)
    return sorted(lines, key=lambda line: line.weight, reverse=True)


def _reasons(payload: Iterable[tuple[Count, Direction | None]]) -> list[tuple[Why, int]]:
    """Why bytes were copied inside the kernel, the most first."""
    why: Counter[Why] = Counter()
    for count, way in payload:
        if way is Direction.KERNEL_TO_KERNEL and count.bytes:
            why[reasons.reason(count.quantity, count.caller, count.syscall)] += count.bytes
    return why.most_common()


def _events(trace: Trace) -> dict[Quantity, int]:
    """How often things happened that no copy is part of, by quantity."""
    seen: Counter[Quantity] = Counter()
    for count in trace.run.counts:
        if count.role == _PROGRAM:
            seen[count.quantity] += count.calls
    return dict(seen)


def _unassigned(trace: Trace) -> int:
    return sum(
        c.bytes
        for c in trace.run.counts
        if c.role is _PROGRAM.outside and c.quantity not in counted.EVENTS_WITH_BYTES
    )


def _doubts(evidence: Evidence, trace: Trace) -> Iterable[str]:
    run = trace.run
    lost = losses(run.lost)
    if lost:
        causes = ", ".join(f"{cause} {many}" for cause, many in lost.items())
        yield f"figures are lower bounds: {sum(lost.values())} events were lost ({causes})"
    missed = {name: hits for name, hits in run.hits.items() if not hits.agree}
    if missed:
        yield "figures are lower bounds: not every execution was counted of " + ", ".join(
            f"{name} ({hits.program} of {hits.perf})" for name, hits in missed.items()
        )
    for number, thing in enumerate(trace.account.things):
        if thing.many and thing.kind == PIPE:
            size = sum(flow.bytes for flow in trace.account.flows if flow.thing == number)
            yield (
                f"{size} B went through more pipes than there is room for: which of them are "
                "inside the program is not known"
            )
    if RINGS & _made(trace).keys():
        yield (
            "it uses io_uring: what moved through its rings is not among the bytes "
            "delivered and received; what was copied for it is counted"
        )
    blind = [b for b in evidence.blind if b.kind is Kind.COPY]
    for entry in blind:
        yield f"not watched: {' or '.join(entry.functions)}: {entry.reason}"
    yield from (f"not watched: {what}" for what in doubts.unreached(evidence))


def _notes(trace: Trace) -> Iterable[str]:
    if trace.account.overflow:
        yield (
            f"{trace.account.overflow} B, moved or copied, are in rows of many: more files, "
            "sockets or threads than there is room for; the totals have them"
        )
