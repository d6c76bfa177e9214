"""Results as pandas frames: for notebooks and for the CSV.

This module imports pandas, which takes as long as the rest of a command, so it is imported
late itself.
"""

from __future__ import annotations

import os
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import pandas as pd

from zctrace.analysis import csv_rows, reasons, saved, sentences
from zctrace.analysis.border import delivering
from zctrace.analysis.columns import COLUMNS, RATIOS, TEXTS
from zctrace.analysis.lines import moves
from zctrace.analysis.program import Answer
from zctrace.analysis.rows import Row, tidy_rows
from zctrace.analysis.runs import Judged
from zctrace.analysis.saved import Saved
from zctrace.analysis.verdicts import Word
from zctrace.evidence.account import FlowWay
from zctrace.evidence.schema import Evidence, Run
from zctrace.probes.model import Direction, Kind, Purpose, plain

_Types = Mapping[str, Any]
_TEXT, _NUMBER, _RATIO, _TRUTH = "string", "Int64", "Float64", "boolean"
# Names are no categories: with pandas 2, grouping by categories makes rows for what never ran.
_VERDICT = pd.CategoricalDtype([word.value for word in Word])

_RUN: _Types = {
    column: _VERDICT
    if column.startswith("verdict_")
    else _TEXT
    if column in TEXTS
    else _RATIO
    if column in RATIOS
    else _NUMBER
    for column in COLUMNS
}
_NUMBERS = ("payload_bytes", "chunk_bytes", "run_index", "calls", "bytes")
_ROW: _Types = {column: _NUMBER if column in _NUMBERS else _TEXT for column in Row._fields}
_OF_RUNS = (
    "strategy", "file_system", "nic", "cache", "payload_bytes", "chunk_bytes", "run_index",
)  # fmt: skip
"""What a traced program has none of."""
_FROM: _Types = {"source": _TEXT, "program": _TEXT}
_COPY: _Types = {
    **_FROM,
    **{column: _ROW[column] for column in ("kernel", "machine", *_OF_RUNS)},
    "function": _TEXT,
    "caller": _TEXT,
    "direction": _TEXT,
    "syscall": _TEXT,
    "purpose": _TEXT,
    "payload": _TRUTH,
    "reason": _TEXT,
    "calls": _NUMBER,
    "bytes": _NUMBER,
}
_MOVED = ("calls", "received_bytes", "delivered_bytes")
_WAYS = ("u2k_bytes", "k2u_bytes", "k2k_bytes")
_FLOW: _Types = {
    **_FROM,
    "kernel": _TEXT,
    "thing": _NUMBER,
    "kind": _TEXT,
    "name": _TEXT,
    "syscall": _TEXT,
    **dict.fromkeys(_MOVED, _NUMBER),
    "in_total": _TRUTH,
    "copied_bytes": _NUMBER,
    **dict.fromkeys(_WAYS, _NUMBER),
    "unexplained_bytes": _NUMBER,
}

_TRACE: _Types = {
    "program": _TEXT,
    "machine": _TEXT,
    "ended": _TEXT,
    "command": _TEXT,
    "build": _TEXT,
    "verdict": _TEXT,
    "copies": _RATIO,
    "basis": _TEXT,
    **dict.fromkeys(
        (
            *("delivered_bytes", "received_bytes", "inside_bytes", "copied_bytes"),
            *("kept_bytes", "unassigned_bytes", "unexplained_bytes"),
        ),
        _NUMBER,
    ),
    "self_tests": _TEXT,
    "certain": _TRUTH,
}
"""Columns of :func:`traces`. ``copied_bytes`` is ``NA`` where a self-test failed; ``certain``
is whether no copies may be missing.
"""


