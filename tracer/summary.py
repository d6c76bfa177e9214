"""What the counts add up to: tidy rows, and one summary row per run.

The only module that imports pandas, and late: the tables that programs read are made with
it, while a judgement adds up a few hundred rows, for which a frame takes longer.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

from probes.site import Direction, Kind, Mechanism, Path, Purpose
from probes.user_memory import QUANTITY
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

if TYPE_CHECKING:
    import pandas as pd

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


class Row(NamedTuple):
    """One of the tidy rows, whose columns these are, in order."""

    kernel: str
    machine: str
    strategy: str
    file_system: str
    nic: str
    cache: str
    payload_bytes: int
    chunk_bytes: int | None
    run_index: int
    role: str
    quantity: str
    site: str
    kind: str
    purpose: str | None
    mechanism: str
    direction: str | None
    syscall: str | None
    caller: str | None
    calls: int | None
    bytes: int | None
    note: str


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
    import pandas as pd

    found = [
        row
        for evidence in evidences
        for run in evidence.runs
        for row in tidy_rows(evidence, run)
    ]
    frame = pd.DataFrame(found, columns=list(Row._fields))
    for column in ("payload_bytes", "chunk_bytes", "run_index", "calls", "bytes"):
        frame[column] = frame[column].astype("Int64")
    return frame


def tidy_rows(evidence: Evidence, run: Run) -> Iterator[Row]:
    """The tidy rows of one run; none of one that was not possible."""
    if run.unavailable:
        return
    sites = {(site["function"], site["mechanism"]): site for site in evidence.sites}
    common = (
        evidence.kernel["release"],
        evidence.machine["kind"],
        run.strategy,
        run.file_system,
        run.nic,
        run.cache,
        run.payload_bytes,
        run.chunk_bytes,
        run.run_index,
    )
    seen = set()
    for count in run.counts:
        site = sites.get((count.function, count.mechanism))
        if count.role == run.role:
            seen.add((count.function, count.mechanism))
        yield Row(
            *common,
            role=count.role,
            quantity=count.quantity,
            site=count.function,
            kind=_kind(site, count),
            purpose=site["purpose"] if site else None,
            mechanism=count.mechanism,
            direction=controls.direction_of(
                count.direction, site and site["direction"], count.syscall
            ),
            syscall=count.syscall,
            caller=count.caller,
            calls=count.calls,
            # An event that counts bytes always has some.
            bytes=count.bytes if site else count.bytes or None,
            note=site["note"] if site else "",
        )
    for key, site in sites.items():
        unwatched = site["quantity"] == QUANTITY and run.user_copies_from is None
        if key not in seen and not unwatched:
            yield Row(
                *common,
                role=run.role,
                quantity=site["quantity"],
                site=site["function"],
                kind=site["kind"],
                purpose=site["purpose"],
                mechanism=site["mechanism"],
                direction=site["direction"],
                syscall=None,
                caller=None,
                calls=0,
                bytes=0,
                note=site["note"],
            )
    for blind in evidence.blind:
        yield Row(
            *common,
            role=run.role,
            quantity=blind["quantity"],
            site=" or ".join(blind["functions"]),
            kind=blind["kind"],
            purpose=None,
            mechanism="none",
            direction=None,
            syscall=None,
            caller=None,
            calls=None,
            bytes=None,
            note=blind["reason"],
        )


def _kind(site: dict[str, Any] | None, count: Count) -> str:
    if site:
        return str(site["kind"])
    # Seen at a tracepoint, but it is the processor that copies.
    return Kind.COPY.value if count.quantity == _BOUNCE else Kind.EVENT.value


def _bytes(found: Iterable[Row]) -> int:
    """Their sum; a row without a number is of something that nothing watches."""
    return sum(row.bytes or 0 for row in found)


def _calls(found: Iterable[Row]) -> int:
    return sum(row.calls or 0 for row in found)


def judge(evidences: Iterable[Evidence]) -> list[Judged]:
    """Every run of every kernel, in the order in which they happened."""
    return [_judge(evidence, run) for evidence in evidences for run in evidence.runs]


def summarise(judged: Iterable[Judged]) -> pd.DataFrame:
    """The summary table: a row per run, ``COLUMNS`` in order, unmeasured cells empty."""
    import pandas as pd

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
    found = list(tidy_rows(evidence, run))
    sender = [row for row in found if row.role == run.role]
    elsewhere = f"outside:{run.role}"
    outside = _bytes(r for r in found if r.role == elsewhere and r.kind == Kind.COPY.value)
    copies = _copy_figures(sender, within=run.user_copies_from is not None)
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
    calls = _by_syscall(sender)
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


def _by_syscall(subject: Iterable[Row]) -> dict[str, int]:
    """How many of which system call, by name."""
    calls: Counter[str] = Counter()
    for row in subject:
        if row.quantity == "syscall-enter" and row.syscall is not None:
            calls[row.syscall] += row.calls or 0
    return dict(sorted(calls.items()))


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


def why(evidence: Evidence, run: Run) -> dict[reasons.Why, int]:
    """Bytes copied inside the kernel by the process under measurement, the most first."""
    return _why(row for row in tidy_rows(evidence, run) if row.role == run.role)


def _why(subject: Iterable[Row]) -> dict[reasons.Why, int]:
    total: Counter[reasons.Why] = Counter()
    for row in subject:
        size = row.bytes or 0
        within = row.direction == Direction.KERNEL_TO_KERNEL.value
        if row.kind == Kind.COPY.value and within and size > 0:
            total[reasons.reason(row.quantity, row.caller, row.syscall)] += size
    return dict(total.most_common())


def _reasons(run: Run, subject: Iterable[Row]) -> Iterable[str]:
    """Why bytes were copied inside the kernel, each reason with its bytes."""
    found = list(subject)
    for reason, size in _why(found).items():
        yield f"{size} B: {reason}"
    again = run.account.get("retransmitted_bytes", 0)
    if again and _bytes(row for row in found if row.quantity == "skb-copy-ubufs"):
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
    if run.user_copies_from is not None and QUANTITY not in controlled:
        yield "no control: no known bytes were copied within the program's own memory"
    checked = {s["function"] for s in controls.sites_of(evidence, Kind.CROSS_CHECK)}
    routine = any(s["direction"] is None for s in controls.sites_of(evidence, Kind.CROSS_CHECK))
    for site in controls.sites_of(evidence, Kind.COPY):
        if site["purpose"] == Purpose.METADATA.value or not names & set(site["paths"]):
            continue
        if not site["exact"]:
            yield f"inexact: {site['function']} {_short_of(site)} ({site['note']})"
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


def _short_of(site: dict[str, Any]) -> str:
    """What a mechanism that is not the best of a site does not see."""
    if site["mechanism"] == Mechanism.KPROBE.value:
        return "is passed over in some interrupts"
    return "shows the bytes asked for"


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


def _copy_figures(subject: Sequence[Row], *, within: bool) -> dict[str, int]:
    """``within`` is whether copies within the program's own memory were watched."""
    copies = [row for row in subject if row.kind == Kind.COPY.value]
    payload = [row for row in copies if row.purpose != Purpose.METADATA.value]
    metadata = [row for row in copies if row.purpose == Purpose.METADATA.value]
    figures = {
        f"{direction.value}_bytes": _bytes(r for r in payload if r.direction == direction.value)
        for direction in (
            Direction.USER_TO_KERNEL,
            Direction.KERNEL_TO_USER,
            Direction.KERNEL_TO_KERNEL,
            *([Direction.USER_TO_USER] if within else []),
        )
    }
    figures["cpu_copied_bytes"] = sum(figures.values())
    figures["copy_calls"] = _calls(payload)
    if metadata:
        figures["metadata_bytes"] = _bytes(metadata)
    routine = [row for row in subject if row.quantity == _ROUTINE]
    if any(row.mechanism != "none" for row in routine):
        figures |= _routine_figures(routine, figures)
    return figures


def _routine_figures(routine: Sequence[Row], figures: dict[str, int]) -> dict[str, int]:
    """What the processor's routine copied for others than those that count payload.

    Its bytes are those asked for: where a page of the program's was not present, it is
    called again for the same ones. Of whoever counts what was really copied that is known,
    and is no matter; so those callers are told apart, where callers are known.
    """
    seen, user = _bytes(routine), figures["u2k_bytes"] + figures["k2u_bytes"]
    through = _bytes(
        row
        for row in routine
        if row.caller and plain(row.caller.partition("+")[0]) in ITERATOR_FUNCTIONS
    )
    other = seen - (through if through >= user else user)
    return {"other_user_bytes": other - figures.get("metadata_bytes", 0)}


def _event_figures(evidence: Evidence, sender: Iterable[Row]) -> dict[str, int]:
    hits: Counter[str] = Counter()
    for row in sender:
        if row.kind == Kind.EVENT.value:
            hits[row.quantity] += row.calls or 0

    def count(quantity: str) -> int | None:
        return hits[quantity] if quantity in evidence.events else None

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
