"""Whether a program copies more than before: what ``compare --fail-on-increase`` asks."""

from __future__ import annotations

import re

from zctrace.analysis import border
from zctrace.analysis.comparison import programs
from zctrace.analysis.comparison.model import NOT_MEASURED, Basis
from zctrace.analysis.program import Answer


def of_traces(before: Answer, after: Answer, basis: Basis) -> str:
    """What was copied more, or may have been; empty if nothing was.

    What is not known to be no copy counts as one, on both sides.
    """
    if what := _asked_differently(before, after):
        return what
    if after.copied is None or after.copied_bytes is None:
        return f"after, copies were {NOT_MEASURED}: a self-test failed"
    _, by = programs.largest(before, after, basis)
    if basis.after == 0 < basis.before:
        return basis.why_not
    if basis.why_not:
        more = _most_bytes(after) - _most_bytes(before)
        if more > border.LITTLE:
            return f"{more} B more were, or may have been, copied{by and f' ({by})'}"
    else:
        first, second = (
            (found.most_copies or 0) + found.within_bytes / found.basis[1]
            for found in (before, after)
        )
        if second - first > border.ZERO_COPY:
            ends = " → ".join(programs.copies(first, second))
            return f"copies per byte {basis.word}: {ends}{by and f' ({by})'}"
    known = set(map(_kind, before.doubts))
    if new := [doubt for doubt in after.doubts if _kind(doubt) not in known]:
        return f"after, some copies may be missing: {new[0]}"
    return ""


def _kind(doubt: str) -> str:
    """The same for doubts that differ in numbers alone."""
    return re.sub(r"\d+", "N", doubt)


def _asked_differently(before: Answer, after: Answer) -> str:
    """Why the two say nothing of each other; empty where they were asked for the same."""
    for words, member in (
        ("a part of the program", "only"),
        ("single threads", "threads"),
        ("started processes", "follow"),
        ("copies in its own memory", "user_copies"),
    ):
        sides = [
            getattr(found.evidence.request.subject, member, None) for found in (before, after)
        ]
        first, second = (bool(side) if member == "threads" else side for side in sides)
        if first != second:
            return f"they were not asked for the same: {words}"
    return ""


def _most_bytes(found: Answer) -> int:
    """Copied, or not known to be not copied."""
    unknown = found.unassigned + found.unexplained_bytes
    return (found.copied_bytes or 0) + unknown + found.within_bytes
