"""The report on the terminal: measured beside claimed, eighty columns, plain when piped.

Several kernels share one table, a row each, and what differs between them is marked.
"""

from __future__ import annotations

import textwrap
from collections.abc import Callable, Sequence

from rich import box
from rich.console import Console
from rich.measure import Measurement
from rich.table import Table
from rich.text import Text

from tracer.evidence import Evidence
from tracer.sizes import human_size
from tracer.summary import Judged
from tracer.verdict import Verdict, Word
from workloads.catalogue import strategy_named

UNMEASURED = "–"
DIFFERENT = "≠"
_WIDTH = 80
_STYLES = {Word.HOLDS: "green", Word.REFUTED: "red"}
_WORDS = {Word.NOT_MEASURED: UNMEASURED, Word.NO_CLAIM: ""}
_MACHINES = {
    "host": "this machine's own kernel",
    "qemu-tcg": "in a virtual machine (QEMU, emulated)",
    "qemu-kvm": "in a virtual machine (QEMU, KVM)",
}


def render(judged: Sequence[Judged], console: Console, host_release: str) -> None:
    """Print everything; ``host_release`` is the kernel of the machine we are on."""
    evidences = list({id(j.evidence): j.evidence for j in judged}.values())
    rows = _by_strategy(judged)
    _alarm(rows, console)
    for evidence in evidences:
        _heading(evidence, console, host_release)
    _task(judged, console)
    _claims(rows, console)
    _bytes(rows, console)
    _events(rows, console)
    _sentences(rows, console)
    for evidence in evidences:
        runs = [j for j in judged if j.evidence is evidence]
        _coverage(evidence, runs, console, several=len(evidences) > 1)


def _by_strategy(judged: Sequence[Judged]) -> list[Judged]:
    """Kernels beside each other: all runs of a strategy together, in order of kernels."""
    names = list(dict.fromkeys(j.run.strategy for j in judged))
    return sorted(judged, key=lambda j: names.index(j.run.strategy))


def _say(console: Console, text: str = "", style: str = "", indent: int = 0) -> None:
    for line in textwrap.wrap(
        text,
        _WIDTH - 1,
        initial_indent=" " * indent,
        subsequent_indent=" " * (indent + 2),
        break_on_hyphens=False,
    ) or [""]:
        console.print(Text(line, style=style), soft_wrap=True)


def _alarm(runs: Sequence[Judged], console: Console) -> None:
    failed = [(j, control) for j in runs for control in j.failed]
    if not failed:
        return
    _say(console, "CONTROLS FAILED: cells marked – are not to be trusted.", "bold red")
    reasons = dict.fromkeys(
        f"{j.run.strategy}, {_release(j)}: {control.name}: {control.detail}"
        for j, control in failed
    )
    for reason in list(reasons)[:6]:
        _say(console, reason, "red", indent=2)
    if len(reasons) > 6:
        _say(console, f"and {len(reasons) - 6} more, all in --json", "red", indent=2)
    _say(console)


def _release(judged: Judged) -> str:
    return str(judged.figures["kernel"])


def _line(judged: Judged, runs: Sequence[Judged]) -> str:
    """The kernel's line: 6.12 of 6.12.107-amd64; its release if there are two of a line."""
    of_same_line = {j.figures["kernel"] for j in runs if _beginning(j) == _beginning(judged)}
    return _release(judged) if len(of_same_line) > 1 else _beginning(judged)


def _beginning(judged: Judged) -> str:
    return ".".join(_release(judged).split(".")[:2])


def _heading(evidence: Evidence, console: Console, host_release: str) -> None:
    kind = str(evidence.machine["kind"])
    release = evidence.kernel["release"]
    _say(console, f"Linux {release}, {_MACHINES.get(kind, kind)}", "bold")
    if kind != "host":
        _say(console, f"not this machine's own kernel, which is {host_release}", indent=2)


def _task(judged: Sequence[Judged], console: Console) -> None:
    first = judged[0]
    sizes = sorted({j.run.payload_bytes for j in judged})
    payload = f"{human_size(sizes[0])} ({sizes[0]} B)"
    if len(sizes) > 1:
        payload = f"{len(sizes)} payloads from {sizes[0]} to {sizes[-1]} B"
    chunk = first.run.chunk_bytes
    how = f"in calls of at most {human_size(chunk)}" if chunk else "whole in one call"
    systems = " and ".join(dict.fromkeys(j.run.file_system for j in judged))
    _say(
        console,
        f"{payload} on {systems}, page cache warm; sockets are "
        f"TCP on loopback; {how} where the kernel allows",
        indent=2,
    )
    _say(console)


