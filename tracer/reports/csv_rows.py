"""Rows as CSV."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Mapping, Sequence
from typing import Any


def table(columns: Sequence[str], rows: Iterable[Mapping[str, Any]]) -> str:
    """A line for the ``columns`` and one for each row; what a row has not is empty.

    Python quotes a carriage return only where it is part of what ends a line. Readers take it
    for an end whatever does.
    """
    lines = []
    for row in (dict(zip(columns, columns, strict=True)), *rows):
        line = io.StringIO()
        csv.DictWriter(line, columns, lineterminator="\r\n").writerow(row)
        lines.append(line.getvalue().removesuffix("\r\n") + "\n")
    return "".join(lines)
