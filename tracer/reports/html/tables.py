"""The tables of the page, as values: columns, rows and cells, without a form.

Every cell with a figure knows which one it is, by row and column of the CSV.
"""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from zctrace.analysis.rows import tidy_rows
from zctrace.analysis.runs import Judged
from zctrace.analysis.verdicts import Source
from zctrace.evidence.devices import DiskFacts
from zctrace.reports import wording
from zctrace.sizes import human_size
from zctrace.workloads.marker import RoleName


@dataclass(frozen=True)
class Column:
    """``figure`` is its name in the CSV, empty where it is not there. ``group`` is a heading
    above it that it shares with its neighbours."""

    heading: str
    figure: str = ""
    group: str = ""
    number: bool = True

    @property
    def label(self) -> str:
        """The heading with the group's, for a cell that stands alone."""
        return ": ".join(filter(None, (self.group, self.heading)))


@dataclass(frozen=True)
class Cell:
    """``text`` is what is shown and ``value`` the same, exact, of a number.

    ``row`` and ``column`` are those of the CSV, ``row`` negative where it is not there.
    ``kind`` is how it is shown: number, figure (several numbers), name, text, verdict,
    unmeasured or empty.
    """

    text: str
    kind: str = "text"
    value: str = ""
    row: int = -1
    column: str = ""
    differs: bool = False
    note: str = ""


@dataclass(frozen=True)
class Group:
    """Rows under a heading of their own, which may be empty."""

    heading: str
    rows: list[tuple[str, list[Cell]]]


@dataclass(frozen=True)
class Table:
    """``first`` heads the column of the rows' own headings."""

    caption: str
    first: str
    columns: list[Column]
    groups: list[Group]

    @property
    def spans(self) -> list[tuple[str, int]]:
        """The headings above the columns' own, each with how many columns it spans."""
        spans: list[tuple[str, int]] = []
        for column in self.columns:
            if spans and column.group and spans[-1][0] == column.group:
                spans[-1] = (column.group, spans[-1][1] + 1)
            else:
                spans.append((column.group, 1))
        return spans

    def by_group(self) -> list[Table]:
        """A table for each group of columns; the columns without a group are in each."""
        groups = dict.fromkeys(column.group for column in self.columns if column.group)
        return [self._of(group) for group in groups]

    def _of(self, group: str) -> Table:
        kept = [n for n, column in enumerate(self.columns) if column.group in ("", group)]
        columns = [dataclasses.replace(self.columns[n], group="") for n in kept]
        rows = [
            Group(part.heading, [(name, [cells[n] for n in kept]) for name, cells in part.rows])
            for part in self.groups
        ]
        return Table(group, self.first, columns, rows)


_KERNEL = Column("kernel", "kernel", number=False)
_CLAIMS = [
    _KERNEL,
    Column("measured", "cpu_copies", "CPU copies"),
    Column("claimed", "claimed_cpu_copies", "CPU copies"),
    Column("verdict", "verdict_copies", "CPU copies", number=False),
    Column("measured", "mode_switches", "Mode switches"),
    Column("claimed", "claimed_switches", "Mode switches"),
    Column("verdict", "verdict_switches", "Mode switches", number=False),
    Column("measured", "dma_copies", "DMA copies"),
    Column("claimed", "claimed_dma_copies", "DMA copies"),
    Column("verdict", "verdict_dma", "DMA copies", number=False),
]
_MOVED = [
    _KERNEL,
    Column("kernel to user", "k2u_bytes", "Copied by the CPU, B"),
    Column("user to kernel", "u2k_bytes", "Copied by the CPU, B"),
    Column("inside the kernel", "k2k_bytes", "Copied by the CPU, B"),
    Column("in user memory", "u2u_bytes", "Copied by the CPU, B"),
    Column("in all", "cpu_copied_bytes", "Copied by the CPU, B"),
    Column("metadata", "metadata_bytes", "Not payload, B"),
    Column("other", "other_user_bytes", "Not payload, B"),
    Column("disk to memory", "dma_in_bytes", "Moved by DMA, B"),
    Column("memory to NIC", "dma_out_bytes", "Moved by DMA, B"),
]
_EVENTS = [
    _KERNEL,
    Column("calls", "", "System calls", number=False),
    Column("number", "syscalls", "System calls"),
    Column("mode switches", "mode_switches"),
    Column("in user mode", "page_faults", "Page faults"),
    Column("in the kernel", "page_faults_kernel", "Page faults"),
    Column("voluntary", "context_switches_voluntary", "Context switches"),
    Column("involuntary", "context_switches_involuntary", "Context switches"),
    Column("interrupts", "interrupts"),
]
_EVIDENCE = (
    "role",
    "quantity",
    "site",
    "kind",
    "direction",
    "syscall",
    "caller",
    "calls",
    "bytes",
)
_RATIOS = ("cpu_copies", "dma_copies")
_COMPARED = {
    "cpu_copies",
    "cpu_copied_bytes",
    "mode_switches",
    "syscalls",
    "dma_copies",
    "u2k_bytes",
    "k2u_bytes",
    "k2k_bytes",
    "u2u_bytes",
    "dma_in_bytes",
    "dma_out_bytes",
}
"""Figures in which kernels can differ; others differ from run to run."""
_OF_CONTROLS = frozenset(
    {
        RoleName.CONTROL_BEFORE,
        RoleName.CONTROL_AFTER,
        RoleName.CONTROL_IDLE,
        RoleName.OUTSIDE_CONTROL_BEFORE,
        RoleName.OUTSIDE_CONTROL_AFTER,
        RoleName.NEIGHBOUR,
    }
)


