"""``zctrace report``: show results that ``--json`` saved. Needs no root."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from zctrace.commands import trace
from zctrace.commands.common import Outputs, require_controls, write
from zctrace.commands.options import Force
from zctrace.errors import UsageError


def command(
    results: Annotated[list[Path], typer.Argument(help="Files that run --json has written.")],
    html: Annotated[
        Path | None,
        typer.Option(help="Also as a page with drawings that needs no network; - for stdout."),
    ] = None,
    markdown: Annotated[
        Path | None, typer.Option(help="Also as tables as GitHub shows them; - for stdout.")
    ] = None,
    folded: Annotated[Path | None, typer.Option(help="As for trace; - for stdout.")] = None,
    speedscope: Annotated[Path | None, typer.Option(help="As for trace; - for stdout.")] = None,
    force: Force = False,
) -> None:
    """Show saved results again."""
    outputs = Outputs(
        html=html, markdown=markdown, folded=folded, speedscope=speedscope, force=force
    )
    show(results, Console(), outputs)


def show(paths: Sequence[Path], console: Console, outputs: Outputs) -> None:
    """Print the reports, or write the forms that are asked for.

    Raises ``OutputError``, and ``ControlError`` where controls had failed.
    """
    outputs.check()
    from zctrace.analysis import saved
    from zctrace.reports.text import runs

    results = [saved.read(path) for path in paths]
    judged = [j for result in results for j in result.runs]
    programs = [found for result in results for found in result.programs]
    of_programs = [o for o, _ in outputs.chosen() if o in ("--folded", "--speedscope")]
    if programs and len(outputs.chosen()) > len(of_programs):
        raise UsageError(
            "--html and --markdown are for strategies",
            "these are results of zctrace trace",
            "without them; zctrace trace --csv and --json",
        )
    if of_programs and (judged or not any(found.trace.account.stacks for found in programs)):
        raise UsageError(
            f"{of_programs[0]}: there are no stacks in these results",
            hint="zctrace trace --stacks --json F -- COMMAND",
        )
    if programs:
        trace.show(programs, outputs, console)
        require_controls(programs)
    if not judged:
        return
    write(judged, outputs)
    if not outputs.on_stdout:
        runs.render(judged, console, os.uname().release)
    require_controls(judged)
