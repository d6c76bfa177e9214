"""What the meter has to know of a place to count there: a row of numbers."""

from __future__ import annotations

import enum

from zctrace.kernel.facts import Function, KernelFacts
from zctrace.probes.model import (
    DIRECTION_NUMBERS,
    LARGE_BYTES,
    WITHOUT_ITERATOR,
    CopySite,
    Length,
    Register,
    Where,
    Within,
)

REGISTER_NUMBERS = {
    "r9": 64,
    "r8": 72,
    "ax": 80,
    "cx": 88,
    "dx": 96,
    "si": 104,
    "di": 112,
}
"""What the meter calls them: their places in struct pt_regs (probes/bpf/registers.h)."""
_NO_REGISTER = 0


class Amount(enum.Enum):
    """How one register, or two, give a number of bytes."""

    REGISTER = 0
    """It is in the first one."""
    INT = 1
    """It is in the lower half of the first one."""
    MEMBER = 2
    """It is a member of the structure that the first one points to."""
    WITHIN = 3
    """It is in the first one, if the socket buffer has as many from the second one's on."""
    WHERE = 4
    """It is in the lower half of the first one, if the second one is true."""


def place_of(
    site: CopySite, length: Length, number: int, function: Function, kernel: KernelFacts
) -> dict[str, int]:
    """What the meter has to know of a place (probes/bpf/copies.c)."""
    amount, first, second, member = Amount.REGISTER, "", "", 0
    if isinstance(length, Register):
        amount = Amount.INT if length.bits == 32 else Amount.REGISTER
        first = length.name
    elif isinstance(length, Where):
        amount, first, second = Amount.WHERE, length.name, length.condition
    elif isinstance(length, Within):
        # The one that is copied is the one that must be long enough.
        assert site.skb is not None
        assert site.skb.name == length.skb
        amount, first, second = Amount.WITHIN, length.length, length.offset
    else:
        amount, first = Amount.MEMBER, length.register
        member = kernel.members[f"{length.structure}.{length.member}"]
    return {
        "PLACE_SITE": number,
        "PLACE_AMOUNT": amount.value,
        "PLACE_FIRST": _register(first),
        "PLACE_SECOND": _register(second),
        "PLACE_MEMBER": member,
        "PLACE_FROM": _register(site.source.name if site.source else ""),
        "PLACE_TO": _register(site.destination.name if site.destination else ""),
        "PLACE_DIRECTION": DIRECTION_NUMBERS[site.direction] if site.direction else 0,
        "PLACE_LARGE": LARGE_BYTES if site.quantity in WITHOUT_ITERATOR else 0,
        "PLACE_SKB": _register(site.skb.name if site.skb else ""),
        "PLACE_START": function.address,
        "PLACE_SIZE": function.size,
        "PLACE_NESTS": int(site.nests),
    }


def _register(name: str) -> int:
    return REGISTER_NUMBERS[name] if name else _NO_REGISTER
