"""What explains that a program's bytes moved: copies that were seen, or the allow-list.

All other bytes are *unexplained*: the CPU may have copied them where no probe is. They are
never called zero-copy.
"""

from __future__ import annotations

import functools
from collections import Counter, defaultdict
from collections.abc import Iterable
from dataclasses import dataclass

from zctrace.analysis import counted
from zctrace.evidence.account import NO_CALL, Booking, Flow, FlowWay, Thing, ThingKind
from zctrace.evidence.schema import Evidence, Trace
from zctrace.probes.model import WITHOUT_ITERATOR, Direction, Kind, Quantity
from zctrace.probes.references import NOT_WATCHED, REFERENCES
from zctrace.probes.syscalls import OTHER_ENDS, TRANSFERS, Told
from zctrace.workloads.marker import RoleName

PLAINLY = "user copies without an iterator"
"""What stands in the place of a copy site for :attr:`Explanation.plain`."""
_TO_KERNEL, _TO_USER = Direction.USER_TO_KERNEL, Direction.KERNEL_TO_USER
_INSIDE = Direction.KERNEL_TO_KERNEL
_OF_SOCKET_BUFFERS = frozenset(
    {Quantity.SKB_COPY_UBUFS, Quantity.SKB_COPY_BITS, Quantity.SKB_COPY_AND_CSUM_BITS}
)
_CALLED = frozenset({"_copy_to_user", "_copy_from_user"})
_CALLS = {transfer.syscall: transfer for transfer in TRANSFERS}
_TELLING = frozenset(t.syscall for t in TRANSFERS if t.told is not Told.WHOLE_FILE)
"""Calls that say how many bytes they moved: what they copy beyond that is no payload."""

_Key = tuple[int | None, str | None, FlowWay]


@dataclass(frozen=True)
class Unexplained:
    """Bytes that ``syscall`` moved through a thing, one way, and that nothing explains."""

    thing: int | None
    syscall: str | None
    way: FlowWay
    bytes: int
    why: str


@dataclass(frozen=True)
class Explanation:
    """Of one program.

    ``plain`` is payload that was copied, although no copy site counts it: the processor's copy
    routine was seen doing it, or the call has no other way. ``other`` are bytes that the
    routine was seen copying beyond all of that, by system call.
    """

    unexplained: tuple[Unexplained, ...] = ()
    plain: tuple[Booking, ...] = ()
    other: tuple[tuple[str, int], ...] = ()


def explain(evidence: Evidence, trace: Trace) -> Explanation:
    """Hold what moved against what was copied, and against the allow-list."""
    if any(thing.type is None for thing in trace.account.things):
        return Explanation()  # recorded before anybody noted what things are
    open_ = _not_by_reference(trace)
    beyond: Counter[tuple[str | None, FlowWay]] = Counter()
    moved = {(flow.thing, flow.syscall, flow.way) for flow in trace.account.flows}
    for booking in trace.account.bookings:
        for way, size in _cover_with_copies(open_, booking).items():
            key = booking.thing, booking.syscall, way
            # What was handed on by reference needs no copies.
            if key in open_ or key not in moved:
                beyond[booking.syscall, way] += size
    # Where there was no room, what moved may be in a row of many, and its copies in their own.
    for (syscall, way), size in beyond.items():
        keys = [k for k in open_ if k[1:] == (syscall, way) and _is_many(trace, k[0])]
        _cover(open_, keys, size)
    inside = _inside(evidence, trace)
    for syscall in sorted({key[1] for key in open_ if not _at_user_end(key[1])}, key=str):
        _cover(open_, [k for k in open_ if k[1] == syscall], inside[syscall])
    plain: list[Booking] = []
    routine = _routine(evidence, trace)
    other: Counter[str] = Counter()
    for (syscall, direction), (size, large) in sorted(routine.items(), key=str):
        keys = [k for k in open_ if k[1] == syscall and _direction(k) is direction]
        # A few bytes are structures, and explain nothing.
        whole = size >= sum(open_[key] for key in keys)
        covered = _cover(open_, keys, size if whole else large)
        plain += [Booking(k[0], syscall, direction, 0, many) for k, many in covered.items()]
        left = size - sum(covered.values())
        if syscall not in _TELLING and syscall not in OTHER_ENDS and left:
            payload = min(left, large)
            plain.append(Booking(None, syscall, direction, 0, payload))
            left -= payload
        other[syscall or NO_CALL] += left
    for key in [k for k in open_ if k[1] in _CALLS and _CALLS[k[1]].copies]:
        plain.append(Booking(key[0], key[1], _direction(key), 0, open_.pop(key)))
    return Explanation(
        tuple(
            Unexplained(thing, syscall, way, size, _why(_thing(trace, thing)))
            for (thing, syscall, way), size in sorted(open_.items(), key=lambda i: -i[1])
            if size
        ),
        tuple(booking for booking in plain if booking.bytes),
        tuple((syscall, size) for syscall, size in other.most_common() if size),
    )


