"""Text and tables on a terminal: eighty columns, plain when piped, no number cut."""

from __future__ import annotations

import textwrap
from typing import Any

from rich import box
from rich.cells import cell_len
from rich.console import Console, ConsoleOptions, RenderableType, RenderResult
from rich.measure import Measurement
from rich.table import Table
from rich.text import Text

from zctrace.printable import printable
from zctrace.reports.blocks import end_of

_WIDTH = 80
_NAME = 12
"""So wide a word of a name may make a table that is wider than the terminal."""
_SHORT = 12
"""The end of a path is shown only where so much of it can be."""
_ENDLESS = 1 << 20
_EXACT = 10**8
"""From this size on, bytes are rounded in tables."""


def say(console: Console, text: str = "", style: str = "", indent: int = 0) -> None:
    """A paragraph; its further lines are indented by two more.

    A terminal narrower than eighty columns gets words whole: one of them may be a number.
    """
    for line in textwrap.wrap(
        # Before lines are broken, and before rich leaves out what it would not print.
        printable(text),
        max(1, min(_WIDTH, console.width) - 1),
        initial_indent=" " * indent,
        subsequent_indent=" " * (indent + 2),
        break_on_hyphens=False,
        break_long_words=console.width >= _WIDTH,
    ) or [""]:
        console.print(Text(line, style=style), soft_wrap=True)


def size(many: int) -> str:
    """Bytes, exact as long as there is room; what is rounded shows it by its unit."""
    if many < _EXACT:
        return str(many)
    return f"{many / (1 << 30):.1f}G" if many >> 30 else f"{many / (1 << 20):.1f}M"


class _Table(Table):
    def add_row(self, *cells: RenderableType | None, **options: Any) -> None:
        """Names on one line each, with what is not printable escaped."""
        super().add_row(*(printable(c) if isinstance(c, str) else c for c in cells), **options)


def new_table(*columns: str) -> Table:
    """One whose columns are numbers, but for the first and those that begin with ``<``."""
    table = _Table(box=box.SIMPLE_HEAD, pad_edge=False, padding=(0, 0, 0, 1))
    for index, column in enumerate(columns):
        left = column.startswith("<")
        table.add_column(
            column.lstrip("<"),
            justify="left" if left or index == 0 else "right",
            # What gives way where the terminal is too narrow is the name, in two lines.
            no_wrap=index > 0,
            overflow="fold",
        )
    return table


class PathName:
    """A name in one word, such as a path: only its end is shown where there is little room."""

    def __init__(self, name: str) -> None:
        self._name = printable(name)

    def __str__(self) -> str:
        return self._name

    def __rich_measure__(self, console: Console, options: ConsoleOptions) -> Measurement:
        return Measurement(1, cell_len(self._name))

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        name, room = self._name, options.max_width
        yield Text(end_of(name, room) if room >= _SHORT else name, overflow="fold")


def print_table(table: Table, console: Console) -> None:
    """Whole: a table may be wider than the terminal, a number may not be cut.

    Widths are ours: to rich, what is wider than the terminal is as wide as the terminal.
    """
    names, *numbers = table.columns
    for column in numbers:
        column.width = max(map(_cells, (column.header, *column.cells)))
    texts = [str(cell) for cell in (names.header, *names.cells)]
    longest = max(map(cell_len, texts))
    word = max(cell_len(word) for text in texts for word in (text.split() or [""]))
    names.width = 1
    table.show_edge = False
    endless = console.options.update(max_width=_ENDLESS)
    others = Measurement.get(console, endless, table).maximum - 1
    # The margin gives way first, before the name does; above and below it stays.
    table.show_edge = others + longest + 2 <= console.width
    names.width = max(1, min(longest, max(console.width - others, min(word, _NAME))))
    margin = "" if table.show_edge else "\n"
    console.print(margin, end="")
    table.width = Measurement.get(console, endless, table).maximum
    console.print(table, crop=False)
    console.print(margin, end="")


def _cells(cell: RenderableType) -> int:
    return max(map(cell_len, str(cell).split("\n")))
