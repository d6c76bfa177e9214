"""What changed between two traces of programs.

Bytes are compared as they are where both sides delivered as much, and for each byte
delivered where not. Copies of the processor's that differ by less than ``LEAST`` for each
byte are no change of the answer: requests and libraries have some bytes more or less.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

from zctrace.analysis import controls, sentences
from zctrace.analysis.comparison.model import (
    COPIED,
    NOT_MEASURED,
    NOTHING,
    Basis,
    Change,
    Comparison,
    Item,
    Part,
    Value,
    both,
)
from zctrace.analysis.lines import Line
from zctrace.analysis.program import Answer
from zctrace.probes.model import Direction, Quantity

LEAST = 0.005
"""Copies for each byte: what two decimals show."""
_MANY = 10
"""More copies for each byte than this, and hardly anything was delivered."""
_FEW = 0.1
"""The share of system calls up to which one run has more than another by chance."""
_NAMED = 3
_EPHEMERAL = 32768
"""The first port that Linux gives to a socket that asks for none."""
_PORT = re.compile(r"(?<=[\d\]]:)\d+(?= →|$)")
_VOLATILE = (
    (re.compile(r":\[\d+\]$"), ""),
    (re.compile(r"^/proc/\d+(?=/|$)"), "/proc/*"),
    (re.compile(r"^/dev/pts/\d+$"), "/dev/pts/*"),
)
_WAYS = {
    Direction.USER_TO_KERNEL: "user→kernel",
    Direction.KERNEL_TO_USER: "kernel→user",
    Direction.KERNEL_TO_KERNEL: "inside the kernel",
}
_VARYING = {
    Quantity.PAGE_FAULT_USER: (controls.FAULTS, "page faults in user mode"),
    Quantity.PAGE_FAULT_KERNEL: (controls.FAULTS, "page faults in the kernel"),
    Quantity.CONTEXT_SWITCH_VOLUNTARY: (
        controls.CONTEXT,
        "voluntary context switches",
    ),
    Quantity.CONTEXT_SWITCH_INVOLUNTARY: (
        controls.CONTEXT,
        "involuntary context switches",
    ),
}


def compare(
    what: str, before: Answer, after: Answer, circumstances: Sequence[Change]
) -> Comparison:
    """Two answers, whatever was traced; ``what`` names them."""
    basis = _basis(before, after)
    items = [item for item in _items(before, after) if item.differs]
    headline, changed = _headline(before, after, basis)
    copied = Change(COPIED, before.copied_bytes, after.copied_bytes)
    return Comparison(
        what,
        headline,
        changed,
        (abs(copied.by or 0), float(copied.unknown)),
        circumstances,
        both(_doubts(before), _doubts(after)),
        sorted(items, key=lambda item: weight(item, basis), reverse=True),
        [item for item in _varying(before, after) if item.differs],
        basis,
    )


def stable(name: str) -> str:
    """A thing's name without what another run gives another value: inodes, free ports."""
    for pattern, instead in _VOLATILE:
        name = pattern.sub(instead, name)
    if " → " not in name:
        return name
    return _PORT.sub(lambda m: "*" if int(m[0]) >= _EPHEMERAL else m[0], name)


def weight(item: Item, basis: Basis) -> tuple[float, ...]:
    """The larger, the further up: by copied bytes, then by what moved, then by calls."""
    copied = item.of(COPIED)
    by = [basis.by(change) for change in item.figures if change.figure != "calls"]
    calls = item.of("calls")
    return (
        abs(basis.by(copied) or 0) if copied else 0,
        bool(copied and copied.unknown),
        max((abs(change) for change in by if change is not None), default=0),
        abs((calls and calls.by) or 0),
    )


def matters(item: Item, basis: Basis) -> bool:
    """Whether it differs for each byte, too, where the sides delivered different amounts."""
    if basis.same or basis.why_not:
        return True
    return any(
        change.unknown or abs(basis.by(change) or 0) >= LEAST
        for change in item.figures
        if change.figure != "calls"
    )


def copies(before: float | None, after: float | None) -> tuple[str, str]:
    """Copies for each byte on both sides: two decimals, three where two show no change."""
    first, second = (NOT_MEASURED if x is None else _copies(x) for x in (before, after))
    if before is None or after is None or first != second or abs(after - before) < LEAST:
        return first, second
    return f"{before:.3f}", f"{after:.3f}"


def _copies(many: float) -> str:
    """Never 0 for what is not."""
    return f"{many:.2f}" if many >= LEAST or not many else f"< {2 * LEAST}"


