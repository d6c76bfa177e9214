"""Who copied on behalf of whom: stacks as boxes, each as wide as the bytes copied below it.

From the top: the thread, its functions, the system call, the kernel's functions. What is too
narrow for a box is left out, and is in ``--folded`` and ``--speedscope``.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from zctrace.evidence.account import Stack
from zctrace.reports.flamegraph import bare, frames
from zctrace.reports.html import canvas
from zctrace.reports.html.canvas import Canvas

_WIDE, _NARROW = 1000.0, 330.0
_STEP, _HIGH, _SIZE = 26.0, 24.0, 14.0
"""Heights: from one row to the next, of a box, of a text."""
_EDGE, _LEAST = 6.0, 3.0
"""Between a text and the edge of its box; the narrowest box."""
_LETTERS = 3
"""Fewer of a name say nothing."""
_MOST_ROWS = 48


@dataclass
class _Node:
    name: str
    bytes: int = 0
    inside: dict[str, _Node] = field(default_factory=dict)


@dataclass(frozen=True)
class _Box:
    name: str
    bytes: int
    row: int
    left: float
    width: float


def draw(stacks: Sequence[Stack], prefix: str, title: str, *, narrow: bool) -> str:
    """The drawing as an ``svg`` element; ``prefix`` is unique on the page."""
    root = _Node("")
    for stack in stacks:
        root.bytes += stack.bytes
        node = root
        for name in frames(stack)[:_MOST_ROWS]:
            node = node.inside.setdefault(name, _Node(name))
            node.bytes += stack.bytes
    width = _NARROW if narrow else _WIDE
    boxes = list(_boxes(root, 0, 0.0, width / (root.bytes or 1)))
    rows = 1 + max((box.row for box in boxes), default=0)
    paper = Canvas(width, rows * _STEP)
    for box in boxes:
        top = box.row * _STEP
        share = 100 * box.bytes / root.bytes
        words, is_kernel = bare(box.name)
        paper.block(
            (box.left, top),
            (box.width, _HIGH),
            canvas.BOX if is_kernel else canvas.PAGE,
            canvas.LINE,
            f"{words}: {box.bytes} B, {share:.1f} %",
        )
        letters = int((box.width - 2 * _EDGE) / canvas.width_of("x", _SIZE))
        if letters >= min(_LETTERS, len(words)):
            shown = words if len(words) <= letters else f"{words[: letters - 1]}…"
            paper.text((box.left + _EDGE, top + _HIGH / 2), shown, _SIZE, canvas.INK)
    heaviest = max(stacks, key=lambda stack: stack.bytes)
    said = f"{root.bytes} B; most, {heaviest.bytes} B, on: {', '.join(frames(heaviest))}."
    return paper.written(prefix, title, said)


def _boxes(node: _Node, row: int, left: float, scale: float) -> Iterator[_Box]:
    """Those below a node, the widest first."""
    for inside in sorted(node.inside.values(), key=lambda one: (-one.bytes, one.name)):
        width = inside.bytes * scale
        if width >= _LEAST:
            yield _Box(inside.name, inside.bytes, row, left, width)
            yield from _boxes(inside, row + 1, left, scale)
        left += width
