"""What would help: fewer copies, or fewer calls, by the evidence of one traced program.

Where the evidence does not carry a piece of advice there is none. A program that writes as many
bytes as it has read may have changed them: each such sentence says so.
"""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

from zctrace.analysis import passing
from zctrace.analysis.border import FROM_MEMORY, INTO_MEMORY, LITTLE
from zctrace.analysis.passing import RING_SPLICE, WAYS, Passed, Way
from zctrace.analysis.program import Answer
from zctrace.analysis.sentences import called
from zctrace.evidence.account import FILE, PIPE, Flow, FlowWay
from zctrace.probes import operations
from zctrace.probes.model import Quantity
from zctrace.workloads.marker import RoleName

_MOST_COPIED = 0.5
"""From which share of copied bytes on something had no effect."""
_MANY_CALLS, _SMALL_PIECE, _LARGE_PIECE = 256, 16384, 262144
"""From so many calls on, of fewer bytes than that, larger pieces save calls."""
_VECTORED = ("writev", "pwritev", "pwritev2", "readv", "preadv", "preadv2")
_IOVEC_BYTES, _VECTORS, _SMALL_VECTOR = 16, 8, 512
"""Of a struct iovec; from how many of them in a call on, of fewer bytes than that each, one
buffer is better.
"""
_FAULT_BYTES, _MANY_FAULTS = 65536, 16
"""What one page fault maps of a file at most (fault_around_bytes, its default), and from how
many faults on a call wrote what was mapped.
"""
_PIPE_BYTES, _LARGE_PIPE = 65536, 1 << 20
"""A pipe's size, and the most that a user may have (pipe(7))."""


@dataclass(frozen=True)
class Advice:
    """``words`` are a sentence without the full stop. ``saves_bytes`` of copies would not be
    made, ``saves_calls`` system calls, and ``saves_structures``, bytes of structures that the
    kernel copies from the program; 0: that is not known, or there is nothing to gain.
    """

    rule: str
    words: str
    saves_bytes: int = 0
    saves_calls: int = 0
    saves_structures: int = 0


def of(found: Answer) -> list[Advice]:
    """What saves most first; none where the figures are not to be trusted."""
    if found.copied is None:
        return []
    given = [advice for rule in _RULES for advice in rule(found)]
    return sorted(given, key=lambda a: (a.saves_bytes, a.saves_calls), reverse=True)


def _passed_through(found: Answer) -> Iterator[Advice]:
    """Bytes that a program has read and written, as many as it has read."""
    groups: dict[tuple[str, Way, bool], list[Passed]] = defaultdict(list)
    for process in sorted({flow.process for flow in found.trace.account.flows}):
        if passed := passing.passed(found, process):
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
        size = passing.total(written)
        kind = passing.kind_of_most(found, written)
        ways = [w for w in WAYS if (w.source, w.destination, w.copies) == (FILE, kind, 0)]
        if not call or call not in FROM_MEMORY or not ways or many < _MANY_FAULTS:
            continue
        saves = min(passing.copied(found, written), size)
        if saves >= LITTLE and many * _FAULT_BYTES >= passing.LESS * size:
            yield Advice(
                "mapped-file",
                f"{ways[0].call} instead of mmap(2) and {called(call)} "
                f"{_would_save(found, saves)} and {many} page faults, if what is written is a "
                f"file: {size} B to {passing.most(found, written).name} were mapped, and not "
                "touched before",
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
        if flow.thing is not None and flow.syscall in ("splice", RING_SPLICE):
            moved[flow.thing].append(flow)
            name = flow.syscall
    calls = saved = 0
    for number, flows in moved.items():
        size, many = passing.total(flows), sum(flow.calls for flow in flows)
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
        if flow.syscall and through_memory and passing.thing(found, flow).kind == FILE:
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
                f"of {calls}, and copy as much: each moved {passing.total(small) // calls} B "
                f"of {passing.most(found, small).name}",
                saves_calls=calls - fewer,
            )


def _in_small_pieces(flow: Flow) -> bool:
    return flow.calls >= _MANY_CALLS and LITTLE <= flow.bytes < flow.calls * _SMALL_PIECE


def _small_vectors(found: Answer) -> Iterator[Advice]:
    """Calls with many small vectors: the kernel copies a structure for each of them."""
    for call, structures in found.explanation.other:
        flows = [f for f in found.trace.account.flows if f.syscall == call]
        vectors, calls = structures // _IOVEC_BYTES, sum(flow.calls for flow in flows)
        if call not in _VECTORED or vectors < max(_MANY_CALLS, _VECTORS * calls):
            continue
        if (size := passing.total(flows)) < vectors * _SMALL_VECTOR:
            saved = (vectors - calls) * _IOVEC_BYTES
            yield Advice(
                "fewer-vectors",
                f"one buffer for each call of {called(call)} would save {saved} B of "
                f"structures: {calls} calls had {vectors} vectors of {size // vectors} B. The "
                "program would copy the bytes into it",
                saves_structures=saved,
            )


def _not_direct(found: Answer) -> Iterator[Advice]:
    """O_DIRECT that did not keep the CPU from copying."""
    account = found.trace.account
    direct = [f for f in account.flows if f.direct and f.thing is not None]
    for number in sorted({f.thing for f in direct if f.thing is not None}):
        own = [f for f in direct if f.thing == number]
        copied, size = passing.copied(found, own), passing.total(own)
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
    _small_vectors,
    _not_direct,
    _copied_up,
)


def _would_save(found: Answer, size: int) -> str:
    basis, many = found.basis
    return f"would save {size / many:.2f} copies per byte {basis}" if many else f"{size} B"