def _basis(before: Answer, after: Answer) -> Basis:
    (word, many), (other, more) = before.basis, after.basis
    why_not = ""
    if not many or not more:
        when = "on both sides" if many == more else "after" if many else "before"
        why_not = f"nothing was delivered or received {when}"
    elif word != other:
        why_not = f"before, {many} B were {word}, and after, {more} B {other}"
    elif max(before.copies or 0, after.copies or 0) > _MANY:
        amount = f"{many} B" if many == more else f"{many} B, {more} B"
        why_not = f"hardly anything was {word} ({amount})"
    return Basis(word if many else other, many, more, why_not)


def _items(before: Answer, after: Answer) -> Iterable[Item]:
    yield from _totals(before, after)
    for part, first, second in (
        (Part.CALL, before.calls, after.calls),
        (Part.THING, before.things, after.things),
    ):
        yield from _lines(part, _merged(first), _merged(second), before, after)
    for part, figure, of in (
        (Part.SITE, COPIED, _by_site),
        (Part.REASON, COPIED, _by_reason),
        (Part.BESIDE, "beside_bytes", lambda found: found.beside),
    ):
        amounts = [of(found) for found in (before, after)]
        for name in dict.fromkeys([*amounts[0], *amounts[1]]):
            sides = [
                None if found.copied is None else amount.get(name, 0)
                for found, amount in zip((before, after), amounts, strict=True)
            ]
            yield Item(part, name, (Change(figure, *sides),))


def _by_site(found: Answer) -> dict[str, int]:
    return {line.name: line.copied_bytes for line in found.sites}


def _by_reason(found: Answer) -> dict[str, int]:
    """Without who called: kernels copy for the same reason in other places."""
    total: dict[str, int] = {}
    for why, size in found.reasons:
        total[why.words] = total.get(why.words, 0) + size
    return total


def _totals(before: Answer, after: Answer) -> Iterable[Item]:
    def item(name: str, figure: str, first: Value, second: Value) -> Item:
        return Item(Part.TOTAL, name, (Change(figure, first, second),))

    yield item("copied", COPIED, before.copied_bytes, after.copied_bytes)
    for way, sides in _by_way(before, after):
        yield item(f"copied {_WAYS[way]}", COPIED, *sides)
    for verb, first, second in (
        ("delivered", before.delivered, after.delivered),
        ("received", before.received, after.received),
        ("inside", before.border.inside, after.border.inside),
    ):
        for kind in sorted({*first, *second}):
            name, figure = f"{verb}: {kind}", f"{verb}_bytes"
            yield item(name, figure, first.get(kind, 0), second.get(kind, 0))
    nobody = [None if a.copied is None else a.unassigned for a in (before, after)]
    name = "copied inside the kernel, not attributed"
    yield item(name, "unassigned_bytes", *nobody)
    yield item("system calls", "calls", _entered(before), _entered(after))


def _entered(found: Answer) -> int | None:
    """System calls in all."""
    return found.events.get(Quantity.SYSCALL_ENTER, 0) if _counts_calls(found) else None


def _counts_calls(found: Answer) -> bool:
    return not any(control.figures == controls.SWITCHES for control in found.failed)


def _merged(lines: Iterable[Line]) -> dict[str, Line]:
    """By stable names: a server's clients are one line."""
    merged: dict[str, Line] = {}
    for line in lines:
        one = merged.setdefault(stable(line.name), Line(stable(line.name)))
        one.calls += line.calls
        one.received += line.received
        one.delivered += line.delivered
        for way, size in line.copied.items():
            one.copied[way] += size
    return merged


def _lines(
    part: Part,
    before: dict[str, Line],
    after: dict[str, Line],
    *answers: Answer,
) -> Iterable[Item]:
    for name in dict.fromkeys([*before, *after]):
        sides = [
            {
                COPIED: None if found.copied is None else line.copied_bytes,
                "received_bytes": line.received,
                "delivered_bytes": line.delivered,
                "calls": line.calls if _counts_calls(found) else None,
            }
            for line, found in zip(
                (lines.get(name, Line(name)) for lines in (before, after)), answers, strict=True
            )
        ]
        yield Item(
            part,
            name,
            tuple(Change(figure, sides[0][figure], sides[1][figure]) for figure in sides[0]),
        )


def _varying(before: Answer, after: Answer) -> Iterable[Item]:
    for quantity, (vouched, words) in _VARYING.items():
        sides = [
            None
            if any(control.figures == vouched for control in found.failed)
            else found.events.get(quantity, 0)
            for found in (before, after)
        ]
        yield Item(Part.TOTAL, words, (Change(quantity, *sides),))


