"""Amounts of bytes, as bars in groups."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from zctrace.reports.blocks import end_of
from zctrace.reports.html import canvas
from zctrace.reports.html.canvas import Canvas

_BAR, _STEP, _SPACE, _LINE = 15.0, 20.0, 14.0, 19.0
"""Heights: of a bar, from one bar to the next, between groups, of a line of text."""
_SIZE, _SMALL = 14.0, 13.5
_WIDE, _NARROW = 1000.0, 330.0
_EDGE, _GAP = 4.0, 8.0
_NAME = 32
"""The longest name in characters; of a longer one the end says more."""


@dataclass(frozen=True)
class Bar:
    """``bytes`` is ``None`` where they were not measured; ``colour`` is one of canvas."""

    label: str
    bytes: int | None
    colour: str

    @property
    def shown(self) -> str:
        return "not measured" if self.bytes is None else f"{self.bytes} B"


@dataclass(frozen=True)
class Group:
    """Bars of one name; all groups of a drawing have the same labels."""

    name: str
    bars: tuple[Bar, ...]

    @property
    def short(self) -> str:
        return end_of(self.name, _NAME)


def draw(groups: Sequence[Group], prefix: str, title: str, *, narrow: bool) -> str:
    """The drawing as an ``svg`` element; ``prefix`` is unique on the page."""
    bars = [bar for group in groups for bar in group.bars]
    most = max((bar.bytes or 0 for bar in bars), default=0) or 1
    names = 0.0 if narrow else max(canvas.width_of(g.short, _SIZE) for g in groups) + _GAP
    labels = max(canvas.width_of(bar.label, _SMALL) for bar in bars) + _GAP
    shown = max(canvas.width_of(bar.shown, _SIZE) for bar in bars) + _GAP
    width = _NARROW if narrow else _WIDE
    zero = _EDGE + names + labels
    scale = (width - zero - shown) / most
    above = _LINE if narrow else 0.0
    height = sum(above + len(group.bars) * _STEP + _SPACE for group in groups)
    paper = Canvas(width, height)
    top = 0.0
    for group in groups:
        middle = top + (above or _STEP) / 2
        paper.text((_EDGE, middle), group.short, _SIZE, canvas.INK, bold=True)
        top += above
        for bar in group.bars:
            middle = top + _STEP / 2
            paper.text((zero - _GAP, middle), bar.label, _SMALL, canvas.MUTED, "end")
            end = zero + (bar.bytes or 0) * scale
            if bar.bytes:
                paper.bar((zero, middle - _BAR / 2), (max(end - zero, 1), _BAR), bar.colour)
            colour = canvas.UNMEASURED if bar.bytes is None else canvas.INK
            paper.text((end + _GAP, middle), bar.shown, _SIZE, colour, bold=bool(bar.bytes))
            top += _STEP
        top += _SPACE
    said = "; ".join(
        f"{group.name}: {', '.join(f'{bar.label} {bar.shown}' for bar in group.bars)}"
        for group in groups
    )
    return paper.written(prefix, title, f"{said}.")
