"""The vocabulary: copy sites, event sites, and the ways to watch them.

A *copy site* is one kernel function that moves bytes with the CPU. Only leaves are
sites: a function that leaves the moving to another site is a wrapper, and counting
both would count the same bytes twice. Only the number of hits of an *event site*,
a tracepoint, matters. A *call target* is a function that copies and whose callers
are probed instead of itself.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass

from zctrace.probes.quantities import Direction as Direction
from zctrace.probes.quantities import Quantity as Quantity

WITHOUT_ITERATOR = frozenset(
    {Quantity.USER_COPY_ROUTINE, Quantity.COPY_TO_USER, Quantity.COPY_FROM_USER}
)
"""What sees user copies that no copy site counts; the first one those that are counted, too."""


class Mechanism(enum.StrEnum):
    """How a site is watched."""

    BREAKPOINT_RETURN = "breakpoint@return"
    """Hardware execution breakpoint on the only RET: the bytes really copied."""
    BREAKPOINT_ENTRY = "breakpoint@entry"
    """Hardware execution breakpoint on the first instruction: the bytes asked for."""
    FENTRY = "fentry"
    """Program that the function calls at its entry: the bytes asked for. It runs also in an
    interrupt that came in the middle of another program, where probes are passed over."""
    KPROBE = "kprobe"
    """Probe on the function's entry: the bytes asked for."""
    CALL_SITE = "call sites"
    """Probes on the CALL instructions in the callers and behind them: the bytes really
    copied, whether user memory was involved, and who called."""
    TRACEPOINT = "tracepoint"
    RAW_TRACEPOINT = "raw tracepoint"
    """A tracepoint's program that gets the arguments, not the record. Like one that a function
    calls it runs also in the middle of another program."""
    UPROBE = "uprobe"
    """Probe on the entry of a function in a program: the bytes asked for."""


AT_ENTRY = (Mechanism.FENTRY, Mechanism.KPROBE)
"""Those at the entry of a function that get its arguments, the better one first."""


class Kind(enum.StrEnum):
    """What a site's count is used for."""

    COPY = "copy"
    """Adds to the bytes copied by the CPU."""
    CROSS_CHECK = "cross-check"
    """Sees bytes that copy sites count too; only ever compared, never added."""
    TRANSFORM = "transform"
    """Bytes that the CPU encrypts, decrypts or only reads: never added to copies."""
    EVENT = "event"
    """Hits only."""


class Path(enum.StrEnum):
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


@dataclass(frozen=True)
class Within:
    """``length`` bytes from ``offset`` of the socket buffer that ``skb`` points to.

    All of them are copied, or none where the socket buffer is shorter.
    """

    skb: str
    offset: str
    length: str


@dataclass(frozen=True)
class Where:
    """An ``int`` number of bytes in a register, counted where a ``bool`` in another is set."""

    condition: str
    name: str


Length = Register | Member | Within | Where


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

    quantity: Quantity
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
    skb: Register | None = None
    """The socket buffer that is copied, which tells for whom (:class:`Hook`)."""
    needs_cpu_flag: str | None = None
    """Never called on processors without this flag of /proc/cpuinfo."""
    instead_of: Quantity | None = None
    """Only where nothing watches that quantity."""
    dead_with_cpu_flag: str | None = None
    """Never called on processors with this flag: inlined away."""
    nests: bool = False
    """Whether such functions call each other for the same bytes: the outermost call counts."""
    inline_over: tuple[str, ...] = ()
    """Where the kernel has no such function: those that an inline one of this name leads to."""


class Returned(enum.Enum):
    """What a copying function's return value says about the bytes copied."""

    COPIED = 1
    """Their number."""
    ALL_IF_TRUE = 2
    """A bool: all that was asked for, or an unknown part."""
    ALL_IF_ZERO = 3
    """An error code: all that was asked for, or an unknown part."""
    LEFT = 4
    """The number of bytes not copied."""
    NOTHING = 5
    """Nothing; what was asked for is taken."""
    COPIED_INT = 6
    """An int: their number; none where it is negative."""


class Purpose(enum.StrEnum):
    """What the bytes are for, as far as the caller tells."""

    PAYLOAD = "payload"
    METADATA = "metadata"
    """Vectors, addresses, headers and offsets that system calls take or give."""
    COPY_ON_WRITE = "copy-on-write"
    """A page of user memory, because it was shared and written to."""


