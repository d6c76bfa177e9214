"""Which calls will be watched: the catalogue's call targets, as far as this kernel has them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from zctrace.evidence.sites import Blind
from zctrace.kernel.facts import KernelFacts
from zctrace.plan.attachments import CallAttachment, Choice
from zctrace.plan.parameters import iterator_type
from zctrace.probes.model import Call, CallTarget, Kind, Purpose, Quantity, plain


def plan_calls(
    targets: Sequence[CallTarget], kernel: KernelFacts, choice: Choice
) -> tuple[list[CallAttachment], list[Blind]]:
    """The call targets that can be attached, and why none of a quantity can.

    A target's number is its place in the catalogue, so that what a module that is loaded
    later adds changes nothing else.
    """
    attachments: list[CallAttachment] = []
    refused: list[tuple[int, CallTarget, tuple[Call, ...]]] = []
    reasons: dict[Quantity, str] = {}
    there = [
        target
        for target in targets
        if _calls_of(target, targets, kernel)
        and (not target.beside or target.beside in kernel.calls)
        and target.without not in kernel.calls
    ]
    # A target that calls another one has been counted when the other one is called.
    relays = {target.function for target in there}
    for number, target in enumerate(targets):
        if target not in there:
            reason = kernel.text or "this kernel calls no such function"
        elif choice is Choice.BREAKPOINT and target.breakpoint:
            reason = "only breakpoints were asked for"
        elif target.iterator and (no_kinds := no_iterators(kernel)):
            reason = no_kinds
        else:
            calls = [
                call
                for call in _calls_of(target, targets, kernel)
                if plain(call.caller) not in relays
            ]
            reached = tuple(c for c in calls if c.traced and not c.jump)
            unreached = tuple(c for c in calls if c not in reached)
            if reached:
                attachments.append(CallAttachment(number, target, reached, unreached))
                continue
            reason = "called by others only"
            if calls:
                reason = f"refused in all {len(calls)} callers"
                refused.append((number, target, unreached))
        reasons[target.quantity] = min(
            reasons.get(target.quantity, reason), reason, key=lambda r: r.startswith("this")
        )
    at_calls = {attachment.target.quantity for attachment in attachments}
    # Nothing is attached for these; that some of the quantity is missed must be said.
    for number, target, unreached in refused:
        if target.quantity in at_calls:
            attachments.append(CallAttachment(number, target, (), unreached))
    missing = tuple(_missing(targets, there, kernel))
    told = at_calls | {blind.quantity for blind in missing}
    # No statement about the payload depends on these.
    metadata = {t.quantity for t in targets if t.purpose is Purpose.METADATA}
    blind = [
        Blind(
            quantity,
            tuple(dict.fromkeys(t.function for t in targets if t.quantity == quantity)),
            reason,
            frozenset().union(*(t.paths for t in targets if t.quantity == quantity)),
            Kind.EVENT if quantity in metadata else Kind.COPY,
        )
        for quantity, reason in reasons.items()
        if quantity not in told
    ]
    return attachments, [*blind, *missing]


def _calls_of(
    target: CallTarget, targets: Sequence[CallTarget], kernel: KernelFacts
) -> tuple[Call, ...]:
    """A row with callers is for theirs; one without for all that no other row names."""
    calls = kernel.calls.get(target.function, ())
    if target.callers:
        return tuple(call for call in calls if plain(call.caller) in target.callers)
    named = {c for t in targets if t.function == target.function for c in t.callers}
    return tuple(call for call in calls if plain(call.caller) not in named)


def _missing(
    targets: Sequence[CallTarget], there: Sequence[CallTarget], kernel: KernelFacts
) -> Iterator[Blind]:
    """Rows for callers that must be there and in which no call was found, of no such row.

    Either they have other names on this kernel, or they copy by other instructions. Of a
    module that is not loaded nothing is missing.
    """
    if kernel.text:
        return  # said of the quantity
    calling = {plain(c.caller) for t in there for c in _calls_of(t, targets, kernel)}
    for target in targets:
        named = set(target.callers)
        if target in there or not named or target.purpose is not Purpose.PAYLOAD:
            continue
        found = named & kernel.callers
        expected = target.module in kernel.modules or not (target.module or target.optional)
        if named & calling or not (found or expected):
            continue
        reason = (
            f"no call of it was found in {', '.join(sorted(found))}"
            if found
            else f"this kernel has none of its callers {', '.join(target.callers)}"
        )
        yield Blind(target.quantity, (target.function,), reason, target.paths, Kind.COPY)


def no_iterators(kernel: KernelFacts) -> str:
    """Why the kinds of iterators are unknown; empty if they are not."""
    if kernel.iterators and iterator_type(kernel):
        return ""
    return f"kinds of iov_iter unknown: {kernel.btf or 'not in the type information'}"
