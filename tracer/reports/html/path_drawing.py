"""The way of the payload, drawn: places, and arrows as wide as what went through them.

Coordinates are points, from the top left. Each drawing comes in two forms, wide, and narrow
for phones.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from zctrace.reports.data_path import Arrow, By, Place, Way
from zctrace.reports.html import canvas
from zctrace.reports.html.canvas import Canvas, Point
from zctrace.workloads.strategy import Ends

_ONE, _MOST, _LEAST = 11.0, 3.0, 1.4
"""How wide an arrow for one payload is, in points; the most payloads that are drawn to
scale; and the least width that can be seen."""
_BIG, _SMALL, _TINY = 12.0, 10.0, 9.0
_LINE_HEIGHT = 13.0
_GAP = 5.0
_NECK = 26.0
"""How far a loop stands off, in points."""


@dataclass(frozen=True)
class _Layout:
    """Where places stand: the middle of each, and the size of all. ``border`` separates user
    from kernel memory, which are written beside it."""

    width: float
    height: float
    box: Point
    middles: dict[Place, Point]
    border: tuple[Point, Point]
    user: Point
    kernel: Point
    narrow: bool


_ACROSS = {
    Ends.FILE_TO_SOCKET: {Place.DISK: 58, Place.CACHE: 260, Place.SOCKET: 480, Place.NIC: 682},
    Ends.FILE_TO_FILE: {Place.DISK: 58, Place.CACHE: 260, Place.TARGET: 480},
    Ends.SOCKET_TO_FILE: {Place.NIC: 58, Place.SOCKET: 260, Place.TARGET: 480},
    Ends.SOCKET_TO_MEMORY: {Place.NIC: 58, Place.SOCKET: 260},
}
"""From the left, in the wide form; the user buffer stands above, and in between."""
_DOWN = {
    Ends.FILE_TO_SOCKET: {Place.DISK: 56, Place.CACHE: 152, Place.SOCKET: 324, Place.NIC: 434},
    Ends.FILE_TO_FILE: {Place.DISK: 56, Place.CACHE: 152, Place.TARGET: 324},
    Ends.SOCKET_TO_FILE: {Place.NIC: 56, Place.SOCKET: 152, Place.TARGET: 324},
    Ends.SOCKET_TO_MEMORY: {Place.NIC: 56, Place.SOCKET: 152},
}
"""From the top, in the narrow form; the user buffer stands on the right, and in between."""


def draw(way: Way, prefix: str, title: str, *, narrow: bool) -> str:
    """The drawing as an ``svg`` element; ``prefix`` is unique on the page."""
    layout = _narrow(way) if narrow else _wide(way)
    paper = Canvas(layout.width, layout.height)
    paper.line(*layout.border, canvas.LINE, dashes=(2, 3))
    paper.text(layout.user, "user memory", _TINY, canvas.MUTED)
    paper.text(layout.kernel, "kernel memory and devices", _TINY, canvas.MUTED)
    both = {(arrow.start, arrow.end) for arrow in way.arrows if arrow.by is By.REFERENCE}
    for arrow in way.arrows:
        if arrow.start is arrow.end:
            _loop(paper, layout, arrow)
        else:
            shared = arrow.by is By.CPU and (arrow.start, arrow.end) in both
            _arrow(paper, layout, arrow, beside=shared)
    for place, middle in layout.middles.items():
        _place(paper, layout, way, place, middle)
    return paper.written(prefix, title, way.sentence)


def _wide(way: Way) -> _Layout:
    high = 74.0 if _loop_at(way, user=True) else 42.0
    border, low = high + 62, high + 132
    middles = {place: (float(x), low) for place, x in _ACROSS[way.ends].items()}
    middles[Place.USER] = (370.0, high)
    width = max(x for x, _ in middles.values()) + 58
    return _Layout(
        max(width, 538),
        low + (72 if _loop_at(way, user=False) or _mixed(way) else 36),
        (100, 46),
        middles,
        ((8, border), (max(width, 538) - 8, border)),
        (10, border - 11),
        (10, border + 12),
        narrow=False,
    )


def _narrow(way: Way) -> _Layout:
    middles = {place: (62.0, float(y)) for place, y in _DOWN[way.ends].items()}
    middles[Place.USER] = (272.0, 238.0)
    height = max(y for _, y in middles.values()) + 32
    return _Layout(
        330,
        height,
        (104, 46),
        middles,
        ((204, 4), (204, height - 4)),
        (212, 12),
        (10, 12),
        narrow=True,
    )


def _mixed(way: Way) -> bool:
    """Whether a part was copied where the rest went by reference."""
    return any(arrow.note.startswith("rest ") for arrow in way.arrows)


def _loop_at(way: Way, *, user: bool) -> bool:
    return any(
        arrow.start is arrow.end and (arrow.start is Place.USER) is user for arrow in way.arrows
    )


def _place(paper: Canvas, layout: _Layout, way: Way, place: Place, middle: Point) -> None:
    idle = place in way.absent or place in way.untouched
    paper.box(
        middle,
        layout.box,
        canvas.PAGE if idle else canvas.BOX,
        canvas.LINE if idle else canvas.MUTED,
        dashed=place in way.absent,
    )
    lines = place.value.split(" of ") if place is Place.TARGET else [place.value]
    if len(lines) > 1:
        lines[1] = f"of {lines[1]}"
    detail = dict(way.names).get(place, "")
    x, y = middle
    rows = [*lines, *([detail] if detail else [])]
    for index, line in enumerate(rows):
        first = index < len(lines)
        paper.text(
            (x, y + (index - (len(rows) - 1) / 2) * 14),
            line,
            _BIG if first else _TINY,
            canvas.MUTED if idle or not first else canvas.INK,
            "middle",
            bold=first and not idle,
        )


def _colour(arrow: Arrow) -> str:
    if arrow.by is By.REFERENCE:
        return canvas.REFERENCE
    if arrow.bytes is None:
        return canvas.UNMEASURED
    return canvas.CPU if arrow.by is By.CPU else canvas.DMA


def width_of(arrow: Arrow) -> float:
    """In points, in proportion to the bytes up to three payloads."""
    if arrow.copies is None or arrow.by is By.REFERENCE or not arrow.bytes:
        return _LEAST
    return max(_LEAST, _ONE * min(arrow.copies, _MOST))


def _edge(start: Point, end: Point, box: Point) -> Point:
    """Where the way from one box's middle to another's leaves the box, with a gap."""
    dx, dy = end[0] - start[0], end[1] - start[1]
    scale = min(
        (box[0] / 2 + _GAP) / abs(dx) if dx else math.inf,
        (box[1] / 2 + _GAP) / abs(dy) if dy else math.inf,
    )
    return start[0] + dx * scale, start[1] + dy * scale


def _arrow(paper: Canvas, layout: _Layout, arrow: Arrow, *, beside: bool) -> None:
    """One arrow with its label; ``beside`` a reference that goes the same way."""
    middle, other = layout.middles[arrow.start], layout.middles[arrow.end]
    start = _edge(middle, other, layout.box)
    end = _edge(other, middle, layout.box)
    length = math.dist(start, end)
    along = (end[0] - start[0]) / length, (end[1] - start[1]) / length
    # To the left of whoever goes along it.
    left = along[1], -along[0]
    away = 0.0
    if beside or (arrow.by is By.REFERENCE and arrow.note.startswith("rest ")):
        away = 20.0 if arrow.by is By.CPU else -20.0
    start, end = (
        (point[0] + left[0] * away, point[1] + left[1] * away) for point in (start, end)
    )
    width, colour = width_of(arrow), _colour(arrow)
    if arrow.by is By.REFERENCE:
        paper.dashed_arrow(start, end, colour)
    else:
        paper.arrow(start, end, width, colour, hollow=arrow.bytes == 0)
    centre = (start[0] + end[0]) / 2, (start[1] + end[1]) / 2
    _label(paper, layout, arrow, centre, along, left, max(width, 9.0) / 2, away)


def _label(
    paper: Canvas,
    layout: _Layout,
    arrow: Arrow,
    centre: Point,
    along: Point,
    left: Point,
    half: float,
    away: float,
) -> None:
    """Two lines beside the arrow: on both sides of a level one, else outside of it."""
    (x, y), (first, second) = centre, arrow.label
    colour = _colour(arrow)
    if abs(along[1]) < 0.01:
        above, below = y - half - 9, y + half + 9
        if away:
            above, below = (y - half - 22, y - half - 9) if away > 0 else (y + 14, y + 27)
        paper.text((x, above), first, _BIG, colour, "middle", bold=True, halo=True)
        paper.text((x, below), second, _SMALL, canvas.INK, "middle", halo=True)
        return
    if abs(along[0]) < 0.01:
        # Of two beside each other both labels stand on the right, one above the other.
        start = (max(x, x - 2 * away) + half + 7, y - math.copysign(18, away) if away else y)
        anchor = "start"
    else:
        user = layout.middles[Place.USER]
        side = 1.0 if layout.narrow or x > user[0] else -1.0
        # Away from the straight way between the kernel's places.
        side = -side if away < 0 else side
        normal = left if left[0] * side > 0 else (-left[0], -left[1])
        start = (x + normal[0] * (half + 8), y + normal[1] * (half + 8))
        anchor = "start" if side > 0 else "end"
        if layout.narrow:
            start = (start[0] + 2 * side, start[1] + math.copysign(9, normal[1]))
    _lines(paper, start, anchor, arrow, colour)


def _loop(paper: Canvas, layout: _Layout, arrow: Arrow) -> None:
    """Bytes that stay in their place: an arrow out of the box and back into it."""
    x, y = layout.middles[arrow.start]
    width, colour = width_of(arrow), _colour(arrow)
    wide, high = layout.box
    if layout.narrow:
        edge = x + wide / 2 + 2
        far = edge + _NECK
        paper.loop((edge, y - 4), ((far, y - 4), (far, y + 18)), (edge, y + 18), width, colour)
        _lines(paper, (far + width / 2 + 7, y + 9), "start", arrow, colour)
        return
    way = -1 if arrow.start is Place.USER else 1
    edge = y + way * (high / 2 + 2)
    far = edge + way * _NECK
    paper.loop((x - 24, edge), ((x - 24, far), (x + 24, far)), (x + 24, edge), width, colour)
    _lines(paper, (x + 24 + width + 6, edge + way * 18), "start", arrow, colour)


def _lines(paper: Canvas, at: Point, anchor: str, arrow: Arrow, colour: str) -> None:
    """A label, one line above the other."""
    first, second = arrow.label
    above, below = at[1] - _LINE_HEIGHT / 2, at[1] + _LINE_HEIGHT / 2
    paper.text((at[0], above), first, _BIG, colour, anchor, bold=True, halo=True)
    paper.text((at[0], below), second, _SMALL, canvas.INK, anchor, halo=True)
