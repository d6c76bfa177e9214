"""What the README shows of recorded evidence: ``make record`` puts it there."""

import io
from pathlib import Path

from rich.console import Console

from tests.conftest import HERE
from zctrace.analysis import program, saved
from zctrace.analysis.comparison import pairing
from zctrace.reports.text import comparison

README = HERE.parent / "README.md"
LINE, ON, OFF = "6.1", "nginx, sendfile on", "nginx, sendfile off"
"""The traces that it compares: on which kernel, and their names in the recording."""
_SECTION, _FENCE, _LEFT_OUT = "## What changed", "```\n", "…"
_FIRST_TABLES, _END = "file, socket or pipe", "Different from one run to the next anyway"
"""The tables that are shown stand before the one; with the other begins what is shown last."""


def compared(evidence):
    """What ``zctrace compare`` prints of the recorded traces, by name: lines."""
    off, on = (
        saved.Saved(Path(name), (), (program.answer(evidence[name]),)) for name in (OFF, ON)
    )
    text = io.StringIO()
    comparison.render(pairing.compare(off, on), Console(file=text, width=80))
    return [line.rstrip() for line in text.getvalue().splitlines()]


def block(text):
    """The comparison that the README's ``text`` shows."""
    return text.split(_SECTION)[1].split(_FENCE)[3]


def renewed(text, evidence):
    """The README's ``text`` with the comparison of that evidence."""
    lines = compared(evidence)
    (first,) = (n for n, line in enumerate(lines) if line.strip().startswith(_FIRST_TABLES))
    (last,) = (n for n, line in enumerate(lines) if line.startswith(_END))
    shown = [*"\n".join(lines[:first]).rstrip().splitlines(), "", _LEFT_OUT, "", *lines[last:]]
    before, section = text.split(_SECTION)
    return before + _SECTION + section.replace(block(text), "\n".join(shown).rstrip() + "\n", 1)