@dataclass(frozen=True)
class CallTarget:
    """A function that copies, watched at its call sites.

    ``length`` and ``iterator`` are numbers of arguments, from 1; ``length`` 0 means that
    always ``size`` bytes are copied; ``int_length`` is whether the argument is an ``int``,
    so that the upper half of its register is undefined. Without ``iterator``, ``direction``
    holds always; with it, it holds where the iterator describes user memory, and bytes
    stay in the kernel otherwise. ``pages_to_pipe`` is whether a pipe's iterator is given a
    reference to the page instead of a copy. ``breakpoint`` names the function whose return
    every such copy passes, once; empty where there is none. ``callers`` limits the callers
    to those named; a row without is for all that no other row of the function names.
    ``module`` is the one that the callers are part of, where they may be missing because it
    is not loaded; they may also be where they are ``optional``, parts of newer kernels.
    ``beside`` and ``without`` name functions that the kernel must have, or
    lack, for the row to hold.
    """

    quantity: Quantity
    function: str
    direction: Direction
    returned: Returned
    why: str
    since: str
    length: int = 0
    int_length: bool = False
    size: int = 0
    iterator: int = 0
    pages_to_pipe: bool = False
    breakpoint: str = ""
    purpose: Purpose = Purpose.PAYLOAD
    paths: frozenset[Path] = frozenset(Path)
    callers: tuple[str, ...] = ()
    module: str = ""
    optional: bool = False
    beside: str = ""
    without: str = ""


@dataclass(frozen=True)
class Hook:
    """A function whose calls give the meter facts other than bytes copied by the CPU.

    For whom a socket or a zero-copy send is, or how much a driver maps for DMA. Of several
    rows with the same ``quantity`` the first that the kernel has and lets be probed is
    attached. ``handler`` is the meter's.
    """

    quantity: str
    function: str
    handler: str
    why: str
    at_return: bool = False
    called: str = ""
    """The handler that the function calls instead, where it can: for those that an interrupt
    may call in the middle of another program, when a probe would be passed over."""
    members: tuple[str, ...] = ()
    """``structure.member`` that the handler must know the offsets of."""
    beside: str = ""
    """A function that the kernel must have for the row to hold."""


@dataclass(frozen=True)
class EventSite:
    """A tracepoint that is counted, and the handler in the meter for it.

    ``tracepoint`` is ``category:name`` as under ``/sys/kernel/tracing/events``.
    ``fields`` names the members of the tracepoint's record whose byte offsets the
    handler needs, with the parameter each is passed under.
    """

    quantity: Quantity
    mechanism: Mechanism
    tracepoint: str
    handler: str
    parameter: str | None
    why: str
    fields: tuple[tuple[str, str], ...] = ()
    direction: Direction | None = None
    """Where bytes go, for those that count bytes, too."""
    members: tuple[str, ...] = ()
    """``structure.member`` that the handler must know the offsets of."""
    optional: tuple[tuple[str, str], ...] = ()
    """As ``fields``, of those that a kernel may lack: then the offset is 0."""


@dataclass(frozen=True)
class Catalogue:
    """Everything that the meter can count, as tables."""

    copies: tuple[CopySite, ...]
    calls: tuple[CallTarget, ...]
    hooks: tuple[Hook, ...]
    events: tuple[EventSite, ...]


@dataclass(frozen=True)
class Call:
    """One place that calls, or jumps to, a function.

    ``caller`` is the function around it, ``offset`` the place in there; ``module`` is
    empty in the kernel itself. ``traced`` is whether the caller lets itself be probed.
    """

    address: int
    caller: str
    offset: int
    module: str = ""
    jump: bool = False
    traced: bool = True

    @property
    def name(self) -> str:
        return f"{self.caller}+{self.offset:#x}"


def plain(function: str) -> str:
    """The name in the source: without what the compiler appends to parts and variants."""
    return function.partition(".")[0]


DIRECTION_NUMBERS = {
    Direction.USER_TO_KERNEL: 1,
    Direction.KERNEL_TO_USER: 2,
    Direction.KERNEL_TO_KERNEL: 3,
    Direction.USER_TO_USER: 4,
    Direction.KERNEL_TO_DEVICE: 5,
}
"""What the meter calls them."""
DIRECTIONS_BY_NUMBER = {number: direction for direction, number in DIRECTION_NUMBERS.items()}
"""By the meter's numbers."""
LARGE = 8
"""Set in such a number: the copy was of ``LARGE_BYTES`` or more."""
LARGE_BYTES = 1024
"""Structures that system calls take and give are smaller than this, mostly; pages are not."""
