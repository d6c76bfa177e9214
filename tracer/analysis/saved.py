"""Results that ``--json`` has saved, read back and judged. Needs no root."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

from zctrace.analysis import program
from zctrace.analysis import runs as summary
from zctrace.analysis.program import Answer
from zctrace.analysis.runs import Judged
from zctrace.errors import UsageError
from zctrace.evidence.schema import Evidence


@dataclass(frozen=True)
class Saved:
    """What one file holds: runs of strategies, and answers on traced programs."""

    path: Path
    runs: tuple[Judged, ...] = ()
    programs: tuple[Answer, ...] = ()


def read(path: Path) -> Saved:
    """Everything of one file; raises :class:`UsageError` for one that is no result."""
    try:
        evidences = [Evidence.from_json(e) for e in json.loads(path.read_text())["evidence"]]
        if not any(evidence.runs or evidence.trace for evidence in evidences):
            raise ValueError("no runs in it")
        return Saved(
            path,
            tuple(summary.judge(e for e in evidences if not e.trace)),
            tuple(program.answer(e) for e in evidences if e.trace),
        )
    except UsageError as error:
        raise UsageError(f"{path}: {error.what}", error.why, error.hint) from error
    except OSError as error:
        raise UsageError(f"{path}: {error.strerror}") from error
    except (ValueError, LookupError, TypeError, AttributeError) as error:
        raise UsageError(
            f"{path}: not a result of zctrace",
            f"{type(error).__name__}: {error}",
            "a file that zctrace run --json has written",
        ) from error
