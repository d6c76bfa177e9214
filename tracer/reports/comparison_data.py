"""What programs read of a comparison: JSON and CSV, a row for each figure that differs."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from typing import Any

from zctrace.analysis import csv_rows
from zctrace.analysis.comparison.model import Change, Comparison, Item, Result

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
