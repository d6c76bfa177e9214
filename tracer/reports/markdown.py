"""The report as a document to keep: Markdown, tables as GitHub has them.

Kernels on which a strategy gave the same share a row, so that a difference is one to see.
Reports of traces and comparisons are made of blocks; each has its like in Markdown.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence

from zctrace.analysis import advice, sentences
from zctrace.analysis.comparison.model import Result
from zctrace.analysis.program import Answer
from zctrace.analysis.runs import Judged
from zctrace.analysis.verdicts import Verdict, Word
from zctrace.evidence.schema import Evidence
from zctrace.printable import printable
from zctrace.reports import comparison, program, wording
from zctrace.reports.blocks import Block, Listing, Table, Text, Tone

_SIGNS = re.compile(r"[*_`\[~#]|^(?=[-+>])|(?<=^\d)\.")
Cells = Callable[[Judged], tuple[str, ...]]


def document(judged: Sequence[Judged]) -> str:
    """Everything but the evidence."""
    evidences = wording.evidences_of(judged)
    rows = wording.by_strategy(judged)
    lines = ["# Measured and claimed", ""]
    alarm, reasons = wording.alarm(rows)
    if alarm:
        lines += [f"**{alarm}**", "", *_list(reasons), ""]
    lines += [*_list("; ".join(wording.heading(e)) for e in evidences), ""]
    lines += [f"{_sentence(wording.task(judged))}.", ""]
    for (nic, cache), part in wording.settings(rows).items():
        lines += [f"## {wording.circumstances(nic, cache, part)}", "", *_setting(part)]
    lines += ["## How it was measured", ""]
    for evidence in evidences:
        lines += _coverage(evidence, [j for j in judged if j.evidence is evidence])
    return "\n".join(map(_harmless, lines)).rstrip() + "\n"


def of_programs(answers: Sequence[Answer]) -> str:
    """Traces, one below the other."""
    return of_blocks("Is it zero-copy, and if not, who copies?", program.report(answers))


def of_check(found: Answer, most: float, failure: str) -> str:
    """A program that was held to a limit; ``failure`` is empty if it has kept it."""
    subject = found.evidence.request.subject
    assert subject is not None
    first, *others = (failure or sentences.sentence(found)).splitlines()
    mark = "❌" if failure else "✅"
    lines = [
        f"### {mark} {_plain(_sentence(first))}",
        "",
        f"At most {most:g} copies per byte are allowed. {_plain(subject.words)}, on Linux "
        f"{_plain(found.evidence.kernel['release'])}",
        "",
        *(f"* {_plain(line.strip())}" for line in others),
        *(f"* {_plain(one.words)}" for one in advice.of(found) if not failure),
    ]
    return "\n".join(lines).rstrip() + "\n\n"


def of_tests(measured: Iterable[tuple[str, float | None, str, str]]) -> str:
    """Tests: name, copies for each byte, a sentence, and why it failed, if it did."""
    lines = ["### Copies per byte", "", _row("test", "copies", ""), _row(":--", "--:", ":--")]
    for name, copies, sentence, failure in measured:
        shown = "–" if copies is None else f"{copies:.4g}"
        mark = "❌ " if failure else ""
        lines.append(_row(_plain(name), shown, f"{mark}{_plain(failure or sentence)}"))
    return "\n".join(lines) + "\n\n"


def of_comparison(result: Result) -> str:
    """What changed between two results."""
    return of_blocks("What changed?", comparison.report(result))


def of_blocks(title: str, blocks: Iterable[Block]) -> str:
    """A report; of tables the rows that every form shows."""
    lines = [f"# {title}", ""]
    for block in blocks:
        match block:
            case Text(text=text, tone=Tone.ANSWER | Tone.ALARM):
                lines += [f"**{_plain(text)}**", ""]
            case Text(text=text, indent=indent):
                lines += [f"{'* ' if indent else ''}{_plain(text)}", ""]
            case Listing():
                code = [printable(line).replace("`", "'") for line in block.lines]
                lines += [_plain(block.heading), "", "```text", *code, "```", ""]
            case Table():
                lines += _of_table(block)
    return "\n".join(lines).rstrip() + "\n"


def _plain(text: str) -> str:
    """A text that is shown as it is: names of functions and files have signs of Markdown's."""
    return _harmless(_SIGNS.sub(r"\\\g<0>", text))


