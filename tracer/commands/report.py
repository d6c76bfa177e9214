"""``zctrace report``: show results that ``--json`` saved. Needs no root."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from zctrace.commands import trace
from zctrace.commands.common import require_controls
from zctrace.commands.options import ratio
from zctrace.commands.outputs import NOWHERE, writes
from zctrace.errors import UsageError
from zctrace.reports import formats
from zctrace.reports.formats import FORMATS, Of, Outputs, of
from zctrace.reports.text.terminal import Terminal


@writes([one for one in formats.FORMATS if one.again])
def command(
    results: Annotated[
        list[Path], typer.Argument(help="Files written by zctrace run, trace or check --json.")
    ],
    max_copies: Annotated[
        float | None,
        typer.Option(
            parser=ratio,
            metavar="COPIES",
            help="Fail, with status 12, if a trace has more copies per byte, as zctrace check "
            "does.",
        ),
    ] = None,
    outputs: Outputs = NOWHERE,
) -> None:
    """Show saved results."""
    show(results, Terminal(), outputs, max_copies)


def show(
    paths: Sequence[Path],
    console: Console,
    outputs: Outputs,
    max_copies: float | None = None,
) -> None:
    """Print the reports, or write the forms that are asked for.

    Raises ``OutputError``, ``ControlError`` where controls had failed, and
    :class:`LimitError` for a trace that has more than ``max_copies``.
    """
    outputs.check()
    from zctrace.analysis import limits, saved
    from zctrace.reports.text import runs

    results = [saved.read(path) for path in paths]
    judged = [j for result in results for j in result.runs]
    programs = [found for result in results for found in result.programs]
    if judged:
        _require_formats(outputs, Of.RUN)
    if programs:
        _require_formats(outputs, Of.TRACE)
    if judged and programs and outputs.paths:
        raise UsageError(
            f"--{next(iter(outputs.paths))} for results of {Of.RUN.value} and "
            f"{Of.TRACE.value} together",
            "they do not fit into one file",
            "zctrace report twice, once for each kind",
        )
    if outputs.stacks and not any(found.trace.account.stacks for found in programs):
        raise UsageError(
            "these results have no stacks",
            hint="zctrace trace --stacks --json F -- COMMAND",
        )
    if max_copies is not None and judged:
        raise UsageError(
            "--max-copies for results of zctrace run",
            "a limit is for traced programs",
            "zctrace compare --fail-on-increase",
        )
    if programs:
        trace.show(programs, outputs, console)
        require_controls(programs)
        if max_copies is not None:
            for found in programs:
                limits.require(found, max_copies)
    if not judged:
        return
    outputs.write(Of.RUN, judged)
    if not outputs.on_stdout:
        runs.render(judged, console)
    require_controls(judged)


def _require_formats(outputs: Outputs, command: Of) -> None:
    """Raise :class:`UsageError` for a format that ``command``'s results do not have."""
    known = {one.name for one in of(command)}
    for one in FORMATS:
        if one.name in outputs.paths and one.name not in known:
            raise UsageError(
                f"{one.option}: these are results of {command.value}",
                f"{one.option} shows results of {one.of.value}",
                f"zctrace report without {one.option}",
            )
