"""``zctrace report``: show results that ``--json`` saved. Needs no root."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console

from tracer.errors import UsageError
from tracer.evidence import Evidence


def show(paths: Sequence[Path], console: Console) -> None:
    from tracer import summary
    from tracer.reports import terminal

    evidences = [evidence for path in paths for evidence in _read(path)]
    terminal.render(summary.judge(evidences), console, os.uname().release)


def _read(path: Path) -> list[Evidence]:
    try:
        values = json.loads(path.read_text())
        return [Evidence.from_json(evidence) for evidence in values["evidence"]]
    except OSError as error:
        raise UsageError(f"{path}: {error.strerror}") from error
    except (ValueError, KeyError, TypeError) as error:
        raise UsageError(
            f"{path}: not a result of zctrace",
            f"{type(error).__name__}: {error}",
            "a file that zctrace run --json has written",
        ) from error