@dataclass(frozen=True, eq=False)
class Frames:
    """Saved results as frames.

    Unknown is ``NA``, never 0. pandas adds up ``NA`` as 0: ``sum(min_count=1)`` does not.
    Columns of all frames: ``source``, the file's path; ``kernel``, its release. Of
    ``evidence``, ``copies`` and ``flows``: ``program``, the command or processes traced,
    ``NA`` for runs.

    ``runs``: one row per run of a strategy, with the columns of ``zctrace run --csv``.

    * ``machine``: ``host``, ``qemu-kvm`` or ``qemu-tcg`` (emulated)
    * ``strategy``, ``file_system``, ``nic``, ``cache``: what was done; ``nic`` is ``NA``
      from file to file, ``cache`` is ``warm`` or ``cold``
    * ``payload_bytes``, ``chunk_bytes``: bytes to move, and in one system call (``NA``: all)
    * ``run_index``: repetition, from 0
    * ``cpu_copies``: ``cpu_copied_bytes`` / ``payload_bytes``
    * ``cpu_copied_bytes``: payload copied by the CPU, bytes; by direction in ``u2k_bytes``
      (user to kernel memory), ``k2u_bytes``, ``k2k_bytes`` and ``u2u_bytes``
    * ``copy_calls``: executions of functions that copied payload
    * ``syscalls``, ``mode_switches``: system calls; entries and exits
    * ``page_faults``, ``page_faults_kernel``: in user mode, in the kernel
    * ``context_switches``: ``context_switches_voluntary`` + ``context_switches_involuntary``
    * ``interrupts``: while the thread ran; a lower bound
    * ``dma_copies``: (``dma_in_bytes`` + ``dma_out_bytes``) / ``payload_bytes``
    * ``dma_in_bytes``, ``dma_out_bytes``: payload disk to page cache, page cache to network
      device, bytes; ``dma_in_source``, ``dma_out_source``: ``measured``, ``derived``, ``none``
    * ``claimed_cpu_copies``, ``claimed_switches``, ``claimed_dma_copies``: the textbook's
    * ``verdict_copies``, ``verdict_switches``, ``verdict_dma``: category ``holds``,
      ``refuted``, ``not measured``, ``no claim``
    * ``coverage``: ``complete``, or why figures are missing
    * ``controls``: ``passed`` or ``failed``
    * ``reason``: why bytes were copied inside the kernel
    * ``metadata_bytes``: structures of system calls, such as vectors and addresses, bytes
    * ``other_user_bytes``: other copies from or to user memory, bytes
    * ``outside_bytes``: copied in the kernel during the run, not attributed, bytes
    * ``header_bytes``: packet headers handed to network devices, bytes
    * ``disk_metadata_bytes``: read from the disk in addition to the payload, bytes
    * ``host``, ``host_kernel``: the machine's name and its own kernel's release; ``NA``, as the
      next three, in results that older versions saved
    * ``ended``: when the measurement did, in ISO 8601 with the offset from UTC
    * ``command``, ``build``: the command line; version of zctrace, which names the commit

    ``evidence``: counts as they are, one row per run or program, role, site, direction,
    system call and caller; also of self-tests (controls) and of runs whose figures are
    withheld. The columns of ``zctrace run --evidence``: ``machine``, ``strategy``,
    ``file_system``, ``nic``, ``cache``, ``payload_bytes``, ``chunk_bytes``, ``run_index``
    as in ``runs`` (``NA`` for programs), and

    * ``role``: the process: ``sender``, ``receiver``, ``program``, a control's, …
    * ``quantity``: what is counted
    * ``site``, ``mechanism``: function or event, and how it is watched (``none``: not)
    * ``kind``: ``copy``, ``event``, or ``cross-check``, whose bytes are never to be added
    * ``purpose``: ``payload``, ``metadata`` or ``copy-on-write``
    * ``direction``: ``u2k``, ``k2u``, ``k2k``, ``u2u``; by DMA ``d2k``, ``k2d``
    * ``syscall``, ``caller``: in which system call, and who called, as ``function+0x12``
    * ``calls``, ``bytes``: executions, bytes
    * ``note``: what else is to be known of the site, or why it is not watched
    * ``host``, ``host_kernel``, ``ended``, ``command``, ``build``: as in ``runs``

    ``copies``: one row per function, caller, direction and system call in which the process
    under measurement copied bytes; to be pivoted. ``machine``, ``strategy``, ``file_system``,
    ``nic``, ``cache``, ``payload_bytes``, ``chunk_bytes``, ``run_index`` as in ``evidence``,
    and

    * ``function``, ``caller``: who copied, and who called it, without offset
    * ``direction``, ``syscall``, ``purpose``: as in ``evidence``
    * ``payload``: whether the bytes are part of ``cpu_copied_bytes``, or of a program's total
    * ``reason``: why bytes were copied inside the kernel
    * ``calls``, ``bytes``: executions, bytes; ``NA`` where the run's or program's figures on
      copies are withheld

    ``flows``: one row per file, socket, pipe or device of a traced program and system call.

    * ``thing``: its number in the program's account, ``NA`` where unknown: a call that had
      begun before the tracing, or no call at all
    * ``kind``, ``name``: ``file``, ``socket``, ``pipe``, ``device``, ``other``; path or
      addresses
    * ``syscall``: ``NA`` outside system calls, as in softirqs
    * ``calls``: system calls that moved bytes
    * ``received_bytes``, ``delivered_bytes``: moved from it, and to it, as the calls say;
      ``NA`` where no call said so
    * ``in_total``: whether the program's totals include them, which pipes and
      connections inside the program are not
    * ``copied_bytes``: payload copied by the CPU, bytes; by direction in ``u2k_bytes``,
      ``k2u_bytes`` and ``k2k_bytes``; ``NA`` where the controls failed
    * ``unexplained_bytes``: moved; whether they were copied is not known
    """

    runs: pd.DataFrame
    evidence: pd.DataFrame
    flows: pd.DataFrame
    copies: pd.DataFrame


