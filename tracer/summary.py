"""What the counts add up to: tidy rows, and one summary row per run. Imports pandas."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable
from dataclasses import dataclass

import pandas as pd

from probes.site import Direction, Kind, Path
from tracer import controls
from tracer.evidence import Evidence, Run
from tracer.verdict import Verdict, judge_copies, judge_dma, judge_switches
from workloads.catalogue import strategy_named

COLUMNS = [
    "kernel",
    "machine",
    "strategy",
    "nic",
    "chunk_bytes",
    "cache",
    "payload_bytes",
    "run_index",
    "cpu_copies",
    "cpu_copied_bytes",
    "copy_calls",
    "u2k_bytes",
    "k2u_bytes",
    "k2k_bytes",
    "u2u_bytes",
    "syscalls",
    "mode_switches",
    "page_faults",
    "context_switches",
    "dma_copies",
    "dma_in_bytes",
    "dma_out_bytes",
    "claimed_cpu_copies",
    "claimed_switches",
    "claimed_dma_copies",
    "verdict_copies",
    "verdict_switches",
    "verdict_dma",
    "coverage",
    "metadata_bytes",
    "page_faults_kernel",
    "other_user_bytes",
    "outside_bytes",
    "context_switches_voluntary",
    "context_switches_involuntary",
    "controls",
]
"""The summary's columns, in order; others rely on the first thirty-one."""

_KERNEL_ITERATOR_SYSCALLS = frozenset({"sendfile", "splice", "tee", "copy_file_range"})
"""System calls whose iterators never describe user memory: a copy through one of them
stays inside the kernel, whatever the function's name says."""

_METADATA_BYTES = 256
"""More than any system call here copies beside the payload: iovec, socket address, offset."""

_EVENT_COLUMNS = {
    controls.SWITCHES: ("syscalls", "mode_switches"),
    controls.FAULTS: ("page_faults", "page_faults_kernel"),
    controls.CONTEXT: (
        "context_switches",
        "context_switches_voluntary",
        "context_switches_involuntary",
    ),
}
"""Columns that are withheld with their controls."""

_TEXTS = {
    "kernel",
    "machine",
    "strategy",
    "nic",
    "cache",
    "verdict_copies",
    "verdict_switches",
    "verdict_dma",
    "coverage",
    "controls",
}
_RATIOS = {"cpu_copies", "dma_copies"}

_TIDY_COLUMNS = [
    "kernel",
    "machine",
    "strategy",
    "payload_bytes",
    "chunk_bytes",
    "run_index",
    "role",
    "quantity",
    "site",
    "kind",
    "mechanism",
    "direction",
    "syscall",
    "calls",
    "bytes",
    "note",
]


@dataclass(frozen=True)
class Judged:
    """One run with its verdicts: what the reports show.

    ``figures`` has a value per summary column; ``None`` means not measured.
    """

    evidence: Evidence
    run: Run
    figures: dict[str, int | float | str | None]
    copies: Verdict
    switches: Verdict
    dma: Verdict
    checked: tuple[controls.Control, ...]
    calls: dict[str, int]

    @property
    def failed(self) -> list[controls.Control]:
        """The controls that did not pass."""
        return [control for control in self.checked if not control.passed]


def tidy(evidences: Iterable[Evidence]) -> pd.DataFrame:
    """One row per run, role, site, direction and system call; bytes and calls as counted.

    Every attached copy site has a row for the sender, if only with zeros; a site that
    nothing watches has one with both cells empty and the reason in ``note``.
    """
    rows = [
        row for evidence in evidences for run in evidence.runs for row in _rows(evidence, run)
    ]
    frame = pd.DataFrame(rows, columns=list(_TIDY_COLUMNS))
    for column in ("payload_bytes", "chunk_bytes", "run_index", "calls", "bytes"):
        frame[column] = frame[column].astype("Int64")
    return frame


