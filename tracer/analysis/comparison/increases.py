"""Whether a program copies more than before: what ``compare --fail-on-increase`` asks."""

from __future__ import annotations

from zctrace.analysis import border
from zctrace.analysis.comparison import programs
from zctrace.analysis.comparison.model import NOT_MEASURED, Basis
from zctrace.analysis.program import Answer


def of_traces(before: Answer, after: Answer, basis: Basis) -> str:
    """What was copied more, or may have been; empty if nothing was.

    What is not known to be no copy counts as one, on both sides.
    """
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
        first, second = before.most_copies or 0, after.most_copies or 0
        if second - first > border.ZERO_COPY:
            ends = " → ".join(programs.copies(first, second))
            return f"copies per byte {basis.word}: {ends}{by and f' ({by})'}"
    if after.doubts and not before.doubts:
        return f"after, some copies may be missing: {after.doubts[0]}"
    return ""


def _most_bytes(found: Answer) -> int:
    """Copied, or not known to be not copied."""
    return (found.copied_bytes or 0) + found.unassigned + found.unexplained_bytes
