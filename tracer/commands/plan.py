"""``zctrace plan``: what would be attached where on a kernel, and what stays blind."""

from __future__ import annotations

from pathlib import Path

from rich.console import Console
from rich.table import Table
from rich.text import Text

from zctrace import output_files
from zctrace.commands.common import find, require_root
from zctrace.commands.progress import shown
from zctrace.evidence.schema import Evidence
from zctrace.machine import job, places
from zctrace.machine.job import Options
from zctrace.probes.model import Purpose


def show(
    name: str, mechanism: str, json_path: Path | None, console: Console, *, quiet: bool
) -> None:
    """Plan on one kernel and print it; ``json_path`` gets the kernel's facts as well."""
    require_root("only root can ask a kernel what it lets be probed")
    places.require_architecture()
    if json_path is not None:
        output_files.check(json_path, "--json", force=False)
    with shown(quiet=quiet) as say:
        place = find(name, say)
        options = Options(settings=(), sizes=(1,), mechanism=mechanism, plan_only=True)
        evidence = job.collect(place, options, say)
    if json_path is not None:
        import json

        output_files.write(json_path, json.dumps(evidence.to_json(), indent=1) + "\n")
        if json_path == output_files.STDOUT:
            return
    render(evidence, console)


def render(evidence: Evidence, console: Console) -> None:
    """The plan of one kernel, under eighty columns."""
    kernel = evidence.kernel
    console.print(Text(f"Linux {kernel['release']} on {kernel['cpu']}", style="bold"))
    table = Table(box=None, pad_edge=False)
    for column in ("copy site", "by", "use"):
        table.add_column(column)
    for site in evidence.sites:
        by = site["mechanism"]
        if site["callers"] is not None:
            by = f"{site['callers']} {by}"
        use = site["kind"] if site["purpose"] == Purpose.PAYLOAD.value else site["purpose"]
        table.add_row(site["function"], by, use)
    console.print(table)
    console.print()
    for site in evidence.sites:
        _say(console, f"{site['function']}: {site['why']}.")
        if site["note"]:
            _say(console, f"{site['function']}: fallback, {site['note']}.", "yellow")
        if site["unreached"]:
            callers = ", ".join(site["unreached"])
            _say(console, f"{site['function']}: not probed in {callers}.", "yellow")
    console.print()
    _say(console, f"Events, by tracepoint: {', '.join(evidence.events)}.")
    for blind in evidence.blind:
        functions = " or ".join(blind["functions"])
        _say(
            console,
            f"Blind ({', '.join(blind['paths'])}): {functions}: {blind['reason']}.",
            "yellow",
        )


def _say(console: Console, text: str, style: str = "") -> None:
    console.print(Text(text, style=style), width=min(console.width, 79))