def claims(judged: Sequence[Judged]) -> Table:
    """Claimed and measured figures: the answer."""
    return _by_settings("Measured and claimed", _CLAIMS, judged)


def events(judged: Sequence[Judged]) -> Table:
    return _by_settings("System calls and other events", _EVENTS, judged)


def moved(judged: Sequence[Judged], runs: Sequence[Judged]) -> Table:
    """Bytes of one strategy's runs."""
    return _by_settings(f"{runs[0].run.strategy}: bytes", _MOVED, judged, runs)


def _by_settings(
    caption: str,
    columns: list[Column],
    judged: Sequence[Judged],
    runs: Sequence[Judged] | None = None,
) -> Table:
    index = {id(j): number for number, j in enumerate(judged)}
    rows = wording.by_strategy(judged if runs is None else runs)
    groups = [
        Group(
            wording.circumstances(nic, cache, part),
            [
                (
                    wording.name(j, part),
                    [_cell(j, part, judged, c, index[id(j)]) for c in columns],
                )
                for j in part
            ],
        )
        for (nic, cache), part in wording.settings(rows).items()
    ]
    return Table(caption, "strategy", columns, groups)


def _cell(
    judged: Judged, runs: Sequence[Judged], every: Sequence[Judged], column: Column, row: int
) -> Cell:
    figure = column.figure
    if not figure:
        made = wording.calls(judged, len(judged.calls))
        return Cell(made, "unmeasured" if made == wording.UNMEASURED else "text")
    value = judged.figures[figure]
    where: dict[str, Any] = {"row": row, "column": figure}
    if value is None:
        empty = figure.startswith("claimed_")
        return Cell("" if empty else wording.UNMEASURED, "empty" if empty else "unmeasured",
                    **where)  # fmt: skip
    if figure.startswith("verdict_"):
        return Cell(str(value), "verdict", **where)
    if figure == "kernel":
        return Cell(wording.kernel_line(judged, every), "name", str(value), **where)
    shown = wording.copies(value) if figure in _RATIOS else wording.number(value)
    differs = figure in _COMPARED and wording.differs(judged, runs, figure)
    return Cell(shown, "number", repr(value), differs=differs, note=_note(judged, figure),
                **where)  # fmt: skip


def _note(judged: Judged, figure: str) -> str:
    """How it is known what a device moved, where that qualifies the number."""
    source = judged.figures.get(figure.replace("_bytes", "_source"))
    if not figure.startswith("dma_") or not figure.endswith("_bytes"):
        return ""
    return {Source.NONE.value: "no device", Source.DERIVED.value: "~"}.get(str(source), "")


