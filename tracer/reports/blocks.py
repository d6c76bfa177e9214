"""What a report is made of: paragraphs, tables and lists, without a form.

``zctrace.reports.text.paper`` prints them on a terminal, ``zctrace.reports.html.result_page``
puts them on a page.
"""

from __future__ import annotations

import enum
from collections.abc import Sequence
from dataclasses import dataclass, field

Cell = int | str
"""A number is exact; each form decides how many of its digits it shows."""


class Tone(enum.Enum):
    """How much a paragraph matters."""

    ANSWER = "answer"
    PLAIN = "plain"
    DOUBT = "doubt"
    ALARM = "alarm"


@dataclass(frozen=True)
class Text:
    """A paragraph; ``indent`` is 2 where it belongs to the one before."""

    text: str
    tone: Tone = Tone.PLAIN
    indent: int = 0


@dataclass(frozen=True)
class Gap:
    """A blank line on a terminal."""


@dataclass(frozen=True)
class Column:
    """``bytes`` are rounded, and ``short`` names shortened, where there is little room."""

    heading: str
    number: bool = True
    bytes: bool = False
    short: bool = False


@dataclass(frozen=True)
class Row:
    """``shown`` rows stand in every form, the others only where there is room."""

    cells: tuple[Cell, ...]
    shown: bool = True


@dataclass(frozen=True)
class Table:
    """``more`` says what the rows that are not shown amount to; empty if there are none."""

    columns: tuple[Column, ...]
    rows: list[Row] = field(default_factory=list)
    more: str = ""


@dataclass(frozen=True)
class Listing:
    """Short lines below a heading: functions of a stack."""

    heading: str
    lines: Sequence[str]


def end_of(name: str, most: int) -> str:
    """At most so many characters: of a longer name the end says more."""
    return name if len(name) <= most else f"…{name[1 - most :]}"


Block = Text | Gap | Table | Listing
GAP = Gap()
