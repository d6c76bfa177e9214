"""A sheet to draw on, and the SVG element that comes of it.

Lengths are in units of the sheet, from the top left. Colours are names of the page's CSS
variables, so that dark mode and print reach them. Nothing else on the page is needed: saved
alone, a drawing wants these variables and the namespace of SVG.
"""

from __future__ import annotations

import math
import xml.etree.ElementTree as ET

Point = tuple[float, float]

CPU, DMA, REFERENCE, UNMEASURED = "cpu", "dma", "reference", "unmeasured"
INK, MUTED, LINE, BOX, PAGE = "ink", "muted", "line", "box", "page"
_HEAD = 1.2
"""The length of an arrow's head, in widths of the head."""
_BEFORE = {"start": 0.0, "middle": 0.5, "end": 1.0}
"""The share of a text's width that is left of its point, by anchor."""
_CLEAR = 2.0
"""Between a line behind words and the words."""
_EM = 0.7
"""An upper estimate of a character's mean width, in font sizes: DejaVu Sans, bold."""


def width_of(words: str, size: float) -> float:
    """An upper estimate: the page's font is not known before the page is shown."""
    return _EM * size * len(words)


def _printable(words: str) -> str:
    """XML cannot express control characters."""
    return "".join(c if c.isprintable() else "\N{REPLACEMENT CHARACTER}" for c in words)


