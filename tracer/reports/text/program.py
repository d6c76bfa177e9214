"""The report on a traced program: the answer first, then who copied. Eighty columns."""

from __future__ import annotations

from collections.abc import Sequence

from rich.console import Console

from zctrace.analysis import border, program, sentences
from zctrace.analysis.program import Answer, Line
from zctrace.evidence.account import (
    CLOSED,
    EXITED,
    INTERRUPTED,
    NO_CALL,
    TIME,
    FlowWay,
    ThingKind,
)
from zctrace.probes.model import Direction, Quantity
from zctrace.reports import flamegraph, wording
from zctrace.reports.text.layout import new_table, print_table, say, size

_ROWS, _MOVED, _STACKS, _UNEXPLAINED = 8, 3, 3, 3
"""Of each table; how many of them for what moved the most; how many stacks; how much that is
unexplained. --json has all of them."""
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
_NAME = 40
_EVENTS = (
    Quantity.SYSCALL_ENTER,
    Quantity.PAGE_FAULT_USER,
    Quantity.PAGE_FAULT_KERNEL,
    Quantity.CONTEXT_SWITCH_VOLUNTARY,
    Quantity.CONTEXT_SWITCH_INVOLUNTARY,
)
"""The longest name in a table; of longer ones the end says more."""
_ENDED = {
    EXITED: "until it exited",
    TIME: "stopped after --duration",
    INTERRUPTED: "stopped by Ctrl-C",
    CLOSED: "in a window that the program opened and closed",
}


def render(answers: Sequence[Answer], console: Console) -> None:
    """Print everything."""
    for number, found in enumerate(answers):
        if number:
            say(console)
        _one(found, console)


def _one(found: Answer, console: Console) -> None:
    if found.failed:
        say(console, "SELF-TEST FAILED: do not trust these figures", "bold red")
        for control in found.failed:
            say(console, f"{control.name}: {control.detail}", "red", indent=2)
        say(console)
    first = sentences.sentence(found)
    say(console, first[0].upper() + first[1:], "bold")
    for doubt in found.doubts:
        say(console, doubt, "yellow", indent=2)
    for note in found.notes:
        say(console, note, indent=2)
    say(console)
    _heading(found, console)
    _moved(found, console)
    if found.copied is not None:
        say(console, _LEGEND)
        _lines(found.calls, "system call", console)
        _lines(found.things, "file, socket or pipe", console, descriptors=True)
        _sites(found, console)
        _stacks(found, console)
    for reason, many in found.reasons:
        say(console, f"copied inside the kernel: {many} B: {reason}")
    _transformed(found, console)
    _beside(found, console)


def _heading(found: Answer, console: Console) -> None:
    subject = found.evidence.request.subject
    assert subject is not None
    first, *others = wording.heading(found.evidence)
    say(console, f"{_short(subject.words, 200)}: traced for {found.trace.seconds:.1f} s, "
        f"{_ENDED[found.trace.ended]}")  # fmt: skip
    say(console, first)
    for line in others:
        say(console, line, indent=2)
    say(console)


def _moved(found: Answer, console: Console) -> None:
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
        say(console, f"{verb} {many} B{': ' if parts else ''}{parts}")
    if found.copied is None:
        return
    basis, _ = found.basis
    to_kernel, to_user, inside = (found.copied.get(way, 0) for way in program.DIRECTIONS)
    ratio = "" if found.copies is None else f", {_ratio(found.copies)} per byte {basis}"
    say(
        console,
        f"copied {found.copied_bytes} B by the CPU{ratio}: "
        f"user→kernel {to_kernel}, kernel→user {to_user}, inside the kernel {inside}"
        + (f", direction not known {untold}" if (untold := found.copied.get(None)) else ""),
    )
    if found.unassigned:
        say(
            console,
            f"A further {found.unassigned} B were copied inside the kernel and could not be "
            "attributed; they may belong to this program",
            "yellow",
        )
    for part in found.unexplained[:_UNEXPLAINED]:
        way = "out of" if part.way is FlowWay.IN else "into"
        say(
            console,
            f"unknown whether the CPU copied {part.bytes} B that {part.syscall} moved {way} "
            f"{found.name_of(part.thing)}: {part.why}",
            "yellow",
        )
    if left := found.unexplained[_UNEXPLAINED:]:
        many = sum(part.bytes for part in left)
        say(
            console,
            f"also unknown: {many} B through {len(left)} more files, sockets or pipes; see "
            "--json, --csv",
            "yellow",
        )
    say(console)


def _plural(kind: ThingKind) -> str:
    return _UNCOUNTED.get(kind, f"{kind}s")


def _lines(
    lines: Sequence[Line], heading: str, console: Console, *, descriptors: bool = False
) -> None:
    rows = [line for line in lines if line.received or line.delivered or line.copied_bytes]
    if not rows:
        return
    columns = ["fd", "calls"] if descriptors else ["calls"]
    kept, left = _split(rows)
    ways: list[Direction | None] = [*program.DIRECTIONS]
    ways += [None] if any(line.copied.get(None) for line in kept) else []
    shown = new_table(heading, *columns, "in", "out", *map(_WAYS.__getitem__, ways))
    for line in kept:
        shown.add_row(
            _short(line.name, _NAME),
            *([_descriptors(line)] if descriptors else []),
            str(line.calls),
            *(size(many) for many in (line.received, line.delivered)),
            *(size(line.copied.get(way, 0)) for way in ways),
        )
    print_table(shown, console)
    _more(left, console)


