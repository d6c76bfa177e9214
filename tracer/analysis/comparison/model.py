"""What differs between two results: the values that a comparison is made of.

Unknown is not zero: ``None`` is a figure that was not measured. A change from it or to it is
no number.
"""

from __future__ import annotations

import enum
from collections.abc import Sequence
from dataclasses import dataclass

from zctrace.evidence.schema import Evidence

Value = int | float | str | None
COPIED = "copied_bytes"
NOT_MEASURED = "not measured"
NOTHING = "nothing changed in what counts"


class Part(enum.Enum):
    """What is compared; the value is the heading of its table."""

    TOTAL = "in all"
    CALL = "system call"
    THING = "file, socket or pipe"
    SITE = "copy function ← caller, system call"
    REASON = "reason for copies inside the kernel"
    BESIDE = "other copies (not included above)"
    RUN = "strategy"


@dataclass(frozen=True)
class Change:
    """One figure on both sides, whether or not it differs."""

    figure: str
    before: Value
    after: Value

    @property
    def differs(self) -> bool:
        return self.before != self.after

    @property
    def unknown(self) -> bool:
        """Whether one side alone was not measured."""
        return (self.before is None) != (self.after is None)

    @property
    def by(self) -> int | float | None:
        """How much more it is now; ``None`` unless both sides are numbers."""
        if isinstance(self.before, int | float) and isinstance(self.after, int | float):
            return self.after - self.before
        return None


@dataclass(frozen=True)
class Item:
    """One row: what is compared, by a name that both sides share, and its figures."""

    part: Part
    name: str
    figures: tuple[Change, ...]
    note: str = ""

    def of(self, figure: str) -> Change | None:
        """That figure; ``None`` if it is not one of this item's."""
        return next((change for change in self.figures if change.figure == figure), None)

    @property
    def differs(self) -> bool:
        return any(change.differs for change in self.figures)


@dataclass(frozen=True)
class Basis:
    """What bytes are related to, on both sides: so many delivered, or received.

    ``why_not`` is why a relation would say nothing; empty where it says something.
    """

    word: str
    before: int
    after: int
    why_not: str = ""

    @property
    def same(self) -> bool:
        return self.before == self.after

    def shares(self, change: Change) -> tuple[float | None, float | None]:
        """Bytes for each byte of the basis, on both sides."""
        return _share(change.before, self.before), _share(change.after, self.after)

    def by(self, change: Change) -> float | None:
        """How much more for each byte; just how much more, where bytes cannot be related."""
        if self.why_not or change.by is None:
            return change.by
        before, after = self.shares(change)
        assert before is not None
        assert after is not None
        return after - before


def _share(value: Value, basis: int) -> float | None:
    return value / basis if isinstance(value, int | float) and basis else None


@dataclass(frozen=True)
class Comparison:
    """Two traces of programs, or all runs on two kernels.

    ``headline`` is one sentence. ``weight`` grows with what changed in copies. ``changed`` is
    whether anything did in what counts. ``circumstances`` are those that differ; ``items``
    differ, the largest change of copied bytes first; ``varying`` are those that differ from
    one run to the next by themselves. ``basis`` is a trace's. ``increase`` says what there is
    more of, or what may be hidden, after than before; empty if nothing is.
    """

    subject: str
    headline: str
    changed: bool
    weight: tuple[float, ...]
    circumstances: Sequence[Change]
    doubts: Sequence[str]
    items: Sequence[Item]
    varying: Sequence[Item]
    basis: Basis | None = None
    increase: str = ""


@dataclass(frozen=True)
class Result:
    """Everything; ``only_before`` and ``only_after`` could not be paired.

    ``before`` and ``after`` are the evidence of each side.
    """

    headline: str
    comparisons: Sequence[Comparison]
    only_before: Sequence[str]
    only_after: Sequence[str]
    before: Sequence[Evidence] = ()
    after: Sequence[Evidence] = ()

    @property
    def increases(self) -> list[str]:
        """What there is more of after than before, or is not there to be compared."""
        found = [f"{c.subject}: {c.increase}" for c in self.comparisons if c.increase]
        return found + [f"only in before: {name}" for name in self.only_before]


def both(before: Sequence[str], after: Sequence[str]) -> list[str]:
    """What is to be said of the sides, each sentence once, with the sides it is said of."""
    said = [f"before and after: {text}" for text in dict.fromkeys(before) if text in after]
    said += [f"before: {text}" for text in dict.fromkeys(before) if text not in after]
    said += [f"after: {text}" for text in dict.fromkeys(after) if text not in before]
    return said