def evidence(judged: Sequence[Judged]) -> list[Table]:
    """Who copied: a table for each run, of rows with bytes, without the controls'."""
    tables = []
    for j in judged:
        if j.run.unavailable:
            continue
        rows = [
            (str(row.role), [_plain(getattr(row, name)) for name in _EVIDENCE[1:]])
            for row in tidy_rows(j.evidence, j.run)
            if (row.bytes or 0) > 0 and row.role not in _OF_CONTROLS
        ]
        repeated = f" #{j.run.run_index}" if j.run.run_index else ""
        caption = (
            f"{j.run.strategy}{repeated}, {human_size(j.run.payload_bytes)}, over {j.run.nic}, "
            f"page cache {j.run.cache}, on Linux {wording.release(j)}"
        )
        columns = [
            Column("system call" if name == "syscall" else name,
                   number=name in ("calls", "bytes"))
            for name in _EVIDENCE[1:]
        ]  # fmt: skip
        tables.append(Table(caption, "role", columns, [Group("", rows)]))
    return tables


def _plain(value: Any) -> Cell:
    if isinstance(value, int):
        return Cell(str(value), "number", str(value))
    return Cell(value) if isinstance(value, str) else Cell("", "empty")


def controls(runs: Sequence[Judged]) -> Table:
    """The number of self-tests for each kind of figure."""
    passed: Counter[str] = Counter()
    failed: Counter[str] = Counter()
    for j in runs:
        for control in j.checked:
            (passed if control.passed else failed)[control.figures] += 1
    names = dict.fromkeys((*passed, *failed))
    rows = [(name, [_plain(passed[name]), _plain(failed[name])]) for name in names]
    caption = f"Self-tests on Linux {wording.release(runs[0])}"
    return Table(
        caption, "figures they check", [Column("passed"), Column("failed")], [Group("", rows)]
    )


def method(judged: Sequence[Judged]) -> Table:
    """On what, and with what, was measured: a column for each kernel."""
    evidences = wording.evidences_of(judged)
    facts = [_facts([j for j in judged if j.evidence is e]) for e in evidences]
    names = dict.fromkeys(name for fact in facts for name in fact)
    rows = [(name, [Cell(fact.get(name, "")) for fact in facts]) for name in names]
    columns = [Column(str(e.kernel["release"]), number=False) for e in evidences]
    return Table("On what, and with what", "what", columns, [Group("", rows)])


def _facts(runs: Sequence[Judged]) -> dict[str, str]:
    evidence = runs[0].evidence
    kernel, machine = evidence.kernel, evidence.machine
    used = Counter(str(site.mechanism) for site in evidence.sites if site.callers != 0)
    systems = dict.fromkeys(j.run.file_system for j in runs)
    cables = dict.fromkeys(j.run.nic for j in runs)
    rights, made = evidence.rights, wording.made(evidence)
    return {
        "measured on host": made["host"],
        "the host's own kernel": made["host_kernel"],
        "measurement ended": made["ended"],
        "command line": made["command"],
        "zctrace": made["build"],
        "kernel": str(kernel["version"]),
        "machine": wording.machine(evidence),
        "processor": f"{machine['cpu']}, {machine['cpus']} of them",
        "memory": f"{machine['memory_bytes']} B",
        "zctrace and its tools": ", ".join(f"{k} {v}" for k, v in evidence.tool.items()),
        "mechanism asked for": evidence.request.mechanism,
        "functions watched": ", ".join(f"{n} by {name}" for name, n in used.items()),
        "events watched": ", ".join(evidence.events),
        "disk": "; ".join(
            f"{name}: {disk.device} ({disk.driver}){_trouble(disk)}"
            for name, disk in evidence.disks.items()
            if name in systems
        ),
        "network": "; ".join(
            f"{name}: {nic.device} ({nic.driver}), "
            f"{'with' if nic.scatter_gather else 'without'} scatter/gather"
            f"{'' if nic.bus_device else ', no hardware device'}"
            for name, nic in evidence.nics.items()
            if name in cables
        ),
        "strategies ran as": f"{evidence.request.user} (uid {rights['uid']})" if rights else "",
    }


def _trouble(disk: DiskFacts) -> str:
    return f", {disk.trouble}" if disk.trouble else ""
