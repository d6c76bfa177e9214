"""The vocabulary: copy sites, event sites, and the ways to watch them.

A *copy site* is one kernel function that moves bytes with the CPU. Only leaves are
sites: a function that leaves the moving to another site is a wrapper, and counting
both would count the same bytes twice. An *event site* is a tracepoint of which only
the number of hits matters.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass


class Direction(enum.Enum):
    """Between which memories bytes move, seen from the CPU."""

    USER_TO_KERNEL = "u2k"
    KERNEL_TO_USER = "k2u"
    KERNEL_TO_KERNEL = "k2k"
    USER_TO_USER = "u2u"


class Mechanism(enum.Enum):
    """How a site is watched."""

    BREAKPOINT_RETURN = "breakpoint@return"
    """Hardware execution breakpoint on the only RET: the bytes really copied."""
    BREAKPOINT_ENTRY = "breakpoint@entry"
    """Hardware execution breakpoint on the first instruction: the bytes asked for."""
    KPROBE = "kprobe"
    """Probe on the function's entry: the bytes asked for."""
    TRACEPOINT = "tracepoint"


class Kind(enum.Enum):
    """What a site's count is used for."""

    COPY = "copy"
    """Adds to the bytes copied by the CPU."""
    CROSS_CHECK = "cross-check"
    """Sees bytes that copy sites count too; only ever compared, never added."""
    EVENT = "event"
    """Hits only."""


class Path(enum.Enum):
    """A stretch of kernel code that payload can take; a strategy names its own."""

    FILE = "file"
    PIPE = "pipe"
    TCP = "tcp"
    UDP = "udp"


@dataclass(frozen=True)
class Register:
    """A number of bytes, or an address, held in a register at the probed instruction.

    ``bits`` is 32 where the kernel's argument is an ``int`` or ``unsigned int``: the
    upper half of the register is then undefined.
    """

    name: str
    bits: int = 64


@dataclass(frozen=True)
class Member:
    """An ``unsigned int`` member of the structure that a register points to.

    The offset comes from the running kernel's BTF.
    """

    register: str
    structure: str
    member: str


Length = Register | Member


@dataclass(frozen=True)
class CopySite:
    """One way in which a kernel moves bytes, as found under one name.

    ``quantity`` is what is counted; kernels that do the same work under different
    names have one row each with the same quantity, and the planner takes the first
    that the kernel has. ``direction`` is what the function's name promises; where
    ``source`` and ``destination`` are given, the addresses decide instead.
    ``at_return`` and ``at_entry`` say where the number of bytes stands; ``None``
    means that it cannot be read there.
    """

    quantity: str
    function: str
    kind: Kind
    direction: Direction | None
    mechanisms: tuple[Mechanism, ...]
    paths: frozenset[Path]
    why: str
    since: str
    at_return: Length | None = None
    at_entry: Length | None = None
    source: Register | None = None
    destination: Register | None = None
    needs_cpu_flag: str | None = None
    """Never called on processors without this flag of /proc/cpuinfo."""
    dead_with_cpu_flag: str | None = None
    """Never called on processors with this flag: inlined away."""


@dataclass(frozen=True)
class EventSite:
    """A tracepoint that is counted by hits, and the handler in the meter for it.

    ``tracepoint`` is ``category:name`` as under ``/sys/kernel/tracing/events``.
    ``fields`` names the members of the tracepoint's record whose byte offsets the
    handler needs, with the parameter each is passed under.
    """

    quantity: str
    mechanism: Mechanism
    tracepoint: str
    handler: str
    parameter: str | None
    why: str
    fields: tuple[tuple[str, str], ...] = ()