def unexplained_of(trace: Trace, bookings: Iterable[Booking]) -> int:
    """Bytes of a part of a program that nothing of its own explains.

    ``trace`` has its flows alone, and ``bookings`` are its copies. What one part copied
    explains nothing that another one moved.
    """
    if any(thing.type is None for thing in trace.account.things):
        return 0  # recorded before anybody noted what things are
    open_ = _not_by_reference(trace)
    inside: Counter[str | None] = Counter()
    for booking in bookings:
        _cover_with_copies(open_, booking)
        if booking.direction is _INSIDE:
            inside[booking.syscall] += booking.bytes
    for syscall in {key[1] for key in open_ if not _at_user_end(key[1])}:
        _cover(open_, [k for k in open_ if k[1] == syscall], inside[syscall])
    return sum(open_.values())


def of_socket_buffers(trace: Trace) -> int:
    """Bytes copied between socket buffers: in softirqs, too, on top of any thread."""
    return sum(
        count.bytes
        for count in trace.run.counts
        if count.role is RoleName.PROGRAM and count.quantity in _OF_SOCKET_BUFFERS
    )


def _not_by_reference(trace: Trace) -> dict[_Key, int]:
    """Bytes that no row of the allow-list explains, whether or not they were copied."""
    found: dict[_Key, int] = defaultdict(int)
    for flow in trace.account.flows:
        if not _is_by_reference(flow, _thing(trace, flow.thing)):
            found[flow.thing, flow.syscall, flow.way] += flow.bytes
    return dict(found)


def _is_by_reference(flow: Flow, thing: Thing | None) -> bool:
    if thing is None:
        return False
    return _is_listed(
        *(flow.syscall, flow.way, flow.direct, thing.kind, thing.type, thing.beneath)
    )


def passes_on(syscall: str, way: FlowWay, thing: Thing) -> bool:
    """Whether a call that moves bytes through a thing, one way, needs no copy there."""
    return _is_listed(syscall, way, False, thing.kind, thing.type, thing.beneath)


@functools.cache
def _is_listed(
    syscall: str | None,
    way: FlowWay,
    direct: bool,
    kind: ThingKind,
    type_: str | None,
    beneath: tuple[str, ...],
) -> bool:
    return any(
        syscall in row.calls
        and way == row.way
        and kind == row.kind
        and type_ in row.types
        and (direct or not row.direct)
        and (bool(beneath) and row.beneath.issuperset(beneath)) is bool(row.beneath)
        for row in REFERENCES
    )


def _thing(trace: Trace, number: int | None) -> Thing | None:
    return None if number is None else trace.account.things[number]


def _at_user_end(syscall: str | None) -> bool:
    """Whether one end of what the call moves is the program's own memory."""
    call = _CALLS.get(syscall or "")
    return call is None or not (call.source and call.destination)


