"""What the counts add up to: the figures and verdicts of each run.

A judgement adds up a few hundred rows, for which a frame of pandas takes longer.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from zctrace.analysis import controls, reasons
from zctrace.analysis.columns import COLUMNS, EVENT_COLUMNS
from zctrace.analysis.dma import PAGE_BYTES, dma_figures, dma_into_cache, dma_to_nic
from zctrace.analysis.doubts import failed_controls, unexplained, unseen
from zctrace.analysis.rows import UNWATCHED, Row, sum_bytes, sum_calls, tidy_rows
from zctrace.analysis.verdicts import (
    Verdict,
    Word,
    judge_copies,
    judge_dma,
    judge_switches,
)
from zctrace.evidence.schema import Evidence, Run
from zctrace.probes.model import Direction, Kind, Purpose, Quantity, plain
from zctrace.workloads.catalogue import strategy_named
from zctrace.workloads.strategy import Ends, Expected

ITERATOR_FUNCTIONS = frozenset(
    {
        "_copy_to_iter",
        "_copy_from_iter",
        "_copy_from_iter_full",
        "copy_page_to_iter",
        "copy_page_from_iter",
        "copy_folio_from_iter_atomic",
        "copy_page_from_iter_atomic",
        "iov_iter_copy_from_user_atomic",
        "copyin",
        "copyout",
        "copy_from_user_iter",
        "copy_to_user_iter",
    }
)
"""Functions of the iterators that call the processor's routine."""


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


def judge(evidences: Iterable[Evidence]) -> list[Judged]:
    """Every run of every kernel, in the order in which they happened."""
    return [_judge(evidence, run) for evidence in evidences for run in evidence.runs]


