"""Rows as CSV."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from zctrace.printable import csv_cell


def table(columns: Sequence[str], rows: Iterable[Mapping[Any, Any]]) -> str:
    """A line for the ``columns`` and one for each row; what a row has not is empty.

    No text is a formula (:func:`csv_cell`).

    Python quotes a carriage return only where it is part of what ends a line. Readers take it
    for an end whatever does.
    """
    lines = []
    for row in (dict(zip(columns, columns, strict=True)), *rows):
        line = io.StringIO()
        csv.DictWriter(line, columns, lineterminator="\r\n").writerow(
            {name: csv_cell(value) for name, value in row.items()}
        )
        lines.append(line.getvalue().removesuffix("\r\n") + "\n")
    return "".join(lines)
