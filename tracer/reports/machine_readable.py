"""The reports that programs read: CSV and JSON. Integers and bytes, nothing rounded.

The module of frames imports pandas: late, since most reports need none.
"""

from __future__ import annotations

import json
from collections.abc import Sequence

from zctrace.analysis.runs import Judged
from zctrace.reports import wording


def summary_csv(judged: Sequence[Judged]) -> str:
    """One row per kernel, strategy and repetition; unmeasured cells are empty."""
    from zctrace.analysis import frames

    return frames.csv(frames.summary(judged))


def evidence_csv(judged: Sequence[Judged]) -> str:
    """One row per run, role, site, direction and system call."""
    from zctrace.analysis import frames

    return frames.csv(frames.tidy(wording.evidences_of(judged)))


def result_json(judged: Sequence[Judged]) -> str:
    """Everything: summary rows with their evidence sentences, controls, raw evidence.

    ``zctrace report`` reads this form back.
    """
    summary = [
        {
            **j.figures,
            "evidence_copies": j.copies.sentence,
            "evidence_switches": j.switches.sentence,
            "evidence_dma": j.dma.sentence,
            "control_results": [
                {"name": c.name, "figures": c.figures, "passed": c.passed, "detail": c.detail}
                for c in j.checked
            ],
        }
        for j in judged
    ]
    return (
        json.dumps(
            {
                "summary": summary,
                "evidence": [e.to_json() for e in wording.evidences_of(judged)],
            }
        )
        + "\n"
    )
