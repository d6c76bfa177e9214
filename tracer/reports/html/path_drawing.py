"""The way of the payload, drawn: places, and arrows as wide as what went through them.

Each drawing comes in two forms: wide, and narrow for phones.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from zctrace.reports.data_path import Arrow, Way
from zctrace.reports.html import canvas
from zctrace.reports.html.canvas import Canvas, Point
from zctrace.workloads.route import By, Place
from zctrace.workloads.strategy import Ends

_ONE, _MOST, _LEAST = 12.0, 3.0, 1.4
"""The width of an arrow for one payload; the most payloads that are drawn to scale; and the
least width that can be seen."""
_BIG, _SMALL = 14.0, 13.5
_LINE_HEIGHT = 16.0
_GAP = 5.0
_NECK, _SPAN = 26.0, 30.0
"""How far a loop stands off its box, and its half width."""
_WIDE, _NARROW = 1000.0, 330.0
_BORDERED = 23.0
"""Between two arrows that go the same way and their middle."""


@dataclass(frozen=True)
class _Layout:
    """Where places stand: the middle of each, and the size of all. ``border`` separates user
    from kernel memory; ``user`` and ``kernel`` are where these words stand."""

    width: float
    height: float
    box: Point
    middles: dict[Place, Point]
    border: tuple[Point, Point]
    user: Point
    kernel: Point
    narrow: bool


_ROW = {
    Ends.FILE_TO_SOCKET: (Place.DISK, Place.CACHE, Place.SOCKET, Place.NIC),
    Ends.FILE_TO_FILE: (Place.DISK, Place.CACHE, Place.TARGET),
    Ends.SOCKET_TO_FILE: (Place.NIC, Place.SOCKET, Place.TARGET),
    Ends.SOCKET_TO_MEMORY: (Place.NIC, Place.SOCKET),
}
"""The kernel's places in the order of the transfer. The user buffer stands aside, between the
second and the third, if there is one."""


def draw(way: Way, prefix: str, title: str, *, narrow: bool) -> str:
    """The drawing as an ``svg`` element; ``prefix`` is unique on the page."""
    layout = _narrow(way) if narrow else _wide(way)
    paper = Canvas(layout.width, layout.height)
    paper.text(layout.user, "user memory", _SMALL, canvas.MUTED)
    kernel = "kernel and devices" if narrow else "kernel memory and devices"
    paper.text(layout.kernel, kernel, _SMALL, canvas.MUTED)
    both = {(arrow.start, arrow.end) for arrow in way.arrows if arrow.by is By.REFERENCE}
    for arrow in way.arrows:
        if arrow.start is arrow.end:
            _loop(paper, layout, arrow)
        else:
            shared = arrow.by is By.CPU and (arrow.start, arrow.end) in both
            _arrow(paper, layout, arrow, beside=shared)
    for place, middle in layout.middles.items():
        _place(paper, layout, way, place, middle)
    paper.line_behind(*layout.border, canvas.LINE, dashes="2 3")
    return paper.written(prefix, title, way.sentence)


def _wide(way: Way) -> _Layout:
    row = _ROW[way.ends]
    high = 80.0 if _loop_at(way, user=True) else 34.0
    border, low = high + 72, high + 150
    box = 140.0, 54.0
    first = box[0] / 2 + 8
    step = (_WIDE - 2 * first) / max(len(row) - 1, 2)
    middles = {place: (first + step * index, low) for index, place in enumerate(row)}
    middles[Place.USER] = (first + step * 1.5, high)
    return _Layout(
        _WIDE,
        low + (76 if _loop_at(way, user=False) or _mixed(way) else 34),
        box,
        middles,
        ((8, border), (_WIDE - 8, border)),
        (10, border - 13),
        (10, border + 14),
        narrow=False,
    )


def _narrow(way: Way) -> _Layout:
    box = 122.0, 50.0
    heights = 54.0, 160.0, 346.0, 452.0
    middles = {place: (66.0, y) for place, y in zip(_ROW[way.ends], heights, strict=False)}
    middles[Place.USER] = (_NARROW - 66, 258.0)
    height = max(y for _, y in middles.values()) + box[1] / 2 + 6
    if _loop_at(way, user=True):
        height = max(height, 374)
    return _Layout(
        _NARROW,
        height,
        box,
        middles,
        ((190, 4), (190, height - 4)),
        (198, 12),
        (6, 12),
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
            (x, y + (index - (len(rows) - 1) / 2) * _LINE_HEIGHT),
            line,
            _BIG if first else _SMALL,
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
    """In units of the sheet, in proportion to the bytes up to three payloads."""
    if arrow.copies is None or arrow.by is By.REFERENCE or not arrow.bytes:
        return _LEAST
    return max(_LEAST, _ONE * min(arrow.copies, _MOST))


def _edge(start: Point, end: Point, box: Point, aside: Point) -> Point:
    """Where the way from one box's middle to another's, moved ``aside``, leaves the box, with
    a gap."""
    along = end[0] - start[0], end[1] - start[1]
    scale = min(
        ((size / 2 + _GAP) - math.copysign(moved, moved * step)) / abs(step)
        for size, step, moved in zip(box, along, aside, strict=True)
        if step
    )
    return start[0] + aside[0] + along[0] * scale, start[1] + aside[1] + along[1] * scale


def _arrow(paper: Canvas, layout: _Layout, arrow: Arrow, *, beside: bool) -> None:
    """One arrow with its label; ``beside`` a reference that goes the same way."""
    middle, other = layout.middles[arrow.start], layout.middles[arrow.end]
    length = math.dist(middle, other)
    along = (other[0] - middle[0]) / length, (other[1] - middle[1]) / length
    # To the left, seen in the arrow's direction.
    left = along[1], -along[0]
    away = 0.0
    if beside or (arrow.by is By.REFERENCE and arrow.note.startswith("rest ")):
        away = _BORDERED if arrow.by is By.CPU else -_BORDERED
    aside = left[0] * away, left[1] * away
    start = _edge(middle, other, layout.box, aside)
    end = _edge(other, middle, layout.box, aside)
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
    """Two lines at the arrow: on both sides of a level arrow, else outside of it."""
    (x, y), (first, second) = centre, arrow.label
    colour = _colour(arrow)
    if abs(along[1]) < 0.01:
        above, below = y - half - 11, y + half + 11
        if away:
            outer = y - half - 11 - _LINE_HEIGHT if away > 0 else y + half + 11
            above, below = outer, outer + _LINE_HEIGHT
        paper.text((x, above), first, _BIG, colour, "middle", bold=True, halo=True)
        paper.text((x, below), second, _SMALL, canvas.INK, "middle", halo=True)
        return
    if abs(along[0]) < 0.01:
        # The labels of two parallel arrows stand on the right, one above the user buffer's
        # height, one below.
        start = (max(x, x - 2 * away) + half + 7, y - math.copysign(48, away) if away else y)
        anchor = "start"
    else:
        # Outside of two parallel arrows; else, in the narrow form, clear of the loop that
        # may stand below the user buffer.
        outside = x > layout.middles[Place.USER][0]
        right = arrow.start is not Place.USER if layout.narrow else outside
        right = left[0] * away > 0 if away else right
        normal = left if (left[0] > 0) is right else (-left[0], -left[1])
        # So far that no corner of the two lines touches the arrow or its head.
        off = 1.9 * half + 4 + _LINE_HEIGHT * abs(normal[1])
        start = (x + normal[0] * off, y + normal[1] * off)
        anchor = "start" if right else "end"
        if not right:
            fitting = max(canvas.width_of(line, _BIG) for line in arrow.label)
            start = (max(start[0], fitting + 4), start[1])
    _lines(paper, start, anchor, arrow, colour)


def _loop(paper: Canvas, layout: _Layout, arrow: Arrow) -> None:
    """Bytes that stay in their place: an arrow out of the box and back into it."""
    x, y = layout.middles[arrow.start]
    width, colour = width_of(arrow), _colour(arrow)
    wide, high = layout.box
    user = arrow.start is Place.USER
    if layout.narrow and not user:
        edge = x + wide / 2 + 2
        far, half = edge + _NECK, max(11, width * 0.75)
        top, bottom = y - half, y + half
        paper.loop((edge, top), ((far, top), (far, bottom)), (edge, bottom), width, colour)
        _lines(paper, (far + width / 2 + 7, y), "start", arrow, colour)
        return
    # In the narrow form there is room below the user buffer only.
    way = -1 if user and not layout.narrow else 1
    edge = y + way * (high / 2 + 2)
    far = edge + way * _NECK
    start, end = x - _SPAN, x + _SPAN
    paper.loop((start, edge), ((start, far), (end, far)), (end, edge), width, colour)
    if layout.narrow:
        at = _NARROW - 5, far + width / 2 + _LINE_HEIGHT + 4
        _lines(paper, at, "end", arrow, colour)
    else:
        _lines(paper, (end + width + 6, edge + way * 18), "start", arrow, colour)


def _lines(paper: Canvas, at: Point, anchor: str, arrow: Arrow, colour: str) -> None:
    """A label, one line above the other."""
    first, second = arrow.label
    above, below = at[1] - _LINE_HEIGHT / 2, at[1] + _LINE_HEIGHT / 2
    paper.text((at[0], above), first, _BIG, colour, anchor, bold=True, halo=True)
    paper.text((at[0], below), second, _SMALL, canvas.INK, anchor, halo=True)
