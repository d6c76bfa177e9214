"""Results that ``--json`` has saved, read back and judged. Needs no root."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from zctrace.analysis import program
from zctrace.analysis import runs as summary
from zctrace.analysis.program import Answer
from zctrace.analysis.runs import Judged
from zctrace.errors import UsageError

_MOST_BYTES = 256 << 20
"""Many times what any result has; /dev/zero has no end."""


@dataclass(frozen=True)
class Saved:
    """What one file holds: runs of strategies, and answers on traced programs."""

    path: Path
    runs: tuple[Judged, ...] = ()
    programs: tuple[Answer, ...] = ()


def read(path: Path) -> Saved:
    """Everything of one file; raises :class:`UsageError` for one that is no result."""
    from zctrace.analysis import saved_form

    try:
        with path.open("rb") as file:
            text = file.read(_MOST_BYTES + 1)
        if len(text) > _MOST_BYTES:
            raise saved_form.refused("its size", f"it has more than {_MOST_BYTES >> 20} MiB")
        evidences = saved_form.evidence_of(text)
        if not any(evidence.runs or evidence.trace for evidence in evidences):
            raise saved_form.refused("evidence", "there are no runs in it")
    except UsageError as error:
        raise UsageError(f"{path}: {error.what}", error.why, error.hint) from error
    except OSError as error:
        raise UsageError(
            f"{path}: {error.strerror}",
            "the file cannot be read",
            "the path of a file that zctrace run --json has written",
        ) from error
    return Saved(
        path,
        tuple(summary.judge(e for e in evidences if not e.trace)),
        tuple(program.answer(e) for e in evidences if e.trace),
    )