def _rows(evidence: Evidence, run: Run) -> Iterable[dict[str, object]]:
    sites = {str(site["quantity"]): site for site in evidence.sites}
    common = {
        "kernel": evidence.kernel["release"],
        "machine": evidence.machine["kind"],
        "strategy": run.strategy,
        "payload_bytes": run.payload_bytes,
        "chunk_bytes": run.chunk_bytes,
        "run_index": run.run_index,
    }
    seen = set()
    for count in run.counts:
        site = sites.get(count.quantity)
        if count.role == "sender":
            seen.add(count.quantity)
        yield {
            **common,
            "role": count.role,
            "quantity": count.quantity,
            "site": count.function,
            "kind": site["kind"] if site else Kind.EVENT.value,
            "mechanism": site["mechanism"] if site else "tracepoint",
            "direction": direction_of(
                count.direction, site and site["direction"], count.syscall
            ),
            "syscall": count.syscall,
            "calls": count.calls,
            "bytes": count.bytes if site else None,
            "note": site["note"] if site else "",
        }
    for quantity, site in sites.items():
        if quantity not in seen:
            yield {
                **common,
                "role": "sender",
                "quantity": quantity,
                "site": site["function"],
                "kind": site["kind"],
                "mechanism": site["mechanism"],
                "direction": site["direction"],
                "calls": 0,
                "bytes": 0,
                "note": site["note"],
            }
    for blind in evidence.blind:
        yield {
            **common,
            "role": "sender",
            "quantity": blind["quantity"],
            "site": " or ".join(blind["functions"]),
            "kind": blind["kind"],
            "mechanism": "none",
            "note": blind["reason"],
        }


def direction_of(seen: str | None, promised: object, syscall: str | None) -> str | None:
    """Where the bytes of a count went; see ``Direction`` for the words."""
    if seen:
        return seen
    if promised is None:
        return None
    if syscall in _KERNEL_ITERATOR_SYSCALLS:
        return Direction.KERNEL_TO_KERNEL.value
    return str(promised)


def judge(evidences: Iterable[Evidence]) -> list[Judged]:
    """Every run of every kernel, in the order in which they happened."""
    return [_judge(evidence, run) for evidence in evidences for run in evidence.runs]


def summarise(judged: Iterable[Judged]) -> pd.DataFrame:
    """The summary table: a row per run, ``COLUMNS`` in order, unmeasured cells empty."""
    frame = pd.DataFrame([j.figures for j in judged], columns=list(COLUMNS))
    for column in COLUMNS:
        if column not in _TEXTS:
            frame[column] = frame[column].astype("Float64" if column in _RATIOS else "Int64")
    return frame


def _judge(evidence: Evidence, run: Run) -> Judged:
    strategy = strategy_named(run.strategy)
    claims = strategy.expected
    checked = controls.check(evidence, run)
    failed = [control for control in checked if not control.passed]
    rows = tidy([dataclasses.replace(evidence, runs=(run,))])
    sender = rows[rows["role"] == "sender"]
    outside = sum(count.bytes for count in run.counts if count.role == "outside:sender")
    copies = _copy_figures(sender)
    events = _event_figures(evidence, sender)
    doubt_copies = "; ".join(
        (
            *_failed(failed, controls.COPIES),
            *_unseen(evidence, run, strategy.paths),
            *_unexplained(copies, events, run, outside),
        )
    )
    doubt_switches = "; ".join(_failed(failed, controls.SWITCHES))
    if doubt_copies:
        copies = {}
    else:
        copies["outside_bytes"] = outside
    for kind, columns in _EVENT_COLUMNS.items():
        if any(control.figures == kind for control in failed):
            events = {name: value for name, value in events.items() if name not in columns}
    calls = {
        str(name): int(count)
        for name, count in sender[sender["quantity"] == "syscall-enter"]
        .groupby("syscall")["calls"]
        .sum()
        .items()
    }
    verdicts = (
        judge_copies(
            claims.cpu_copies, copies.get("cpu_copied_bytes"), run.payload_bytes, doubt_copies
        ),
        judge_switches(
            claims.switches,
            events.get("mode_switches"),
            calls,
            doubt_switches or "system calls are not watched",
        ),
        judge_dma(claims.dma_copies),
    )
    copied = copies.get("cpu_copied_bytes")
    figures: dict[str, int | float | str | None] = {
        "kernel": evidence.kernel["release"],
        "machine": evidence.machine["kind"],
        "strategy": run.strategy,
        "nic": "lo",
        "chunk_bytes": run.chunk_bytes,
        "cache": "warm",
        "payload_bytes": run.payload_bytes,
        "run_index": run.run_index,
        "cpu_copies": None if copied is None else copied / run.payload_bytes,
        **copies,
        **events,
        "claimed_cpu_copies": claims.cpu_copies,
        "claimed_switches": claims.switches,
        "claimed_dma_copies": claims.dma_copies,
        "verdict_copies": verdicts[0].word.value,
        "verdict_switches": verdicts[1].word.value,
        "verdict_dma": verdicts[2].word.value,
        "coverage": "; ".join(filter(None, (doubt_copies, doubt_switches))) or "complete",
        "controls": "failed" if failed else "passed",
    }
    return Judged(
        evidence,
        run,
        {column: figures.get(column) for column in COLUMNS},
        *verdicts,
        tuple(checked),
        calls,
    )


