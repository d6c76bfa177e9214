"""Known amounts: what the controls do, and how much of it."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field

from zctrace.probes.quantities import Direction, Quantity

_CALL = "syscall"


@dataclass(frozen=True)
class Moved:
    """What is counted, and which way it goes; ``None`` where that is not known."""

    quantity: Quantity
    direction: Direction | None

    def __str__(self) -> str:
        return f"{self.quantity}:{self.direction}"


@dataclass(frozen=True)
class Known:
    """Bytes by what moves, and system calls by name.

    In JSON one object, ``quantity:direction`` and ``syscall:name`` to how many.
    """

    moved: dict[Moved, int] = field(default_factory=dict)
    calls: dict[str, int] = field(default_factory=dict)

    def __add__(self, other: Known) -> Known:
        """One after the other."""
        moved, calls = Counter(self.moved), Counter(self.calls)
        moved.update(other.moved)
        calls.update(other.calls)
        return Known(dict(moved), dict(calls))

    def to_json(self) -> dict[str, int]:
        calls = {f"{_CALL}:{name}": many for name, many in self.calls.items()}
        return {str(moved): size for moved, size in self.moved.items()} | calls

    @staticmethod
    def from_json(values: dict[str, int]) -> Known:
        """Raises ``ValueError`` for what is no quantity, or no direction."""
        moved: dict[Moved, int] = {}
        calls: dict[str, int] = {}
        for name, many in values.items():
            what, _, which = name.partition(":")
            if what == _CALL:
                calls[which] = many
            else:
                moved[Moved(Quantity(what), Direction(which))] = many
        return Known(moved, calls)


@dataclass(frozen=True)
class Controls:
    """What controls did: one's own, and another process's while this one was idle."""

    expected: Known = field(default_factory=Known)
    neighbour: Known = field(default_factory=Known)

    def to_json(self) -> dict[str, dict[str, int]]:
        return {"expected": self.expected.to_json(), "neighbour": self.neighbour.to_json()}

    @staticmethod
    def from_json(values: dict[str, dict[str, int]]) -> Controls:
        return Controls(
            Known.from_json(values["expected"]), Known.from_json(values["neighbour"])
        )
