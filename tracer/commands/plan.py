"""``zctrace plan``: what would be attached where on a kernel, and what stays blind."""

from __future__ import annotations

from rich.console import Console
from rich.table import Table
from rich.text import Text

from zctrace.commands.common import find, require_root
from zctrace.commands.options import BootTimeout, Keep, Kernel, Mechanism, Quiet
from zctrace.commands.outputs import NOWHERE, writes
from zctrace.commands.progress import shown
from zctrace.evidence.schema import Evidence
from zctrace.machine import job, places
from zctrace.machine.job import Options
from zctrace.machine.places import AUTO
from zctrace.machine.progress import BOOT_SECONDS
from zctrace.plan.attachments import Choice
from zctrace.probes.model import Purpose
from zctrace.reports import formats
from zctrace.reports.formats import Of, Outputs
from zctrace.reports.text.terminal import Terminal


@writes(formats.of(Of.PLAN))
def command(
    kernel: Kernel = AUTO,
    mechanism: Mechanism = Choice.AUTO,
    outputs: Outputs = NOWHERE,
    keep: Keep = False,
    boot_timeout: BootTimeout = BOOT_SECONDS,
    quiet: Quiet = False,
) -> None:
    """Show which probes a kernel would get and why, and what they would not cover."""
    wanted = Options(
        settings=(),
        sizes=(1,),
        mechanism=mechanism.value,
        plan_only=True,
        keep=keep,
        boot_seconds=boot_timeout,
    )
    show(kernel, wanted, outputs, Terminal(), quiet=quiet)


def show(
    name: str, options: Options, outputs: Outputs, console: Console, *, quiet: bool
) -> None:
    """Plan on one kernel and print it; JSON gets the kernel's facts as well."""
    require_root("only root can ask a kernel what it lets be probed")
    places.require_architecture()
    outputs.check()
    with shown(quiet=quiet) as say:
        place = find(name, say, options.mechanism)
        evidence = job.collect(place, options, say)
    outputs.write(Of.PLAN, evidence)
    if not outputs.on_stdout:
        render(evidence, console)


def render(evidence: Evidence, console: Console) -> None:
    """The plan of one kernel, under eighty columns."""
    kernel = evidence.kernel
    console.print(Text(f"Linux {kernel['release']} on {kernel['cpu']}", style="bold"))
    table = Table(box=None, pad_edge=False)
    for column in ("copy site", "by", "use"):
        table.add_column(column)
    for site in evidence.sites:
        by = str(site.mechanism)
        if site.callers is not None:
            by = f"{site.callers} {by}"
        use = site.kind if site.purpose is Purpose.PAYLOAD else site.purpose
        table.add_row(site.function, by, use)
    console.print(table)
    console.print()
    for site in evidence.sites:
        _say(console, f"{site.function}: {site.why}.")
        if site.note:
            what = "" if site.exact else "fallback, "
            _say(console, f"{site.function}: {what}{site.note}.", "yellow")
        if site.unreached:
            callers = ", ".join(site.unreached)
            _say(console, f"{site.function}: not probed in {callers}.", "yellow")
    console.print()
    _say(console, f"Events, by tracepoint: {', '.join(evidence.events)}.")
    for blind in evidence.blind:
        functions = " or ".join(blind.functions)
        _say(
            console,
            f"Blind ({', '.join(sorted(blind.paths))}): {functions}: {blind.reason}.",
            "yellow",
        )


def _say(console: Console, text: str, style: str = "") -> None:
    console.print(Text(text, style=style), width=min(console.width, 79))
