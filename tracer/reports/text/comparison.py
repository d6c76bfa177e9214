"""The report on what changed between two results. Eighty columns."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from rich.console import Console

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
from zctrace.reports import csv_rows
from zctrace.reports.text.layout import new_table, print_table, say
from zctrace.reports.wording import UNMEASURED, copies

_ROWS = 8
"""Of each table of a trace; --json and --csv have all of them."""
_LISTED = 6
"""Doubts, and what could not be paired; --json has all of them."""
COLUMNS = [
    "compared",
    "part",
    "name",
    "figure",
    "before",
    "after",
    "change",
    "before_per_byte",
    "after_per_byte",
    "note",
]
_CIRCUMSTANCE, _VARIES, _UNPAIRED = "circumstance", "varies by itself", "not paired"


def render(result: Result, console: Console) -> None:
    """Print everything, the answer first."""
    several = len(result.comparisons) > 1
    say(console, _sentence(result.headline), "bold")
    say(console)
    for comparison in result.comparisons:
        if several:
            say(console, f"{comparison.subject}: {comparison.headline}", "bold")
            say(console)
        _one(comparison, console)
    for when, names in (("before", result.only_before), ("after", result.only_after)):
        if names:
            left = len(names) - _LISTED
            more = f"; and {left} more: --json, --csv" if left > 0 else ""
            say(console, f"only in {when}, not compared: "
                f"{'; '.join(names[:_LISTED])}{more}", "yellow")  # fmt: skip


def _sentence(text: str) -> str:
    return text if text.startswith("CPU") else text[0].upper() + text[1:]


def _one(comparison: Comparison, console: Console) -> None:
    for change in comparison.circumstances:
        say(console, f"{change.figure}: {_cell(change.before)} → {_cell(change.after)}")
    for doubt in comparison.doubts[:_LISTED]:
        say(console, doubt, "yellow")
    if len(comparison.doubts) > _LISTED:
        say(console, f"{len(comparison.doubts) - _LISTED} more doubts: see --json", "yellow")
    if comparison.circumstances or comparison.doubts:
        say(console)
    if comparison.basis:
        _trace(comparison.items, comparison.basis, console)
    else:
        _runs(comparison.items, console)
    _varying(comparison.varying, console)


def _trace(items: Sequence[Item], basis: Basis, console: Console) -> None:
    if basis.why_not:
        say(console, f"{basis.why_not}: copied bytes are compared")
        say(console)
    elif not basis.same:
        say(
            console,
            f"{basis.word}: {basis.before} B before, {basis.after} B after. These differ, so "
            "copies are compared per byte.",
        )
        say(console)
    for part in Part:
        of_part = [item for item in items if item.part is part]
        if of_part:
            _part(part, of_part, basis, console)


def _part(part: Part, items: Sequence[Item], basis: Basis, console: Console) -> None:
    """One table; in those of files and of copy sites only what is copied otherwise."""
    shown = [item for item in items if programs.matters(item, basis)]
    if part is not Part.CALL:
        shown = [item for item in shown if _main(item).differs]
    shown = shown[:_ROWS]
    if shown:
        calls = ["calls"] if part is Part.CALL else []
        shares = [] if basis.why_not else ["per byte"]
        table = new_table(part.value, *calls, "before", "after", "change", *shares)
        for item in shown:
            main = _main(item)
            made = item.of("calls")
            table.add_row(
                item.name,
                *([_arrow(made)] if calls and made else []),
                _number(main.before),
                _number(main.after),
                _by(main),
                *([_shares(main, basis)] if shares else []),
            )
        print_table(table, console)
    left = len(items) - len(shown)
    if left:
        what = "" if shown else f"{part.value}: "
        say(
            console, f"{what}{left} more differ less, or not in copied bytes: see --json, --csv"
        )
        say(console)


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


def _runs(items: Sequence[Item], console: Console) -> None:
    rows = [item for item in items if item.part is Part.RUN]
    if rows:
        table = new_table(Part.RUN.value, "<figure", "before", "after", "change")
        for item in rows:
            name = item.name
            for change in item.figures:
                if change.unknown and change.figure not in compared_runs.MAIN:
                    continue
                cells = _figure(change.before), _figure(change.after), _by(change)
                table.add_row(name, _word(change), *cells)
                name = ""
        print_table(table, console)
    for item in rows:
        if item.note:
            say(console, f"{item.name}: {item.note}", "yellow")
    for item in items:
        if item.part is Part.REASON:
            (change,) = item.figures
            say(console, f"copied inside the kernel, {item.name}: "
                f"{_bytes(change.before)} → {_bytes(change.after)}")  # fmt: skip
    if items:
        say(console)


def _varying(items: Sequence[Item], console: Console) -> None:
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
        say(
            console,
            f"Expected to vary between runs (ignored){several}: {'; '.join(told)}",
        )
        say(console)


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


def _rows(result: Result) -> Iterator[dict[str, Any]]:
    """Every difference once, in order."""
    for comparison in result.comparisons:
        for change in comparison.circumstances:
            yield _row(comparison, _CIRCUMSTANCE, "", change)
        parts: tuple[tuple[Iterable[Item], str], ...] = (
            (comparison.items, ""),
            (comparison.varying, _VARIES),
        )
        for items, part in parts:
            for item in items:
                for change in item.figures:
                    if change.differs:
                        yield {
                            **_row(
                                comparison, part or item.part.name.lower(), item.name, change
                            ),
                            "note": item.note or None,
                        }
    for side, names in (("before", result.only_before), ("after", result.only_after)):
        for name in names:
            yield {"part": _UNPAIRED, "name": name, "note": f"only {side}"}


def _row(comparison: Comparison, part: str, name: str, change: Change) -> dict[str, Any]:
    row = {
        "compared": comparison.subject,
        "part": part,
        "name": name,
        "figure": change.figure,
        "before": change.before,
        "after": change.after,
        "change": change.by if part != _CIRCUMSTANCE else None,
    }
    basis = comparison.basis
    if basis and not basis.why_not and change.figure.endswith("_bytes"):
        row["before_per_byte"], row["after_per_byte"] = basis.shares(change)
    return row


def differences_csv(result: Result) -> str:
    """A row for each figure that differs; what was not measured is empty."""
    return csv_rows.table(COLUMNS, _rows(result))


def differences_json(result: Result) -> str:
    """The same rows, with the sentences and doubts."""
    comparisons = [
        {
            "compared": comparison.subject,
            "headline": comparison.headline,
            "changed": comparison.changed,
            "basis": comparison.basis.word if comparison.basis else None,
            "basis_before_bytes": comparison.basis.before if comparison.basis else None,
            "basis_after_bytes": comparison.basis.after if comparison.basis else None,
            "not_related_because": comparison.basis.why_not if comparison.basis else "",
            "doubts": list(comparison.doubts),
        }
        for comparison in result.comparisons
    ]
    return (
        json.dumps(
            {
                "headline": result.headline,
                "comparisons": comparisons,
                "differences": [dict.fromkeys(COLUMNS) | row for row in _rows(result)],
            }
        )
        + "\n"
    )
