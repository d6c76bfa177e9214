"""What the CPU transformed instead of copying it: how many bytes, and for whom.

No part of any figure of copies. Unknown where a function that transforms was not watched.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from zctrace.evidence.schema import Count, Evidence, Run
from zctrace.probes.model import Direction, Kind, Quantity, plain
from zctrace.probes.transforms import TRANSFORMED
from zctrace.workloads.marker import RoleName

DONE = {
    Quantity.ENCRYPTION: "encrypted",
    Quantity.DECRYPTION: "decrypted",
    Quantity.CHECKSUM: "read for checksums",
}
"""What is said of the bytes."""


@dataclass(frozen=True)
class Transform:
    """One function of the crypto API, by whom it was called and in which system call.

    ``caller`` is empty where it is not known, ``syscall`` ``None`` outside of any. ``bytes``
    are those that the CPU transformed, ``handed_over`` those that an asynchronous algorithm
    took over: a device's, or another thread's.
    """

    quantity: Quantity
    function: str
    caller: str
    syscall: str | None
    calls: int
    bytes: int
    handed_over: int

    @property
    def words(self) -> str:
        """Who did it, for whom."""
        return f"{self.function}, for {self.caller}" if self.caller else self.function


@dataclass(frozen=True)
class Transformed:
    """``by`` has the most bytes first. ``unassigned`` are bytes that kernel threads and other
    programs transformed; they may belong to the program. ``blind`` has reasons why some
    may have been missed. ``asked`` is whether transforms were watched; older versions of
    zctrace did not."""

    by: Sequence[Transform]
    unassigned: int
    blind: Sequence[str]
    asked: bool

    @property
    def bytes(self) -> int | None:
        """All that the CPU encrypted, decrypted or read for checksums; ``None`` if unknown."""
        if self.blind or not self.asked:
            return None
        return sum(part.bytes for part in self.by)

    @property
    def handed_over(self) -> int:
        return sum(part.handed_over for part in self.by)

    def of(self, quantity: Quantity) -> list[Transform]:
        """The parts in which the CPU did something of the kind."""
        return [part for part in self.by if part.quantity is quantity and part.bytes]


def transformed(evidence: Evidence, run: Run, role: RoleName) -> Transformed:
    """What was transformed for ``role``."""
    cells: dict[tuple[Quantity, str, str, str | None], list[int]] = {}
    unassigned = 0
    for count in run.counts:
        if count.quantity not in TRANSFORMED:
            continue
        over = count.direction is Direction.KERNEL_TO_DEVICE
        if count.role is role.outside:
            unassigned += -count.bytes if over else count.bytes
        if count.role is not role:
            continue
        cell = cells.setdefault(_key(count), [0, 0, 0])
        cell[0] += 0 if over else count.calls
        cell[1] += -count.bytes if over else count.bytes
        cell[2] += count.bytes if over else 0
    parts = [Transform(*key, *cell) for key, cell in cells.items()]
    parts.sort(key=lambda part: part.bytes + part.handed_over, reverse=True)
    watched = evidence.sites_of(Kind.TRANSFORM)
    unwatched = [blind for blind in evidence.blind if blind.kind is Kind.TRANSFORM]
    return Transformed(
        parts,
        unassigned,
        tuple(f"{' or '.join(blind.functions)}: {blind.reason}" for blind in unwatched),
        asked=bool(watched or unwatched),
    )


def _key(count: Count) -> tuple[Quantity, str, str, str | None]:
    caller = plain((count.caller or "").partition("+")[0])
    return count.quantity, count.function, caller, count.syscall
