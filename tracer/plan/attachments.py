"""What a plan consists of: values, each one thing to be attached."""

from __future__ import annotations

import dataclasses
import enum
from collections.abc import Container
from dataclasses import dataclass

from zctrace.evidence.sites import Blind
from zctrace.probes.model import (
    AT_ENTRY,
    Call,
    CallTarget,
    CopySite,
    EventSite,
    Hook,
    Kind,
    Mechanism,
    Path,
)


class Choice(enum.Enum):
    """How user copies are to be watched."""

    AUTO = "auto"
    """Both; of a traced program by breakpoints, where they see all (``plan.settled``)."""
    BOTH = "both"
    """At the call sites, and by breakpoints, which must see the same bytes."""
    BREAKPOINT = "breakpoint"
    """By breakpoints; at call sites only what no breakpoint sees."""
    CALL_SITE = "callsite"


@dataclass(frozen=True)
class CopyAttachment:
    """One copy site, to be attached.

    ``number`` is the site's in the meter; ``slot`` counts those that share a handler.
    ``address`` is that of the instruction for a breakpoint, of the function for a probe.
    ``place`` is what the meter has to know of it (``zctrace.collect.settings``). ``kind`` is
    the site's, or a cross-check where call sites count the same bytes. ``exact`` is whether
    this is the mechanism that the catalogue prefers; a fallback only shows the bytes asked
    for, or is passed over in some interrupts. ``note`` says why it had to be one.
    """

    number: int
    slot: int
    site: CopySite
    mechanism: Mechanism
    kind: Kind
    address: int
    place: tuple[tuple[str, int], ...]
    exact: bool
    note: str = ""


@dataclass(frozen=True)
class CallAttachment:
    """One call target, to be attached at ``calls``.

    ``number`` is the target's in the meter. ``unreached`` are callers that can not be
    probed, and whose copies no other target counts.
    """

    number: int
    target: CallTarget
    calls: tuple[Call, ...]
    unreached: tuple[Call, ...]

    def within(self, modules: Container[str]) -> CallAttachment:
        """What of it is in these modules."""
        return dataclasses.replace(
            self,
            calls=tuple(call for call in self.calls if call.module in modules),
            unreached=tuple(call for call in self.unreached if call.module in modules),
        )


@dataclass(frozen=True)
class HookAttachment:
    """One hook, to be attached at the function's ``address``."""

    hook: Hook
    mechanism: Mechanism
    address: int


@dataclass(frozen=True)
class EventAttachment:
    """One event site, to be attached."""

    number: int
    site: EventSite


@dataclass(frozen=True)
class AttachPlan:
    """Everything that will be attached on one kernel, and what stays blind."""

    copies: tuple[CopyAttachment, ...]
    calls: tuple[CallAttachment, ...]
    hooks: tuple[HookAttachment, ...]
    events: tuple[EventAttachment, ...]
    blind: tuple[Blind, ...]
    parameters: tuple[tuple[str, str], ...]
    """Names and values for the meter's ``-D``: the same each time that a kernel is started."""
    settings: tuple[tuple[str, int], ...]
    """Names and values of the meter's settings, but for those of one place."""
    tells_skips: bool = False
    """Whether the kernel counts how often it has skipped a probe's or tracepoint's program."""
    counted_twice: tuple[tuple[str, str], ...] = ()
    """Functions whose bytes a copy site counts, each with a caller of it that is an attached
    target and counts these bytes, too: with any, copies cannot be measured."""

    @property
    def breakpoints(self) -> tuple[CopyAttachment, ...]:
        return tuple(a for a in self.copies if a.mechanism not in AT_ENTRY)

    @property
    def at_entries(self) -> tuple[CopyAttachment, ...]:
        """Those that the function itself calls, or that are probes on it."""
        return tuple(a for a in self.copies if a.mechanism in AT_ENTRY)

    def blind_for(self, paths: frozenset[Path]) -> tuple[Blind, ...]:
        """What a statement about copies on ``paths`` would have to leave open."""
        return tuple(b for b in self.blind if b.kind is Kind.COPY and b.paths & paths)
