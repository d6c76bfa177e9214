"""The report on the terminal: measured and claimed, eighty columns, plain when piped.

Several kernels share one table, a row each, and what differs between them is marked.
"""

from __future__ import annotations

from collections.abc import Sequence

from rich.console import Console
from rich.text import Text

from zctrace.analysis.runs import Judged
from zctrace.analysis.verdicts import Source, Verdict, Word
from zctrace.evidence.schema import Evidence
from zctrace.reports import wording
from zctrace.reports.blocks import Tone
from zctrace.reports.text.layout import new_table, print_table, say
from zctrace.reports.wording import DIFFERENT, UNMEASURED, copies, differs
from zctrace.workloads.catalogue import strategy_named
from zctrace.workloads.marker import role_name

__all__ = ["DIFFERENT", "UNMEASURED", "copies", "differs", "render"]

_STYLES = {Word.HOLDS: "green", Word.REFUTED: "red"}
_LONG_NAME = 25
"""Characters that a name may have in addition to the longer words."""
_NAME_AND_CALLS = 42
"""Those that there is room for of a name and two system calls; else there is one."""
_WORDS = {Word.NOT_MEASURED: UNMEASURED, Word.NO_CLAIM: ""}


def render(judged: Sequence[Judged], console: Console) -> None:
    """Print everything."""
    evidences = wording.evidences_of(judged)
    rows = wording.by_strategy(judged)
    _alarm(rows, console)
    for evidence in evidences:
        _heading(evidence, console)
    say(console, wording.task(judged), indent=2)
    say(console)
    settings = wording.settings(rows)
    for (nic, cache), part in settings.items():
        if len(settings) > 1 or any(map(wording.asks_for_dma, part)):
            say(console, wording.circumstances(nic, cache, part), "bold")
        _claims(part, console)
        _bytes(part, console)
        _events(part, console)
        if any(map(wording.asks_for_dma, part)):
            _dma(part, console)
        _sentences(part, console)
    for evidence in evidences:
        runs = [j for j in judged if j.evidence is evidence]
        _coverage(evidence, runs, console, several=len(evidences) > 1)


def _alarm(runs: Sequence[Judged], console: Console) -> None:
    headline, reasons = wording.alarm(runs)
    if not headline:
        return
    say(console, headline, "bold red")
    for reason in reasons:
        say(console, reason, "red", indent=2)
    say(console)


def _heading(evidence: Evidence, console: Console) -> None:
    first, *others = wording.heading(evidence)
    say(console, first, "bold")
    for line in others:
        say(console, line, indent=2)


def _first_columns(runs: Sequence[Judged]) -> tuple[str, ...]:
    return ("strategy", "<on") if wording.several(runs) else ("strategy",)


def _first_cells(judged: Judged, runs: Sequence[Judged]) -> tuple[str, ...]:
    name = wording.name(judged, runs)
    return (name, wording.kernel_line(judged, runs)) if wording.several(runs) else (name,)


def _word(verdict: Verdict) -> Text:
    word = verdict.word
    return Text(_WORDS.get(word, word.value), style=_STYLES.get(word, ""))


def _longest(runs: Sequence[Judged]) -> int:
    """Characters of the longest name."""
    return max(len(wording.name(j, runs)) for j in runs)


def _claims(runs: Sequence[Judged], console: Console) -> None:
    say(
        console,
        "CPU copies per payload byte, and mode switches (two per system call): measured, and "
        "claimed by the textbook.",
    )
    narrow = wording.several(runs) or _longest(runs) > _LONG_NAME
    table = new_table(
        *_first_columns(runs),
        "copies" if narrow else "CPU copies",
        "claim",
        "<verdict",
        "switches",
        "claim",
        "<verdict",
    )
    for j in runs:
        table.add_row(
            *_first_cells(j, runs),
            wording.marked(j, runs, "cpu_copies", copies),
            wording.claim(j.figures["claimed_cpu_copies"]),
            _word(j.copies),
            wording.marked(j, runs, "mode_switches"),
            wording.claim(j.figures["claimed_switches"]),
            _word(j.switches),
        )
    print_table(table, console)
    if any(j.copies.word is Word.NO_CLAIM for j in runs):
        say(console, wording.NO_CLAIM)
        say(console)


