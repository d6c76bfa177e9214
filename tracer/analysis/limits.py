"""How many copies for each byte a program may make: ``zctrace check``, and marks of tests."""

from __future__ import annotations

from zctrace.analysis import advice, sentences
from zctrace.analysis.program import Answer
from zctrace.errors import LimitError


def require(found: Answer, most: float) -> None:
    """Raise :class:`LimitError` where more was copied, or where that is not known."""
    if found.copies is None or found.most_copies is None:
        raise LimitError(
            "nothing was delivered or received: there is no number of copies per byte",
            hint="check a command that moves bytes through system calls",
        )
    within = found.within_bytes / found.basis[1]
    if found.most_copies + within > most:
        also = f", and {found.unassigned} B could not be attributed" if found.unassigned else ""
        if found.unexplained:
            also += f", and of {found.unexplained_bytes} B it is not known"
        if within:
            also += f", and {within:.4g} in its own memory"
        raise LimitError(
            f"{found.copies:.4g} copies per byte {found.basis[0]}{also}; {most:g} are allowed",
            sentences.sentence(found),
            next((one.words for one in advice.of(found) if one.saves_bytes), ""),
        )
    if found.doubts:
        raise LimitError(
            f"at most {most:g} copies were counted, but some copies may be missing",
            found.doubts[0],
        )
