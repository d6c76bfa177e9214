"""What a traced program's evidence means: is it zero-copy, and if not, who copies?

Pure functions of evidence. Payload is what system calls report as moved, and what they copied
through an iterator. All other copies have figures of their own.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from zctrace.analysis import (
    border,
    captures,
    controls,
    counted,
    doubts,
    lines,
    only,
    reasons,
)
from zctrace.analysis.border import Border
from zctrace.analysis.controls import Control
from zctrace.analysis.explained import Explanation, Unexplained, explain
from zctrace.analysis.lines import Line
from zctrace.analysis.reasons import Why
from zctrace.analysis.transformed import Transformed, transformed
from zctrace.evidence.account import (
    Stack,
    ThingKind,
)
from zctrace.evidence.schema import Count, Evidence, Trace
from zctrace.probes import compat, operations
from zctrace.probes.model import Direction, Kind, Purpose, Quantity
from zctrace.probes.syscalls import RINGS
from zctrace.probes.transforms import TRANSFORMED
from zctrace.workloads.marker import RoleName

DIRECTIONS = (Direction.USER_TO_KERNEL, Direction.KERNEL_TO_USER, Direction.KERNEL_TO_KERNEL)
_PROGRAM = RoleName.PROGRAM
STRUCTURES = "structures of system calls"
"""In :attr:`Answer.beside`: user copies that are no payload, by none of the calls' names."""


@dataclass(frozen=True)
class Answer:
    """The answer for one program.

    ``border`` is what came in, went out and stayed inside. ``copied`` is payload copied
    by the CPU, by direction; ``None`` where a self-test failed. ``beside`` are bytes of other
    copies, by their purpose. ``unassigned`` are bytes copied inside the kernel that could not
    be attributed. ``doubts`` are reasons why figures may be too small by an unknown amount.
    ``notes`` change no total. ``explanation`` has the bytes that moved, were not seen being
    copied, and may have been copied. ``transformed`` are bytes that the CPU changed, or only
    read, instead of copying them; no other figure has them. ``within`` are copies in the
    program's own memory, by function, where these were watched.
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
    within: Sequence[Line] = ()

    @property
    def within_bytes(self) -> int:
        """Copied in the program's own memory, by what was watched; in no other figure."""
        return sum(line.copied_bytes for line in self.within)

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
        within = Direction.USER_TO_USER
        kept = [
            stack
            for stack in self.trace.account.stacks
            if lines.moves(stack.syscall) and stack.direction is not within
        ]
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
    """Add up the evidence of one traced program, or of the part that was asked for."""
    found, subject = _whole(evidence), evidence.request.subject
    return only.narrowed(found, subject.only) if subject and subject.only else found


def _whole(evidence: Evidence) -> Answer:
    trace = evidence.trace
    assert trace is not None
    checked = controls.check_program(evidence, trace.run)
    failed = any(not c.passed and c.figures == controls.COPIES for c in checked)
    payload: list[tuple[Count, Direction | None]] = []
    beside: Counter[str] = Counter()
    within: dict[str, Line] = {}
    for count in trace.run.counts:
        site = evidence.site_of(count)
        if count.role != _PROGRAM or not site or site.kind is not Kind.COPY:
            continue
        if site.quantity is Quantity.USER_MEMORY:
            line = within.setdefault(count.function, Line(count.function))
            line.calls += count.calls
            line.copied[Direction.USER_TO_USER] += count.bytes
            continue
        way = counted.direction_of(count.direction, site.direction, count.syscall)
        if site.purpose is Purpose.PAYLOAD and lines.moves(count.syscall):
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
        lines.of_calls(trace, bookings),
        lines.of_things(trace, bookings),
        lines.of_sites(payload, explanation.plain),
        lines.of_threads(trace, explanation.plain),
        _reasons(payload),
        _events(trace),
        tuple(checked),
        tuple(_doubts(evidence, trace)),
        tuple(_notes(trace)),
        transformed(evidence, trace.run, _PROGRAM),
        explanation,
        sorted(within.values(), key=lambda line: line.weight, reverse=True),
    )


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
    if untold := compat.untold(lines.made(trace)):
        yield f"not among the bytes delivered and received: what {', '.join(untold)} moved"
    seen = {*evidence.hooks, *evidence.events}
    for call in sorted(RINGS & lines.made(trace).keys()):
        ring = RINGS[call]
        if not ring.seen_by <= seen:
            yield (
                f"it uses {ring.name}: what moved by it is not among the bytes delivered and "
                "received; what was copied for it is counted"
            )
    if untold := operations.untold(lines.completed(trace)):
        yield f"not among the bytes delivered and received: what {', '.join(untold)} moved"
    blind = [b for b in evidence.blind if b.kind is Kind.COPY]
    for entry in blind:
        yield f"not watched: {' or '.join(entry.functions)}: {entry.reason}"
    yield from (f"not watched: {what}" for what in doubts.unreached(evidence))
    if trace.run.user_copies_from is not None and not trace.watched:
        yield "copies in the program's own memory: no function was found that can be watched"
    yield from (f"not watched: the own memory of {one}" for one in trace.unwatched)


def _notes(trace: Trace) -> Iterable[str]:
    yield from captures.sentences([trace.run])
    if trace.account.overflow:
        yield (
            f"{trace.account.overflow} B, moved or copied, are in rows of many: more files, "
            "sockets or threads than there is room for; the totals have them"
        )