def _table(*columns: str) -> Table:
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, padding=(0, 0, 0, 1))
    for index, column in enumerate(columns):
        words = column.startswith("<")
        table.add_column(
            column.lstrip("<"),
            justify="left" if words or index == 0 else "right",
            # What gives way where the terminal is too narrow is the name, in two lines.
            no_wrap=index > 0,
            overflow="fold",
        )
    return table


def _print(table: Table, console: Console) -> None:
    """Whole: a table may be wider than the terminal, a number may not be cut."""
    needed = Measurement.get(console, console.options, table).minimum
    console.print(table, width=max(console.width, needed), crop=False)


def _several(runs: Sequence[Judged]) -> bool:
    return len({id(j.evidence) for j in runs}) > 1


def _first_columns(runs: Sequence[Judged]) -> tuple[str, ...]:
    return ("strategy", "<on") if _several(runs) else ("strategy",)


def _first_cells(judged: Judged, runs: Sequence[Judged]) -> tuple[str, ...]:
    name = judged.run.strategy
    if len({j.run.payload_bytes for j in runs}) > 1:
        name = f"{name} {human_size(judged.run.payload_bytes)}"
    if any(j.run.run_index for j in runs):
        name = f"{name} #{judged.run.run_index}"
    return (name, _line(judged, runs)) if _several(runs) else (name,)


def _number(value: object) -> str:
    return UNMEASURED if value is None else str(value)


def copies(value: object) -> str:
    """Copies to three digits, never rounded to a whole number that it is not."""
    if value is None:
        return UNMEASURED
    assert isinstance(value, int | float)
    if value == int(value):
        return str(int(value))
    text = f"{value:.3f}"
    return repr(value) if float(text) == int(float(text)) else text


def _word(verdict: Verdict) -> Text:
    word = verdict.word
    return Text(_WORDS.get(word, word.value), style=_STYLES.get(word, ""))


def differs(judged: Judged, runs: Sequence[Judged], column: str) -> bool:
    """Whether a figure that was measured is another one on another kernel."""
    values: dict[int, set[object]] = {}
    for j in runs:
        same = (j.run.strategy, j.run.payload_bytes)
        if same == (judged.run.strategy, judged.run.payload_bytes):
            measured = values.setdefault(id(j.evidence), set())
            if j.figures[column] is not None:
                measured.add(j.figures[column])
    kernels = {frozenset(measured) for measured in values.values() if measured}
    return judged.figures[column] is not None and len(kernels) > 1


def _marked(
    judged: Judged,
    runs: Sequence[Judged],
    column: str,
    show: Callable[[object], str] = _number,
) -> str:
    mark = f"{DIFFERENT} " if differs(judged, runs, column) else ""
    return mark + show(judged.figures[column])


def _claims(runs: Sequence[Judged], console: Console) -> None:
    table = _table(
        *_first_columns(runs),
        "copies" if _several(runs) else "CPU copies",
        "claim",
        "<verdict",
        "switches",
        "claim",
        "<verdict",
    )
    for j in runs:
        table.add_row(
            *_first_cells(j, runs),
            _marked(j, runs, "cpu_copies", copies),
            _claim(j.figures["claimed_cpu_copies"]),
            _word(j.copies),
            _marked(j, runs, "mode_switches"),
            _claim(j.figures["claimed_switches"]),
            _word(j.switches),
        )
    _print(table, console)
    if any(j.copies.word is Word.NO_CLAIM for j in runs):
        _say(console, "No claim, no verdict: the textbook does not speak of these.")
        _say(console)


def _claim(value: object) -> str:
    return "" if value is None else str(value)


def _bytes(runs: Sequence[Judged], console: Console) -> None:
    receivers = {strategy_named(j.run.strategy).role.name.lower() for j in runs}
    _say(
        console,
        f"Bytes copied by the CPU for the {' or '.join(sorted(receivers, reverse=True))}, "
        "u: user, k: kernel memory; metadata: vectors, addresses, headers and offsets of "
        "system calls; other: user copies beside both",
    )
    table = _table(*_first_columns(runs), "u→k", "k→u", "k→k", "metadata", "other")
    columns = ("u2k_bytes", "k2u_bytes", "k2k_bytes", "metadata_bytes", "other_user_bytes")
    for j in runs:
        table.add_row(
            *_first_cells(j, runs),
            *(_marked(j, runs, column) for column in columns[:3]),
            *(_number(j.figures[column]) for column in columns[3:]),
        )
    _print(table, console)


