"""What we will attach: the catalogue, as far as this kernel offers it.

Pure: no bcc, no root, no I/O. ``plan`` turns a table and the facts about one kernel into
a list of attachments, and into reasons for everything that stays blind.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from probes.site import CopySite, EventSite, Kind, Length, Mechanism, Path, Register
from tracer.kernel import Function, KernelFacts

BREAKPOINT_SLOTS = 4
"""Debug address registers of x86-64."""
KPROBE_SLOTS = 16
"""Handlers for function probes that the meter has."""

_NO_ADDRESS = "0"


@dataclass(frozen=True)
class CopyAttachment:
    """One copy site, to be attached.

    ``number`` is the site's in the meter; ``slot`` its handler's. ``address`` is that of
    the instruction for a breakpoint, of the function for a probe. ``exact`` is whether
    this is the mechanism that the catalogue prefers; a fallback only shows the bytes asked
    for. ``note`` says why it had to be one.
    """

    number: int
    slot: int
    site: CopySite
    mechanism: Mechanism
    address: int
    length: str
    source: str
    destination: str
    exact: bool
    note: str = ""


@dataclass(frozen=True)
class EventAttachment:
    """One event site, to be attached."""

    number: int
    site: EventSite


@dataclass(frozen=True)
class Blind:
    """Something wanted that nothing will see, and why."""

    quantity: str
    functions: tuple[str, ...]
    reason: str
    paths: frozenset[Path]
    kind: Kind


@dataclass(frozen=True)
class AttachPlan:
    """Everything that will be attached on one kernel, and what stays blind."""

    copies: tuple[CopyAttachment, ...]
    events: tuple[EventAttachment, ...]
    blind: tuple[Blind, ...]
    parameters: tuple[tuple[str, str], ...]
    """Names and values for the meter's ``-D``."""

    @property
    def breakpoints(self) -> tuple[CopyAttachment, ...]:
        return tuple(a for a in self.copies if a.mechanism is not Mechanism.KPROBE)

    @property
    def kprobes(self) -> tuple[CopyAttachment, ...]:
        return tuple(a for a in self.copies if a.mechanism is Mechanism.KPROBE)

    def blind_for(self, paths: frozenset[Path]) -> tuple[Blind, ...]:
        """What a statement about copies on ``paths`` would have to leave open."""
        return tuple(b for b in self.blind if b.kind is Kind.COPY and b.paths & paths)


def plan(
    copy_sites: Sequence[CopySite], event_sites: Sequence[EventSite], kernel: KernelFacts
) -> AttachPlan:
    """Match the catalogue with what ``kernel`` offers.

    A quantity gets at most one attachment: the first of its rows, in the catalogue's
    order, that can be attached.
    """
    copies: list[CopyAttachment] = []
    blind: list[Blind] = []
    used = {Mechanism.KPROBE: 0, Mechanism.BREAKPOINT_RETURN: 0}
    quantities = dict.fromkeys(site.quantity for site in copy_sites)
    for quantity in quantities:
        rows = [site for site in copy_sites if site.quantity == quantity]
        reasons = []
        for site in rows:
            attachment = _attach(site, kernel, len(copies), used)
            if isinstance(attachment, CopyAttachment):
                copies.append(attachment)
                used[_budget(attachment.mechanism)] += 1
                break
            reasons.append(attachment)
        else:
            # Which of several names to explain: the one that the kernel has, if any.
            there = [
                r for r, s in zip(reasons, rows, strict=True) if s.function in kernel.functions
            ]
            blind.append(
                Blind(
                    quantity,
                    tuple(site.function for site in rows),
                    (there or reasons)[0],
                    frozenset().union(*(site.paths for site in rows)),
                    rows[0].kind,
                )
            )
    events, unseen = _plan_events(event_sites, kernel, len(copies))
    return AttachPlan(
        tuple(copies),
        tuple(events),
        tuple(blind + unseen),
        tuple(_parameters(copies, event_sites, events, kernel).items()),
    )


def _budget(mechanism: Mechanism) -> Mechanism:
    return mechanism if mechanism is Mechanism.KPROBE else Mechanism.BREAKPOINT_RETURN


def _attach(
    site: CopySite, kernel: KernelFacts, number: int, used: dict[Mechanism, int]
) -> CopyAttachment | str:
    """The attachment, or the reason why there is none."""
    function = kernel.functions.get(site.function)
    if function is None:
        return kernel.text or "this kernel has no such function"
    if site.needs_cpu_flag and site.needs_cpu_flag not in kernel.cpu_flags:
        return f"this processor has no {site.needs_cpu_flag}: another routine is used"
    if site.dead_with_cpu_flag and site.dead_with_cpu_flag in kernel.cpu_flags:
        return f"this processor has {site.dead_with_cpu_flag}: user copies are inlined"
    reasons: list[str] = []
    for mechanism in site.mechanisms:
        reason = _refused(mechanism, site, function, kernel, used)
        if reason is None:
            return _attachment(site, mechanism, function, kernel, number, used, reasons)
        reasons.append(f"{mechanism.value}: {reason}")
    return "; ".join(reasons)


