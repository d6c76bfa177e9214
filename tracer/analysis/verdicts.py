"""What a measured figure says about a claimed one.

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


class Source(enum.Enum):
    """How it is known what went by DMA."""

    MEASURED = "measured"
    """The driver was seen mapping at least as much memory for the device."""
    DERIVED = "derived"
    """Only the hand-over to the driver was seen."""
    NONE = "none"
    """There is no device to transfer anything."""


@dataclass(frozen=True)
class Dma:
    """Payload bytes that devices moved on one side of a transfer; headers are apart.

    ``bytes`` and ``source`` are ``None`` where that was not measured; where there is no device,
    ``bytes`` alone. ``doubt`` says why, or why nothing can be concluded from it. ``where``
    names the device.
    """

    bytes: int | None
    source: Source | None
    where: str
    doubt: str = ""


def judge_dma(
    claimed: int | None,
    into_cache: Dma,
    to_nic: Dma,
    payload_bytes: int,
    page_bytes: int,
    sent_again: int,
) -> Verdict:
    """DMA on both sides of a transfer, each in copies of the payload, against the claim.

    A disk reads whole blocks, at most whole pages, and what TCP sends again leaves again:
    neither is a copy more.
    """
    sides = (into_cache, to_nic)
    if any(side.bytes is None for side in sides):
        doubts = dict.fromkeys(side.doubt for side in sides if side.doubt)
        return Verdict(
            Word.NO_CLAIM if claimed is None else Word.NOT_MEASURED, "; ".join(doubts)
        )
    seen = f"{into_cache.bytes} B from {into_cache.where}, {to_nic.bytes} B to {to_nic.where}"
    if sent_again:
        seen += f" ({sent_again} B of these retransmitted by TCP)"
    if claimed is None:
        return Verdict(Word.NO_CLAIM, seen)
    for side in sides:
        if side.doubt:
            return Verdict(Word.NOT_MEASURED, side.doubt)
        if side.source is Source.NONE:
            return Verdict(Word.NOT_MEASURED, f"{side.where} transfers nothing by DMA; {seen}")
        if side.source is Source.DERIVED:
            return Verdict(
                Word.NOT_MEASURED,
                f"{seen}; but {side.where} was not seen mapping memory for DMA",
            )
    assert into_cache.bytes is not None
    assert to_nic.bytes is not None
    pages = -(-payload_bytes // page_bytes) * page_bytes
    once = payload_bytes <= into_cache.bytes <= pages
    if claimed == len(sides) and once and to_nic.bytes - sent_again == payload_bytes:
        return Verdict(Word.HOLDS, f"{seen}: {claimed} copies claimed")
    return Verdict(
        Word.REFUTED,
        f"{claimed} copies by DMA claimed, of {payload_bytes} B each; {seen}",
    )