def _split(rows: Sequence[Line]) -> tuple[list[Line], list[Line]]:
    """Those that a table shows, and the others.

    Shown are the few that moved the most, for what moves without being copied is an answer
    as well; and of the others those with the most bytes copied.
    """
    numbers = range(len(rows))
    most = sorted(numbers, key=lambda n: -rows[n].received - rows[n].delivered)[:_MOVED]
    shown = {*most, *[n for n in numbers if n not in most][: _ROWS - len(most)]}
    return [rows[n] for n in sorted(shown)], [rows[n] for n in numbers if n not in shown]


def _descriptors(line: Line) -> str:
    """Under which numbers the program had it; --csv has those of each process."""
    if len(line.descriptors) > _DESCRIPTORS:
        return f"{len(line.descriptors)} fds"
    return ",".join(map(str, sorted(line.descriptors)))


def _sites(found: Answer, console: Console) -> None:
    if not found.sites:
        return
    shown = new_table("copy function ← caller, system call", "copies", "bytes")
    for line in found.sites[:_ROWS]:
        shown.add_row(line.name, str(line.calls), str(line.copied_bytes))
    print_table(shown, console)
    _more(found.sites[_ROWS:], console)
    if len(found.threads) > 1:
        shown = new_table("thread", "copies", "bytes")
        for line in found.threads[:_ROWS]:
            shown.add_row(line.name, str(line.calls), str(line.copied_bytes))
        print_table(shown, console)
        _more(found.threads[_ROWS:], console)


def _stacks(found: Answer, console: Console) -> None:
    """The heaviest ones, the innermost function first."""
    stacks = found.stacks
    if not stacks:
        return
    for stack in stacks[:_STACKS]:
        say(console, f"{size(stack.bytes)} B, {stack.calls} copies, on this stack:")
        for frame in reversed(flamegraph.frames(stack)):
            say(console, frame, indent=2)
        say(console)
    left = stacks[_STACKS:]
    if left:
        copied = sum(stack.bytes for stack in left)
        say(
            console,
            f"{len(left)} more stacks, {copied} B copied: see --folded, --speedscope, --json",
        )
    if found.without_stack:
        say(
            console,
            f"{found.without_stack} B were copied on stacks that the table had no room for",
            "yellow",
        )
    say(console)


def _more(left: Sequence[Line], console: Console) -> None:
    if left:
        copied = sum(line.copied_bytes for line in left)
        say(console, f"{len(left)} more, {copied} B copied: see --json, --csv")
        say(console)


def _ratio(copies: float) -> str:
    return f"{copies:.4g}" if copies >= _LEAST_RATIO or not copies else f"< {_LEAST_RATIO}"


def _short(name: str, longest: int) -> str:
    return name if len(name) <= longest else f"…{name[1 - longest :]}"


def _transformed(found: Answer, console: Console) -> None:
    """What the CPU did to bytes instead of copying them."""
    seen = found.transformed
    if seen.by:
        shown = new_table(
            "transformed by the CPU: function ← caller, system call", "calls", "bytes"
        )
        for part in seen.by[:_ROWS]:
            name = " ← ".join(filter(None, (part.function, part.caller)))
            shown.add_row(
                f"{name}, {part.syscall or NO_CALL}", str(part.calls), str(part.bytes)
            )
        print_table(shown, console)
        if left := seen.by[_ROWS:]:
            say(console, f"{len(left)} more, {sum(part.bytes for part in left)} B: see --json")
    if seen.handed_over:
        say(
            console,
            f"A further {seen.handed_over} B were passed to an asynchronous cipher: a device "
            "or another thread encrypts or decrypts them",
            "yellow",
        )
    if seen.unassigned:
        say(
            console,
            f"A further {seen.unassigned} B were transformed by kernel threads or other "
            "programs and could not be attributed; they may belong to this program",
            "yellow",
        )
    for reason in seen.blind:
        say(console, f"Not watched: {reason}. More bytes may have been transformed", "yellow")


def _beside(found: Answer, console: Console) -> None:
    if found.beside:
        parts = ", ".join(f"{what} {many} B" for what, many in sorted(found.beside.items()))
        say(console, f"Other copies (not included above): {parts}")
    watched = found.evidence.events
    calls, in_user, in_kernel, voluntary, involuntary = (
        found.events.get(quantity, 0) if quantity in watched else wording.UNMEASURED
        for quantity in _EVENTS
    )
    switches = f" ({2 * calls} mode switches)" if isinstance(calls, int) else ""
    say(
        console,
        f"{calls} system calls{switches}; page faults: {in_user} in user "
        f"mode, {in_kernel} in the kernel; context switches: {voluntary} voluntary, "
        f"{involuntary} involuntary",
    )
    if found.trace.price:
        say(
            console,
            wording.cost(found.trace, found.trace.price, found.evidence.request.machine),
        )
    passed = sum(control.passed for control in found.checked)
    rights = found.evidence.rights
    say(console, f"Self-tests: {passed} of {len(found.checked)} passed."
        + (f" The program ran as uid {rights['uid']}." if rights else ""))  # fmt: skip