def _judge(evidence: Evidence, run: Run) -> Judged:
    strategy = strategy_named(run.strategy)
    claims = _claims(evidence, run)
    if run.unavailable:
        return _not_available(evidence, run)
    checked = controls.check(evidence, run)
    failed = [control for control in checked if not control.passed]
    found = list(tidy_rows(evidence, run))
    sender = [row for row in found if row.role == run.role]
    outside = sum_bytes(r for r in found if r.role is run.role.outside and r.kind is Kind.COPY)
    copies = _copy_figures(sender, within=run.user_copies_from is not None)
    events = _event_figures(evidence, sender)
    doubt_copies = "; ".join(
        (
            *failed_controls(failed, controls.COPIES),
            *unseen(evidence, run, strategy.paths),
            *unexplained(copies, events, run, outside),
        )
    )
    doubt_switches = "; ".join(failed_controls(failed, controls.SWITCHES))
    if doubt_copies:
        copies = {}
    else:
        copies["outside_bytes"] = outside
    for kind, columns in EVENT_COLUMNS.items():
        if any(control.figures == kind for control in failed):
            events = {name: value for name, value in events.items() if name not in columns}
    calls = _by_syscall(sender)
    into_cache, to_nic = (
        dma_into_cache(evidence, run, failed),
        dma_to_nic(evidence, run, failed),
    )
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
        judge_dma(
            claims.dma_copies,
            into_cache,
            to_nic,
            run.payload_bytes,
            PAGE_BYTES,
            run.account.sent_again,
        ),
    )
    copied = copies.get("cpu_copied_bytes")
    figures: dict[str, int | float | str | None] = {
        **_identity(evidence, run),
        "reason": "; ".join(_reasons(run, sender)) if copies else None,
        "cpu_copies": None if copied is None else copied / run.payload_bytes,
        **copies,
        **events,
        **dma_figures(evidence, run, into_cache, to_nic),
        "verdict_copies": verdicts[0].word.value,
        "verdict_switches": verdicts[1].word.value,
        "verdict_dma": verdicts[2].word.value,
        "coverage": "; ".join(
            filter(None, (doubt_copies, doubt_switches, *failed_controls(failed, controls.DMA)))
        )
        or "complete",
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


def _by_syscall(subject: Iterable[Row]) -> dict[str, int]:
    """The number of each system call, by name."""
    calls: Counter[str] = Counter()
    for row in subject:
        if row.quantity == Quantity.SYSCALL_ENTER and row.syscall is not None:
            calls[row.syscall] += row.calls or 0
    return dict(sorted(calls.items()))


def _claims(evidence: Evidence, run: Run) -> Expected:
    return strategy_named(run.strategy).claims(gathers=evidence.nic_of(run).scatter_gather)


def _identity(evidence: Evidence, run: Run) -> dict[str, int | float | str | None]:
    """What was done, and what is claimed of it."""
    strategy = strategy_named(run.strategy)
    claims = _claims(evidence, run)
    return {
        "kernel": evidence.kernel["release"],
        "machine": evidence.machine["kind"],
        "strategy": run.strategy,
        "file_system": run.file_system,
        "nic": None if strategy.ends is Ends.FILE_TO_FILE else run.nic,
        "chunk_bytes": run.chunk_bytes,
        "cache": run.cache,
        "payload_bytes": run.payload_bytes,
        "run_index": run.run_index,
        "claimed_cpu_copies": claims.cpu_copies,
        "claimed_switches": claims.switches,
        "claimed_dma_copies": claims.dma_copies,
        **(evidence.origin.facts if evidence.origin else {}),
    }


def _not_available(evidence: Evidence, run: Run) -> Judged:
    """A run that this kernel cannot do: nothing measured, and why."""
    verdict = Verdict(Word.NOT_MEASURED, f"not available: {run.unavailable}")
    figures = _identity(evidence, run)
    word = verdict.word.value
    figures |= {"verdict_copies": word, "verdict_switches": word, "verdict_dma": word}
    figures["coverage"] = verdict.sentence
    return Judged(
        evidence,
        run,
        {column: figures.get(column) for column in COLUMNS},
        verdict,
        verdict,
        verdict,
        (),
        {},
    )


def why(evidence: Evidence, run: Run) -> dict[reasons.Why, int]:
    """Bytes copied inside the kernel by the process under measurement, the most first."""
    return _why(row for row in tidy_rows(evidence, run) if row.role == run.role)


def _why(subject: Iterable[Row]) -> dict[reasons.Why, int]:
    total: Counter[reasons.Why] = Counter()
    for row in subject:
        size = row.bytes or 0
        within = row.direction is Direction.KERNEL_TO_KERNEL
        if row.kind is Kind.COPY and within and size > 0:
            total[reasons.reason(row.quantity, row.caller, row.syscall)] += size
    return dict(total.most_common())


def _reasons(run: Run, subject: Iterable[Row]) -> Iterable[str]:
    """Why bytes were copied inside the kernel, each reason with its bytes."""
    found = list(subject)
    for reason, size in _why(found).items():
        yield f"{size} B: {reason}"
    again = run.account.sent_again
    if again and sum_bytes(row for row in found if row.quantity == Quantity.SKB_COPY_UBUFS):
        yield f"{again} B were sent again by TCP, and what it sends again may be copied again"


def _copy_figures(subject: Sequence[Row], *, within: bool) -> dict[str, int]:
    """``within`` is whether copies within the program's own memory were watched."""
    copies = [row for row in subject if row.kind is Kind.COPY]
    payload = [row for row in copies if row.purpose is not Purpose.METADATA]
    metadata = [row for row in copies if row.purpose is Purpose.METADATA]
    figures = {
        f"{direction}_bytes": sum_bytes(r for r in payload if r.direction is direction)
        for direction in (
            Direction.USER_TO_KERNEL,
            Direction.KERNEL_TO_USER,
            Direction.KERNEL_TO_KERNEL,
            *([Direction.USER_TO_USER] if within else []),
        )
    }
    figures["cpu_copied_bytes"] = sum(figures.values())
    figures["copy_calls"] = sum_calls(payload)
    if metadata:
        figures["metadata_bytes"] = sum_bytes(metadata)
    routine = [row for row in subject if row.quantity == Quantity.USER_COPY_ROUTINE]
    if any(row.mechanism != UNWATCHED for row in routine):
        figures |= _routine_figures(routine, figures)
    return figures


def _routine_figures(routine: Sequence[Row], figures: dict[str, int]) -> dict[str, int]:
    """What the processor's copy routine copied for callers that count no payload.

    The routine counts requested bytes. Where a page of the program was not present, it is
    called again for the same bytes. Callers that count really copied bytes are known, and
    left out here; so callers are separated where they are known.
    """
    seen, user = sum_bytes(routine), figures["u2k_bytes"] + figures["k2u_bytes"]
    through = sum_bytes(
        row
        for row in routine
        if row.caller and plain(row.caller.partition("+")[0]) in ITERATOR_FUNCTIONS
    )
    other = seen - (through if through >= user else user)
    return {"other_user_bytes": other - figures.get("metadata_bytes", 0)}


def _event_figures(evidence: Evidence, sender: Iterable[Row]) -> dict[str, int]:
    hits: Counter[Quantity] = Counter()
    for row in sender:
        if row.kind is Kind.EVENT:
            hits[row.quantity] += row.calls or 0

    def count(quantity: Quantity) -> int | None:
        return hits[quantity] if quantity in evidence.events else None

    enters, exits = count(Quantity.SYSCALL_ENTER), count(Quantity.SYSCALL_EXIT)
    voluntary = count(Quantity.CONTEXT_SWITCH_VOLUNTARY)
    involuntary = count(Quantity.CONTEXT_SWITCH_INVOLUNTARY)
    figures = {
        "syscalls": enters,
        "page_faults": count(Quantity.PAGE_FAULT_USER),
        "page_faults_kernel": count(Quantity.PAGE_FAULT_KERNEL),
        "context_switches_voluntary": voluntary,
        "context_switches_involuntary": involuntary,
        "interrupts": count(Quantity.INTERRUPT),
    }
    if enters is not None and exits is not None:
        figures["mode_switches"] = enters + exits
    if voluntary is not None and involuntary is not None:
        figures["context_switches"] = voluntary + involuntary
    return {name: value for name, value in figures.items() if value is not None}
