"""What we will attach: the catalogue, as far as this kernel offers it.

Pure: no bcc, no root, no I/O. ``plan`` turns a table and the facts about one kernel into
a list of attachments, and into reasons for everything that stays blind.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Sequence

from zctrace.evidence.sites import Blind
from zctrace.kernel.facts import Function, KernelFacts
from zctrace.plan.attachments import (
    AttachPlan,
    CallAttachment,
    Choice,
    CopyAttachment,
    EventAttachment,
    HookAttachment,
)
from zctrace.plan.calls import no_iterators, plan_calls
from zctrace.plan.parameters import meter_parameters
from zctrace.plan.places import place_of
from zctrace.probes import hooks
from zctrace.probes.model import (
    AT_ENTRY,
    Catalogue,
    CopySite,
    EventSite,
    Hook,
    Kind,
    Length,
    Mechanism,
    Member,
    Path,
    Quantity,
    Within,
    plain,
)

BREAKPOINT_SLOTS = 4
"""Debug address registers of x86-64."""


def plan(catalogue: Catalogue, kernel: KernelFacts, choice: Choice = Choice.AUTO) -> AttachPlan:
    """Match the catalogue with what ``kernel`` offers.

    Of copy sites, a quantity gets at most one attachment: the first of its rows, in the
    catalogue's order, that can be attached. Call targets are all attached, and so are
    functions that nest. Where both watch a quantity, the call sites count and the other is a
    cross-check.
    """
    calls, no_calls = plan_calls(catalogue.calls, kernel, choice)
    # What its call sites count already, a breakpoint only checks.
    at_calls = {attachment.target.breakpoint for attachment in calls if attachment.calls}
    copies: list[CopyAttachment] = []
    blind: list[Blind] = []
    used = {Mechanism.FENTRY: 0, Mechanism.BREAKPOINT_RETURN: 0}
    checked = {site.quantity for site in catalogue.copies if site.function in at_calls}
    # Debug registers go to what nothing else sees first.
    alternatives = sorted(
        _alternatives(catalogue.copies), key=lambda rows: rows[0].quantity in checked
    )
    for rows in alternatives:
        if any(copy.site.quantity in {row.instead_of for row in rows} for copy in copies):
            continue
        reasons = []
        for site in rows:
            kind = Kind.CROSS_CHECK if site.function in at_calls else site.kind
            number = len(catalogue.calls) + len(copies)
            attachment = _attach(site, kernel, number, kind, used, choice)
            if isinstance(attachment, CopyAttachment):
                copies.append(attachment)
                used[_budget(attachment.mechanism)] += 1
                break
            reasons.append(attachment)
        else:
            if any(name in kernel.functions for site in rows for name in site.inline_over):
                continue
            # Which of several names to explain: the one that the kernel has, if any.
            there = [
                r for r, s in zip(reasons, rows, strict=True) if s.function in kernel.functions
            ]
            blind.append(
                Blind(
                    rows[0].quantity,
                    tuple(site.function for site in rows),
                    (there or reasons)[0],
                    frozenset().union(*(site.paths for site in rows)),
                    Kind.CROSS_CHECK
                    if any(site.function in at_calls for site in rows)
                    else rows[0].kind,
                )
            )
    at_functions = {attachment.site.quantity for attachment in copies}
    wanted = {site.quantity for site in catalogue.copies}
    watched_otherwise = at_functions | wanted
    blind += [b for b in no_calls if b.quantity not in watched_otherwise]
    if no_kinds := no_iterators(kernel):
        blind += [
            dataclasses.replace(b, kind=Kind.CROSS_CHECK)
            for b in no_calls
            if b.quantity in watched_otherwise and b.reason in (kernel.text, no_kinds)
        ]
    twice = _counted_twice(copies, calls, kernel)
    callers = dict(twice)
    copies = [_also_counted(copy, callers.get(copy.site.function)) for copy in copies]
    routine = any(copy.site.direction is None for copy in copies)
    copies = [_after_routine(copy, routine=routine) for copy in copies]
    attached = _plan_hooks(catalogue.hooks, kernel)
    events, unseen = _plan_events(catalogue.events, kernel, len(catalogue.calls) + len(copies))
    return AttachPlan(
        tuple(copies),
        tuple(calls),
        attached,
        tuple(events),
        tuple(blind + unseen),
        tuple(meter_parameters(catalogue.events, events, kernel).items()),
        tuple(_settings(copies, events, kernel).items()),
        kernel.tells_skips,
        twice,
    )


def settled(catalogue: Catalogue, kernel: KernelFacts, choice: Choice) -> Choice:
    """What AUTO means for a traced program.

    A probe on a CALL instruction costs every process that copies; a breakpoint costs only the
    program. So breakpoints alone are used where they leave nothing open that call sites would
    not, and see what was really copied. Then the copy routine and the functions above it check
    each other.
    """
    if choice is not Choice.AUTO:
        return choice
    alone, both = (plan(catalogue, kernel, one) for one in (Choice.BREAKPOINT, Choice.BOTH))
    copies = {b.quantity for b in alone.blind if b.kind is Kind.COPY}
    sufficient = (
        not alone.counted_twice
        and copies <= {b.quantity for b in both.blind if b.kind is Kind.COPY}
        and all(copy.exact for copy in alone.breakpoints if copy.kind is Kind.COPY)
        and any(copy.site.direction is None for copy in alone.breakpoints)
    )
    return Choice.BREAKPOINT if sufficient else Choice.BOTH


def _alternatives(sites: Iterable[CopySite]) -> Iterable[list[CopySite]]:
    """Groups of rows, one row of each is attached: by quantity and, if they nest, function."""
    groups: dict[tuple[Quantity, str], list[CopySite]] = {}
    for site in sites:
        groups.setdefault((site.quantity, site.function if site.nests else ""), []).append(site)
    return groups.values()


def _counted_twice(
    copies: Sequence[CopyAttachment], calls: Sequence[CallAttachment], kernel: KernelFacts
) -> tuple[tuple[str, str], ...]:
    """As :class:`AttachPlan` has it.

    A kernel whose functions for whole pages copy user memory by themselves, and call another
    function for kernel memory: each of both halves needs a count of its own, and at the call
    sites of the first function the halves cannot be separated without the second one's.
    """
    targets = {attachment.target.function for attachment in calls if attachment.calls}
    return tuple(
        (copy.site.function, plain(call.caller))
        for copy in copies
        if copy.kind is Kind.COPY
        for call in kernel.calls.get(copy.site.function, ())
        if plain(call.caller) in targets
    )


def _also_counted(copy: CopyAttachment, caller: str | None) -> CopyAttachment:
    if caller is None:
        return copy
    notes = [*([copy.note] if copy.note else []), f"the bytes are counted in {caller}, too"]
    return dataclasses.replace(copy, note="; ".join(notes))


def _after_routine(copy: CopyAttachment, *, routine: bool) -> CopyAttachment:
    """Whether what is copied of user memory is seen before, in the routine that does it."""
    after = routine and copy.mechanism is Mechanism.BREAKPOINT_RETURN
    return dataclasses.replace(copy, place=(*copy.place, ("PLACE_AFTER_ROUTINE", int(after))))


def _plan_hooks(wanted: Sequence[Hook], kernel: KernelFacts) -> tuple[HookAttachment, ...]:
    """The first of each quantity that there is and that the kernel lets be probed."""
    attached: dict[str, HookAttachment] = {}
    for hook in wanted:
        function = kernel.functions.get(hook.function)
        lacking = {*hook.members} - kernel.members.keys()
        if (
            function is None
            or lacking
            or (hook.beside or hook.function) not in kernel.functions
        ):
            continue
        if hook.called and function.fentry is None:
            mechanism = Mechanism.FENTRY
        elif function.kprobe is None:
            mechanism = Mechanism.KPROBE
        else:
            continue
        attached.setdefault(hook.quantity, HookAttachment(hook, mechanism, function.address))
    return tuple(attached.values())


def _budget(mechanism: Mechanism) -> Mechanism:
    return Mechanism.FENTRY if mechanism in AT_ENTRY else Mechanism.BREAKPOINT_RETURN


def _attach(
    site: CopySite,
    kernel: KernelFacts,
    number: int,
    kind: Kind,
    used: dict[Mechanism, int],
    choice: Choice,
) -> CopyAttachment | str:
    """The attachment, or the reason why there is none."""
    function = kernel.functions.get(site.function)
    if function is None:
        return kernel.text or "this kernel has no such function"
    if site.needs_cpu_flag and site.needs_cpu_flag not in kernel.cpu_flags:
        return f"this processor has no {site.needs_cpu_flag}: another routine is used"
    if site.dead_with_cpu_flag and site.dead_with_cpu_flag in kernel.cpu_flags:
        return f"this processor has {site.dead_with_cpu_flag}: user copies are inlined"
    if choice is Choice.CALL_SITE and Mechanism.KPROBE not in site.mechanisms:
        return "only call sites were asked for"
    reasons: list[str] = []
    for mechanism in site.mechanisms:
        reason = _refused(mechanism, site, function, kernel, used)
        if reason is None:
            return _attachment(site, mechanism, function, kernel, number, kind, used, reasons)
        said = "the same" if reasons and reasons[-1].endswith(f": {reason}") else reason
        reasons.append(f"{mechanism.value}: {said}")
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
    for name in _members(length):
        if name not in kernel.members:
            return _unknown(name, kernel)
    if mechanism in AT_ENTRY:
        return function.fentry if mechanism is Mechanism.FENTRY else function.kprobe
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


def _unknown(member: str, kernel: KernelFacts) -> str:
    return f"offset of {member} unknown: {kernel.btf or 'not in the type information'}"


def _members(length: Length) -> tuple[str, ...]:
    """The members of kernel structures that must be known to tell a length."""
    if isinstance(length, Member):
        return (f"{length.structure}.{length.member}",)
    return ("sk_buff.len",) if isinstance(length, Within) else ()


def _attachment(
    site: CopySite,
    mechanism: Mechanism,
    function: Function,
    kernel: KernelFacts,
    number: int,
    kind: Kind,
    used: dict[Mechanism, int],
    reasons: list[str],
) -> CopyAttachment:
    at_return = mechanism is Mechanism.BREAKPOINT_RETURN
    length = site.at_return if at_return else site.at_entry
    assert length is not None
    offset = function.returns[0] if at_return and function.returns else 0
    return CopyAttachment(
        number=number,
        slot=used[_budget(mechanism)],
        site=site,
        mechanism=mechanism,
        kind=kind,
        address=function.address + offset,
        place=tuple(place_of(site, length, number, function, kernel).items()),
        exact=at_return or mechanism not in site.mechanisms[1:],
        note="; ".join(reasons),
    )


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
            unknown = [m for m in site.members if m not in kernel.members]
            if missing:
                reason = f"its record has no {', '.join(missing)}"
            elif unknown:
                reason = _unknown(unknown[0], kernel)
        if reason is None:
            events.append(EventAttachment(number, site))
        else:
            blind.append(
                Blind(site.quantity, (site.tracepoint,), reason, frozenset(Path), Kind.EVENT)
            )
    return events, blind


def _settings(
    copies: Iterable[CopyAttachment], events: Iterable[EventAttachment], kernel: KernelFacts
) -> dict[str, int]:
    """Of the meter, but for those of one place and the collector's own."""
    # The routine under user copies: the one whose direction the addresses tell.
    routines = [copy.number for copy in copies if copy.site.direction is None]
    (merge,) = (hook.function for hook in hooks.HOOKS if hook.quantity == hooks.MERGE)
    function = kernel.functions.get(merge)
    return {
        "ROUTINE_SITE": routines[0] if routines else -1,
        "MERGE_START": function.address if function else 0,
        "MERGE_SIZE": function.size if function else 0,
        **{event.site.parameter: event.number for event in events if event.site.parameter},
    }
