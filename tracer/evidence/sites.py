"""What counted copies, and what was wanted and did not: values of evidence."""

from __future__ import annotations

from dataclasses import dataclass

from zctrace.probes.model import Direction, Kind, Mechanism, Path, Purpose, Quantity


@dataclass(frozen=True, kw_only=True)
class Site:
    """A function whose copies were counted, by one mechanism.

    ``direction`` is what the function's name promises; ``None`` where only the addresses
    tell. ``address``, in hexadecimal digits, is the one place probed; ``None`` where there
    are several. ``exact`` is whether the mechanism is the one that the catalogue prefers,
    and ``note`` why not. ``breakpoint`` names the function whose return the same bytes pass.
    ``callers`` is how many call sites are probed, ``None`` of other mechanisms;
    ``unreached`` those that are not.
    """

    quantity: Quantity
    function: str
    kind: Kind
    purpose: Purpose = Purpose.PAYLOAD
    direction: Direction | None
    mechanism: Mechanism
    address: str | None = None
    exact: bool = True
    breakpoint: str = ""
    callers: int | None = None
    unreached: tuple[str, ...] = ()
    paths: frozenset[Path]
    why: str
    note: str = ""


@dataclass(frozen=True)
class Blind:
    """Something wanted that nothing will see, and why.

    ``modules`` are those that it is of, where they were loaded after everything was attached.
    """

    quantity: Quantity
    functions: tuple[str, ...]
    reason: str
    paths: frozenset[Path]
    kind: Kind
    modules: tuple[str, ...] = ()
