"""Strategies beside each other: copies by the CPU and by devices, as bars.

Drawn in two forms, as the ways are: both sides beside each other, or one below the other.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from zctrace.reports.html import canvas
from zctrace.reports.html.canvas import Canvas

_BAR, _STEP, _SPACE, _HEADING = 11.0, 15.0, 12.0, 14.0
"""In points: how high a bar is, from one to the next, between strategies, and a line of a
heading."""
_TOP, _BEFORE = 44.0, 8.0
"""Above everything, and above a heading."""
_SIZE, _SMALL = 10.5, 9.5


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
    """Where a side's bars stand: the left of its names, of its bars, and its right end."""

    title: str
    colour: str
    side: str
    left: float
    zero: float
    right: float


def draw(
    sections: Sequence[Section], prefix: str, title: str, description: str, *, narrow: bool
) -> str:
    """The chart as an ``svg`` element; ``prefix`` is unique on the page."""
    most = _most(sections)
    height = _TOP + sum(_height(section) for section in sections) + 18
    groups = [group for section in sections for group in section.groups]
    names = 6.6 * max(len(group.name) for group in groups) + 18
    names += 5.8 * max(len(bar.kernel) for group in groups for bar in group.cpu)
    cpu = ("CPU copies per payload", canvas.CPU, "cpu")
    dma = ("DMA copies per payload", canvas.DMA, "dma")
    if narrow:
        width, heights = 340.0, (0.0, height)
        panels = [_Panel(*one, 4, 4 + names, width - 58) for one in (cpu, dma)]
    else:
        width, heights = 740.0, (0.0, 0.0)
        panels = [
            _Panel(*cpu, 4, 4 + names, 440),
            _Panel(*dma, -1, 522, 682),
        ]
    paper = Canvas(width, heights[1] + height)
    for panel, top in zip(panels, heights, strict=True):
        _panel(paper, panel, sections, top, most)
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
    return max(1, *(int(-(-value // 1)) for value in seen)) if seen else 1


def _height(section: Section) -> float:
    heading = len(section.heading) * _HEADING + _BEFORE
    return heading + sum(len(group.cpu) * _STEP + _SPACE for group in section.groups)


def _panel(
    paper: Canvas, panel: _Panel, sections: Sequence[Section], top: float, most: int
) -> None:
    scale = (panel.right - panel.zero) / most
    bottom = top + _TOP + sum(map(_height, sections))
    title = panel.left if panel.left >= 0 else panel.zero
    paper.text((title, top + 12), panel.title, 12, panel.colour, bold=True)
    step = max(1, most // 5)
    for tick in range(0, most + 1, step):
        x = panel.zero + tick * scale
        paper.line((x, top + _TOP - 6), (x, bottom), canvas.LINE, 0.8)
        paper.text((x, top + _TOP - 13), str(tick), _SMALL, canvas.MUTED, "middle")
    y = top + _TOP
    for section in sections:
        y += _BEFORE
        for line in section.heading:
            if panel.left >= 0:
                paper.text((panel.left, y + 4), line, _SMALL, canvas.MUTED, halo=True)
            y += _HEADING
        for group in section.groups:
            _group(paper, panel, group, y, scale)
            y += len(group.cpu) * _STEP + _SPACE


def _group(paper: Canvas, panel: _Panel, group: Group, top: float, scale: float) -> None:
    for index, bar in enumerate(group.cpu if panel.side == "cpu" else group.dma):
        middle = top + index * _STEP + _STEP / 2
        if panel.left >= 0:
            if not index:
                paper.text((panel.left, middle), group.name, _SIZE, canvas.INK, bold=True)
            paper.text((panel.zero - 7, middle), bar.kernel, _SMALL, canvas.MUTED, "end")
        _bar(paper, panel, bar, middle, scale)


def _bar(paper: Canvas, panel: _Panel, bar: Bar, middle: float, scale: float) -> None:
    end = panel.zero + (bar.copies or 0) * scale
    if bar.copies:
        paper.bar((panel.zero, middle - _BAR / 2), (end - panel.zero, _BAR), panel.colour)
    mark = panel.zero + (bar.claimed or 0) * scale
    if bar.claimed is not None:
        paper.bar((mark - 1.5, middle - _STEP / 2), (3.0, _STEP), canvas.INK)
        end = max(end, mark) if bar.copies is not None and mark - end < 30 else end
    colour = canvas.INK if bar.copies is not None else canvas.UNMEASURED
    if bar.copies is None:
        end = max(end, mark)
    paper.text((end + 7, middle), bar.shown, _SIZE, colour, halo=True,
               bold=bar.copies is not None)  # fmt: skip
