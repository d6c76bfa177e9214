"""What would help: fewer copies, or fewer calls, by the evidence of one traced program.

Where the evidence does not carry a piece of advice there is none. A program that writes as many
bytes as it has read may have changed them: each such sentence says so.
"""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass

from zctrace.analysis import border
from zctrace.analysis.border import FROM_MEMORY, INTO_MEMORY, LITTLE
from zctrace.analysis.explained import passes_on
from zctrace.analysis.program import Answer
from zctrace.analysis.sentences import called
from zctrace.evidence.account import FILE, PIPE, SOCKET, Flow, FlowWay, Thing, ThingKind
from zctrace.probes import operations
from zctrace.probes.model import Quantity
from zctrace.probes.references import SHARING
from zctrace.workloads.marker import RoleName

_LESS, _MORE = 0.9, 1.02
"""Between these shares of what it has read, a program writes what it passes on: it may read a
little besides, and add headers."""
_LIKE = 4
"""How many times more calls on one side than on the other a program makes that passes on."""
_SHARE = 0.1
"""From which share of what was read on a thing is one of those that are passed on."""
_RECORD_BYTES, _RECORD_ADDS = 16384, (17, 64)
"""TLS: the most in a record, and what is added to each (RFC 8446, 5.1 and 5.2; RFC 5246)."""
_MOST_COPIED = 0.5
"""From which share of copied bytes on something had no effect."""
_MANY_CALLS, _SMALL_PIECE, _LARGE_PIECE = 256, 16384, 262144
"""From so many calls on, of fewer bytes than that, larger pieces save calls."""
_FAULT_BYTES, _MANY_FAULTS = 65536, 16
"""What one page fault maps of a file at most (fault_around_bytes, its default), and from how
many faults on a call wrote what was mapped.
"""
_PIPE_BYTES, _LARGE_PIPE = 65536, 1 << 20
"""A pipe's size, and the most that a user may have (pipe(7))."""


@dataclass(frozen=True)
class Advice:
    """``words`` are a sentence without the full stop. ``saves_bytes`` of copies would not be
    made, and ``saves_calls`` system calls; 0: that is not known, or there is nothing to gain.
    """

    rule: str
    words: str
    saves_bytes: int = 0
    saves_calls: int = 0


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
_RING_SPLICE = "IORING_OP_SPLICE"
_RING_THROUGH = "IORING_OP_SPLICE through a pipe"
WAYS = (
    Way(FILE, SOCKET, "sendfile", "sendfile(2)", _RING_THROUGH),
    Way(FILE, PIPE, "splice", "splice(2)", _RING_SPLICE),
    Way(FILE, FILE, "copy-file-range", "copy_file_range(2)", _RING_THROUGH, copies=1),
    Way(SOCKET, SOCKET, "splice", _THROUGH_A_PIPE, _RING_THROUGH),
    Way(SOCKET, PIPE, "splice", "splice(2)", _RING_SPLICE),
    Way(SOCKET, FILE, "splice", _THROUGH_A_PIPE, _RING_THROUGH, copies=1),
    Way(PIPE, SOCKET, "splice", "splice(2)", _RING_SPLICE),
    Way(PIPE, PIPE, "splice", "splice(2)", _RING_SPLICE),
    Way(PIPE, FILE, "splice", "splice(2)", _RING_SPLICE, copies=1),
)
"""Pages cannot be moved into the page cache: into a file each byte is copied once."""
_SHARED = Way(FILE, FILE, "reflink", "FICLONE (cp --reflink)", "FICLONE (cp --reflink)")
"""Between two files of a file system that can share blocks."""


def of(found: Answer) -> list[Advice]:
    """What saves most first; none where the figures are not to be trusted."""
    if found.copied is None:
        return []
    given = [advice for rule in _RULES for advice in rule(found)]
    return sorted(given, key=lambda a: (a.saves_bytes, a.saves_calls), reverse=True)


def _passed_through(found: Answer) -> Iterator[Advice]:
    """Bytes that a program has read and written, as many as it has read."""
    groups: dict[tuple[str, Way, bool], list[_Passed]] = defaultdict(list)
    for process in sorted({flow.process for flow in found.trace.account.flows}):
        if passed := _passed(found, process):
            groups[found.name_of_process(process), passed.way, passed.is_tls].append(passed)
    for (name, way, tls), several in groups.items():
        saves = sum(passed.saves for passed in several)
        if saves < LITTLE:
            continue
        size = sum(passed.bytes for passed in several)
        calls = [call for passed in several for call in passed.calls]
        by_ring = any(map(operations.is_operation, calls))
        instead = way.operation if by_ring else way.call
        first = max(several, key=lambda passed: passed.bytes)
        condition = f"if {name} does not change the bytes"
        if tls:
            instead = f"kernel TLS (kTLS) and {instead}"
            condition = "if these are TLS records; the CPU still encrypts the bytes"
        more = f", and by {len(several) - 1} more processes" if len(several) > 1 else ""
        yield Advice(
            f"{'ktls-' if tls else ''}{way.rule}",
            f"{instead} instead of {' and '.join(map(called, dict.fromkeys(calls)))} "
            f"{_would_save(found, saves)}, {condition}: {size} B from {first.source.name} to "
            f"{first.destination.name} went through the memory of {name}{more}",
            saves,
        )