def _doubts(found: Answer) -> list[str]:
    failed = [f"self-test failed: {c.name}: {c.detail}" for c in found.failed]
    nobody = []
    if found.unassigned and found.copied is not None:
        nobody = [
            f"a further {found.unassigned} B were copied inside the kernel and could not be "
            "attributed"
        ]
    unknown = [
        f"unknown whether {part.bytes} B through {found.name_of(part.thing)} were copied: "
        f"{part.why}"
        for part in found.unexplained[:1]
    ]
    return [*failed, *found.doubts, *nobody, *unknown]


def _open_ended(found: Answer) -> bool:
    """Whether more may have been copied than was seen, or is known to be the program's."""
    unassigned = (found.most_copies or 0) - (found.copies or 0)
    return bool(found.doubts) or unassigned >= LEAST


def _headline(before: Answer, after: Answer, basis: Basis) -> tuple[str, bool]:
    """The sentence, and whether it tells of a change."""
    what = "bytes copied" if basis.why_not else f"copies per byte {basis.word}"
    if before.copied is None and after.copied is None:
        return f"{what}: {NOT_MEASURED} on either side: a self-test failed", False
    figures = _figures(before, after, basis)
    if before.copied is None or after.copied is None:
        when = "before" if before.copied is None else "after"
        return f"{what}: {figures}: a self-test failed {when}", True
    copied = Change(COPIED, before.copied_bytes, after.copied_bytes)
    most, by = largest(before, after, basis)
    changed = abs(basis.by(copied) or 0) >= most
    moved = _moved(before, after, basis)
    seen = "as far as observed, " if _open_ended(before) or _open_ended(after) else ""
    in_brackets = moved if basis.why_not else f"{_arrow(copied)} B copied {moved}"
    if changed or (basis.why_not and "→" in moved):
        return f"{what}: {figures} ({'; '.join(filter(None, (in_brackets, by)))})", True
    if by:
        return (
            f"{seen}{what}: {figures}, as before, but not in the same way: {by} "
            f"({in_brackets})",
            True,
        )
    calls = _system_calls(before, after)
    return f"{seen}{NOTHING}: {figures} {what} ({in_brackets}){calls}", False


def _system_calls(before: Answer, after: Answer) -> str:
    """How many, where that is clearly another number; some more or less are chance."""
    change = Change("calls", *map(_entered, (before, after)))
    if not isinstance(change.before, int) or abs(change.by or 0) <= _FEW * change.before:
        return ""
    return f"; but system calls: {_arrow(change)}"


def _figures(before: Answer, after: Answer, basis: Basis) -> str:
    """What both sides copied, for each byte or in bytes; once, if it is the same."""
    if basis.why_not:
        shown = [
            NOT_MEASURED if found.copied is None else str(found.copied_bytes)
            for found in (before, after)
        ]
    else:
        shown = list(copies(before.copies, after.copies))
    first, second = (
        f"at least {text}" if found.copied is not None and _open_ended(found) else text
        for text, found in zip(shown, (before, after), strict=True)
    )
    return first if first == second else f"{first} → {second}"


def _moved(before: Answer, after: Answer, basis: Basis) -> str:
    first, second = (
        f"{many} B {word}" if basis.why_not else f"{many} B"
        for word, many in (before.basis, after.basis)
    )
    return f"for {first}" if first == second else f"for {first} → {second}"


def _arrow(change: Change) -> str:
    return f"{change.before} → {change.after}" if change.differs else str(change.after)


def largest(before: Answer, after: Answer, basis: Basis) -> tuple[float, str]:
    """From what size on a change counts; and by which calls the most of it came.

    By which way, if by no call; empty, if by neither. For each byte, or in bytes.
    """
    least = LEAST
    if basis.why_not:
        least = max(LEAST * max(before.copied_bytes or 0, after.copied_bytes or 0), 1)
    by_call = [
        (f"by {sentences.called(item.name)}", item.of(COPIED))
        for item in _lines(
            Part.CALL, _merged(before.calls), _merged(after.calls), before, after
        )
    ]
    by_way = [(_WAYS[way], Change(COPIED, *sides)) for way, sides in _by_way(before, after)]
    for parts in (by_call, by_way):
        large = [
            (words, by) for words, c in parts if c and abs(by := basis.by(c) or 0) >= least
        ]
        large.sort(key=lambda part: -abs(part[1]))
        if large:
            form = "+d" if basis.why_not else "+.2f"
            unit = " B" if basis.why_not else ""
            return least, ", ".join(
                f"{by:{form}}{unit} {words}" for words, by in large[:_NAMED]
            )
    return least, ""


def _by_way(before: Answer, after: Answer) -> Iterable[tuple[Direction, tuple[Value, Value]]]:
    """Bytes copied in each direction on both sides."""
    for way in _WAYS:
        first, second = (
            None if found.copied is None else found.copied.get(way, 0)
            for found in (before, after)
        )
        yield way, (first, second)
