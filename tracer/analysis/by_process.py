"""What each process of a traced program moved, and what was copied on its threads.

Where a server and its client are traced together, one answer for both says little: each has
its own here. A pipe or connection between two of them is delivered by one, and received by the
other.
"""

from __future__ import annotations

import dataclasses
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

from zctrace.analysis import border, explained
from zctrace.analysis.border import LITTLE, ZERO_COPY, Border
from zctrace.analysis.lines import moves
from zctrace.analysis.program import Answer
from zctrace.evidence.account import Booking, ThingKind
from zctrace.probes.model import Direction


@dataclass
class Process:
    """One process. Bytes; ``copied`` is by direction.

    ``unknown``: bytes that may have been copied as well, or that another process may have
    copied. ``uncertain``: some copies may be missing altogether.
    """

    number: int
    name: str
    border: Border
    calls: int
    copied: dict[Direction | None, int] = field(default_factory=dict)
    unknown: int = 0
    uncertain: bool = False

    @property
    def received(self) -> int:
        return sum(self.border.received.values())

    @property
    def delivered(self) -> int:
        return sum(self.border.delivered.values())

    @property
    def copied_bytes(self) -> int:
        return sum(self.copied.values())

    @property
    def copies(self) -> float | None:
        """Bytes copied for each byte delivered or received; ``None`` where neither is."""
        _, many = self.border.basis
        if not many:
            return None
        kept = self.border.kept(self.copied.get(Direction.KERNEL_TO_USER, 0))
        return (self.copied_bytes - kept) / many

    @property
    def is_large(self) -> bool:
        """Whether it moved enough for a ratio."""
        return self.copies is not None and self.border.basis[1] >= LITTLE

    @property
    def is_zero_copy(self) -> bool | None:
        """``None`` where it moved too little for a ratio, or where that is not known."""
        _, many = self.border.basis
        if self.copies is None or not self.is_large:
            return None
        if self.copies >= ZERO_COPY:
            return False
        most = self.copies + self.unknown / many
        return True if most < ZERO_COPY and not self.uncertain else None

    @property
    def words(self) -> str:
        """A verdict on this process alone."""
        basis, many = self.border.basis
        if self.copies is None:
            return f"{self.copied_bytes} B copied"
        if not self.is_large:
            return f"moved only {many} B"
        if self.is_zero_copy:
            return "zero-copy"
        if self.is_zero_copy is None:
            return "unknown whether it is zero-copy"
        least = "at least " if self.unknown >= many * ZERO_COPY or self.uncertain else ""
        return f"{least}{self.copies:.2f} copies per byte {basis}"


def of(found: Answer) -> list[Process]:
    """Those that moved or copied anything, the most first; none if a self-test failed."""
    if found.copied is None:
        return []
    account = found.trace.account
    bookings = list(_bookings(found))
    if any(b.process is None and _is_one(found, b.thing) for b in account.bookings):
        return []  # saved before it was recorded which process copied
    numbers = {flow.process for flow in account.flows} | {b.process or 0 for b in bookings}
    lines = [_process(found, number, bookings) for number in numbers - {0}]
    return sorted(lines, key=lambda p: (-p.received - p.delivered - p.copied_bytes, p.number))


def differ(processes: Iterable[Process]) -> bool:
    """Whether one answer for all of them would hide that some are zero-copy."""
    return {p.is_zero_copy for p in processes} >= {True, False}


def _bookings(found: Answer) -> Iterator[Booking]:
    """All payload that was copied; what no thread is known for has the one that moved it."""
    yield from (b for b in found.trace.account.bookings if moves(b.syscall))
    movers = defaultdict(set)
    for flow in found.trace.account.flows:
        movers[flow.thing, flow.syscall].add(flow.process)
    for booking in found.explanation.plain:
        several = movers[booking.thing, booking.syscall]
        (only,) = several if len(several) == 1 else (None,)
        yield dataclasses.replace(booking, process=only or None)


def _is_one(found: Answer, thing: int | None) -> bool:
    return thing is not None and not border.thing(found.trace.account, thing).many


def _process(found: Answer, number: int, bookings: Iterable[Booking]) -> Process:
    account = found.trace.account
    flows = tuple(flow for flow in account.flows if flow.process == number)
    own = [booking for booking in bookings if booking.process == number]
    copied: Counter[Direction | None] = Counter()
    for booking in own:
        copied[booking.direction] += booking.bytes
    trace = dataclasses.replace(found.trace, account=dataclasses.replace(account, flows=flows))
    unknown = found.unassigned + explained.unexplained_of(trace, own)
    unknown += sum(booking.bytes for booking in bookings if booking.process is None)
    if any(border.thing(account, flow.thing).kind == ThingKind.SOCKET for flow in flows):
        unknown += _on_top_of_others(found, number, bookings)
    return Process(
        number,
        found.name_of_process(number),
        border.of_process(account, number),
        sum(flow.calls for flow in flows),
        dict(copied),
        unknown,
        uncertain=bool(found.doubts),
    )


def _on_top_of_others(found: Answer, number: int, bookings: Iterable[Booking]) -> int:
    """Bytes copied between kernel buffers that were counted for another process's thread.

    A softirq delivers what any process has sent, on top of the thread that happens to run,
    whatever that one does. No more of them can be packets than were copied as packets.
    """
    others = sum(
        booking.bytes
        for booking in bookings
        if booking.process not in (None, number)
        and booking.direction is Direction.KERNEL_TO_KERNEL
    )
    whole = found.evidence.trace
    assert whole is not None
    return min(others, explained.of_socket_buffers(whole))
