"""All strategies in one chart: copies by the CPU and by devices, as bars.

Drawn in two forms, as the paths are: both sides in one row, or one below the other.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from dataclasses import dataclass

from zctrace.reports.html import canvas
from zctrace.reports.html.canvas import Canvas

_BAR, _STEP, _SPACE, _LINE = 14.0, 19.0, 12.0, 18.0
"""Heights: of a bar, from one bar to the next, between strategies, of a line of text."""
_TOP, _BEFORE = 54.0, 10.0
"""Above everything, and above a heading."""
_SIZE, _SMALL = 14.0, 13.5
_WIDE, _NARROW = 1000.0, 330.0
_EDGE, _GAP = 4.0, 8.0
"""Left of everything; between a bar and its text."""
_SHOWN = _GAP + canvas.width_of("not available", _SIZE)
"""The room on the right of a scale for the text of its longest bar."""


@dataclass(frozen=True)
class Bar:
    """``copies`` is ``None`` where that was not measured, ``claimed`` where nothing is.

    ``shown`` is the number in words, ``kernel`` is empty where there is only one.
    """

    kernel: str
    copies: float | None
    claimed: int | None
    shown: str


@dataclass(frozen=True)
class Group:
    """One strategy: a bar for each kernel and side."""

    name: str
    cpu: tuple[Bar, ...]
    dma: tuple[Bar, ...]


@dataclass(frozen=True)
class Section:
    """The strategies under the same circumstances, with the lines of a heading."""

    heading: tuple[str, ...]
    groups: tuple[Group, ...]


@dataclass(frozen=True)
class _Panel:
    """One side's bars: where names and bars begin, and units for one copy.

    ``above`` is the height of a strategy's name above its bars, 0 where it stands left of
    them. ``left`` is ``None`` where no names are shown.
    """

    title: str
    colour: str
    left: float | None
    zero: float
    scale: float
    most: int
    above: float

    def bars(self, group: Group) -> tuple[Bar, ...]:
        return group.cpu if self.colour == canvas.CPU else group.dma

    def height(self, section: Section) -> float:
        groups = sum(self.above + len(g.cpu) * _STEP + _SPACE for g in section.groups)
        return _BEFORE + len(section.heading) * _LINE + groups


def draw(
    sections: Sequence[Section], prefix: str, title: str, description: str, *, narrow: bool
) -> str:
    """The chart as an ``svg`` element; ``prefix`` is unique on the page."""
    most = _most(sections)
    groups = [group for section in sections for group in section.groups]
    kernels = max(canvas.width_of(bar.kernel, _SMALL) for g in groups for bar in g.cpu)
    names = 0.0 if narrow else max(canvas.width_of(g.name, _SIZE) for g in groups) + _GAP
    zero = _EDGE + names + kernels + _GAP
    width = _NARROW if narrow else _WIDE
    room = width - zero - _SHOWN
    scale = (room if narrow else (room - _SHOWN) / 2) / most
    cpu = _Panel(
        "CPU copies per payload", canvas.CPU, _EDGE, zero, scale, most, _LINE if narrow else 0
    )
    dma = dataclasses.replace(cpu, title="DMA copies per payload", colour=canvas.DMA)
    height = _TOP + sum(map(cpu.height, sections)) + _BEFORE
    if not narrow:
        dma = dataclasses.replace(dma, left=None, zero=zero + most * scale + _SHOWN)
    paper = Canvas(width, height * 2 if narrow else height)
    _panel(paper, cpu, sections, 0)
    _panel(paper, dma, sections, height if narrow else 0)
    return paper.written(prefix, title, description)


def _most(sections: Sequence[Section]) -> int:
    """The end of the scale."""
    seen = [
        value
        for section in sections
        for group in section.groups
        for bar in (*group.cpu, *group.dma)
        for value in (bar.copies, bar.claimed)
        if value is not None
    ]
    return max(1, *map(math.ceil, seen)) if seen else 1


def _panel(paper: Canvas, panel: _Panel, sections: Sequence[Section], top: float) -> None:
    ticks = range(0, panel.most + 1, max(1, panel.most // 5))
    title = panel.zero if panel.left is None else panel.left
    paper.text((title, top + 12), panel.title, _SIZE, panel.colour, bold=True)
    for tick in ticks:
        at = panel.zero + tick * panel.scale, top + _TOP - 14
        paper.text(at, str(tick), _SMALL, canvas.MUTED, "middle")
    y = top + _TOP
    for section in sections:
        bottom = y + panel.height(section)
        y += _BEFORE
        for line in section.heading:
            if panel.left is not None:
                paper.text((panel.left, y + 4), line, _SMALL, canvas.MUTED)
            y += _LINE
        begin = y - 4
        for group in section.groups:
            _group(paper, panel, group, y)
            y += panel.above + len(group.cpu) * _STEP + _SPACE
        for tick in ticks:
            x = panel.zero + tick * panel.scale
            paper.line_behind((x, begin), (x, bottom - _SPACE + 4), canvas.LINE)


def _group(paper: Canvas, panel: _Panel, group: Group, top: float) -> None:
    if panel.left is not None:
        at = panel.left, top + (panel.above or _STEP) / 2
        paper.text(at, group.name, _SIZE, canvas.INK, bold=True, halo=True)
    for index, bar in enumerate(panel.bars(group)):
        middle = top + panel.above + index * _STEP + _STEP / 2
        if panel.left is not None:
            at = panel.zero - _GAP, middle
            paper.text(at, bar.kernel, _SMALL, canvas.MUTED, "end")
        _bar(paper, panel, bar, middle)


def _bar(paper: Canvas, panel: _Panel, bar: Bar, middle: float) -> None:
    end = panel.zero + (bar.copies or 0) * panel.scale
    if bar.copies:
        paper.bar((panel.zero, middle - _BAR / 2), (end - panel.zero, _BAR), panel.colour)
    measured = bar.copies is not None
    if bar.claimed is not None:
        mark = panel.zero + bar.claimed * panel.scale
        paper.bar((mark - 1.5, middle - _STEP / 2), (3, _STEP), canvas.INK)
        # The text of the bar does not cover the claim.
        if end < mark < end + 2 * _GAP + canvas.width_of(bar.shown, _SIZE):
            end = mark
    colour = canvas.INK if measured else canvas.UNMEASURED
    paper.text((end + _GAP, middle), bar.shown, _SIZE, colour, bold=measured, halo=True)