def _of_table(table: Table) -> list[str]:
    columns = table.columns
    rows = [row for row in table.rows if row.shown]
    left = [not number or not column.number for number, column in enumerate(columns)]
    lines = [
        _row(*(_plain(column.heading) for column in columns)),
        _row(*(":--" if one else "--:" for one in left)),
        *(_row(*(_plain(str(cell)) for cell in row.cells)) for row in rows),
        "",
    ]
    return (lines if rows else []) + ([_plain(table.more), ""] if table.more else [])


def _harmless(line: str) -> str:
    """Without tags and links: none are ours, but a name in a saved result may have some."""
    return printable(line).replace("<", "&lt;").replace("](", "]\\(")


def _sentence(text: str) -> str:
    return text[:1].upper() + text[1:]


def _setting(rows: Sequence[Judged]) -> list[str]:
    lines = _table(
        rows,
        (
            *("CPU copies", "claim", "verdict"),
            *("switches", "claim", "verdict"),
            *("DMA copies", "claim", "verdict"),
        ),
        lambda j: (
            *_beside(j, "cpu_copies", "claimed_cpu_copies", j.copies, wording.copies),
            *_beside(j, "mode_switches", "claimed_switches", j.switches, wording.number),
            *_beside(j, "dma_copies", "claimed_dma_copies", j.dma, wording.copies),
        ),
    )
    lines += [
        "",
        "Bytes copied by the CPU for the process under measurement (u: user, k: kernel "
        "memory), and payload bytes that devices moved by DMA:",
        "",
    ]
    ways = wording.ways_watched(rows)
    lines += _table(
        rows,
        (*(wording.WAYS[way] for way in ways), "disk→cache", "cache→NIC", "system calls"),
        lambda j: (
            *(wording.number(j.figures[f"{way}_bytes"]) for way in ways),
            *(wording.moved_by_dma(j, (j,), way) for way in ("in", "out")),
            wording.calls(j, len(j.calls)),
        ),
    )
    said = _list(sentence for sentence, _ in wording.sentences(rows, every=True))
    if any("~" in line for line in lines):
        said.insert(0, f"* {wording.DERIVED}")
    return [*lines, "", *said, ""] if said else [*lines, ""]


def _beside(
    judged: Judged,
    measured: str,
    claimed: str,
    verdict: Verdict,
    show: Callable[[object], str],
) -> tuple[str, str, str]:
    word = "" if verdict.word is Word.NO_CLAIM else verdict.word.value
    emphasis = "**" if verdict.word is Word.REFUTED else ""
    return (
        show(judged.figures[measured]),
        wording.claim(judged.figures[claimed]),
        f"{emphasis}{word}{emphasis}",
    )


def _table(rows: Sequence[Judged], columns: Sequence[str], cells: Cells) -> list[str]:
    """A row for every strategy, and for every way in which kernels differ."""
    alike: dict[tuple[str, tuple[str, ...]], list[str]] = {}
    for j in rows:
        kernels = alike.setdefault((wording.name(j, rows), cells(j)), [])
        kernels.append(wording.kernel_line(j, rows))
    # Texts to the left, figures to the right.
    rule = [":--" if name in _TEXTS else "--:" for name in columns]
    return [
        _row("strategy", "kernel", *columns),
        _row(":--", ":--", *rule),
        *(
            _row(f"`{name}`", ", ".join(dict.fromkeys(kernels)), *values)
            for (name, values), kernels in alike.items()
        ),
    ]


_TEXTS = ("verdict", "system calls")


def _row(*cells: str) -> str:
    escaped = (cell.replace("|", "\\|") for cell in cells)
    return f"| {' | '.join(escaped)} |"


def _list(items: Iterable[str]) -> list[str]:
    return [f"* {printable(item)}" for item in items]


def _coverage(evidence: Evidence, runs: Sequence[Judged]) -> list[str]:
    return [
        f"### Linux {evidence.kernel['release']}",
        "",
        *_list((wording.controls_passed(runs).text,)),
        *_list(line.text for line in wording.coverage(evidence, runs)),
        "",
    ]
