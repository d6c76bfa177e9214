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
    EXITED: "until it ended",
    TIME: "until the time was up",
    INTERRUPTED: "until it was told to stop",
    CLOSED: "in a window of its own",
}


def render(answers: Sequence[Answer], console: Console) -> None:
    """Print everything."""
    for number, found in enumerate(answers):
        if number:
            say(console)
        _one(found, console)


def _one(found: Answer, console: Console) -> None:
    if found.failed:
        say(console, "CONTROLS FAILED: the numbers are not to be trusted", "bold red")
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
        _lines(found.calls, "system call", console)
        _lines(found.things, "file, socket or pipe", console, descriptors=True)
        _sites(found, console)
        _stacks(found, console)
    for reason, many in found.reasons:
        say(console, f"inside the kernel: {many} B: {reason}")
    _transformed(found, console)
    _beside(found, console)


def _heading(found: Answer, console: Console) -> None:
    subject = found.evidence.request.subject
    assert subject is not None
    first, *others = wording.heading(found.evidence)
    say(console, f"{_short(subject.words, 200)}; for {found.trace.seconds:.1f} s, "
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
    ratio = "" if found.copies is None else f", {_ratio(found.copies)} for each byte {basis}"
    say(
        console,
        f"copied {found.copied_bytes} B by the CPU{ratio}: "
        f"user→kernel {to_kernel}, kernel→user {to_user}, inside the kernel {inside}"
        + (f", direction not known {untold}" if (untold := found.copied.get(None)) else ""),
    )
    if found.unassigned:
        say(
            console,
            f"{found.unassigned} B more were copied inside the kernel meanwhile, and nothing "
            "tells whether for this program",
            "yellow",
        )
    for part in found.unexplained[:_UNEXPLAINED]:
        way = "out of" if part.way is FlowWay.IN else "into"
        say(
            console,
            f"of {part.bytes} B that {part.syscall} moved {way} {found.name_of(part.thing)} it "
            f"is not known whether the CPU copied them: {part.why}",
            "yellow",
        )
    if left := found.unexplained[_UNEXPLAINED:]:
        many = sum(part.bytes for part in left)
        say(
            console, f"nor of {many} B through {len(left)} things more: --json, --csv", "yellow"
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
    shown = new_table("who copied ← who asked for it, in which call", "copies", "bytes")
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
            f"and {len(left)} stacks more, for {copied} B: --folded, --speedscope, --json",
        )
    if found.without_stack:
        say(
            console,
            f"{found.without_stack} B were copied on stacks that there was no room for",
            "yellow",
        )
    say(console)


def _more(left: Sequence[Line], console: Console) -> None:
    if left:
        copied = sum(line.copied_bytes for line in left)
        say(console, f"and {len(left)} more, for which {copied} B were copied: --json, --csv")
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
            "transformed by the CPU: who ← for whom, in which call", "calls", "bytes"
        )
        for part in seen.by[:_ROWS]:
            name = " ← ".join(filter(None, (part.function, part.caller)))
            shown.add_row(
                f"{name}, {part.syscall or NO_CALL}", str(part.calls), str(part.bytes)
            )
        print_table(shown, console)
        if left := seen.by[_ROWS:]:
            say(console, f"and {len(left)} more, {sum(part.bytes for part in left)} B: --json")
    if seen.handed_over:
        say(
            console,
            f"{seen.handed_over} B more were handed over to an asynchronous cipher: a device "
            "or another thread encrypts or decrypts them",
            "yellow",
        )
    if seen.unassigned:
        say(
            console,
            f"{seen.unassigned} B more were transformed meanwhile, by threads of the kernel or "
            "others; nothing tells whether for this program",
            "yellow",
        )
    for reason in seen.blind:
        say(console, f"Not watched, so that more may have been transformed: {reason}", "yellow")


def _beside(found: Answer, console: Console) -> None:
    if found.beside:
        parts = ", ".join(f"{what} {many} B" for what, many in sorted(found.beside.items()))
        say(console, f"Copied for other ends, and in no figure above: {parts}")
    watched = found.evidence.events
    calls, in_user, in_kernel, voluntary, involuntary = (
        found.events.get(quantity, 0) if quantity in watched else wording.UNMEASURED
        for quantity in _EVENTS
    )
    say(
        console,
        f"{calls} system calls, two mode switches each; page faults: {in_user} in user mode, "
        f"{in_kernel} in the kernel; context switches: {voluntary} because it waited, "
        f"{involuntary} forced",
    )
    if found.trace.price:
        say(
            console,
            wording.cost(found.trace, found.trace.price, found.evidence.request.machine),
        )
    passed = sum(control.passed for control in found.checked)
    rights = found.evidence.rights
    say(console, f"Controls: {passed} of {len(found.checked)} passed."
        + (f" It ran with uid {rights['uid']}." if rights else ""))  # fmt: skip