@dataclass(frozen=True)
class _Passed:
    way: Way
    source: Thing
    destination: Thing
    bytes: int
    calls: tuple[str, ...]
    saves: int
    is_tls: bool


def _passed(found: Answer, process: int) -> _Passed | None:
    """What one process has passed on, if it is clear that it has."""
    account = found.trace.account
    flows = [f for f in account.flows if f.process == process and f.thing is not None]
    read = [f for f in flows if f.way is FlowWay.IN and f.syscall in INTO_MEMORY]
    written = [f for f in flows if f.way is FlowWay.OUT and f.syscall in FROM_MEMORY]
    source, destination = _kind_of_most(found, read), _kind_of_most(found, written)
    ways = [w for w in WAYS if (w.source, w.destination) == (source, destination)]
    if not ways:
        return None
    written = [f for f in written if _thing(found, f).kind == destination]
    read = [f for f in read if _thing(found, f).kind == source]
    out, (into, read) = _bytes(written), _matching(read, _bytes(written))
    if min(out, into) < LITTLE or not read:
        return None
    first, last = _most(found, read), _most(found, written)
    (way,) = ways
    if way.source != FILE and not _in_like_pieces(read, written):
        return None
    tls = last.type == "tcp" and _looks_like_tls(into, out, sum(f.calls for f in written))
    size = min(out, into)
    if way.source == way.destination == FILE and first.type == last.type in SHARING:
        way = _SHARED
    elif not (_can_give(first) and (way.copies or _can_take(last))):
        return None
    copied = sum(min(_copied(found, flows), size) for flows in (read, written))
    return _Passed(
        *(way, first, last, size),
        tuple(dict.fromkeys(f.syscall or "" for f in (*read, *written))),
        max(copied - way.copies * size, 0),
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
        into = _bytes(some)
        if _LESS * into <= out <= _MORE * into:
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


def _copied(found: Answer, flows: Sequence[Flow]) -> int:
    """Bytes of these flows that the CPU copied; of several processes' copies, their share."""
    total = 0.0
    keys = {(flow.thing, flow.syscall) for flow in flows}
    for thing, syscall in keys:
        moved = _bytes(
            f for f in found.trace.account.flows if (f.thing, f.syscall) == (thing, syscall)
        )
        own = _bytes(f for f in flows if (f.thing, f.syscall) == (thing, syscall))
        booked = sum(
            b.bytes
            for b in (*found.trace.account.bookings, *found.explanation.plain)
            if (b.thing, b.syscall) == (thing, syscall)
        )
        total += min(booked * own / moved, own) if moved else 0
    return round(total)


def _mapped_file(found: Answer) -> Iterator[Advice]:
    """Bytes of a mapped file that were written without having been touched.

    A page fault in the call that writes them shows it: what the program itself has read or
    changed is mapped before.
    """
    account = found.trace.account
    faults: Counter[str | None] = Counter()
    for count in found.trace.run.counts:
        if count.role is RoleName.PROGRAM and count.quantity is Quantity.PAGE_FAULT_KERNEL:
            faults[count.syscall] += count.calls
    for call, many in faults.items():
        written = [f for f in account.flows if f.syscall == call and f.way is FlowWay.OUT]
        size = _bytes(written)
        kind = _kind_of_most(found, written)
        ways = [w for w in WAYS if (w.source, w.destination, w.copies) == (FILE, kind, 0)]
        if not call or call not in FROM_MEMORY or not ways or many < _MANY_FAULTS:
            continue
        saves = min(_copied(found, written), size)
        if saves >= LITTLE and many * _FAULT_BYTES >= _LESS * size:
            yield Advice(
                "mapped-file",
                f"{ways[0].call} instead of mmap(2) and {called(call)} "
                f"{_would_save(found, saves)} and {many} page faults, if what is written is a "
                f"file: {size} B to {_most(found, written).name} were mapped, and not touched "
                "before",
                saves,
            )


def _no_zero_copy(found: Answer) -> Iterator[Advice]:
    """Zero-copy sends that the kernel copied, since their receiver is on the same host."""
    copied = sum(
        count.bytes
        for count in found.trace.run.counts
        if count.role is RoleName.PROGRAM
        and count.quantity is Quantity.SKB_COPY_UBUFS
        and not count.was_captured
    )
    if copied >= max(LITTLE, _MOST_COPIED * sum(found.border.delivered.values())):
        yield Advice(
            "zero-copy-send",
            "MSG_ZEROCOPY and IORING_OP_SEND_ZC save nothing to a receiver on the same host: "
            f"the kernel copied {copied} B. send(2) copies as often, and needs no notification",
        )


def _larger_pipe(found: Answer) -> Iterator[Advice]:
    """Splicing through a pipe that each call fills."""
    account = found.trace.account
    name = ""
    moved: dict[int, list[Flow]] = defaultdict(list)
    for flow in account.flows:
        if flow.thing is not None and flow.syscall in ("splice", _RING_SPLICE):
            moved[flow.thing].append(flow)
            name = flow.syscall
    calls = saved = 0
    for number, flows in moved.items():
        size, many = _bytes(flows), sum(flow.calls for flow in flows)
        full = _PIPE_BYTES * 15 / 16 <= size / many <= _PIPE_BYTES
        if account.things[number].kind == PIPE and size >= _LARGE_PIPE and full:
            calls += many
            saved += many - math.ceil(size / _LARGE_PIPE)
    if saved > 0:
        yield Advice(
            "larger-pipe",
            f"a pipe of 1 MiB (F_SETPIPE_SZ) would take about {calls - saved} calls of "
            f"{called(name)} instead of {calls}: each call moved what a pipe of 64 KiB holds",
            saves_calls=saved,
        )


def _larger_pieces(found: Answer) -> Iterator[Advice]:
    """Files that are read or written in many small pieces."""
    pieces: dict[str, list[Flow]] = defaultdict(list)
    for flow in found.trace.account.flows:
        through_memory = flow.syscall in INTO_MEMORY | FROM_MEMORY
        if flow.syscall and through_memory and _thing(found, flow).kind == FILE:
            pieces[flow.syscall].append(flow)
    for call, flows in pieces.items():
        # Of each file by itself: many small files cannot be read in larger pieces.
        small = [flow for flow in flows if _in_small_pieces(flow)]
        calls = sum(flow.calls for flow in small)
        fewer = sum(math.ceil(flow.bytes / _LARGE_PIECE) for flow in small)
        if calls:
            yield Advice(
                "larger-pieces",
                f"pieces of 256 KiB would take about {fewer} calls of {called(call)} instead "
                f"of {calls}, and copy as much: each moved {_bytes(small) // calls} B of "
                f"{_most(found, small).name}",
                saves_calls=calls - fewer,
            )


def _in_small_pieces(flow: Flow) -> bool:
    return flow.calls >= _MANY_CALLS and LITTLE <= flow.bytes < flow.calls * _SMALL_PIECE


def _not_direct(found: Answer) -> Iterator[Advice]:
    """O_DIRECT that did not keep the CPU from copying."""
    account = found.trace.account
    direct = [f for f in account.flows if f.direct and f.thing is not None]
    for number in sorted({f.thing for f in direct if f.thing is not None}):
        own = [f for f in direct if f.thing == number]
        copied, size = _copied(found, own), _bytes(own)
        if size >= LITTLE and copied >= _MOST_COPIED * size:
            thing = account.things[number]
            yield Advice(
                "direct-io",
                f"O_DIRECT has no effect on {thing.name} ({thing.type}): {copied} of {size} B "
                "were copied. The file system, or what is below it, buffers them",
            )


def _copied_up(found: Answer) -> Iterator[Advice]:
    size = sum(many for why, many in found.reasons if why.words.startswith("overlayfs copies"))
    if size >= LITTLE:
        yield Advice(
            "copy-up",
            f"files on a volume, or in the upper layer, {_would_save(found, size)}: overlayfs "
            "copies a whole file when it is opened for writing",
            size,
        )


_RULES: tuple[Callable[[Answer], Iterable[Advice]], ...] = (
    _passed_through,
    _mapped_file,
    _no_zero_copy,
    _larger_pipe,
    _larger_pieces,
    _not_direct,
    _copied_up,
)


def _would_save(found: Answer, size: int) -> str:
    basis, many = found.basis
    return f"would save {size / many:.2f} copies per byte {basis}" if many else f"{size} B"


def _bytes(flows: Iterable[Flow]) -> int:
    return sum(flow.bytes for flow in flows)


def _thing(found: Answer, flow: Flow) -> Thing:
    return border.thing(found.trace.account, flow.thing)


def _kind_of_most(found: Answer, flows: Iterable[Flow]) -> ThingKind | None:
    sizes: Counter[ThingKind] = Counter()
    for flow in flows:
        sizes[_thing(found, flow).kind] += flow.bytes
    return sizes.most_common(1)[0][0] if sizes else None


def _most(found: Answer, flows: Sequence[Flow]) -> Thing:
    """The thing that most of it went through."""
    sizes: Counter[int | None] = Counter()
    for flow in flows:
        sizes[flow.thing] += flow.bytes
    return border.thing(found.trace.account, sizes.most_common(1)[0][0])