def _direction(key: _Key) -> Direction:
    """Of copies that explain bytes that a call moved from or to the program's memory."""
    return _TO_USER if key[2] is FlowWay.IN else _TO_KERNEL


def _cover_with_copies(open_: dict[_Key, int], booking: Booking) -> dict[FlowWay, int]:
    """Take off what was copied between the program's memory and a thing.

    Or inside the kernel: some, as FUSE, reach the program's pages by addresses of the kernel's.
    Returns how much more was copied than moved there, of copies whose way is known.
    """
    beyond: dict[FlowWay, int] = {}
    if not _at_user_end(booking.syscall):
        return beyond
    for way in FlowWay:
        key = booking.thing, booking.syscall, way
        if booking.direction not in (None, _INSIDE, _direction(key)):
            continue
        there = open_.get(key, 0)
        if key in open_:
            open_[key] = max(there - booking.bytes, 0)
        if booking.direction is _direction(key) and booking.bytes > there:
            beyond[way] = booking.bytes - there
    return beyond


def _is_many(trace: Trace, number: int | None) -> bool:
    thing = _thing(trace, number)
    return thing is not None and thing.many


def _cover(open_: dict[_Key, int], keys: Iterable[_Key], size: int) -> dict[_Key, int]:
    """Take ``size`` bytes off, where there are most first; returns what was taken off where."""
    covered = {}
    for key in sorted(keys, key=lambda k: -open_[k]):
        covered[key] = min(open_[key], size)
        open_[key] -= covered[key]
        size -= covered[key]
    return {key: many for key, many in covered.items() if many}


def _inside(evidence: Evidence, trace: Trace) -> Counter[str | None]:
    """Bytes that calls which pass pages on copied between two kernel buffers, by call.

    Without copies of socket buffers: these happen later on the way.
    """
    found: Counter[str | None] = Counter()
    for count in trace.run.counts:
        site = evidence.site_of(count)
        if (
            count.role is RoleName.PROGRAM
            and site is not None
            and site.kind is Kind.COPY
            and count.quantity not in _OF_SOCKET_BUFFERS
            and counted.direction_of(count.direction, site.direction, count.syscall) is _INSIDE
        ):
            found[count.syscall] += count.bytes
    return found


def _routine(
    evidence: Evidence, trace: Trace
) -> dict[tuple[str | None, Direction], tuple[int, int]]:
    """Bytes that the processor's copy routine copied beyond what copy sites count.

    By system call and direction; and at most how many of them came in large pieces. The routine
    sees nearly all that they see, so what is left is a lower bound.
    """
    left: dict[bool, Counter[tuple[str | None, Direction]]] = {
        routine: Counter() for routine in (True, False)
    }
    large: Counter[tuple[str | None, Direction]] = Counter()
    for count in trace.run.counts:
        site = evidence.site_of(count)
        if count.role is not RoleName.PROGRAM or site is None:
            continue
        way = counted.direction_of(count.direction, site.direction, count.syscall)
        if way not in (_TO_KERNEL, _TO_USER):
            continue
        key = count.syscall, way
        if count.quantity in WITHOUT_ITERATOR:
            left[count.quantity is Quantity.USER_COPY_ROUTINE][key] += count.bytes
            large[key] += count.bytes if count.large else 0
        elif site.kind is not Kind.CROSS_CHECK:
            left[True][key] -= count.bytes
            # No caller of the others copies through an iterator.
            if count.function in _CALLED:
                left[False][key] -= count.bytes
    most = left[True] | left[False]
    return {key: (size, large[key]) for key, size in most.items() if size > 0}


def _why(thing: Thing | None) -> str:
    if thing is None:
        return "the system call began before the tracing"
    if thing.many and not any(thing.type in row.types for row in REFERENCES):
        return "there were more of this kind than the table holds"
    for part in (*thing.beneath, thing.type):
        if part in NOT_WATCHED:
            return NOT_WATCHED[part]
    return f"zctrace does not know how {thing.type or thing.kind} moves bytes"
