"""The busiest processes, files and calls of a program, on a screen that changes."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from zctrace.evidence.account import Busy, Look
from zctrace.printable import printable
from zctrace.reports.blocks import end_of

VIEWS = {"p": "process", "f": "file, socket or pipe", "c": "system call"}
"""By the key that shows it: the heading of its first column."""
_SORTED = ("in", "out", "copied", "calls", "copies")
_HELP = "p processes  f files and sockets  c calls  s sort  t totals or rates  q quit"
_ROOM = 8
"""Lines of a screen that are no rows."""
_FIGURES, _DESCRIPTORS = 46, 9
"""Columns of a screen that names do not have, and those of descriptors."""
_EXACT = 10_000
_LEAST_COPIES = 0.005


@dataclass
class _Row:
    name: str
    calls: int
    received: int
    delivered: int
    copied: int
    descriptors: str = ""

    @property
    def copies(self) -> float:
        """For each byte that went in or out, whichever is more."""
        most = max(self.received, self.delivered)
        return self.copied / most if most else 0.0

    def less(self, other: _Row | None) -> _Row:
        """What there is more than before. A look is not of one moment: never less than 0."""
        if other is None:
            return self
        return _Row(
            self.name,
            max(self.calls - other.calls, 0),
            max(self.received - other.received, 0),
            max(self.delivered - other.delivered, 0),
            max(self.copied - other.copied, 0),
            self.descriptors,
        )


@dataclass
class Screen:
    """What is shown, and how; changes with each look and each key."""

    subject: str
    view: str = "p"
    sort: str = "copied"
    totals: bool = False
    status: str = "starting"
    seconds: float = 0.0
    interval: float = 1.0
    _now: dict[str, dict[str, _Row]] = field(default_factory=dict)
    _before: dict[str, dict[str, _Row]] = field(default_factory=dict)

    def look(self, seconds: float, look: Look) -> None:
        """What there is after ``seconds``."""
        self._before = self._now
        self._now = {
            "p": _rows(row for row in look.busy if row.is_process),
            "f": _rows(row for row in look.busy if not row.is_process),
            "c": {
                call: _Row(
                    call,
                    0,
                    look.received.get(call, 0),
                    look.delivered.get(call, 0),
                    look.copied.get(call, 0),
                )
                for call in {*look.received, *look.delivered, *look.copied}
            },
        }
        self.interval = max(seconds - self.seconds, 0.001)
        self.seconds = seconds

    def key(self, key: str) -> bool:
        """What is typed; ``False`` where that ends it."""
        if key in VIEWS:
            self.view = key
        elif key == "s":
            self.sort = _SORTED[(_SORTED.index(self.sort) + 1) % len(_SORTED)]
        elif key == "t":
            self.totals = not self.totals
        return key != "q"

    def render(self, width: int, height: int) -> RenderableType:
        """For a terminal of so many columns and lines."""
        rows = self._rows()
        per = "" if self.totals else "/s"
        figures = ["in", "out", "copied", *(["calls"] if self.view != "c" else [])]
        table = Table(box=None, expand=True, pad_edge=False, header_style="bold")
        room = max(width - _FIGURES - (_DESCRIPTORS if self.view == "f" else 0), 12)
        table.add_column(VIEWS[self.view], no_wrap=True, ratio=1)
        if self.view == "f":
            table.add_column("fd", no_wrap=True, justify="right")
        for name in (*figures, "copies"):
            heading = name if name == "copies" else f"{name}{per}"
            style = "bold reverse" if name == self.sort else ""
            table.add_column(Text(heading, style), no_wrap=True, justify="right")
        for row in rows[: max(height - _ROOM, 1)]:
            table.add_row(
                printable(end_of(row.name, room)),
                *([row.descriptors] if self.view == "f" else []),
                *(_short(getattr(row, _MEMBERS[name])) for name in figures),
                _copies(row),
            )
        what = "since it began" if self.totals else f"in the last {self.interval:.1f} s"
        state = f"  {self.seconds:.0f} s  {self.status}"
        # Of a command the beginning says more, and what it does now must be there.
        subject = printable(self.subject)
        if len(subject) > (left := max(width - len(state), 8)):
            subject = f"{subject[: left - 1]}…"
        return Group(
            Text(f"{subject}{state}", "bold", no_wrap=True, overflow="crop"),
            Text(self._sum(rows, what), no_wrap=True, overflow="ellipsis"),
            Text(""),
            table,
            Text("" if rows else "nothing moved"),
            Text(_HELP, "dim", no_wrap=True, overflow="ellipsis"),
        )

    def _rows(self) -> list[_Row]:
        now, before = self._now.get(self.view, {}), self._before.get(self.view, {})
        rows = [row if self.totals else row.less(before.get(name)) for name, row in now.items()]
        if not self.totals:
            rows = [_per_second(row, self.interval) for row in rows]
        kept = [row for row in rows if row.received or row.delivered or row.copied]
        member = _MEMBERS[self.sort]
        return sorted(kept, key=lambda row: (-getattr(row, member), row.name))

    def _sum(self, rows: Iterable[_Row], what: str) -> str:
        total = _Row("", 0, 0, 0, 0)
        for row in rows:
            total.received += row.received
            total.delivered += row.delivered
            total.copied += row.copied
        per = "" if self.totals else "/s"
        return (
            f"in {_short(total.received)}{per}  out {_short(total.delivered)}{per}  "
            f"copied {_short(total.copied)}{per}  {what}"
        )


_MEMBERS = {
    "in": "received",
    "out": "delivered",
    "copied": "copied",
    "calls": "calls",
    "copies": "copies",
}


def _rows(busy: Iterable[Busy]) -> dict[str, _Row]:
    return {
        one.name: _Row(
            one.name, one.calls, one.received, one.delivered, one.copied, one.descriptors
        )
        for one in busy
    }


def _short(many: int) -> str:
    """For a glance: at most five characters and a unit."""
    if many < _EXACT:
        return str(many)
    value, units = many / 1024, "KMGT"
    while value >= 1000 and len(units) > 1:
        value, units = value / 1024, units[1:]
    return f"{value:.1f}{units[0]}"


def _per_second(row: _Row, seconds: float) -> _Row:
    return _Row(
        row.name,
        round(row.calls / seconds),
        round(row.received / seconds),
        round(row.delivered / seconds),
        round(row.copied / seconds),
        row.descriptors,
    )


def _copies(row: _Row) -> str:
    """Never 0.00 for what is not."""
    if not row.received and not row.delivered:
        return ""
    return f"{row.copies:.2f}" if row.copies >= _LEAST_COPIES or not row.copied else "<0.01"
