"""The report on the terminal: measured beside claimed, eighty columns, plain when piped."""

from __future__ import annotations

import textwrap
from collections.abc import Iterable, Sequence

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from tracer.sizes import human_size
from tracer.summary import Judged
from tracer.verdict import Verdict, Word

UNMEASURED = "–"
_WIDTH = 80
_STYLES = {Word.HOLDS: "green", Word.REFUTED: "red", Word.NOT_MEASURED: "yellow"}
_MACHINES = {
    "host": "this machine's own kernel",
    "qemu-tcg": "in a virtual machine (QEMU, emulated)",
    "qemu-kvm": "in a virtual machine (QEMU, KVM)",
}


def render(judged: Sequence[Judged], console: Console, host_release: str) -> None:
    """Print everything; ``host_release`` is the kernel of the machine we are on."""
    for evidence in {id(j.evidence): j.evidence for j in judged}.values():
        runs = [j for j in judged if j.evidence is evidence]
        _alarm(runs, console)
        _heading(runs, console, host_release)
        _claims(runs, console)
        _bytes(runs, console)
        _events(runs, console)
        _sentences(runs, console)
        _coverage(runs, console)


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
        f"{j.run.strategy}: {control.name}: {control.detail}" for j, control in failed
    )
    for reason in list(reasons)[:6]:
        _say(console, reason, "red", indent=2)
    if len(reasons) > 6:
        _say(console, f"and {len(reasons) - 6} more, all in --json", "red", indent=2)
    _say(console)


def _heading(runs: Sequence[Judged], console: Console, host_release: str) -> None:
    first = runs[0]
    kind = str(first.evidence.machine["kind"])
    release = first.figures["kernel"]
    payload = human_size(first.run.payload_bytes)
    _say(console, f"Linux {release}, {_MACHINES.get(kind, kind)}", "bold")
    if kind != "host":
        _say(console, f"not this machine's own kernel, which is {host_release}", indent=2)
    chunk = first.run.chunk_bytes
    how = f"in calls of at most {human_size(chunk)}" if chunk else "whole in one call"
    _say(
        console,
        f"{payload} ({first.run.payload_bytes} B) from ext4, page cache warm, to TCP on "
        f"loopback, {how} where the kernel allows",
        indent=2,
    )
    _say(console)


def _table(*columns: str) -> Table:
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, padding=(0, 1))
    for index, column in enumerate(columns):
        words = column.startswith("<")
        table.add_column(
            column.lstrip("<"),
            justify="left" if words or index == 0 else "right",
            no_wrap=True,
        )
    return table


def _name(judged: Judged, runs: Iterable[Judged]) -> str:
    repeated = any(j.run.run_index for j in runs)
    return f"{judged.run.strategy} #{judged.run.run_index}" if repeated else judged.run.strategy


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
    return Text(verdict.word.value, style=_STYLES[verdict.word])


def _claims(runs: Sequence[Judged], console: Console) -> None:
    table = _table(
        "strategy", "CPU copies", "claimed", "<verdict", "switches", "claimed", "<verdict"
    )
    for j in runs:
        table.add_row(
            _name(j, runs),
            copies(j.figures["cpu_copies"]),
            _number(j.figures["claimed_cpu_copies"]),
            _word(j.copies),
            _number(j.figures["mode_switches"]),
            _number(j.figures["claimed_switches"]),
            _word(j.switches),
        )
    console.print(table)


def _bytes(runs: Sequence[Judged], console: Console) -> None:
    _say(
        console,
        "Bytes copied by the CPU for the sender, in how many calls; other: user copies "
        "beside the payload",
    )
    table = _table("strategy", "user→kernel", "kernel→user", "kernel→kernel", "calls", "other")
    for j in runs:
        figures = j.figures
        table.add_row(
            _name(j, runs),
            *(
                _number(figures[column])
                for column in (
                    "u2k_bytes",
                    "k2u_bytes",
                    "k2k_bytes",
                    "copy_calls",
                    "other_user_bytes",
                )
            ),
        )
    console.print(table)


def _events(runs: Sequence[Judged], console: Console) -> None:
    _say(
        console,
        "System calls. Beside the mode switches and no part of them: page faults in user "
        "mode and in the kernel; context switches, because it waited or was preempted",
    )
    table = _table("strategy", "<calls", "user", "kernel", "waited", "preempted")
    for j in runs:
        calls = sorted(j.calls.items(), key=lambda item: -item[1])
        names = ", ".join(f"{count} {name}" for name, count in calls[:2])
        more = f" +{len(calls) - 2}" if len(calls) > 2 else ""
        table.add_row(
            _name(j, runs),
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
    console.print(table)


def _sentences(runs: Sequence[Judged], console: Console) -> None:
    said = dict.fromkeys(
        (f"{j.run.strategy}, {figure}: {verdict.sentence}", verdict.word)
        for j in runs
        for figure, verdict in (("copies", j.copies), ("switches", j.switches))
        if verdict.word is not Word.HOLDS
    )
    for sentence, word in said:
        _say(console, f"{word.value}: {sentence}", _STYLES[word])
    if said:
        _say(console)


def _coverage(runs: Sequence[Judged], console: Console) -> None:
    evidence = runs[0].evidence
    checked = [control for j in runs for control in j.checked]
    failed = sum(not control.passed for control in checked)
    _say(
        console,
        f"Controls: {len(checked) - failed} of {len(checked)} passed.",
        "" if not failed else "bold red",
    )
    watched = ", ".join(f"{s['function']} ({s['mechanism']})" for s in evidence.sites)
    _say(console, f"Watched: {watched}.")
    for site in evidence.sites:
        if site["note"]:
            _say(console, f"Fallback: {site['function']}: {site['note']}.", "yellow")
    for blind in evidence.blind:
        where = f"matters to {', '.join(blind['paths'])} only" if blind["paths"] else ""
        functions = " or ".join(blind["functions"])
        _say(console, f"Blind: {functions}: {blind['reason']}; {where}.", "yellow")
    _say(console, "Not counted yet: DMA, copies of small structures one by one.")
    rights = evidence.rights
    if rights:
        _say(console, f"Strategies ran as {evidence.request.user} (uid {rights['uid']}).")
    _say(console)