def _events(runs: Sequence[Judged], console: Console) -> None:
    _say(
        console,
        "System calls. Beside the mode switches and no part of them: page faults in user "
        "mode and in the kernel; context switches, because it waited or was forced to",
    )
    table = _table(*_first_columns(runs), "<calls", "user", "kernel", "waited", "forced")
    shown = 1 if _several(runs) else 2
    for j in runs:
        calls = sorted(j.calls.items(), key=lambda item: -item[1])
        names = ", ".join(f"{count} {name}" for name, count in calls[:shown])
        more = f" +{len(calls) - shown}" if len(calls) > shown else ""
        table.add_row(
            *_first_cells(j, runs),
            UNMEASURED if j.figures["syscalls"] is None else names + more,
            *(
                _number(j.figures[column])
                for column in (
                    "page_faults",
                    "page_faults_kernel",
                    "context_switches_voluntary",
                    "context_switches_involuntary",
                )
            ),
        )
    _print(table, console)


def _sentences(runs: Sequence[Judged], console: Console) -> None:
    """Why verdicts are what they are, and why bytes were copied inside the kernel."""
    said: dict[tuple[str, str, Word], list[str]] = {}
    for j in runs:
        if j.run.unavailable:
            missing = f"not available: {j.run.strategy}"
            key = (missing, j.run.unavailable, Word.NOT_MEASURED)
            said.setdefault(key, []).append(_line(j, runs))
            continue
        for figure, verdict in (("copies", j.copies), ("switches", j.switches)):
            if verdict.word in (Word.REFUTED, Word.NOT_MEASURED):
                what = f"{verdict.word.value}: {j.run.strategy}, {figure}"
                said.setdefault((what, verdict.sentence, verdict.word), []).append(
                    _line(j, runs)
                )
        if j.figures["reason"]:
            why = f"{j.run.strategy}, inside the kernel"
            said.setdefault((why, str(j.figures["reason"]), Word.NO_CLAIM), []).append(
                _line(j, runs)
            )
    for (what, sentence, word), lines in said.items():
        on = f" ({', '.join(dict.fromkeys(lines))})" if _several(runs) else ""
        _say(console, f"{what}{on}: {sentence}", _STYLES.get(word, ""))
    if said:
        _say(console)


def _coverage(
    evidence: Evidence, runs: Sequence[Judged], console: Console, *, several: bool
) -> None:
    """What was watched and how, what was not and why, and what was lost."""
    where = f", Linux {evidence.kernel['release']}" if several else ""
    checked = [control for j in runs for control in j.checked]
    failed = sum(not control.passed for control in checked)
    _say(
        console,
        f"Coverage{where}. Controls: {len(checked) - failed} of {len(checked)} passed.",
        "" if not failed else "bold red",
    )
    by_mechanism: dict[str, list[str]] = {}
    for site in evidence.sites:
        if site["callers"] == 0:
            continue
        many = f" from {site['callers']}" if site["callers"] is not None else ""
        by_mechanism.setdefault(site["mechanism"], []).append(f"{site['function']}{many}")
    for mechanism, names in by_mechanism.items():
        _say(console, f"By {mechanism}: {', '.join(names)}.", indent=2)
    for site in evidence.sites:
        if site["note"]:
            _say(console, f"Fallback: {site['function']}: {site['note']}.", "yellow", indent=2)
        if site["unreached"]:
            refused = ", ".join(site["unreached"])
            _say(console, f"Not probed, calling {site['function']}: {refused}.", indent=2)
    for blind in evidence.blind:
        functions = " or ".join(blind["functions"])
        paths = ", ".join(blind["paths"])
        _say(
            console,
            f"Blind: {functions}: {blind['reason']}; matters to {paths}.",
            "yellow",
            indent=2,
        )
    lost = {name: n for j in runs for name, n in j.run.lost.items() if n}
    _say(console, f"Lost: {lost or 'nothing'}. Not counted yet: DMA.", indent=2)
    if evidence.rights:
        user = f"{evidence.request.user} (uid {evidence.rights['uid']})"
        _say(console, f"Strategies ran as {user}.", indent=2)
    _say(console)
