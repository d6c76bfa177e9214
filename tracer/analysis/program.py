"""What a traced program's evidence means: is it zero-copy, and if not, who copies?

Pure functions of evidence. Payload is what system calls report as moved, and what they copied
through an iterator. All other copies have figures of their own.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Hashable, Iterable, Sequence
from dataclasses import dataclass, field

from zctrace.analysis import border, captures, controls, counted, doubts, reasons
from zctrace.analysis.border import Border
from zctrace.analysis.controls import Control
from zctrace.analysis.explained import PLAINLY, Explanation, Unexplained, explain
from zctrace.analysis.reasons import Why
from zctrace.analysis.transformed import Transformed, transformed
from zctrace.evidence.account import (
    NO_CALL,
    Booking,
    Flow,
    FlowWay,
    Stack,
    ThingKind,
)
from zctrace.evidence.schema import Count, Evidence, Trace
from zctrace.probes import compat, operations
from zctrace.probes.model import Direction, Kind, Purpose, Quantity, plain
from zctrace.probes.syscalls import OTHER_ENDS, RINGS
from zctrace.probes.transforms import TRANSFORMED
from zctrace.workloads.marker import RoleName

DIRECTIONS = (Direction.USER_TO_KERNEL, Direction.KERNEL_TO_USER, Direction.KERNEL_TO_KERNEL)
_PROGRAM = RoleName.PROGRAM
STRUCTURES = "structures of system calls"
"""In :attr:`Answer.beside`: user copies that are no payload, by none of the calls' names."""


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


@dataclass(frozen=True)
class Answer:
    """The answer for one program.

    ``border`` is what came in, went out and stayed inside. ``copied`` is payload copied
    by the CPU, by direction; ``None`` where a self-test failed. ``beside`` are bytes of other
    copies, by their purpose. ``unassigned`` are bytes copied inside the kernel that could not
    be attributed. ``doubts`` are reasons why figures may be too small by an unknown amount.
    ``notes`` change no total. ``explanation`` has the bytes that moved, were not seen being
    copied, and may have been copied. ``transformed`` are bytes that the CPU changed, or only
    read, instead of copying them; no other figure has them.
    """

    evidence: Evidence
    trace: Trace
    border: Border
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
    transformed: Transformed
    explanation: Explanation

    @property
    def unexplained(self) -> Sequence[Unexplained]:
        """What the CPU may have copied without a probe, the most bytes first."""
        return self.explanation.unexplained

    def name_of(self, thing: int | None) -> str:
        """Of a thing, by its number in the account."""
        return border.thing(self.trace.account, thing).name

    def name_of_process(self, process: int) -> str:
        """Of its threads that copied, the one that copied most; its number as well."""
        own = [w for w in self.trace.account.workers if w.process == process and w.name]
        most = max(own, key=lambda worker: worker.bytes, default=None)
        return most.name if most else f"process {process}"

    @property
    def unexplained_bytes(self) -> int:
        return sum(part.bytes for part in self.unexplained)

    @property
    def delivered(self) -> dict[ThingKind, int]:
        """Bytes that went out, by the kind of thing."""
        return self.border.delivered

    @property
    def received(self) -> dict[ThingKind, int]:
        """Bytes that came in, by the kind of thing."""
        return self.border.received

    @property
    def stacks(self) -> list[Stack]:
        """Those of payload, the most bytes first; none if they were not asked for."""
        kept = [stack for stack in self.trace.account.stacks if moves(stack.syscall)]
        return sorted(kept, key=lambda stack: -stack.bytes) if self.copied is not None else []

    @property
    def without_stack(self) -> int:
        """Copied bytes without a stack, although stacks were asked for."""
        return (self.copied_bytes or 0) - sum(stack.bytes for stack in self.stacks)

    @property
    def failed(self) -> list[Control]:
        return [control for control in self.checked if not control.passed]

    @property
    def copied_bytes(self) -> int | None:
        return None if self.copied is None else sum(self.copied.values())

    @property
    def basis(self) -> tuple[str, int]:
        """What copies are related to, as :attr:`Border.basis`."""
        return self.border.basis

    @property
    def kept(self) -> int:
        """Bytes that were copied on the way in and stayed there, as :meth:`Border.kept`."""
        return self.border.kept((self.copied or {}).get(Direction.KERNEL_TO_USER, 0))

    @property
    def copies(self) -> float | None:
        """Bytes copied by the CPU for each byte of :attr:`basis`, without :attr:`kept`."""
        _, many = self.basis
        if self.copied_bytes is None or not many:
            return None
        return (self.copied_bytes - self.kept) / many

    @property
    def most_copies(self) -> float | None:
        """The same if all unattributed bytes were this program's, and all unexplained bytes
        were copied."""
        _, many = self.basis
        beyond = self.unassigned + self.unexplained_bytes
        return None if self.copies is None else self.copies + beyond / many


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
    explanation = explain(evidence, trace)
    bookings = [*trace.account.bookings, *explanation.plain]
    copied: Counter[Direction | None] = Counter()
    for count, way in payload:
        copied[way] += count.bytes
    for booking in explanation.plain:
        copied[booking.direction] += booking.bytes
    if other := sum(many for _, many in explanation.other):
        beside[STRUCTURES] = other
    return Answer(
        evidence,
        trace,
        border.of(trace.account),
        None if failed else dict(copied),
        dict(beside),
        _unassigned(evidence, trace),
        _calls(trace, bookings),
        _things(trace, bookings),
        _sites(payload, explanation.plain),
        _threads(trace, explanation.plain),
        _reasons(payload),
        _events(trace),
        tuple(checked),
        tuple(_doubts(evidence, trace)),
        tuple(_notes(trace)),
        transformed(evidence, trace.run, _PROGRAM),
        explanation,
    )


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


