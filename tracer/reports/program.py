"""The report on a traced program: the answer first, then who copied."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from zctrace.analysis import (
    advice,
    border,
    by_process,
    code_places,
    program,
    sentences,
)
from zctrace.analysis.lines import Line
from zctrace.analysis.program import Answer
from zctrace.evidence.account import (
    CLOSED,
    EXITED,
    INTERRUPTED,
    NO_CALL,
    SERVED,
    TIME,
    FlowWay,
    ThingKind,
)
from zctrace.probes import operations
from zctrace.probes.model import Direction, Quantity
from zctrace.reports import costs, flamegraph, wording
from zctrace.reports.blocks import GAP, Block, Column, Listing, Row, Table, Text, Tone, end_of

_ROWS, _MOVED, _STACKS, _UNEXPLAINED = 8, 3, 3, 3
"""Of each table; how many of them for what moved the most; how many stacks; how much that is
unexplained. --json has all of them."""
_ADVICE = 3
_DESCRIPTORS = 2
"""More of them for one file, and their number says more."""
_UNCOUNTED = {
    ThingKind.UNKNOWN: "unknown",
    ThingKind.MEMORY: "memory of others",
    ThingKind.KERNEL: "made by the kernel",
}
_LEGEND = (
    "Bytes. in: read by the program, out: written. u→k, k→u, k→k: copied by the CPU "
    "(u = user memory, k = kernel memory)."
)
_WAYS = {way: wording.WAYS[way] for way in program.DIRECTIONS} | {None: "?→?"}
_LEAST_RATIO = 0.0001
_EVENTS = (
    Quantity.SYSCALL_ENTER,
    Quantity.PAGE_FAULT_USER,
    Quantity.PAGE_FAULT_KERNEL,
    Quantity.CONTEXT_SWITCH_VOLUNTARY,
    Quantity.CONTEXT_SWITCH_INVOLUNTARY,
)
_ENDED = {
    EXITED: "until it exited",
    TIME: "stopped after --duration",
    INTERRUPTED: "stopped by Ctrl-C",
    SERVED: "until its client exited",
    CLOSED: "in a window that the program opened and closed",
}


def report(answers: Sequence[Answer]) -> Iterator[Block]:
    """Everything, one answer after the other."""
    for number, found in enumerate(answers):
        if number:
            yield GAP
        yield from of_answer(found)


def of_answer(found: Answer) -> Iterator[Block]:
    """The whole report on one trace."""
    if found.failed:
        yield Text("SELF-TEST FAILED: do not trust these figures", Tone.ALARM)
        for control in found.failed:
            yield Text(f"{control.name}: {control.detail}", Tone.ALARM, indent=2)
        yield GAP
    first = sentences.sentence(found)
    yield Text(first[0].upper() + first[1:], Tone.ANSWER)
    for doubt in found.doubts:
        yield Text(doubt, Tone.DOUBT, indent=2)
    for note in found.notes:
        yield Text(note, indent=2)
    yield GAP
    yield from _heading(found)
    yield from _moved(found)
    yield from _advice(found)
    if found.copied is not None:
        yield Text(_LEGEND)
        yield from _processes(found)
        yield from _lines(found.calls, _calls_heading(found))
        yield from _lines(found.things, "file, socket or pipe", descriptors=True)
        yield from _sites(found)
        yield from _stacks(found)
    for reason, many in found.reasons:
        yield Text(f"copied inside the kernel: {many} B: {reason}")
    yield from _within(found)
    yield from _transformed(found)
    yield from _beside(found)


def _heading(found: Answer) -> Iterator[Block]:
    subject = found.evidence.request.subject
    assert subject is not None
    first, *others = wording.heading(found.evidence)
    yield Text(
        f"{end_of(subject.words, 200)}: traced for {found.trace.seconds:.1f} s, "
        f"{_ENDED[found.trace.ended]}"
    )
    if subject.client:
        status = found.trace.client_status
        end = "was ended" if status is None else f"exited with status {status}"
        yield Text(f"client, not traced: {end_of(subject.client, 200)}: {end}", indent=2)
    yield Text(first)
    for line in others:
        yield Text(line, indent=2)
    yield GAP


def _moved(found: Answer) -> Iterator[Block]:
    moved = found.border
    verbs = (border.DELIVERED, border.RECEIVED, border.MOVED_INSIDE)
    for verb, by_kind in zip(
        verbs, (moved.delivered, moved.received, moved.inside), strict=True
    ):
        if verb == border.MOVED_INSIDE and not by_kind:
            continue
        many = sum(by_kind.values())
        parts = ", ".join(
            f"{_plural(kind)} {part}"
            for kind, part in sorted(by_kind.items(), key=lambda item: -item[1])
        )
        yield Text(f"{verb} {many} B{': ' if parts else ''}{parts}")
    if found.copied is None:
        return
    basis, _ = found.basis
    to_kernel, to_user, inside = (found.copied.get(way, 0) for way in program.DIRECTIONS)
    ratio = "" if found.copies is None else f", {_ratio(found.copies)} per byte {basis}"
    if found.kept:
        ratio += f" (without {found.kept} B that came in and were not delivered)"
    yield Text(
        f"copied {found.copied_bytes} B by the CPU{ratio}: "
        f"user→kernel {to_kernel}, kernel→user {to_user}, inside the kernel {inside}"
        + (f", direction not known {untold}" if (untold := found.copied.get(None)) else ""),
    )
    if found.unassigned:
        yield Text(
            f"A further {found.unassigned} B were copied inside the kernel and could not be "
            "attributed; they may belong to this program",
            Tone.DOUBT,
        )
    for part in found.unexplained[:_UNEXPLAINED]:
        way = "out of" if part.way is FlowWay.IN else "into"
        yield Text(
            f"unknown whether the CPU copied {part.bytes} B that {part.syscall} moved {way} "
            f"{found.name_of(part.thing)}: {part.why}",
            Tone.DOUBT,
        )
    if left := found.unexplained[_UNEXPLAINED:]:
        many = sum(part.bytes for part in left)
        yield Text(
            f"also unknown: {many} B through {len(left)} more files, sockets or pipes; see "
            "--json, --csv",
            Tone.DOUBT,
        )
    yield GAP


def _advice(found: Answer) -> Iterator[Block]:
    given = advice.of(found)
    if not given:
        return
    yield Text("What would help:")
    for one in given[:_ADVICE]:
        # Most begin with the name of a call.
        yield Text(one.words, indent=2)
    if left := given[_ADVICE:]:
        yield Text(f"{len(left)} more: see --json", indent=2)
    yield GAP


def _plural(kind: ThingKind) -> str:
    return _UNCOUNTED.get(kind, f"{kind}s")


def _lines(
    lines: Sequence[Line], heading: str, *, descriptors: bool = False
) -> Iterator[Block]:
    rows = [line for line in lines if line.received or line.delivered or line.copied_bytes]
    if not rows:
        return
    kept = _kept(rows)
    ways: list[Direction | None] = [*program.DIRECTIONS]
    ways += [None] if any(line.copied.get(None) for line in rows) else []
    fd = [Column("fd")] if descriptors else []
    columns = [Column(heading, short=True), *fd, Column("calls")]
    columns += [Column(n, bytes=True) for n in ("in", "out", *map(_WAYS.__getitem__, ways))]
    table = [
        Row(
            (
                line.name,
                *([_descriptors(line)] if descriptors else []),
                line.calls,
                *(line.received, line.delivered),
                *(line.copied.get(way, 0) for way in ways),
            ),
            shown=number in kept,
        )
        for number, line in enumerate(rows)
    ]
    yield Table(tuple(columns), table, _more([r for n, r in enumerate(rows) if n not in kept]))


def _processes(found: Answer) -> Iterator[Block]:
    """A row for each process, where there are several."""
    several = by_process.of(found)
    if len(several) < 2:
        return
    sizes = (Column(name, bytes=True) for name in ("in", "out", "copied"))
    columns = Column("process"), *sizes, Column("", number=False)
    rows = [
        Row(
            (f"{p.name} {p.number}", p.received, p.delivered, p.copied_bytes, p.words),
            shown=number < _ROWS,
        )
        for number, p in enumerate(several)
    ]
    left = several[_ROWS:]
    copied = sum(process.copied_bytes for process in left)
    yield Table(
        columns, rows, f"{len(left)} more, {copied} B copied: see --json" if left else ""
    )


def _calls_heading(found: Answer) -> str:
    operations_too = any(operations.is_operation(line.name) for line in found.calls)
    return "system call or operation" if operations_too else "system call"


def _kept(rows: Sequence[Line]) -> set[int]:
    """The indexes of the rows that every form shows.

    These are the few that moved the most, for what moves without being copied is an answer
    as well; and of the others those with the most bytes copied.
    """
    numbers = range(len(rows))
    most = sorted(numbers, key=lambda n: -rows[n].received - rows[n].delivered)[:_MOVED]
    return {*most, *[n for n in numbers if n not in most][: _ROWS - len(most)]}


def _descriptors(line: Line) -> str:
    """Under which numbers the program had it; --csv has those of each process."""
    if len(line.descriptors) > _DESCRIPTORS:
        return f"{len(line.descriptors)} fds"
    return ",".join(map(str, sorted(line.descriptors)))


def _sites(found: Answer) -> Iterator[Block]:
    yield from _copied("copy function ← caller, system call", found.sites)
    if found.sites and len(found.threads) > 1:
        yield from _copied("thread", found.threads)


def _copied(heading: str, lines: Sequence[Line]) -> Iterator[Block]:
    """A table of who copied how much."""
    if lines:
        columns = Column(heading), Column("copies"), Column("bytes")
        rows = [
            Row((line.name, line.calls, line.copied_bytes), shown=number < _ROWS)
            for number, line in enumerate(lines)
        ]
        yield Table(columns, rows, _more(lines[_ROWS:]))


def _stacks(found: Answer) -> Iterator[Block]:
    """The heaviest ones, the innermost function first."""
    stacks = found.stacks
    if not stacks:
        return
    yield from _copied("code that made the call, system call", code_places.of(found))
    for stack in stacks[:_STACKS]:
        heading = f"{stack.bytes} B, {stack.calls} copies, on this stack:"
        yield Listing(heading, list(reversed(flamegraph.frames(stack))))
    left = stacks[_STACKS:]
    if left:
        copied = sum(stack.bytes for stack in left)
        yield Text(
            f"{len(left)} more stacks, {copied} B copied: see --folded, --speedscope, --json"
        )
    if found.without_stack:
        yield Text(
            f"{found.without_stack} B were copied on stacks that the table had no room for",
            Tone.DOUBT,
        )
    yield GAP


def _more(left: Sequence[Line]) -> str:
    copied = sum(line.copied_bytes for line in left)
    return f"{len(left)} more, {copied} B copied: see --json, --csv" if left else ""


def _ratio(copies: float) -> str:
    return f"{copies:.4g}" if copies >= _LEAST_RATIO or not copies else f"< {_LEAST_RATIO}"


def _within(found: Answer) -> Iterator[Block]:
    """What was copied in the program's own memory, and what of that cannot be seen."""
    least = found.trace.run.user_copies_from
    if least is None or found.copied is None:
        return
    heading = f"copied in the program's own memory, {least} B or more at a time"
    if found.within:
        yield from _copied(heading, found.within)
    else:
        none = "unknown" if found.trace.unwatched else "0 B"
        yield Text(f"{heading[0].upper()}{heading[1:]}: {none}")
    yield Text(
        f"Watched: {', '.join(found.trace.watched) or 'nothing'}. Not seen: copies that a "
        "compiler has put into other code, and functions of other libraries."
    )