def _bytes(runs: Sequence[Judged], console: Console) -> None:
    receivers = {role_name(strategy_named(j.run.strategy).role) for j in runs}
    say(
        console,
        f"Bytes copied by the CPU for the {' or '.join(sorted(receivers, reverse=True))}. "
        "u = user memory, k = kernel memory. metadata: system-call structures (iovecs, "
        "addresses, headers). other: remaining copies to or from user memory.",
    )
    ways = wording.ways_watched(runs)
    table = new_table(
        *_first_columns(runs), *(wording.WAYS[way] for way in ways), "metadata", "other"
    )
    for j in runs:
        table.add_row(
            *_first_cells(j, runs),
            *(wording.marked(j, runs, f"{way}_bytes") for way in ways),
            *(wording.number(j.figures[c]) for c in ("metadata_bytes", "other_user_bytes")),
        )
    print_table(table, console)


def _events(runs: Sequence[Judged], console: Console) -> None:
    say(
        console,
        "System calls, and events that are not counted as switches: page faults (in user "
        "mode, in the kernel), context switches (voluntary, involuntary), interrupts (irq).",
    )
    table = new_table(
        *_first_columns(runs),
        "<system calls",
        "user\nfault",
        "kernel\nfault",
        "vol.\nctxsw",
        "inv.\nctxsw",
        "irq",
    )
    room = 0 if wording.several(runs) else _NAME_AND_CALLS - _longest(runs)
    for j in runs:
        calls = wording.calls(j, 2)
        table.add_row(
            *_first_cells(j, runs),
            calls if len(calls) <= room else wording.calls(j, 1),
            *(
                wording.number(j.figures[column])
                for column in (
                    "page_faults",
                    "page_faults_kernel",
                    "context_switches_voluntary",
                    "context_switches_involuntary",
                    "interrupts",
                )
            ),
        )
    print_table(table, console)


def _dma(runs: Sequence[Judged], console: Console) -> None:
    say(
        console,
        "Payload bytes moved by DMA: from the disk to the page cache, and from the page cache "
        "to the network card. Packet headers are not included.",
    )
    table = new_table(
        *_first_columns(runs), "disk→cache", "cache→NIC", "DMA copies", "claim", "<verdict"
    )
    for j in runs:
        table.add_row(
            *_first_cells(j, runs),
            *(wording.moved_by_dma(j, runs, way) for way in ("in", "out")),
            wording.marked(j, runs, "dma_copies", copies),
            wording.claim(j.figures["claimed_dma_copies"]),
            _word(j.dma),
        )
    print_table(table, console)
    derived = Source.DERIVED.value
    if any(j.figures[f"dma_{way}_source"] == derived for j in runs for way in ("in", "out")):
        say(console, wording.DERIVED)
        say(console)


def _sentences(runs: Sequence[Judged], console: Console) -> None:
    said = wording.sentences(runs)
    for sentence, word in said:
        say(console, sentence, _STYLES.get(word, ""))
    if said:
        say(console)


def _coverage(
    evidence: Evidence, runs: Sequence[Judged], console: Console, *, several: bool
) -> None:
    where = f", Linux {evidence.kernel['release']}" if several else ""
    controls = wording.controls_passed(runs)
    say(
        console,
        f"Coverage{where}. {controls.text}",
        "bold red" if controls.tone is Tone.ALARM else "",
    )
    for line in wording.coverage(evidence, runs):
        say(console, line.text, "yellow" if line.tone is Tone.DOUBT else "", indent=2)
    say(console)
