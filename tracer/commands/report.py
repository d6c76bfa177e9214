"""``zctrace report``: show results that ``--json`` saved. Needs no root."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console

from tracer import traced
from tracer.commands import trace
from tracer.commands.run import Outputs, require_controls, write
from tracer.errors import UsageError
from tracer.evidence import Evidence


def show(paths: Sequence[Path], console: Console, outputs: Outputs) -> None:
    """Print the reports, or write the forms that are asked for.

    Raises ``OutputError``, and ``ControlError`` where controls had failed.
    """
    outputs.check()
    from tracer import summary
    from tracer.reports import terminal

    judged: list[summary.Judged] = []
    programs: list[traced.Answer] = []
    for path in paths:
        try:
            for evidence in _read(path):
                if evidence.trace:
                    programs.append(traced.answer(evidence))
                else:
                    judged += summary.judge([evidence])
        except OSError as error:
            raise UsageError(f"{path}: {error.strerror}") from error
        except (ValueError, LookupError, TypeError, AttributeError) as error:
            raise UsageError(
                f"{path}: not a result of zctrace",
                f"{type(error).__name__}: {error}",
                "a file that zctrace run --json has written",
            ) from error
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
        terminal.render(judged, console, os.uname().release)
    require_controls(judged)


def _read(path: Path) -> list[Evidence]:
    evidences = [Evidence.from_json(e) for e in json.loads(path.read_text())["evidence"]]
    if not any(evidence.runs or evidence.trace for evidence in evidences):
        raise ValueError("no runs in it")
    return evidences