def _transformed(found: Answer) -> Iterator[Block]:
    """What the CPU did to bytes instead of copying them."""
    seen = found.transformed
    if seen.by:
        heading = "transformed by the CPU: function ← caller, system call"
        rows = []
        for number, part in enumerate(seen.by):
            name = " ← ".join(filter(None, (part.function, part.caller)))
            cells = f"{name}, {part.syscall or NO_CALL}", part.calls, part.bytes
            rows.append(Row(cells, shown=number < _ROWS))
        left = seen.by[_ROWS:]
        more = f"{len(left)} more, {sum(part.bytes for part in left)} B: see --json"
        columns = Column(heading), Column("calls"), Column("bytes")
        yield Table(columns, rows, more if left else "")
    if seen.handed_over:
        yield Text(
            f"A further {seen.handed_over} B were passed to an asynchronous cipher: a device "
            "or another thread encrypts or decrypts them",
            Tone.DOUBT,
        )
    if seen.unassigned:
        yield Text(
            f"A further {seen.unassigned} B were transformed by kernel threads or other "
            "programs and could not be attributed; they may belong to this program",
            Tone.DOUBT,
        )
    for reason in seen.blind:
        text = f"Not watched: {reason}. More bytes may have been transformed"
        yield Text(text, Tone.DOUBT)


