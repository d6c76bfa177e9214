"""docs/reach.md: the table that ``make test-kernels`` keeps, between two marks."""

import textwrap

from tests.bench.document import renewed
from tests.live.conftest import ROOT

PATH = ROOT / "docs" / "reach.md"
BEGIN, END = "<!-- make test-kernels: begin -->", "<!-- make test-kernels: end -->"
COLUMNS = ("kernel", "release", "run", "trace", "measured", "why it is not exact")
REASON = COLUMNS[-1]
_LONGEST = 200
"""Of a reason, in characters: the first one of many says what is the matter."""


def table(rows, columns=COLUMNS):
    """``rows`` by name, each with a text for every other column."""
    lines = [columns, (":--",) * len(columns)]
    lines += [(name, *(row[column] for column in columns[1:])) for name, row in rows.items()]
    return "\n".join(f"| {' | '.join(map(_cell, line))} |" for line in lines)


def rows_of(text, columns=COLUMNS):
    """What :func:`table` has made of them, wherever it stands."""
    lines = [line for line in text.splitlines() if line.startswith("| ")]
    cells = [[cell.strip() for cell in line.strip("|").split(" | ")] for line in lines[2:]]
    return {name: dict(zip(columns[1:], others, strict=True)) for name, *others in cells}


def _cell(text):
    return text.replace("|", "/").replace("\n", " ") or "–"


def read():
    """The rows that the document has."""
    _, _, rest = PATH.read_text().partition(BEGIN)
    return rows_of(rest.partition(END)[0])


def write(rows):
    """Put them in the document, long reasons by their beginning."""
    rows = {
        name: row | {REASON: textwrap.shorten(row[REASON], _LONGEST, placeholder=" …")}
        for name, row in rows.items()
    }
    PATH.write_text(renewed(PATH.read_text(), table(rows), BEGIN, END))
