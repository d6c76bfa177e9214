"""Blocks of a report on a terminal."""

from __future__ import annotations

from collections.abc import Iterable

from rich.console import Console

from zctrace.reports.blocks import Block, Cell, Column, Gap, Listing, Table, Text, Tone, end_of
from zctrace.reports.text.layout import PathName, new_table, print_table, say, size

_NAME = 40
"""The longest name in a table."""
_STYLES = {Tone.ANSWER: "bold", Tone.PLAIN: "", Tone.DOUBT: "yellow", Tone.ALARM: "bold red"}


def show(blocks: Iterable[Block], console: Console) -> None:
    """Print all of them in order."""
    for block in blocks:
        match block:
            case Gap():
                say(console)
            case Text():
                say(console, block.text, _STYLES[block.tone], block.indent)
            case Listing():
                say(console, block.heading)
                for line in block.lines:
                    say(console, line, indent=2)
                say(console)
            case Table():
                _table(block, console)


def _table(block: Table, console: Console) -> None:
    rows = [row for row in block.rows if row.shown]
    if rows:
        headings = [
            column.heading if column.number or not index else f"<{column.heading}"
            for index, column in enumerate(block.columns)
        ]
        table = new_table(*headings)
        for row in rows:
            table.add_row(*map(_cell, block.columns, row.cells))
        print_table(table, console)
    if block.more:
        say(console, block.more)
        say(console)


def _cell(column: Column, cell: Cell) -> str | PathName:
    if isinstance(cell, int):
        return size(cell) if column.bytes else str(cell)
    if column.short:
        cell = end_of(cell, _NAME)
        return cell if " " in cell else PathName(cell)
    return cell