def load(paths: str | os.PathLike[str] | Iterable[str | os.PathLike[str]]) -> Frames:
    """What ``--json`` has saved, in one file or several: results of run, trace and check.

    Raises :class:`zctrace.errors.UsageError` for a file that is no result.
    """
    several = [paths] if isinstance(paths, str | os.PathLike) else paths
    return of(saved.read(Path(path)) for path in several)


def of(saved_results: Iterable[Saved]) -> Frames:
    """The same of results that are here."""
    results = list(saved_results)
    counted = [part for result in results for part in _counted(result)]
    return Frames(
        _frame(
            ({"source": str(r.path), **j.figures} for r in results for j in r.runs),
            {"source": _TEXT, **_RUN},
        ),
        _frame(
            ({**row._asdict(), **part.which} for part in counted for row in part.rows()),
            {**_FROM, **_ROW},
        ),
        _frame(
            (row for result in results for found in result.programs
             for row in _flows(_which(result, found), found)),
            _FLOW,
        ),
        _frame((row for part in counted for row in _copies(part)), _COPY),
    )  # fmt: skip


def summary(judged: Iterable[Judged]) -> pd.DataFrame:
    """A row per run, ``COLUMNS`` in order, unmeasured cells ``NA``."""
    return _frame((j.figures for j in judged), _RUN)


def tidy(evidences: Iterable[Evidence]) -> pd.DataFrame:
    """The rows of :func:`tidy_rows`: run, role, site, direction, system call and caller."""
    rows = (row for e in evidences for run in e.runs for row in tidy_rows(e, run))
    return _frame((row._asdict() for row in rows), _ROW)


def traces(answers: Iterable[Answer]) -> pd.DataFrame:
    """A row for each traced program, what is unknown ``NA``."""
    return _frame(map(_trace, answers), _TRACE)


def _trace(found: Answer) -> dict[str, Any]:
    subject, origin = found.evidence.request.subject, found.evidence.origin
    return {
        **(origin.facts if origin else {}),
        "program": subject.words if subject else None,
        "machine": found.evidence.machine["kind"],
        "verdict": sentences.sentence(found),
        "copies": found.copies,
        "basis": found.basis[0],
        "delivered_bytes": sum(found.delivered.values()),
        "received_bytes": sum(found.received.values()),
        "inside_bytes": sum(found.border.inside.values()),
        "copied_bytes": found.copied_bytes,
        "kept_bytes": found.kept,
        "unassigned_bytes": found.unassigned,
        "unexplained_bytes": found.unexplained_bytes,
        "self_tests": "failed" if found.failed else "passed",
        "certain": not (
            found.failed or found.doubts or found.unassigned or found.unexplained_bytes
        ),
    }


