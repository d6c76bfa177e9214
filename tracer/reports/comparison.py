"""The report on what changed between two results."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from zctrace.analysis.comparison import programs
from zctrace.analysis.comparison import runs as compared_runs
from zctrace.analysis.comparison.model import (
    COPIED,
    Basis,
    Change,
    Comparison,
    Item,
    Part,
    Result,
    Value,
)
from zctrace.reports import wording
from zctrace.reports.blocks import GAP, Block, Cell, Column, Row, Table, Text, Tone
from zctrace.reports.wording import UNMEASURED, copies

_ROWS = 8
"""Of each table of a trace; --json and --csv have all of them."""
_LISTED = 6
"""Doubts, and what could not be paired; --json has all of them."""


def report(result: Result) -> Iterator[Block]:
    """Everything, the answer first."""
    several = len(result.comparisons) > 1
    yield Text(_sentence(result.headline), Tone.ANSWER)
    yield GAP
    for comparison in result.comparisons:
        if several:
            yield Text(f"{comparison.subject}: {comparison.headline}", Tone.ANSWER)
            yield GAP
        yield from _one(comparison)
    for when, names in (("before", result.only_before), ("after", result.only_after)):
        if names:
            left = len(names) - _LISTED
            more = f"; and {left} more: --json, --csv" if left > 0 else ""
            listed = "; ".join(names[:_LISTED])
            yield Text(f"only in {when}, not compared: {listed}{more}", Tone.DOUBT)
    for when, evidences in (("before", result.before), ("after", result.after)):
        for evidence in evidences:
            first, *others = wording.heading(evidence)
            yield Text(f"{when}: {first}")
            yield from (Text(line, indent=2) for line in others)


def _sentence(text: str) -> str:
    return text if text.startswith("CPU") else text[0].upper() + text[1:]


def _one(comparison: Comparison) -> Iterator[Block]:
    for change in comparison.circumstances:
        yield Text(f"{change.figure}: {_cell(change.before)} → {_cell(change.after)}")
    for doubt in comparison.doubts[:_LISTED]:
        yield Text(doubt, Tone.DOUBT)
    if len(comparison.doubts) > _LISTED:
        left = len(comparison.doubts) - _LISTED
        yield Text(f"{left} more doubts: see --json", Tone.DOUBT)
    if comparison.circumstances or comparison.doubts:
        yield GAP
    if comparison.basis:
        yield from _trace(comparison.items, comparison.basis)
    else:
        yield from _runs(comparison.items)
    yield from _varying(comparison.varying)


def _trace(items: Sequence[Item], basis: Basis) -> Iterator[Block]:
    if basis.why_not:
        yield Text(f"{basis.why_not}: copied bytes are compared")
        yield GAP
    elif not basis.same:
        yield Text(
            f"{basis.word}: {basis.before} B before, {basis.after} B after. These differ, so "
            "copies are compared per byte.",
        )
        yield GAP
    for part in Part:
        of_part = [item for item in items if item.part is part]
        if of_part:
            yield from _part(part, of_part, basis)


def _part(part: Part, items: Sequence[Item], basis: Basis) -> Iterator[Block]:
    """One table; in those of files and of copy sites only what is copied otherwise."""
    differ = [item for item in items if programs.matters(item, basis)]
    if part is not Part.CALL:
        differ = [item for item in differ if _main(item).differs]
    shown = differ[:_ROWS]
    calls = [Column("calls")] if part is Part.CALL else []
    shares = [] if basis.why_not else [Column("per byte")]
    columns = [Column(part.value), *calls, *map(Column, ("before", "after", "change")), *shares]
    rows = [
        Row(_cells(item, basis, calls=bool(calls)), shown=item in shown)
        for item in (*differ, *(item for item in items if item not in differ))
    ]
    left = len(items) - len(shown)
    what = "" if shown else f"{part.value}: "
    more = f"{what}{left} more differ less, or not in copied bytes: see --json, --csv"
    yield Table(tuple(columns), rows, more if left else "")


def _cells(item: Item, basis: Basis, *, calls: bool) -> tuple[Cell, ...]:
    main, made = _main(item), item.of("calls")
    return (
        item.name,
        *([_arrow(made) if made else ""] if calls else []),
        *map(_number, (main.before, main.after)),
        _by(main),
        *([] if basis.why_not else [_shares(main, basis)]),
    )


def _main(item: Item) -> Change:
    return item.of(COPIED) or item.figures[0]


def _shares(change: Change, basis: Basis) -> str:
    if change.figure == "calls":
        return ""
    before, after = (
        UNMEASURED if value is None else text
        for value, text in zip(
            (change.before, change.after),
            programs.copies(*basis.shares(change)),
            strict=True,
        )
    )
    return before if before == after else f"{before} → {after}"


def _runs(items: Sequence[Item]) -> Iterator[Block]:
    rows = [item for item in items if item.part is Part.RUN]
    if rows:
        table = []
        for item in rows:
            name = item.name
            for change in item.figures:
                if change.unknown and change.figure not in compared_runs.MAIN:
                    continue
                cells = _figure(change.before), _figure(change.after), _by(change)
                table.append(Row((name, _word(change), *cells)))
                name = ""
        columns = Column(Part.RUN.value), Column("figure", number=False)
        yield Table((*columns, *map(Column, ("before", "after", "change"))), table)
    for item in rows:
        if item.note:
            yield Text(f"{item.name}: {item.note}", Tone.DOUBT)
    for item in items:
        if item.part is Part.REASON:
            (change,) = item.figures
            both = f"{_bytes(change.before)} → {_bytes(change.after)}"
            yield Text(f"copied inside the kernel, {item.name}: {both}")
    if items:
        yield GAP


def _varying(items: Sequence[Item]) -> Iterator[Block]:
    """In one paragraph, after everything that counts; of runs, which figures in how many."""
    told = [
        f"{item.name} {_arrow(change)}"
        for item in items
        for change in item.figures
        if item.part is Part.TOTAL
    ]
    runs: dict[str, set[str]] = {}
    for item in items:
        for change in item.figures:
            if item.part is Part.RUN:
                runs.setdefault(_word(change), set()).add(item.name)
            elif item.part is Part.REASON:
                name = item.name.partition(":")[0]
                runs.setdefault("which reasons inside the kernel", set()).add(name)
    told += [f"{what} in {len(names)}" for what, names in runs.items()]
    several = ", with the number of runs" if runs else ""
    if told:
        yield Text(
            f"Expected to vary between runs (ignored){several}: {'; '.join(told)}",
        )
        yield GAP


def _word(change: Change) -> str:
    return compared_runs.WORDS.get(change.figure, change.figure)


def _number(value: Value) -> str:
    return UNMEASURED if value is None else str(value)


def _bytes(value: Value) -> str:
    return "not measured" if value is None else f"{value} B"


def _cell(value: Value) -> str:
    return f"{value:.4g}" if isinstance(value, float) else _number(value)


def _figure(value: Value) -> str:
    return copies(value) if isinstance(value, float) else _number(value)


def _arrow(change: Change) -> str:
    if not change.differs:
        return _cell(change.after)
    return f"{_cell(change.before)} → {_cell(change.after)}"


def _by(change: Change) -> str:
    """A change from or to what was not measured is no number."""
    if not change.by:
        return "" if change.by is None else "0"
    return f"{change.by:+.4g}" if isinstance(change.by, float) else f"{change.by:+d}"