def _refused(
    mechanism: Mechanism,
    site: CopySite,
    function: Function,
    kernel: KernelFacts,
    used: dict[Mechanism, int],
) -> str | None:
    length = site.at_return if mechanism is Mechanism.BREAKPOINT_RETURN else site.at_entry
    if length is None:
        return "the number of bytes cannot be read there"
    if not isinstance(length, Register):
        name = f"{length.structure}.{length.member}"
        if name not in kernel.members:
            return f"offset of {name} unknown: {kernel.btf or 'not in the type information'}"
    if mechanism is Mechanism.KPROBE:
        if used[Mechanism.KPROBE] >= KPROBE_SLOTS:
            return f"all {KPROBE_SLOTS} handlers are taken"
        return function.kprobe
    if kernel.breakpoint:
        return kernel.breakpoint
    if used[Mechanism.BREAKPOINT_RETURN] >= BREAKPOINT_SLOTS:
        return f"all {BREAKPOINT_SLOTS} debug registers are taken"
    if mechanism is Mechanism.BREAKPOINT_RETURN:
        if function.returns is None or function.jumps is None:
            return kernel.text or "its returns are unknown"
        if len(function.returns) != 1:
            return f"{len(function.returns)} returns instead of one"
        if function.jumps:
            return f"leaves by {len(function.jumps)} jumps besides its return"
    return None


def _attachment(
    site: CopySite,
    mechanism: Mechanism,
    function: Function,
    kernel: KernelFacts,
    number: int,
    used: dict[Mechanism, int],
    reasons: list[str],
) -> CopyAttachment:
    at_return = mechanism is Mechanism.BREAKPOINT_RETURN
    length = site.at_return if at_return else site.at_entry
    assert length is not None
    context = "ctx->" if mechanism is Mechanism.KPROBE else "ctx->regs."
    offset = function.returns[0] if at_return and function.returns else 0
    return CopyAttachment(
        number=number,
        slot=used[_budget(mechanism)],
        site=site,
        mechanism=mechanism,
        address=function.address + offset,
        length=_expression(length, context, kernel),
        source=_address(site.source, context),
        destination=_address(site.destination, context),
        exact=at_return or mechanism not in site.mechanisms[1:],
        note="; ".join(reasons),
    )


def _expression(length: Length, context: str, kernel: KernelFacts) -> str:
    """C, over the handler's context, for the number of bytes."""
    if isinstance(length, Register):
        cast = "(u32)" if length.bits == 32 else ""
        return f"{cast}{context}{length.name}"
    offset = kernel.members[f"{length.structure}.{length.member}"]
    return f"u32_at({context}{length.register}, {offset})"


def _address(register: Register | None, context: str) -> str:
    return f"{context}{register.name}" if register else _NO_ADDRESS


def _plan_events(
    event_sites: Iterable[EventSite], kernel: KernelFacts, first: int
) -> tuple[list[EventAttachment], list[Blind]]:
    events, blind = [], []
    for number, site in enumerate(event_sites, start=first):
        reason = None
        if site.tracepoint not in kernel.tracepoints:
            reason = "this kernel has no such tracepoint"
        else:
            missing = [
                f for f, _ in site.fields if f not in kernel.tracepoints[site.tracepoint]
            ]
            if missing:
                reason = f"its record has no {', '.join(missing)}"
        if reason is None:
            events.append(EventAttachment(number, site))
        else:
            blind.append(
                Blind(site.quantity, (site.tracepoint,), reason, frozenset(Path), Kind.EVENT)
            )
    return events, blind


def _parameters(
    copies: Iterable[CopyAttachment],
    event_sites: Sequence[EventSite],
    events: Iterable[EventAttachment],
    kernel: KernelFacts,
) -> dict[str, str]:
    parameters = {}
    for copy in copies:
        name = "KPROBE" if copy.mechanism is Mechanism.KPROBE else "BREAKPOINT"
        parameters[f"{name}_{copy.slot}"] = ", ".join(
            (str(copy.number), copy.length, copy.source, copy.destination)
        )
    # Handlers of tracepoints that this kernel lacks are compiled too, and never loaded.
    for site in event_sites:
        if site.parameter:
            parameters[site.parameter] = "0"
        for _, parameter in site.fields:
            parameters[parameter] = "0"
    for event in events:
        if event.site.parameter:
            parameters[event.site.parameter] = str(event.number)
        for name, parameter in event.site.fields:
            parameters[parameter] = str(kernel.tracepoints[event.site.tracepoint][name])
    return parameters
