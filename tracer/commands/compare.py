"""``zctrace compare``: what changed between two saved results. Needs no root."""

from __future__ import annotations

from pathlib import Path

from rich.console import Console

from zctrace.commands.common import Outputs, require_controls


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
