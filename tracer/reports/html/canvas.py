"""A sheet to draw on, and the SVG that comes of it. The only module that imports matplotlib.

Coordinates are points, from the top left. Colours are names of the page's variables.
"""

from __future__ import annotations

import io
import math

import matplotlib as mpl
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import FancyBboxPatch, PathPatch, Polygon
from matplotlib.path import Path

from zctrace.reports.html import svg

Point = tuple[float, float]

CPU, DMA, REFERENCE, UNMEASURED = "cpu", "dma", "reference", "unmeasured"
INK, MUTED, LINE, BOX, PAGE = "ink", "muted", "line", "box", "page"
_NAMES = (CPU, DMA, REFERENCE, UNMEASURED, INK, MUTED, LINE, BOX, PAGE)
_COLOURS = {name: f"#0000{index:02x}" for index, name in enumerate(_NAMES, 1)}
"""What is drawn with, only to be told apart afterwards."""
_VARIABLES = {colour: name for name, colour in _COLOURS.items()}
_ANCHORS = {"start": "left", "middle": "center", "end": "right"}
_HEAD = 1.2
"""How long an arrow's head is, in widths of it."""


class Canvas:
    """A sheet of ``width`` × ``height`` points.

    What is drawn is added as an artist, nothing more: as a line or a patch it would be
    measured first, for limits of the axes that are fixed here.
    """

    def __init__(self, width: float, height: float) -> None:
        self._figure = Figure(figsize=(width / 72, height / 72), dpi=72)
        FigureCanvasSVG(self._figure)
        self._axes = self._figure.add_axes((0, 0, 1, 1))
        self._axes.set_xlim(0, width)
        self._axes.set_ylim(height, 0)
        self._axes.set_axis_off()
        self._drawn = 0

    def _next(self) -> int:
        """What is drawn later lies above what was drawn before."""
        self._drawn += 1
        return self._drawn

    def line(
        self,
        start: Point,
        end: Point,
        colour: str,
        width: float = 1.0,
        dashes: tuple[float, float] | None = None,
    ) -> None:
        line = Line2D(
            [start[0], end[0]], [start[1], end[1]], color=_COLOURS[colour], linewidth=width
        )
        line.set_zorder(self._next())
        if dashes:
            line.set_dashes(dashes)
        self._axes.add_artist(line)

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
        self._axes.text(
            *at,
            # XML has no way to say a control character.
            "".join(c if c.isprintable() else "\N{REPLACEMENT CHARACTER}" for c in words),
            fontsize=size,
            color=_COLOURS[colour],
            horizontalalignment=_ANCHORS[anchor],
            verticalalignment="center_baseline",
            fontweight="bold" if bold else "normal",
            parse_math=False,
            zorder=self._next(),
            gid=svg.HALO if halo else None,
        )

    def box(
        self, middle: Point, size: Point, fill: str, edge: str, *, dashed: bool = False
    ) -> None:
        self._axes.add_artist(
            FancyBboxPatch(
                (middle[0] - size[0] / 2 + 6, middle[1] - size[1] / 2 + 6),
                size[0] - 12,
                size[1] - 12,
                boxstyle="round,pad=6,rounding_size=6",
                facecolor=_COLOURS[fill],
                edgecolor=_COLOURS[edge],
                linewidth=1.2,
                linestyle=(0, (3, 3)) if dashed else "solid",
                zorder=self._next(),
            )
        )

    def bar(self, corner: Point, size: Point, colour: str) -> None:
        x, y = corner
        self._polygon(
            [(x, y), (x + size[0], y), (x + size[0], y + size[1]), (x, y + size[1])], colour
        )

    def arrow(
        self, start: Point, end: Point, width: float, colour: str, *, hollow: bool = False
    ) -> None:
        """As wide as said, from point to point."""
        length = math.dist(start, end)
        along = (end[0] - start[0]) / length, (end[1] - start[1]) / length
        across = -along[1], along[0]
        half, wing = width / 2, max(width * 0.95, 5.0)
        neck = length - min(max(wing * _HEAD, 7.0), length * 0.6)

        def at(forth: float, aside: float) -> Point:
            return (
                start[0] + along[0] * forth + across[0] * aside,
                start[1] + along[1] * forth + across[1] * aside,
            )

        if hollow:
            self.line(start, at(neck, 0), colour, width)
            self._polygon([at(neck, wing), at(length, 0), at(neck, -wing)], PAGE, edge=colour)
            return
        outline = [at(0, half), at(neck, half), at(neck, wing), at(length, 0)]
        outline += [at(neck, -wing), at(neck, -half), at(0, -half)]
        self._polygon(outline, colour)

    def dashed_arrow(self, start: Point, end: Point, colour: str) -> None:
        """For what is handed over without moving."""
        length = math.dist(start, end)
        back = (length - 7) / length
        neck = start[0] + (end[0] - start[0]) * back, start[1] + (end[1] - start[1]) * back
        self.line(start, neck, colour, 2.0, dashes=(3, 2))
        self.arrow(neck, end, 0.1, colour)

    def loop(
        self, start: Point, corners: tuple[Point, Point], end: Point, width: float, colour: str
    ) -> None:
        """Out of a box, around two corners and back, as wide as said."""
        last = corners[1]
        self._axes.add_artist(
            PathPatch(
                Path([start, *corners, end][:3]),
                facecolor="none",
                edgecolor=_COLOURS[colour],
                linewidth=width,
                joinstyle="miter",
                zorder=self._next(),
            )
        )
        length = math.dist(last, end)
        over = width / 2 / length
        begin = last[0] - (end[0] - last[0]) * over, last[1] - (end[1] - last[1]) * over
        self.arrow(begin, end, width, colour)

    def _polygon(self, points: list[Point], colour: str, edge: str = "") -> None:
        self._axes.add_artist(
            Polygon(
                points,
                closed=True,
                facecolor=_COLOURS[colour],
                edgecolor=_COLOURS[edge] if edge else "none",
                linewidth=1.2 if edge else 0,
                zorder=self._next(),
            )
        )

    def written(self, prefix: str, title: str, description: str) -> str:
        """An ``svg`` element for a page on which ``prefix`` is unique."""
        text = io.StringIO()
        with mpl.rc_context({"svg.fonttype": "none", "svg.hashsalt": "zctrace"}):
            self._figure.savefig(text, format="svg", metadata={"Date": None}, transparent=True)
        return svg.inline(text.getvalue(), prefix, _VARIABLES, title, description)
