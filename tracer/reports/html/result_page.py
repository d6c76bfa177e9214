"""Traces and comparisons as pages: the blocks of their reports, and a drawing."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from zctrace.analysis import sentences
from zctrace.analysis.comparison.model import COPIED, Comparison, Part, Result
from zctrace.analysis.lines import Line
from zctrace.analysis.program import Answer
from zctrace.reports import blocks, comparison, program
from zctrace.reports.blocks import Block, Gap, Listing, Text, Tone
from zctrace.reports.html import bars, canvas, flames, tables
from zctrace.reports.html.bars import Bar, Group
from zctrace.reports.html.drawing import Drawing
from zctrace.reports.html.rendering import render

_GROUPS = 8
"""So many system calls are drawn."""


@dataclass
class _Part:
    """What stands on the page for one trace, or for one comparison.

    ``facts`` are paragraphs before the first table, ``content`` is the rest in its order.
    """

    name: str
    answers: list[str] = field(default_factory=list)
    alarms: list[str] = field(default_factory=list)
    facts: list[Text] = field(default_factory=list)
    content: list[_Table | Listing | Text] = field(default_factory=list)
    drawings: list[Drawing] = field(default_factory=list)


@dataclass(frozen=True)
class _Table:
    """Rows that every form shows, and the others, folded."""

    table: tables.Table
    others: tables.Table | None


def of_programs(answers: Sequence[Answer]) -> str:
    """The page of traces, one below the other."""
    parts = []
    for number, found in enumerate(answers, 1):
        subject = found.evidence.request.subject
        assert subject is not None
        part = _part(subject.words, program.of_answer(found))
        part.drawings = _drawings(found, number)
        parts.append(part)
    title = sentences.sentence(answers[0]) if len(answers) == 1 else f"{len(answers)} traces"
    return render("result.html", title=f"Is it zero-copy? {title}",
                  heading="Is it zero-copy, and if not, who copies?", parts=parts)  # fmt: skip


def drawings_of_programs(answers: Sequence[Answer]) -> list[Drawing]:
    """All that are on that page."""
    return [
        drawn for number, found in enumerate(answers, 1) for drawn in _drawings(found, number)
    ]


def drawings_of_comparison(result: Result) -> list[Drawing]:
    """All that are on the page of what changed."""
    return [
        drawn
        for number, one in enumerate(result.comparisons, 1)
        for drawn in _changed(one, number)
    ]


def of_comparison(result: Result) -> str:
    """The page of what changed."""
    part = _part("Comparison", comparison.report(result))
    part.drawings = drawings_of_comparison(result)
    return render("result.html", title=f"What changed? {result.headline}",
                  heading="What changed?", parts=[part])  # fmt: skip


def _part(name: str, content: Iterable[Block]) -> _Part:
    part = _Part(name)
    for block in content:
        match block:
            case Gap():
                pass
            case Text(text=text, tone=Tone.ALARM):
                part.alarms.append(text)
            case Text(text=text, tone=Tone.ANSWER) if not part.facts and not part.content:
                part.answers.append(text)
            case Text() if not part.content:
                part.facts.append(block)
            case blocks.Table():
                part.content.append(_folded(block))
            case _:
                part.content.append(block)
    return part


def _folded(block: blocks.Table) -> _Table:
    columns = [
        tables.Column(column.heading, number=column.number) for column in block.columns[1:]
    ]

    def table(rows: Sequence[blocks.Row], caption: str) -> tables.Table:
        cells = [
            (str(name), list(map(_cell, columns, values)))
            for name, *values in (row.cells for row in rows)
        ]
        heading = block.columns[0].heading
        return tables.Table(caption, heading, columns, [tables.Group("", cells)])

    heading = block.columns[0].heading
    shown = [row for row in block.rows if row.shown]
    others = [row for row in block.rows if not row.shown]
    more = table(others, f"{heading}: {len(others)} more") if others else None
    return _Table(table(shown, heading), more)


def _cell(column: tables.Column, cell: blocks.Cell) -> tables.Cell:
    if isinstance(cell, int):
        return tables.Cell(str(cell), "number", str(cell))
    if not cell:
        return tables.Cell("", "empty")
    return tables.Cell(cell, "figure" if column.number else "text")


def _drawings(found: Answer, number: int) -> list[Drawing]:
    return [*_copied(found, number), *_flames(found, number)]


def _flames(found: Answer, number: int) -> list[Drawing]:
    """Who copied on behalf of whom, where stacks were kept."""
    stacks = found.stacks
    if not stacks:
        return []
    caption = (
        "Copied bytes by stack: a box is as wide as what was copied below it. From the top: "
        "the thread, its functions, the system call, the kernel's functions (grey)."
    )

    def draw(narrow: bool) -> str:
        prefix = f"flames-{number}-{'narrow' if narrow else 'wide'}"
        return flames.draw(stacks, prefix, caption, narrow=narrow)

    return [Drawing.of(f"flames-{number}", caption, draw)]


def _copied(found: Answer, number: int) -> list[Drawing]:
    """What each system call moved, and what the CPU copied for it."""
    if found.copied is None:
        return []
    lines = [line for line in found.calls if _moved(line) or line.copied_bytes]
    most = sorted(lines, key=lambda one: -max(_moved(one), one.copied_bytes))[:_GROUPS]
    groups = [
        Group(
            line.name,
            (
                Bar("moved", _moved(line), canvas.REFERENCE),
                Bar("copied", line.copied_bytes, canvas.CPU),
            ),
        )
        for line in most
    ]
    caption = "Bytes that system calls moved, and bytes that the CPU copied for them"
    return _drawn(groups, f"copied-{number}", caption)


def _moved(line: Line) -> int:
    return line.received + line.delivered


def _changed(one: Comparison, number: int) -> list[Drawing]:
    """What the CPU copied for each system call, before and after."""
    groups = []
    for item in one.items:
        change = item.of(COPIED)
        if item.part is Part.CALL and change and change.differs:
            sides = change.before, change.after
            before, after = (side if isinstance(side, int) else None for side in sides)
            groups.append(
                Group(
                    item.name,
                    (Bar("before", before, canvas.MUTED), Bar("after", after, canvas.CPU)),
                )
            )
    caption = f"Bytes that the CPU copied: {one.subject}"
    return _drawn(groups[:_GROUPS], f"changed-{number}", caption)


def _drawn(groups: Sequence[Group], name: str, caption: str) -> list[Drawing]:
    if not groups:
        return []

    def draw(narrow: bool) -> str:
        prefix = f"{name}-{'narrow' if narrow else 'wide'}"
        return bars.draw(groups, prefix, caption, narrow=narrow)

    return [Drawing.of(name, caption, draw)]
