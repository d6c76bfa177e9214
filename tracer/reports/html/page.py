"""The report as one page of HTML that needs nothing else: no network, no font.

What stands on the page is put together here and in ``tables``. Templates decide how it looks.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import count
from typing import Any

from zctrace.analysis.runs import Judged
from zctrace.analysis.verdicts import Verdict, Word
from zctrace.reports import wording
from zctrace.reports.data_path import Way, way
from zctrace.reports.html import chart, path_drawing, tables
from zctrace.reports.html.drawing import Drawing
from zctrace.reports.html.rendering import render
from zctrace.workloads.catalogue import strategy_named

_UNFOLDED = 5
"""So many strategies are shown unfolded."""
_MIXED = "mixed"
_NO_CLAIM = "No claim: the textbook makes no claim about this strategy."
_FIGURES = ("CPU copies", "mode switches", "DMA copies")


@dataclass(frozen=True)
class _Said:
    """A verdict on one figure, of the kernels on which it is the same."""

    figure: str
    kernels: str
    word: Word
    sentence: str


@dataclass(frozen=True)
class _Part:
    """A strategy under the same circumstances."""

    circumstances: str
    drawings: list[Drawing]
    said: list[_Said]
    missing: list[str]


@dataclass(frozen=True)
class _Section:
    """A strategy; ``digest`` has a word for each figure."""

    name: str
    summary: str
    digest: list[tuple[str, str]]
    parts: list[_Part]
    bytes: tables.Table


def page(judged: Sequence[Judged]) -> str:
    """The whole page."""
    return render("run.html", **_content(judged))


def drawings(judged: Sequence[Judged]) -> list[Drawing]:
    """All that are on the page."""
    prefixes = (f"d{number}" for number in count(1))
    rows = wording.by_strategy(judged)
    sections = _sections(judged, rows, prefixes)
    own = [drawn for section in sections for part in section.parts for drawn in part.drawings]
    return [_chart(rows, prefixes), *own]


def _content(judged: Sequence[Judged]) -> dict[str, Any]:
    prefixes = (f"d{number}" for number in count(1))
    rows = wording.by_strategy(judged)
    headline, failures = wording.alarm(rows)
    evidences = wording.evidences_of(judged)
    sections = _sections(judged, rows, prefixes)
    claims = tables.claims(judged)
    return {
        "releases": list(dict.fromkeys(str(e.kernel["release"]) for e in evidences)),
        "headings": list(dict.fromkeys(wording.heading(e) for e in evidences)),
        "task": wording.task(judged),
        "headline": headline,
        "failures": failures,
        "answers": _answers(rows),
        "claims": claims,
        "claims_narrow": claims.by_group(),
        "sentences": _sentences(rows),
        "no_claim": _NO_CLAIM if _any(rows, Word.NO_CLAIM) else "",
        "chart": _chart(rows, prefixes),
        "sections": sections,
        "unfolded": len(sections) <= _UNFOLDED,
        "derived": wording.DERIVED,
        "events": tables.events(judged),
        "evidence": tables.evidence(judged),
        "coverage": [
            (
                str(e.kernel["release"]),
                wording.controls_passed([j for j in judged if j.evidence is e]),
                tables.controls([j for j in judged if j.evidence is e]),
                wording.coverage(e, [j for j in judged if j.evidence is e]),
            )
            for e in evidences
        ],
        "method": tables.method(judged),
    }


def _any(rows: Sequence[Judged], word: Word) -> bool:
    return any(j.copies.word is word for j in rows)


def _verdicts(judged: Judged) -> tuple[tuple[str, Verdict], ...]:
    return tuple(zip(_FIGURES, (judged.copies, judged.switches, judged.dma), strict=True))


def _answers(rows: Sequence[Judged]) -> list[str]:
    """A sentence for each figure: how many claims hold."""
    answers = []
    for index, figure in enumerate(_FIGURES):
        told = [_verdicts(j)[index][1].word for j in rows if _claimed(j, index)]
        claims, holds, refuted = len(told), told.count(Word.HOLDS), told.count(Word.REFUTED)
        if not claims:
            continue
        left = claims - holds - refuted
        parts = [f"{holds} of {claims} hold{'s' if holds == 1 else ''}"]
        if refuted:
            parts.append(f"{refuted} {'is' if refuted == 1 else 'are'} refuted")
        if left:
            parts.append(f"{left} could not be measured")
        answers.append(f"Claims about {figure}: {', '.join(parts)}.")
    return answers


def _claimed(judged: Judged, index: int) -> bool:
    """Whether there is a claim that this setting can test."""
    columns = ("claimed_cpu_copies", "claimed_switches", "claimed_dma_copies")
    testable = columns[index] != "claimed_dma_copies" or wording.tests_dma(judged)
    return testable and judged.figures[columns[index]] is not None


def _sentences(rows: Sequence[Judged]) -> list[tuple[str, list[tuple[str, Word]]]]:
    """What is to be said below the first table, by circumstances."""
    return [
        (wording.circumstances(nic, cache, part), said)
        for (nic, cache), part in wording.settings(rows).items()
        if (said := wording.sentences(part))
    ]


def _chart(rows: Sequence[Judged], prefixes: Iterator[str]) -> Drawing:
    several = wording.several(rows)
    sections, told = [], []
    for (nic, cache), part in wording.settings(rows).items():
        groups = []
        for name in dict.fromkeys(wording.name(j, part) for j in part):
            of_name = [j for j in part if wording.name(j, part) == name]
            sides = [
                tuple(
                    _bar(j, wording.kernel_line(j, rows) if several else "", column)
                    for j in of_name
                )
                for column in ("cpu_copies", "dma_copies")
            ]
            groups.append(chart.Group(name, *sides))
        heading = wording.circumstances(nic, cache, part)
        sections.append(chart.Section(tuple(heading.split("; ")), tuple(groups)))
        told += [_told(group, heading) for group in groups]
    title = "CPU copies and DMA copies of every strategy, measured and claimed"
    return Drawing.of(
        "all-strategies",
        "Copies of the payload: bars were measured, a black or white mark is the claim.",
        lambda narrow: chart.draw(
            sections, next(prefixes), title, " ".join(told), narrow=narrow
        ),
    )


def _bar(judged: Judged, kernel: str, column: str) -> chart.Bar:
    value, claimed = judged.figures[column], judged.figures[f"claimed_{column}"]
    assert value is None or isinstance(value, int | float)
    assert claimed is None or isinstance(claimed, int)
    if column == "dma_copies" and not wording.tests_dma(judged):
        claimed = None
    shown = "not measured" if value is None else wording.copies(value)
    if judged.run.unavailable:
        shown = "not available"
    return chart.Bar(kernel, value, claimed, shown)


def _told(group: chart.Group, heading: str) -> str:
    parts = []
    for side, bars in (("CPU", group.cpu), ("DMA", group.dma)):
        for bar in bars:
            on = f" on {bar.kernel}" if bar.kernel else ""
            claimed = "" if bar.claimed is None else f" (claimed {bar.claimed})"
            parts.append(f"{side}{on} {bar.shown}{claimed}")
    return f"{heading}: {group.name}: {', '.join(parts)}."


def _sections(
    judged: Sequence[Judged], rows: Sequence[Judged], prefixes: Iterator[str]
) -> list[_Section]:
    sections = []
    for name in dict.fromkeys(j.run.strategy for j in rows):
        of_name = [j for j in rows if j.run.strategy == name]
        parts = [
            _part(wording.circumstances(nic, cache, part), part, rows, prefixes)
            for (nic, cache), part in wording.settings(of_name).items()
        ]
        strategy = strategy_named(name)
        moved = tables.moved(judged, of_name)
        sections.append(_Section(name, strategy.summary, _digest(of_name), parts, moved))
    return sections


def _digest(runs: Sequence[Judged]) -> list[tuple[str, str]]:
    """The verdicts on all runs of a strategy; ``mixed`` where they differ."""
    digest = []
    for index, figure in enumerate(_FIGURES):
        words = {_verdicts(j)[index][1].word for j in runs if _claimed(j, index)}
        if words:
            digest.append((figure, words.pop().value if len(words) == 1 else _MIXED))
    return digest


def _part(
    circumstances: str,
    runs: Sequence[Judged],
    rows: Sequence[Judged],
    prefixes: Iterator[str],
) -> _Part:
    """One drawing where kernels agree, and as many as there are differences."""
    ways: dict[Way, list[Judged]] = {}
    missing = []
    for j in runs:
        seen = way(j)
        if seen is None:
            missing.append(f"Not available on Linux {wording.release(j)}: {j.run.unavailable}.")
        else:
            ways.setdefault(seen, []).append(j)
    drawings = []
    for seen, alike in ways.items():
        caption = _caption(alike, runs)
        first = alike[0].run
        name = f"{first.strategy}-{first.nic}-{first.cache}"
        # Where kernels differ, so do their drawings.
        name += f"-{wording.release(alike[0])}" if len(ways) > 1 else ""
        drawings.append(Drawing.of(name, caption, partial(_path, seen, prefixes, caption)))
    return _Part(circumstances, drawings, _said(runs, rows), missing)


def _path(seen: Way, prefixes: Iterator[str], caption: str, narrow: bool) -> str:
    return path_drawing.draw(seen, next(prefixes), caption, narrow=narrow)


def _caption(alike: Sequence[Judged], runs: Sequence[Judged]) -> str:
    names = list(dict.fromkeys(wording.name(j, runs) for j in alike))
    kernels = list(dict.fromkeys(wording.release(j) for j in alike))
    return f"{', '.join(names)} on Linux {_and(kernels)}"


def _and(names: Sequence[str]) -> str:
    return " and ".join(filter(None, (", ".join(names[:-1]), names[-1])))


def _said(runs: Sequence[Judged], rows: Sequence[Judged]) -> list[_Said]:
    """Every verdict with its evidence, once for all kernels that share it. The kernels are
    not named where all of them share it."""
    said: dict[tuple[str, Word, str], list[str]] = {}
    for j in runs:
        if j.run.unavailable:
            continue
        for figure, verdict in _verdicts(j):
            key = (figure, verdict.word, verdict.sentence)
            said.setdefault(key, []).append(wording.kernel_line(j, rows))
        if j.figures["reason"]:
            key = ("inside the kernel", Word.NO_CLAIM, str(j.figures["reason"]))
            said.setdefault(key, []).append(wording.kernel_line(j, rows))
    everywhere = {wording.kernel_line(j, rows) for j in runs if not j.run.unavailable}
    return [
        _Said(
            figure,
            _and(list(dict.fromkeys(kernels))) if set(kernels) != everywhere else "",
            word,
            sentence,
        )
        for (figure, word, sentence), kernels in sorted(
            said.items(), key=lambda item: (*_FIGURES, "inside the kernel").index(item[0][0])
        )
    ]