def _calls(trace: Trace, bookings: Iterable[Booking]) -> list[Line]:
    """By system call; how often each was made, whether or not it moved anything."""
    lines = _lines(
        trace.account.flows,
        [b for b in bookings if moves(b.syscall)],
        lambda f: (f.syscall, f.syscall or NO_CALL),
        lambda b: (b.syscall, b.syscall or NO_CALL),
    )
    made = _made(trace)
    for line in lines:
        line.calls = made.get(line.name, line.calls)
    return lines


def _made(trace: Trace) -> dict[str, int]:
    return _by_call(trace, Quantity.SYSCALL_ENTER)


def _completed(trace: Trace) -> dict[str, int]:
    """Operations of io_uring that moved no bytes, or did not say how many."""
    return _by_call(trace, Quantity.RING_COMPLETED)


def _by_call(trace: Trace, quantity: Quantity) -> dict[str, int]:
    found: Counter[str] = Counter()
    for count in trace.run.counts:
        if (count.role, count.quantity) == (_PROGRAM, quantity) and count.syscall:
            found[count.syscall] += count.calls
    return dict(found)


def _things(trace: Trace, bookings: Iterable[Booking]) -> list[Line]:
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


def _sites(
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


def _threads(trace: Trace, plain: Iterable[Booking]) -> list[Line]:
    lines = []
    if not_told := sum(booking.bytes for booking in plain):
        lines.append(Line("unknown threads"))
        lines[0].copied[None] = not_told
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


def _unassigned(evidence: Evidence, trace: Trace) -> int:
    subject = evidence.request.subject
    processes = {*(subject.pids if subject else ()), *(f.process for f in trace.account.flows)}
    # A capture that may be the program's own, although it was not seen being set up.
    own = any(capture.process in processes for capture in trace.run.captures)
    return own * captures.tapped(trace.run) + sum(
        c.bytes
        for c in trace.run.counts
        if c.role is _PROGRAM.outside
        and c.quantity not in counted.EVENTS_WITH_BYTES | TRANSFORMED
    )


def _doubts(evidence: Evidence, trace: Trace) -> Iterable[str]:
    yield from doubts.uncounted(evidence, trace.run)
    yield from border.doubts(trace.account)
    if untold := compat.untold(_made(trace)):
        yield f"not among the bytes delivered and received: what {', '.join(untold)} moved"
    seen = {*evidence.hooks, *evidence.events}
    for call in sorted(RINGS & _made(trace).keys()):
        ring = RINGS[call]
        if not ring.seen_by <= seen:
            yield (
                f"it uses {ring.name}: what moved by it is not among the bytes delivered and "
                "received; what was copied for it is counted"
            )
    if untold := operations.untold(_completed(trace)):
        yield f"not among the bytes delivered and received: what {', '.join(untold)} moved"
    blind = [b for b in evidence.blind if b.kind is Kind.COPY]
    for entry in blind:
        yield f"not watched: {' or '.join(entry.functions)}: {entry.reason}"
    yield from (f"not watched: {what}" for what in doubts.unreached(evidence))


def _notes(trace: Trace) -> Iterable[str]:
    yield from captures.sentences([trace.run])
    if trace.account.overflow:
        yield (
            f"{trace.account.overflow} B, moved or copied, are in rows of many: more files, "
            "sockets or threads than there is room for; the totals have them"
        )