def csv(frame: pd.DataFrame) -> str:
    """One of them as a file has it: what was not measured is empty."""
    values = frame.astype(object).where(frame.notna(), None)
    return csv_rows.table([*frame.columns], values.to_dict("records"))


def _frame(rows: Iterable[Mapping[str, Any]], types: _Types) -> pd.DataFrame:
    # Objects first: pandas would turn integers into floats where a column has None.
    return pd.DataFrame(list(rows), columns=list(types), dtype=object).astype(types)


class _Counted(NamedTuple):
    """A run, or a traced program: what its rows have in common, and which are its payload.

    ``known`` is whether its figures on copies are.
    """

    which: dict[str, str | None]
    evidence: Evidence
    run: Run
    known: bool
    payload: Callable[[Row], bool]

    def rows(self) -> Iterator[Row]:
        return tidy_rows(self.evidence, self.run)


def _counted(result: Saved) -> Iterator[_Counted]:
    for judged in result.runs:
        yield _Counted(
            {"source": str(result.path), "program": None},
            judged.evidence,
            judged.run,
            judged.figures["cpu_copied_bytes"] is not None,
            lambda row: row.purpose != Purpose.METADATA.value,
        )
    for found in result.programs:
        yield _Counted(
            _which(result, found) | dict.fromkeys(_OF_RUNS),
            found.evidence,
            found.trace.run,
            found.copied is not None,
            lambda row: row.purpose == Purpose.PAYLOAD.value and moves(row.syscall),
        )


def _which(result: Saved, found: Answer) -> dict[str, str | None]:
    subject = found.evidence.request.subject
    return {"source": str(result.path), "program": subject.words if subject else None}


def _copies(part: _Counted) -> Iterator[dict[str, Any]]:
    for row in part.rows():
        if row.role != part.run.role or row.kind != Kind.COPY.value or not row.bytes:
            continue
        inside = row.direction == Direction.KERNEL_TO_KERNEL.value
        why = reasons.reason(row.quantity, row.caller, row.syscall).words if inside else None
        yield {
            **row._asdict(),
            **part.which,
            "function": row.site,
            "caller": plain((row.caller or "").partition("+")[0]) or None,
            "payload": part.payload(row),
            "reason": why,
            **({} if part.known else {"calls": None, "bytes": None}),
        }


def _flows(which: Mapping[str, Any], found: Answer) -> Iterator[dict[str, Any]]:
    account, in_total = found.trace.account, delivering(found.trace.account)
    moved: defaultdict[tuple[int | None, str | None], Counter[str]] = defaultdict(Counter)
    copied: defaultdict[tuple[int | None, str | None], Counter[str]] = defaultdict(Counter)
    for flow in account.flows:
        size = "delivered_bytes" if flow.way is FlowWay.OUT else "received_bytes"
        moved[flow.thing, flow.syscall].update({"calls": flow.calls, size: flow.bytes})
    for booking in (*account.bookings, *found.explanation.plain):
        if moves(booking.syscall):
            copied[booking.thing, booking.syscall][f"{booking.direction}_bytes"] += (
                booking.bytes
            )
    unexplained: Counter[tuple[int | None, str | None]] = Counter()
    for part in found.unexplained:
        unexplained[part.thing, part.syscall] += part.bytes
    for key in dict.fromkeys([*moved, *copied]):
        number, syscall = key
        thing = None if number is None else account.things[number]
        row = {
            **which,
            "kernel": found.evidence.kernel["release"],
            "thing": number,
            "kind": thing and thing.kind,
            "name": thing and thing.name,
            "syscall": syscall,
        }
        if key in moved:
            row |= {name: moved[key][name] for name in _MOVED}
            row["unexplained_bytes"] = unexplained[key]
            row["in_total"] = number in in_total
        if found.copied is not None:
            row |= {name: copied[key][name] for name in _WAYS}
            row["copied_bytes"] = copied[key].total()
        yield row
