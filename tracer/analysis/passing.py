"""What a process passes on: bytes that it reads, and writes as they are, for all one can see.

And by which call the kernel would do that without the program's memory.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from zctrace.analysis import border
from zctrace.analysis.border import FROM_MEMORY, INTO_MEMORY, LITTLE
from zctrace.analysis.explained import passes_on
from zctrace.analysis.program import Answer
from zctrace.evidence.account import FILE, PIPE, SOCKET, Flow, FlowWay, Thing, ThingKind
from zctrace.probes.references import SHARING

LESS, _MORE = 0.9, 1.02
"""Between these shares of what it has read, a program writes what it passes on: it may read a
little besides, and add headers."""
_LIKE = 4
"""How many times more calls on one side than on the other a program makes that passes on."""
_SHARE = 0.1
"""From which share of what was read on a thing is one of those that are passed on."""
_RECORD_BYTES, _RECORD_ADDS = 16384, (17, 64)
"""TLS: the most in a record, and what is added to each (RFC 8446, 5.1 and 5.2; RFC 5246)."""


@dataclass(frozen=True)
class Way:
    """How bytes get from one kind of thing to another without the program's memory.

    ``call`` is the system call, ``operation`` that of io_uring. ``copies``: of each byte that
    the kernel still makes.
    """

    source: ThingKind
    destination: ThingKind
    rule: str
    call: str
    operation: str
    copies: int = 0


_THROUGH_A_PIPE = "splice(2) through a pipe"
RING_SPLICE = "IORING_OP_SPLICE"
_RING_THROUGH = "IORING_OP_SPLICE through a pipe"
WAYS = (
    Way(FILE, SOCKET, "sendfile", "sendfile(2)", _RING_THROUGH),
    Way(FILE, PIPE, "splice", "splice(2)", RING_SPLICE),
    Way(FILE, FILE, "copy-file-range", "copy_file_range(2)", _RING_THROUGH, copies=1),
    Way(SOCKET, SOCKET, "splice", _THROUGH_A_PIPE, _RING_THROUGH),
    Way(SOCKET, PIPE, "splice", "splice(2)", RING_SPLICE),
    Way(SOCKET, FILE, "splice", _THROUGH_A_PIPE, _RING_THROUGH, copies=1),
    Way(PIPE, SOCKET, "splice", "splice(2)", RING_SPLICE),
    Way(PIPE, PIPE, "splice", "splice(2)", RING_SPLICE),
    Way(PIPE, FILE, "splice", "splice(2)", RING_SPLICE, copies=1),
)
"""Pages cannot be moved into the page cache: into a file each byte is copied once."""
_SHARED = Way(FILE, FILE, "reflink", "FICLONE (cp --reflink)", "FICLONE (cp --reflink)")
"""Between two files of a file system that can share blocks."""


@dataclass(frozen=True)
class Passed:
    way: Way
    source: Thing
    destination: Thing
    bytes: int
    calls: tuple[str, ...]
    saves: int
    is_tls: bool


def passed(found: Answer, process: int) -> Passed | None:
    """What one process has passed on, if it is clear that it has."""
    account = found.trace.account
    flows = [f for f in account.flows if f.process == process and f.thing is not None]
    read = [f for f in flows if f.way is FlowWay.IN and f.syscall in INTO_MEMORY]
    written = [f for f in flows if f.way is FlowWay.OUT and f.syscall in FROM_MEMORY]
    source, destination = kind_of_most(found, read), kind_of_most(found, written)
    ways = [w for w in WAYS if (w.source, w.destination) == (source, destination)]
    if not ways:
        return None
    written = [f for f in written if thing(found, f).kind == destination]
    read = [f for f in read if thing(found, f).kind == source]
    out, (into, read) = total(written), _matching(read, total(written))
    if min(out, into) < LITTLE or not read:
        return None
    first, last = most(found, read), most(found, written)
    (way,) = ways
    if way.source != FILE and not _in_like_pieces(read, written):
        return None
    tls = last.type == "tcp" and _looks_like_tls(into, out, sum(f.calls for f in written))
    size = min(out, into)
    if way.source == way.destination == FILE and first.type == last.type in SHARING:
        way = _SHARED
    elif not (_can_give(first) and (way.copies or _can_take(last))):
        return None
    made = sum(min(copied(found, flows), size) for flows in (read, written))
    return Passed(
        *(way, first, last, size),
        tuple(dict.fromkeys(f.syscall or "" for f in (*read, *written))),
        max(made - way.copies * size, 0),
        tls,
    )


def _can_give(thing: Thing) -> bool:
    """Whether pages of it can be passed on by reference."""
    return passes_on("splice", FlowWay.IN, thing)


def _can_take(thing: Thing) -> bool:
    return passes_on("splice", FlowWay.OUT, thing)


def _matching(read: list[Flow], out: int) -> tuple[int, list[Flow]]:
    """What was read and passed on: the few things that most came from, or all of it."""
    by_thing: Counter[int | None] = Counter()
    for flow in read:
        by_thing[flow.thing] += flow.bytes
    large = {t for t, size in by_thing.items() if size >= _SHARE * sum(by_thing.values())}
    for some in ([f for f in read if f.thing in large], read):
        into = total(some)
        if LESS * into <= out <= _MORE * into:
            return into, some
    return 0, []


def _in_like_pieces(read: Sequence[Flow], written: Sequence[Flow]) -> bool:
    """Whether what came in went out in about as many calls: a store, or a cache, does not."""
    into, out = (sum(flow.calls for flow in flows) for flows in (read, written))
    return into <= _LIKE * out and out <= _LIKE * into


def _looks_like_tls(into: int, out: int, calls: int) -> bool:
    """Whether what is written is what was read, in records with what TLS adds to each."""
    least, most = _RECORD_ADDS
    records = math.ceil(into / _RECORD_BYTES)
    return (
        least * records <= out - into <= most * records
        and _RECORD_BYTES / 2 < out / calls <= _RECORD_BYTES + most
    )


def copied(found: Answer, flows: Sequence[Flow]) -> int:
    """Bytes of these flows that the CPU copied; of several processes' copies, their share."""
    size = 0.0
    keys = {(flow.thing, flow.syscall) for flow in flows}
    for number, syscall in keys:
        moved = total(
            f for f in found.trace.account.flows if (f.thing, f.syscall) == (number, syscall)
        )
        own = total(f for f in flows if (f.thing, f.syscall) == (number, syscall))
        booked = sum(
            b.bytes
            for b in (*found.trace.account.bookings, *found.explanation.plain)
            if (b.thing, b.syscall) == (number, syscall)
        )
        size += min(booked * own / moved, own) if moved else 0
    return round(size)


def total(flows: Iterable[Flow]) -> int:
    """Bytes."""
    return sum(flow.bytes for flow in flows)


def thing(found: Answer, flow: Flow) -> Thing:
    return border.thing(found.trace.account, flow.thing)


def kind_of_most(found: Answer, flows: Iterable[Flow]) -> ThingKind | None:
    sizes: Counter[ThingKind] = Counter()
    for flow in flows:
        sizes[thing(found, flow).kind] += flow.bytes
    return sizes.most_common(1)[0][0] if sizes else None


def most(found: Answer, flows: Sequence[Flow]) -> Thing:
    """The thing that most of it went through."""
    sizes: Counter[int | None] = Counter()
    for flow in flows:
        sizes[flow.thing] += flow.bytes
    return border.thing(found.trace.account, sizes.most_common(1)[0][0])
