"""``zctrace compare``: what changed between two saved results. Needs no root."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from zctrace.commands.common import Outputs, require_controls
from zctrace.commands.options import Force


def command(
    before: Annotated[Path, typer.Argument(help="A file that --json has written.")],
    after: Annotated[Path, typer.Argument(help="Another one, of the same kind.")],
    csv: Annotated[
        Path | None, typer.Option(help="A row for each figure that differs; - for stdout.")
    ] = None,
    json: Annotated[
        Path | None, typer.Option(help="The same, with the sentences; - for stdout.")
    ] = None,
    force: Force = False,
) -> None:
    """What changed between two saved results, the largest change first.

    Two of run, or two of trace and check.
    """
    outputs = Outputs(csv=csv, json=json, force=force)
    show(before, after, Console(), outputs)


def show(before: Path, after: Path, console: Console, outputs: Outputs) -> None:
    """Print the report, and write the forms that are asked for.

    Raises ``UsageError`` for what cannot be compared, ``OutputError``, and ``ControlError``
    where controls had failed on a side.
    """
    outputs.check()
    from zctrace.analysis import saved
    from zctrace.analysis.comparison import pairing
    from zctrace.reports.text import comparison as reports

    sides = saved.read(before), saved.read(after)
    result = pairing.compare(*sides)
    forms = {"--csv": reports.differences_csv, "--json": reports.differences_json}
    outputs.write(forms, result)
    if not outputs.on_stdout:
        reports.render(result, console)
    for side in sides:
        require_controls(side.runs)
        require_controls(side.programs)