def _beside(found: Answer) -> Iterator[Block]:
    if found.beside:
        parts = ", ".join(f"{what} {many} B" for what, many in sorted(found.beside.items()))
        yield Text(f"Other copies (not included above): {parts}")
    watched = found.evidence.events
    calls, in_user, in_kernel, voluntary, involuntary = (
        found.events.get(quantity, 0) if quantity in watched else wording.UNMEASURED
        for quantity in _EVENTS
    )
    switches = f" ({2 * calls} mode switches)" if isinstance(calls, int) else ""
    yield Text(
        f"{calls} system calls{switches}; page faults: {in_user} in user "
        f"mode, {in_kernel} in the kernel; context switches: {voluntary} voluntary, "
        f"{involuntary} involuntary",
    )
    if price := found.trace.price:
        machine = found.evidence.request.machine
        if copies := costs.of_copies(
            *(found.trace, price, found.copied_bytes or 0, machine), found.calls
        ):
            yield Text(copies)
        yield Text(costs.of_tracing(found.trace, price, machine))
    passed = sum(control.passed for control in found.checked)
    rights = found.evidence.rights
    yield Text(
        f"Self-tests: {passed} of {len(found.checked)} passed."
        + (f" The program ran as uid {rights['uid']}." if rights else "")
    )
