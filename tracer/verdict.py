"""What a measured figure means beside a claimed one.

``holds`` is equality, without tolerance. Nothing is inferred from a figure that was not
measured, or that failed its controls.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass


class Word(enum.Enum):
    HOLDS = "holds"
    REFUTED = "refuted"
    NOT_MEASURED = "not measured"
    NO_CLAIM = "no claim"


@dataclass(frozen=True)
class Verdict:
    """A word, and the sentence of evidence behind it."""

    word: Word
    sentence: str


def judge_copies(
    claimed: int | None, copied_bytes: int | None, payload_bytes: int, doubt: str
) -> Verdict:
    """Bytes copied by the CPU against ``claimed`` times the payload.

    ``copied_bytes`` is ``None`` where the figure cannot be trusted; ``doubt`` says why.
    """
    if copied_bytes is None:
        return Verdict(Word.NOT_MEASURED, doubt)
    if claimed is None:
        return Verdict(Word.NO_CLAIM, f"{copied_bytes} B copied")
    expected = claimed * payload_bytes
    if copied_bytes == expected:
        return Verdict(
            Word.HOLDS, f"{copied_bytes} B copied, {claimed} × {payload_bytes} B claimed"
        )
    return Verdict(
        Word.REFUTED,
        f"{copied_bytes} B copied, {claimed} × {payload_bytes} B claimed: "
        f"{copied_bytes - expected:+d} B",
    )


def judge_switches(
    claimed: int | None, switches: int | None, calls: dict[str, int], doubt: str
) -> Verdict:
    """Mode switches against the claim; ``calls`` counts system calls by name."""
    if switches is None:
        return Verdict(Word.NOT_MEASURED, doubt)
    made = ", ".join(f"{count} × {name}" for name, count in sorted(calls.items()))
    if claimed is None:
        return Verdict(Word.NO_CLAIM, f"{switches} switches: {made}, two each")
    if switches == claimed:
        return Verdict(Word.HOLDS, f"{switches} switches: {made}, two each")
    return Verdict(
        Word.REFUTED,
        f"{claimed} switches claimed, {switches} measured: {made}, two switches each",
    )


def judge_dma(claimed: int | None) -> Verdict:
    """DMA is not looked at yet."""
    return Verdict(Word.NOT_MEASURED, "zctrace does not count DMA yet")
