"""What changed between the runs of strategies on two kernels.

Copies, system calls, DMA and verdicts count. These vary from run to run: how often functions
were executed, page faults, context switches, interrupts, headers, and the receiver's calls,
which depend on what has arrived. The bytes of each reason for putting packets together vary,
too; their sum does not.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Iterable, Sequence

from zctrace.analysis import runs
from zctrace.analysis.border import LITTLE
from zctrace.analysis.comparison.model import (
    COPIED,
    NOT_MEASURED,
    NOTHING,
    Change,
    Comparison,
    Item,
    Part,
    both,
)
from zctrace.analysis.runs import Judged
from zctrace.evidence.devices import LOOPBACK
from zctrace.evidence.schema import WARM
from zctrace.sizes import human_size
from zctrace.workloads.catalogue import strategy_named
from zctrace.workloads.marker import Role

_REPETITION = re.compile(r" #\d+")
Pair = tuple[Judged, Judged]
_COPIES, _SWITCHES, _DMA = "cpu_copies", "mode_switches", "dma_copies"
MAIN = (_COPIES, _SWITCHES, _DMA, "verdict_copies", "verdict_switches", "verdict_dma")
"""What is to be said of a run that only one side has measured."""
_OF_COPIES = (_COPIES, "cpu_copied_bytes", "u2k_bytes", "k2u_bytes", "k2k_bytes", "u2u_bytes")
COUNTING = (
    *_OF_COPIES,
    "claimed_cpu_copies",
    "verdict_copies",
    "syscalls",
    _SWITCHES,
    "claimed_switches",
    "verdict_switches",
    _DMA,
    "dma_in_bytes",
    "dma_in_source",
    "dma_out_bytes",
    "dma_out_source",
    "claimed_dma_copies",
    "verdict_dma",
    "controls",
)
"""Figures whose change is a change of the result."""
_GROWING = {"cpu_copies": 0, "cpu_copied_bytes": 0, "mode_switches": 0, "outside_bytes": LITTLE}
"""Figures that a change should not make larger, by more than so much."""
_BESIDE = ("metadata_bytes", "other_user_bytes", "outside_bytes", "file_system")
WORDS = {
    "cpu_copies": "CPU copies",
    "cpu_copied_bytes": "bytes copied",
    "u2k_bytes": "bytes copied user→kernel",
    "k2u_bytes": "bytes copied kernel→user",
    "k2k_bytes": "bytes copied inside the kernel",
    "u2u_bytes": "bytes copied user→user",
    "claimed_cpu_copies": "CPU copies claimed",
    "verdict_copies": "verdict on copies",
    "syscalls": "system calls",
    "mode_switches": "mode switches",
    "claimed_switches": "switches claimed",
    "verdict_switches": "verdict on switches",
    "dma_copies": "DMA copies",
    "dma_in_bytes": "bytes disk→cache",
    "dma_in_source": "known about disk→cache",
    "dma_out_bytes": "bytes cache→NIC",
    "dma_out_source": "known about cache→NIC",
    "claimed_dma_copies": "DMA copies claimed",
    "verdict_dma": "verdict on DMA",
    "controls": "controls",
    "metadata_bytes": "bytes of metadata",
    "other_user_bytes": "other bytes from or to user",
    "outside_bytes": "bytes not attributed",
    "file_system": "file system",
    "copy_calls": "executions of copying functions",
    "page_faults": "page faults in user mode",
    "page_faults_kernel": "page faults in the kernel",
    "context_switches_voluntary": "context switches because it waited",
    "context_switches_involuntary": "context switches that were forced",
    "interrupts": "interrupts",
    "header_bytes": "bytes of headers",
    "disk_metadata_bytes": "bytes of metadata from the disk",
}
"""Figures in words; system calls by name are in words already."""
_VARYING = (
    "copy_calls",
    "page_faults",
    "page_faults_kernel",
    "context_switches_voluntary",
    "context_switches_involuntary",
    "interrupts",
    "header_bytes",
    "disk_metadata_bytes",
)
_SENT = ("cpu_copied_bytes", "k2k_bytes", "dma_out_bytes")
"""Bytes that there are more of where TCP sends something again."""
_CALLS = ("syscalls", _SWITCHES)
IDENTITY = ("strategy", "nic", "cache", "chunk_bytes", "payload_bytes", "run_index")
"""What two runs have in common that are compared with each other, besides a kernel."""


def name(judged: Judged) -> str:
    """The strategy, and under which circumstances, where they are not the usual ones."""
    run = judged.run
    parts = [f"{run.strategy} {human_size(run.payload_bytes)}"]
    parts += [run.nic] if run.nic != LOOPBACK else []
    parts += [run.cache] if run.cache != WARM else []
    parts += [f"in calls of {human_size(run.chunk_bytes)}"] if run.chunk_bytes else []
    return ", ".join(parts) + (f" #{run.run_index}" if run.run_index else "")


def compare(subject: str, pairs: Sequence[Pair], circumstances: Sequence[Change]) -> Comparison:
    """All runs on a kernel, at least one, with those of the other side."""
    items = {id(pair): _item(pair) for pair in pairs}
    by_weight = sorted(pairs, key=lambda pair: _weight(items[id(pair)]), reverse=True)
    changed = [pair for pair in by_weight if _counts(pair, items[id(pair)])]
    reasons: list[Item] = []
    varying: list[Item] = []
    for pair in by_weight:
        differing = [item for item in _reasons(pair) if item.differs]
        (varying if _split(pair) else reasons).extend(differing)
        varying.append(_varying(pair))
    return Comparison(
        subject,
        _headline([(pair, items[id(pair)]) for pair in changed], pairs),
        bool(changed),
        max(_weight(items[id(pair)]) for pair in pairs),
        circumstances,
        both(*(_doubts(side) for side in zip(*pairs, strict=True))),
        _together(
            [*(items[id(pair)] for pair in by_weight if items[id(pair)].figures), *reasons]
        ),
        [item for item in varying if item.figures],
        increase=_increase([(pair, items[id(pair)]) for pair in by_weight]),
    )


def _increase(pairs: Sequence[tuple[Pair, Item]]) -> str:
    """Copies and mode switches that have increased, or were measured before only."""
    found = [
        f"{WORDS[change.figure]} of {item.name}: {_arrow(change)}"
        for pair, item in pairs
        for change in item.figures
        if change.figure in _GROWING and not _explained(pair, change)
        if (change.by or 0) > _GROWING[change.figure]
        or (change.unknown and change.after is None)
    ]
    found += [
        f"{name(after)}: {after.figures['coverage']}"
        for (before, after), _ in pairs
        if before.figures["coverage"] == "complete" != after.figures["coverage"]
    ]
    more = f"; and {len(found) - 1} more" if len(found) > 1 else ""
    return f"{found[0]}{more}" if found else ""


def _together(items: Iterable[Item]) -> list[Item]:
    """Repetitions that differ alike in one row."""
    alike: dict[Item, list[Item]] = {}
    for item in items:
        nameless = dataclasses.replace(item, name=_REPETITION.sub("", item.name, count=1))
        alike.setdefault(nameless, []).append(item)
    return [
        dataclasses.replace(item, name=f"{len(found)} times {item.name}")
        if len(found) > 1
        else found[0]
        for item, found in alike.items()
    ]


def _item(pair: Pair) -> Item:
    """The figures that differ in a run, whether or not they count."""
    return Item(
        Part.RUN,
        name(pair[1]),
        (*_differing(pair, _figures(pair)), *_made(pair)),
        _sent_again(pair),
    )


def _figures(pair: Pair) -> list[str]:
    return [
        column for column in (*COUNTING, *_BESIDE) if not (column in _CALLS and _receives(pair))
    ]


def _receives(pair: Pair) -> bool:
    return strategy_named(pair[1].run.strategy).role is not Role.SENDER


def _differing(pair: Pair, columns: Iterable[str]) -> list[Change]:
    before, after = pair
    found = (Change(c, before.figures[c], after.figures[c]) for c in columns)
    return [change for change in found if change.differs]


def _made(pair: Pair) -> list[Change]:
    """System calls by name, where both sides know them."""
    before, after = pair
    if _receives(pair) or None in (before.figures["syscalls"], after.figures["syscalls"]):
        return []
    found = [
        Change(f"calls of {call}", before.calls.get(call, 0), after.calls.get(call, 0))
        for call in dict.fromkeys([*before.calls, *after.calls])
    ]
    return [change for change in found if change.differs]


def _varying(pair: Pair) -> Item:
    """What differs, was measured on both sides, and does not count."""
    columns = [*_VARYING, *(_CALLS if _receives(pair) else ())]
    differing = _differing(pair, columns)
    return Item(Part.RUN, name(pair[1]), tuple(c for c in differing if not c.unknown))


def _reasons(pair: Pair) -> Iterable[Item]:
    """Why bytes were copied inside the kernel, without who called, where both sides know."""
    if None in (judged.figures["cpu_copied_bytes"] for judged in pair):
        return
    sides: list[dict[str, int]] = []
    for judged in pair:
        total: dict[str, int] = {}
        for why, size in runs.why(judged.evidence, judged.run).items():
            total[why.words] = total.get(why.words, 0) + size
        sides.append(total)
    before, after = sides
    for words in dict.fromkeys([*before, *after]):
        change = Change(COPIED, before.get(words, 0), after.get(words, 0))
        yield Item(Part.REASON, f"{name(pair[1])}: {words}", (change,))


def _split(pair: Pair) -> bool:
    """Whether reasons share the same bytes in another way, as packets to a device do."""
    before, after = (judged.figures["k2k_bytes"] for judged in pair)
    return before == after and pair[1].run.nic != LOOPBACK


def _sent_again(pair: Pair) -> str:
    """Where TCP has sent something twice, which it does as it likes, and copies may be, too."""
    again = [judged.run.account.sent_again for judged in pair]
    if not any(again):
        return ""
    return f"TCP sent {again[0]} B again before, {again[1]} B after, which may be copied again"


def _explained(pair: Pair, change: Change) -> bool:
    """Whether what TCP has sent again may be all there is to it."""
    again = [judged.run.account.sent_again for judged in pair]
    ratio = change.figure in (_COPIES, _DMA)
    if change.by is None or not (ratio or change.figure in _SENT):
        return False
    size = round(change.by * pair[1].run.payload_bytes) if ratio else change.by
    return -again[0] <= size <= again[1]


def _counts(pair: Pair, item: Item) -> bool:
    """Whether anything that counts has changed."""
    return any(
        not _explained(pair, change) for change in item.figures if change.figure not in _BESIDE
    )


def _weight(item: Item) -> tuple[float, ...]:
    """By copied bytes, in all and in any direction; then what one side has not measured."""
    by = [item.of(figure) for figure in _OF_COPIES[1:]]
    found = [change for change in by if change]
    return (
        abs((found[0].by if found and found[0].figure == "cpu_copied_bytes" else 0) or 0),
        max((abs(change.by or 0) for change in found), default=0),
        any(change.unknown for change in found),
        len(item.figures),
    )


def _doubts(side: Iterable[Judged]) -> list[str]:
    """Why figures are missing, and the runs that miss them."""
    said: dict[str, list[str]] = {}
    for judged in side:
        coverage = str(judged.figures["coverage"])
        if coverage != "complete":
            said.setdefault(coverage, []).append(name(judged))
    return [f"{'; '.join(names)}: {coverage}" for coverage, names in said.items()]


def _headline(changed: Sequence[tuple[Pair, Item]], pairs: Sequence[Pair]) -> str:
    """The largest change, and how many there are."""
    unknown = sum(all(j.figures[_COPIES] is None for j in pair) for pair in pairs)
    many = f"{len(pairs)} runs" if len(pairs) > 1 else "1 run"
    of = many + (f"; {unknown} not measured on either side" if unknown else "")
    if not changed:
        if unknown == len(pairs):
            return f"copies were not measured on either side, in {many}"
        return f"{NOTHING}: {of}"
    (pair, item), *_ = changed
    more = "" if len(pairs) == 1 else f"; {len(changed)} of {of} changed"
    copied, ratio = item.of("cpu_copied_bytes"), item.of(_COPIES)
    if copied and ratio and not _explained(pair, copied):
        in_bytes = "" if copied.unknown else f" ({copied.before} → {copied.after} B)"
        return f"CPU copies of {item.name}: {_arrow(ratio)}{in_bytes}{more}"
    counting = [c for c in item.figures if c.figure not in _BESIDE and not _explained(pair, c)]
    first = min(counting, key=lambda change: change.figure not in (_SWITCHES, _DMA))
    known = all(judged.figures[_COPIES] is not None for judged in pair)
    also = "; CPU copies as before" if known and not copied else ""
    return (
        f"{WORDS.get(first.figure, first.figure)} of {item.name}: {_arrow(first)}{also}{more}"
    )


def _arrow(change: Change) -> str:
    return " → ".join(_said(value) for value in (change.before, change.after))


def _said(value: object) -> str:
    if value is None:
        return NOT_MEASURED
    if not isinstance(value, float):
        return str(value)
    text = f"{value:.4g}"
    # Never a whole number for what is none.
    return repr(value) if text.isdigit() and value != float(text) else text
