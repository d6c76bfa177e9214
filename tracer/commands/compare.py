"""``zctrace compare``: what changed between two saved results. Needs no root."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from zctrace.commands.common import require_controls
from zctrace.commands.outputs import NOWHERE, writes
from zctrace.errors import LimitError
from zctrace.reports import formats
from zctrace.reports.formats import Of, Outputs
from zctrace.reports.text.terminal import Terminal


@writes(formats.of(Of.COMPARE))
def command(
    before: Annotated[Path, typer.Argument(help="A file written by --json.")],
    after: Annotated[
        Path, typer.Argument(help="Another file written by --json, of the same command.")
    ],
    fail_on_increase: Annotated[
        bool,
        typer.Option(
            "--fail-on-increase",
            help="Fail, with status 12, if more is copied after than before, by more than "
            "0.01 copies per byte, or if that is not certain.",
        ),
    ] = False,
    outputs: Outputs = NOWHERE,
) -> None:
    """Show what changed between two saved results, the largest change first.

    Two of run, or two of trace and check.
    """
    show(before, after, Terminal(), outputs, fail_on_increase=fail_on_increase)


def show(
    before: Path,
    after: Path,
    console: Console,
    outputs: Outputs,
    *,
    fail_on_increase: bool = False,
) -> None:
    """Print the report, and write the forms that are asked for.

    Raises ``UsageError`` for what cannot be compared, ``OutputError``, ``ControlError``
    where controls had failed on a side, and if that is asked for :class:`LimitError`.
    """
    outputs.check()
    from zctrace.analysis import saved
    from zctrace.analysis.comparison import pairing
    from zctrace.reports import comparison
    from zctrace.reports.text import paper

    sides = saved.read(before), saved.read(after)
    result = pairing.compare(*sides)
    outputs.write(Of.COMPARE, result)
    if not outputs.on_stdout:
        paper.show(comparison.report(result), console)
    for side in sides:
        require_controls(side.runs)
        require_controls(side.programs)
    if fail_on_increase:
        from zctrace.reports import markdown, step_summary

        step_summary.append(markdown.of_comparison(result))
        if increases := result.increases:
            raise LimitError(
                increases[0],
                "; ".join(increases[1:]),
                "zctrace compare, without --fail-on-increase, has all that changed",
            )
