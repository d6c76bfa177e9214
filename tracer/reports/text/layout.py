"""Text and tables on a terminal: eighty columns, plain when piped, no number cut."""

from __future__ import annotations

import textwrap

from rich import box
from rich.console import Console
from rich.measure import Measurement
from rich.table import Table
from rich.text import Text

_WIDTH = 80
_EXACT = 10**8
"""From this size on, bytes are rounded in tables."""


def say(console: Console, text: str = "", style: str = "", indent: int = 0) -> None:
    """A paragraph; its further lines are indented by two more."""
    for line in textwrap.wrap(
        text,
        _WIDTH - 1,
        initial_indent=" " * indent,
        subsequent_indent=" " * (indent + 2),
        break_on_hyphens=False,
    ) or [""]:
        console.print(Text(line, style=style), soft_wrap=True)


def size(many: int) -> str:
    """Bytes, exact as long as there is room; what is rounded shows it by its unit."""
    if many < _EXACT:
        return str(many)
    return f"{many / (1 << 30):.1f}G" if many >> 30 else f"{many / (1 << 20):.1f}M"


def new_table(*columns: str) -> Table:
    """One whose columns are numbers, but for the first and those that begin with ``<``."""
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, padding=(0, 0, 0, 1))
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


def print_table(table: Table, console: Console) -> None:
    """Whole: a table may be wider than the terminal, a number may not be cut."""
    wide = console.options.update(max_width=2 * console.width)
    # The margin gives way first, before the name does; above and below it stays.
    table.show_edge = Measurement.get(console, wide, table).maximum <= console.width
    needed = Measurement.get(console, console.options, table).minimum
    margin = "" if table.show_edge else "\n"
    console.print(margin, end="")
    console.print(table, width=max(console.width, needed), crop=False)
    console.print(margin, end="")