def _failed(failed: list[controls.Control], figures: str) -> list[str]:
    return [f"control failed: {c.name}: {c.detail}" for c in failed if c.figures == figures]


def _unseen(evidence: Evidence, run: Run, paths: frozenset[Path]) -> Iterable[str]:
    """Where bytes could have been copied without being counted for certain."""
    names = {path.value for path in paths}
    for blind in evidence.blind:
        if blind["kind"] == Kind.COPY.value and names & set(blind["paths"]):
            yield f"blind: {' or '.join(blind['functions'])}: {blind['reason']}"
    for site in controls.sites_of(evidence, Kind.COPY):
        if not site["exact"]:
            yield f"inexact: {site['function']} shows the bytes asked for ({site['note']})"
        if names & set(site["paths"]) and site["quantity"] not in run.expected:
            yield f"no control: nothing is known to go through {site['function']}"


def _unexplained(
    copies: dict[str, int], events: dict[str, int], run: Run, outside: int
) -> Iterable[str]:
    """Bytes that somebody copied, and that no copy site accounts for."""
    if outside:
        yield (
            f"unattributed: {outside} B were copied inside the kernel on top of another "
            "thread while the transfer ran, and may belong to it"
        )
    other = copies.get("other_user_bytes", 0)
    if other < 0:
        yield (
            f"contradiction: of the user bytes counted the processor's copy routine saw "
            f"{-other} B less"
        )
    if other and (
        other >= run.payload_bytes or other > _METADATA_BYTES * events.get("syscalls", 0)
    ):
        yield (
            f"contradiction: the processor's copy routine moved {other} B more than the copy "
            "sites, too much to be told from payload"
        )


def _copy_figures(sender: pd.DataFrame) -> dict[str, int]:
    copies = sender[sender["kind"] == Kind.COPY.value]
    by_direction = copies.groupby("direction")["bytes"].sum()
    figures = {
        f"{direction.value}_bytes": int(by_direction.get(direction.value, 0))
        for direction in (
            Direction.USER_TO_KERNEL,
            Direction.KERNEL_TO_USER,
            Direction.KERNEL_TO_KERNEL,
        )
    }
    figures["cpu_copied_bytes"] = sum(figures.values())
    figures["copy_calls"] = int(copies["calls"].sum())
    routine = sender[sender["kind"] == Kind.CROSS_CHECK.value]
    if len(routine):
        seen = int(routine["bytes"].sum())
        figures["other_user_bytes"] = seen - figures["u2k_bytes"] - figures["k2u_bytes"]
    return figures


def _event_figures(evidence: Evidence, sender: pd.DataFrame) -> dict[str, int]:
    hits = sender[sender["kind"] == Kind.EVENT.value].groupby("quantity")["calls"].sum()

    def count(quantity: str) -> int | None:
        return int(hits.get(quantity, 0)) if quantity in evidence.events else None

    enters, exits = count("syscall-enter"), count("syscall-exit")
    voluntary = count("context-switch-voluntary")
    involuntary = count("context-switch-involuntary")
    figures = {
        "syscalls": enters,
        "page_faults": count("page-fault-user"),
        "page_faults_kernel": count("page-fault-kernel"),
        "context_switches_voluntary": voluntary,
        "context_switches_involuntary": involuntary,
    }
    if enters is not None and exits is not None:
        figures["mode_switches"] = enters + exits
    if voluntary is not None and involuntary is not None:
        figures["context_switches"] = voluntary + involuntary
    return {name: value for name, value in figures.items() if value is not None}