class Canvas:
    """A sheet of ``width`` × ``height``; what is drawn later covers what was drawn before."""

    def __init__(self, width: float, height: float) -> None:
        self._root = ET.Element("svg", role="img", viewBox=f"0 0 {width:g} {height:g}")
        self._words: list[tuple[Point, Point]] = []

    def _add(self, tag: str, fill: str, stroke: str = "", **values: str | float) -> ET.Element:
        """An element; empty values are left out, numbers rounded to hundredths."""
        colours = {
            kind: f"var(--{name})"
            for kind, name in (("fill", fill), ("stroke", stroke))
            if name
        }
        attributes = {"fill": "none", **colours}
        for name, value in values.items():
            if value != "":
                text = value if isinstance(value, str) else f"{round(value, 2):g}"
                attributes[name.replace("_", "-")] = text
        return ET.SubElement(self._root, tag, attributes)

    def _path(self, points: list[Point], fill: str, stroke: str = "", width: float = 0) -> None:
        corners = " ".join(f"{round(x, 2):g},{round(y, 2):g}" for x, y in points)
        tag = "polygon" if fill else "polyline"
        self._add(tag, fill, stroke, points=corners, stroke_width=width)

    def line(
        self, start: Point, end: Point, colour: str, width: float = 1, dashes: str = ""
    ) -> None:
        (x1, y1), (x2, y2) = start, end
        self._add("line", "", colour, x1=x1, y1=y1, x2=x2, y2=y2, stroke_width=width,
                  stroke_dasharray=dashes)  # fmt: skip

    def line_behind(self, start: Point, end: Point, colour: str, dashes: str = "") -> None:
        """A level or upright line below everything, with gaps where words stand.

        Drawn last, since only then all words are known.
        """
        along = int(start[0] == end[0])
        across = start[1 - along]
        gaps = sorted(
            (first[along] - _CLEAR, last[along] + _CLEAR)
            for first, last in self._words
            if first[1 - along] - _CLEAR < across < last[1 - along] + _CLEAR
        )
        at = start[along]
        for begin, stop in (*gaps, (end[along], end[along])):
            if at < (until := min(begin, end[along])):
                begins, ends = (
                    (across, place) if along else (place, across) for place in (at, until)
                )
                self.line(begins, ends, colour, dashes=dashes)
                drawn = self._root[-1]
                self._root.remove(drawn)
                self._root.insert(0, drawn)
            at = max(at, stop)

    def text(
        self,
        at: Point,
        words: str,
        size: float,
        colour: str,
        anchor: str = "start",
        *,
        bold: bool = False,
        halo: bool = False,
    ) -> None:
        """One line, its middle at the height of ``at``; ``halo`` keeps it clear of lines."""
        around: dict[str, str | float]
        around = {"paint_order": "stroke", "stroke_width": 3} if halo else {}
        wide = width_of(words, size)
        left = at[0] - wide * _BEFORE[anchor]
        self._words.append(((left, at[1] - size / 2), (left + wide, at[1] + size / 2)))
        self._add("text", colour, PAGE if halo else "", x=at[0], y=at[1] + 0.36 * size,
                  font_size=size, font_weight="700" if bold else "", text_anchor=anchor,
                  **around).text = _printable(words)  # fmt: skip

    def box(
        self, middle: Point, size: Point, fill: str, edge: str, *, dashed: bool = False
    ) -> None:
        (x, y), (width, height) = middle, size
        self._add("rect", fill, edge, x=x - width / 2, y=y - height / 2, width=width,
                  height=height, rx=6, stroke_width=1.2,
                  stroke_dasharray="4 4" if dashed else "")  # fmt: skip

    def block(self, corner: Point, size: Point, fill: str, edge: str, about: str) -> None:
        """A box whose corner is given; a mouse that rests on it shows what it is about."""
        (left, top), (width, height) = corner, size
        drawn = self._add("rect", fill, edge, x=left + 0.5, y=top + 0.5, width=width - 1,
                          height=height - 1, stroke_width=1)  # fmt: skip
        ET.SubElement(drawn, "title").text = _printable(about)

    def bar(self, corner: Point, size: Point, colour: str) -> None:
        self._add("rect", colour, x=corner[0], y=corner[1], width=size[0], height=size[1])

    def arrow(
        self, start: Point, end: Point, width: float, colour: str, *, hollow: bool = False
    ) -> None:
        """``width`` wide from point to point; ``hollow`` has an empty head."""
        length = math.dist(start, end)
        along = (end[0] - start[0]) / length, (end[1] - start[1]) / length
        half, wing = width / 2, max(width * 0.95, 5.0)
        neck = length - min(max(wing * _HEAD, 7.0), length * 0.6)

        def at(forth: float, aside: float) -> Point:
            return (
                start[0] + along[0] * forth - along[1] * aside,
                start[1] + along[1] * forth + along[0] * aside,
            )

        head = [at(neck, wing), at(length, 0), at(neck, -wing)]
        if hollow:
            self.line(start, at(neck, 0), colour, width)
            self._path(head, PAGE, colour, 1.2)
            return
        shaft = at(neck, -half), at(0, -half), at(0, half), at(neck, half)
        self._path([*head, *shaft], colour)

    def dashed_arrow(self, start: Point, end: Point, colour: str) -> None:
        """For what is handed over without moving."""
        back = 1 - 7 / math.dist(start, end)
        neck = start[0] + (end[0] - start[0]) * back, start[1] + (end[1] - start[1]) * back
        self.line(start, neck, colour, 2, dashes="6 4")
        self.arrow(neck, end, 0.1, colour)

    def loop(
        self, start: Point, corners: tuple[Point, Point], end: Point, width: float, colour: str
    ) -> None:
        """Out of a box, around two corners and back, ``width`` wide."""
        last = corners[1]
        self._path([start, *corners], "", colour, width)
        over = width / 2 / math.dist(last, end)
        begin = last[0] - (end[0] - last[0]) * over, last[1] - (end[1] - last[1]) * over
        self.arrow(begin, end, width, colour)

    def written(self, prefix: str, title: str, description: str) -> str:
        """An ``svg`` element for a page on which ``prefix`` is unique."""
        told = {f"{prefix}-title": title, f"{prefix}-desc": description}
        self._root.set("aria-labelledby", " ".join(told))
        for index, (name, words) in enumerate(told.items()):
            element = ET.Element(name.removeprefix(f"{prefix}-"), id=name)
            element.text = _printable(words)
            self._root.insert(index, element)
        return ET.tostring(self._root, encoding="unicode")
