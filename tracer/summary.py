"""What the counts add up to: tidy rows, and one summary row per run. Imports pandas."""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass

import pandas as pd

from probes.site import Direction, Kind, Path, Purpose
from tracer import controls, reasons
from tracer.call_sites import plain
from tracer.evidence import VIRTUAL, WARM, Count, Evidence, Run
from tracer.verdict import (
    Dma,
    Source,
    Verdict,
    Word,
    judge_copies,
    judge_dma,
    judge_switches,
)
from workloads.catalogue import strategy_named
from workloads.strategy import Ends, Expected

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
    "file_system",
    "reason",
    "interrupts",
    "dma_in_source",
    "dma_out_source",
    "header_bytes",
    "disk_metadata_bytes",
]
"""The summary's columns, in order; others rely on the first thirty-one."""

_ROUTINE = "user-copy-routine"
_BOUNCE = "bounce"
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
_PAGE_BYTES = 4096
"""On x86-64: the least that is read from a disk into the page cache."""
_METADATA_BYTES = 256
"""More than any system call here copies beside payload and metadata."""

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
    "file_system",
    "reason",
    "dma_in_source",
    "dma_out_source",
}
_RATIOS = {"cpu_copies", "dma_copies"}

_TIDY_COLUMNS = [
    "kernel",
    "machine",
    "strategy",
    "file_system",
    "nic",
    "cache",
    "payload_bytes",
    "chunk_bytes",
    "run_index",
    "role",
    "quantity",
    "site",
    "kind",
    "purpose",
    "mechanism",
    "direction",
    "syscall",
    "caller",
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
    """One row per run, role, site, direction, system call and caller; as counted.

    Every attached copy site has a row for the process under measurement, if only with
    zeros; a site that nothing watches has one with both cells empty and the reason in
    ``note``.
    """
    rows = [
        row for evidence in evidences for run in evidence.runs for row in _rows(evidence, run)
    ]
    frame = pd.DataFrame(rows, columns=list(_TIDY_COLUMNS))
    for column in ("payload_bytes", "chunk_bytes", "run_index", "calls", "bytes"):
        frame[column] = frame[column].astype("Int64")
    return frame


def _rows(evidence: Evidence, run: Run) -> Iterable[dict[str, object]]:
    sites = {(site["function"], site["mechanism"]): site for site in evidence.sites}
    common = {
        "kernel": evidence.kernel["release"],
        "machine": evidence.machine["kind"],
        "strategy": run.strategy,
        "file_system": run.file_system,
        "nic": run.nic,
        "cache": run.cache,
        "payload_bytes": run.payload_bytes,
        "chunk_bytes": run.chunk_bytes,
        "run_index": run.run_index,
    }
    if run.unavailable:
        return
    seen = set()
    for count in run.counts:
        site = sites.get((count.function, count.mechanism))
        if count.role == run.role:
            seen.add((count.function, count.mechanism))
        yield {
            **common,
            "role": count.role,
            "quantity": count.quantity,
            "site": count.function,
            "kind": _kind(site, count),
            "purpose": site["purpose"] if site else None,
            "mechanism": count.mechanism,
            "direction": controls.direction_of(
                count.direction, site and site["direction"], count.syscall
            ),
            "syscall": count.syscall,
            "caller": count.caller,
            "calls": count.calls,
            # An event that counts bytes always has some.
            "bytes": count.bytes if site else count.bytes or None,
            "note": site["note"] if site else "",
        }
    for key, site in sites.items():
        if key not in seen:
            yield {
                **common,
                "role": run.role,
                "quantity": site["quantity"],
                "site": site["function"],
                "kind": site["kind"],
                "purpose": site["purpose"],
                "mechanism": site["mechanism"],
                "direction": site["direction"],
                "calls": 0,
                "bytes": 0,
                "note": site["note"],
            }
    for blind in evidence.blind:
        yield {
            **common,
            "role": run.role,
            "quantity": blind["quantity"],
            "site": " or ".join(blind["functions"]),
            "kind": blind["kind"],
            "mechanism": "none",
            "note": blind["reason"],
        }


def _kind(site: dict[str, object] | None, count: Count) -> object:
    if site:
        return site["kind"]
    # Seen at a tracepoint, but it is the processor that copies.
    return (Kind.COPY if count.quantity == _BOUNCE else Kind.EVENT).value


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
    claims = _claims(evidence, run)
    if run.unavailable:
        return _not_available(evidence, run)
    checked = controls.check(evidence, run)
    failed = [control for control in checked if not control.passed]
    rows = tidy([dataclasses.replace(evidence, runs=(run,))])
    sender = rows[rows["role"] == run.role]
    elsewhere = rows[(rows["role"] == f"outside:{run.role}") & (rows["kind"] == "copy")]
    outside = int(elsewhere["bytes"].sum())
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
    into_cache, to_nic = _into_cache(evidence, run, failed), _to_nic(evidence, run, failed)
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
            _PAGE_BYTES,
            run.account.get("retransmitted_bytes", 0),
        ),
    )
    copied = copies.get("cpu_copied_bytes")
    figures: dict[str, int | float | str | None] = {
        **_identity(evidence, run),
        "reason": "; ".join(_reasons(run, sender)) if copies else None,
        "cpu_copies": None if copied is None else copied / run.payload_bytes,
        **copies,
        **events,
        **_dma_figures(evidence, run, into_cache, to_nic),
        "verdict_copies": verdicts[0].word.value,
        "verdict_switches": verdicts[1].word.value,
        "verdict_dma": verdicts[2].word.value,
        "coverage": "; ".join(
            filter(None, (doubt_copies, doubt_switches, *_failed(failed, controls.DMA)))
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


def _claims(evidence: Evidence, run: Run) -> Expected:
    return strategy_named(run.strategy).claims(
        gathers=bool(evidence.nics[run.nic]["scatter_gather"])
    )


def _dma_doubt(failed: list[controls.Control]) -> str:
    return "; ".join(_failed(failed, controls.DMA))


def _mapped(evidence: Evidence, run: Run, device: str, way: Direction, handed: int) -> Source:
    """How it is known that a driver that was handed so many bytes moved them by DMA."""
    mapped = sum(
        c.bytes
        for c in run.counts
        if (c.quantity, c.caller, c.direction) == ("dma-mapped", device, way.value)
    )
    return Source.MEASURED if mapped >= handed else Source.DERIVED


def _into_cache(evidence: Evidence, run: Run, failed: list[controls.Control]) -> Dma:
    """From the disk into memory."""
    if strategy_named(run.strategy).ends in (Ends.SOCKET_TO_FILE, Ends.SOCKET_TO_MEMORY):
        return Dma(None, None, "", "no file is read")
    disk = evidence.disks[run.file_system]
    doubt = disk["trouble"] or _dma_doubt(failed)
    if "disk-request" not in evidence.events:
        doubt = "requests to disks are not watched"
    # Of the tool's own payload in the page cache nothing is concluded, control or not.
    concluded = run.cache != WARM or evidence.request.file
    if concluded and not doubt and controls.DISK_READ_CONTROL not in run.expected:
        doubt = (
            f"no control: no known bytes were read from {disk['device']}, because the "
            "strategies' user cannot make files there"
        )
    if doubt:
        return Dma(None, None, "", doubt)
    read = sum(run.moved("disk-read", role) for role in (run.role, f"outside:{run.role}"))
    if run.cache != WARM and read < run.payload_bytes:
        seen = f"of {run.payload_bytes} B only {read} were seen coming from the disk"
        return Dma(None, None, "", f"{seen}: a part was elsewhere, or a hole")
    handed = sum(c.bytes for c in run.counts if c.quantity.startswith("disk-read"))
    return Dma(
        read,
        _mapped(evidence, run, disk["bus_device"], Direction.DEVICE_TO_KERNEL, handed),
        f"{disk['device']} ({disk['driver']})",
        ""
        if read or run.cache != WARM
        else "the payload was in the page cache, and nothing was read from the disk",
    )


def _to_nic(evidence: Evidence, run: Run, failed: list[controls.Control]) -> Dma:
    """From memory to the network device."""
    if strategy_named(run.strategy).ends is not Ends.FILE_TO_SOCKET:
        return Dma(None, None, "", "no payload is sent")
    nic = evidence.nics[run.nic]
    doubt = _dma_doubt(failed)
    if "transmit-payload" not in evidence.events:
        doubt = "what network devices transmit is not watched"
    if doubt:
        return Dma(None, None, "", doubt)
    if nic["driver"] in VIRTUAL:
        return Dma(0, Source.NONE, run.nic)
    if not nic["bus_device"]:
        return Dma(None, None, "", f"{run.nic} is no device that transfers by itself")
    sent = controls.transmitted(evidence, run, "payload")
    return Dma(
        sent,
        _mapped(evidence, run, nic["bus_device"], Direction.KERNEL_TO_DEVICE, sent),
        run.nic,
    )


def _dma_figures(
    evidence: Evidence, run: Run, into_cache: Dma, to_nic: Dma
) -> dict[str, int | float | str | None]:
    figures: dict[str, int | float | str | None] = {
        "dma_in_bytes": into_cache.bytes,
        "dma_out_bytes": to_nic.bytes,
        "dma_in_source": into_cache.source.value if into_cache.source else None,
        "dma_out_source": to_nic.source.value if to_nic.source else None,
    }
    if into_cache.bytes is not None and to_nic.bytes is not None:
        figures["dma_copies"] = (into_cache.bytes + to_nic.bytes) / run.payload_bytes
    if to_nic.bytes is not None:
        figures["header_bytes"] = controls.transmitted(evidence, run, "headers")
    if into_cache.bytes is not None:
        figures["disk_metadata_bytes"] = run.moved("disk-read-other", run.role)
    return figures


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


def _reasons(run: Run, subject: pd.DataFrame) -> Iterable[str]:
    """Why bytes were copied inside the kernel, each reason with its bytes."""
    inside = subject[
        (subject["kind"] == Kind.COPY.value)
        & (subject["direction"] == Direction.KERNEL_TO_KERNEL.value)
        & (subject["bytes"] > 0)
    ]
    total: Counter[str] = Counter()
    for row in inside.to_dict("records"):
        caller, syscall = (
            row[k] if isinstance(row[k], str) else None for k in ("caller", "syscall")
        )
        total[reasons.reason(str(row["quantity"]), caller, syscall)] += int(row["bytes"])
    for words, size in total.most_common():
        yield f"{size} B: {words}"
    again = run.account.get("retransmitted_bytes", 0)
    if again and (inside["quantity"] == "skb-copy-ubufs").any():
        yield f"{again} B were sent again by TCP, and what it sends again may be copied again"


def _failed(failed: list[controls.Control], figures: str) -> list[str]:
    return [f"control failed: {c.name}: {c.detail}" for c in failed if c.figures == figures]


def _unseen(evidence: Evidence, run: Run, paths: frozenset[Path]) -> Iterable[str]:
    """Where bytes could have been copied without being counted for certain."""
    names = {path.value for path in paths}
    for blind in evidence.blind:
        if blind["kind"] == Kind.COPY.value and names & set(blind["paths"]):
            yield f"blind: {' or '.join(blind['functions'])}: {blind['reason']}"
    controlled = {name.partition(":")[0] for name in run.expected}
    checked = {s["function"] for s in controls.sites_of(evidence, Kind.CROSS_CHECK)}
    routine = any(s["direction"] is None for s in controls.sites_of(evidence, Kind.CROSS_CHECK))
    for site in controls.sites_of(evidence, Kind.COPY):
        if site["purpose"] == Purpose.METADATA.value or not names & set(site["paths"]):
            continue
        if not site["exact"]:
            yield f"inexact: {site['function']} shows the bytes asked for ({site['note']})"
        if site["quantity"] not in controlled:
            yield f"no control: nothing is known to go through {site['function']}"
        seen_otherwise = routine or site["breakpoint"] in checked
        if (
            site["purpose"] == Purpose.PAYLOAD.value
            and site["unreached"]
            and not seen_otherwise
        ):
            callers = ", ".join(site["unreached"])
            yield f"blind: {site['function']}, called by {callers}: no probe there"


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


def _copy_figures(subject: pd.DataFrame) -> dict[str, int]:
    copies = subject[subject["kind"] == Kind.COPY.value]
    metadata = copies["purpose"] == Purpose.METADATA.value
    by_direction = copies[~metadata].groupby("direction")["bytes"].sum()
    figures = {
        f"{direction.value}_bytes": int(by_direction.get(direction.value, 0))
        for direction in (
            Direction.USER_TO_KERNEL,
            Direction.KERNEL_TO_USER,
            Direction.KERNEL_TO_KERNEL,
        )
    }
    figures["cpu_copied_bytes"] = sum(figures.values())
    figures["copy_calls"] = int(copies[~metadata]["calls"].sum())
    if metadata.any():
        figures["metadata_bytes"] = int(copies[metadata]["bytes"].sum())
    routine = subject[subject["quantity"] == _ROUTINE]
    if (routine["mechanism"] != "none").any():
        figures |= _routine_figures(routine, figures)
    return figures


def _routine_figures(routine: pd.DataFrame, figures: dict[str, int]) -> dict[str, int]:
    """What the processor's routine copied for others than those that count payload.

    Its bytes are those asked for: where a page of the program's was not present, it is
    called again for the same ones. Of whoever counts what was really copied that is known,
    and is no matter; so those callers are told apart, where callers are known.
    """
    seen, user = int(routine["bytes"].sum()), figures["u2k_bytes"] + figures["k2u_bytes"]
    callers = routine["caller"].map(
        lambda caller: plain(str(caller).partition("+")[0]) in ITERATOR_FUNCTIONS
    )
    through = int(routine[callers]["bytes"].sum())
    other = seen - (through if through >= user else user)
    return {"other_user_bytes": other - figures.get("metadata_bytes", 0)}


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
        "interrupts": count("interrupt"),
    }
    if enters is not None and exits is not None:
        figures["mode_switches"] = enters + exits
    if voluntary is not None and involuntary is not None:
        figures["context_switches"] = voluntary + involuntary
    return {name: value for name, value in figures.items() if value is not None}
