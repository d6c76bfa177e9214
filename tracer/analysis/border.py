"""The border of a traced program: what came in, what went out, and what stayed inside.

A pipe that the program both reads and writes carries bytes from one part of the program to
another. So does a connection between two of its own sockets. These bytes do not leave it.
"""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass

from zctrace.evidence.account import (
    DEVICE,
    FILE,
    PIPE,
    SOCKET,
    Account,
    Flow,
    FlowWay,
    Thing,
    ThingKind,
)
from zctrace.probes.syscalls import TRANSFERS

UNKNOWN = Thing(ThingKind.UNKNOWN, "calls that had begun before the tracing did")
DELIVERED, RECEIVED, MOVED_INSIDE = "delivered", "received", "moved inside"
"""What copies are related to."""
ZERO_COPY = 0.01
"""Fewer copies per byte than this, and a program is called zero-copy for most of them."""
LITTLE = 64 << 10
"""Bytes. The dynamic loader alone reads some KiB: with less than this a ratio says nothing."""
_CLEARLY, _MOSTLY = 1.01, 1.5
"""How many times delivered is received. Up to the first they are as good as the same: the
dynamic loader's bytes do not decide. Up to the second a program passes most of it on, and may
keep the rest, as Python its modules. Beyond, received is what copies are related to."""
FROM_MEMORY = frozenset(t.syscall for t in TRANSFERS if t.destination and not t.source)
INTO_MEMORY = frozenset(t.syscall for t in TRANSFERS if t.source and not t.destination)
"""Calls and operations between a descriptor and the program's memory; those that have two
descriptors pass on what they have received."""
_DELIVERING = (
    *(SOCKET, FILE, PIPE, DEVICE, UNKNOWN.kind),
    *(ThingKind.MEMORY, ThingKind.QUEUE, ThingKind.KERNEL),
)


@dataclass(frozen=True)
class Border:
    """Bytes by the kind of thing. ``inside``: those on their way within the program.

    ``from_memory`` are those that went out, or inside, from the program's memory.
    """

    delivered: dict[ThingKind, int]
    received: dict[ThingKind, int]
    inside: dict[ThingKind, int]
    from_memory: int = 0

    def kept(self, copied_in: int) -> int:
        """Of bytes that were copied on the way in, those that were not delivered for sure.

        No more can have been delivered than were from memory. 0 unless more was received than
        delivered, and nevertheless delivered bytes are what copies are related to.
        """
        delivered, received = (sum(k.values()) for k in (self.delivered, self.received))
        if self.basis[0] != DELIVERED or received <= delivered * _CLEARLY:
            return 0
        return max(copied_in - self.from_memory, 0)

    @property
    def basis(self) -> tuple[str, int]:
        """What copies are related to: what went out, or what came in where that is much more.

        Where hardly anything did either, and more was moved inside, that.
        """
        delivered, received, inside = (
            sum(by_kind.values()) for by_kind in (self.delivered, self.received, self.inside)
        )
        word, many = DELIVERED, delivered
        if received > delivered * (_MOSTLY if delivered >= LITTLE else _CLEARLY):
            word, many = RECEIVED, received
        return (MOVED_INSIDE, inside) if many < min(inside, LITTLE) else (word, many)


def of(account: Account) -> Border:
    """Add up what moved. What was moved inside counts once: as the more of read and written."""
    crossing = delivering(account)
    total: dict[FlowWay, Counter[ThingKind]] = {way: Counter() for way in FlowWay}
    within: dict[FlowWay, Counter[ThingKind]] = {way: Counter() for way in FlowWay}
    inside = _inside(account)
    for flow in account.flows:
        kind = thing(account, flow.thing).kind
        if flow.thing in crossing:
            total[flow.way][kind] += flow.bytes
        elif flow.thing in inside:
            within[flow.way][kind] += flow.bytes
    return Border(
        dict(total[FlowWay.OUT]),
        dict(total[FlowWay.IN]),
        dict(within[FlowWay.IN] | within[FlowWay.OUT]),
        _from_memory(account.flows),
    )


def of_process(account: Account, process: int) -> Border:
    """The border of one process: what another one of the program gives it, it receives."""
    flows = tuple(flow for flow in account.flows if flow.process == process)
    return of(dataclasses.replace(account, flows=flows))


def _from_memory(flows: Iterable[Flow]) -> int:
    return sum(
        flow.bytes
        for flow in flows
        if flow.way is FlowWay.OUT and flow.syscall in (None, *FROM_MEMORY)
    )


def thing(account: Account, number: int | None) -> Thing:
    return UNKNOWN if number is None else account.things[number]


def delivering(account: Account) -> frozenset[int | None]:
    """Things that deliver to the program, or it to them."""
    seen = frozenset(flow.thing for flow in account.flows)
    return frozenset(
        number
        for number in seen - _inside(account)
        if thing(account, number).kind in _DELIVERING
    )


def _inside(account: Account) -> frozenset[int | None]:
    """Things that have both ends in the program."""
    things = account.things
    read = {flow.thing for flow in account.flows if flow.way is FlowWay.IN}
    written = {flow.thing for flow in account.flows if flow.way is FlowWay.OUT}
    pipes = {n for n in read & written if thing(account, n).kind == PIPE}
    used = read | written
    ends = {n for n in used if n is not None and things[n].peer in used - {None}}
    return frozenset(pipes | ends)


def doubts(account: Account) -> Iterable[str]:
    """Why it is not known what the border is."""
    connected = any(thing(account, n).kind == SOCKET for n in _inside(account))
    for number, many in enumerate(account.things):
        if many.many and (many.kind == PIPE or (many.kind == SOCKET and connected)):
            size = sum(flow.bytes for flow in account.flows if flow.thing == number)
            yield (
                f"{size} B went through more {many.kind}s than there is room for: which of "
                "them are inside the program is not known"
            )
