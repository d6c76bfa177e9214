"""What we will attach: the catalogue, as far as this kernel offers it.

Pure: no bcc, no root, no I/O. ``plan`` turns a table and the facts about one kernel into
a list of attachments, and into reasons for everything that stays blind.
"""

from __future__ import annotations

import dataclasses
import enum
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from probes import hooks
from probes.site import (
    AT_ENTRY,
    CallTarget,
    Catalogue,
    CopySite,
    Direction,
    EventSite,
    Hook,
    Kind,
    Length,
    Mechanism,
    Member,
    Path,
    Purpose,
    Register,
    Where,
    Within,
)
from tracer.call_sites import Call, plain
from tracer.kernel import Function, KernelFacts

BREAKPOINT_SLOTS = 4
"""Debug address registers of x86-64."""
ENTRY_SLOTS = 8
"""Handlers for the entries of functions that the meter has, of either kind."""

DIRECTION_NUMBERS = {
    Direction.USER_TO_KERNEL: 1,
    Direction.KERNEL_TO_USER: 2,
    Direction.KERNEL_TO_KERNEL: 3,
    Direction.USER_TO_USER: 4,
}
"""What the meter calls them (probes/bpf/direction.h)."""

_NO_ADDRESS = "0"
_CONTEXTS = {Mechanism.FENTRY: "entered.", Mechanism.KPROBE: "ctx->"}
"""C for where a handler finds registers; others have the interrupted code's."""

FLOW_MEMBERS = {
    "TASK_FILES": ("task_struct.files",),
    "MEMORY_PROGRAM": ("mm_struct.exe_file",),
    "TASK_SIGNAL": ("task_struct.signal",),
    "SIGNAL_LIVE": ("signal_struct.live",),
    "FILES_TABLE": ("files_struct.fdt",),
    "TABLE_SIZE": ("fdtable.max_fds",),
    "TABLE_FILES": ("fdtable.fd",),
    "FILE_INODE": ("file.f_inode",),
    "FILE_DENTRY": ("file.f_path", "path.dentry"),
    "FILE_MODE": ("file.f_mode",),
    "FILE_PRIVATE": ("file.private_data",),
    "DENTRY_PARENT": ("dentry.d_parent",),
    "DENTRY_NAME": ("dentry.d_name", "qstr.name"),
    "INODE_MODE": ("inode.i_mode",),
    "INODE_NUMBER": ("inode.i_ino",),
    "INODE_SUPER": ("inode.i_sb",),
    "INODE_SIZE": ("inode.i_size",),
    "INODE_DEVICE": ("inode.i_rdev",),
    "SUPER_DEVICE": ("super_block.s_dev",),
    "SOCKET_SOCK": ("socket.sk",),
    "SOCK_TYPE": ("sock.sk_type",),
    "SOCK_FAMILY": ("sock_common.skc_family",),
    "SOCK_PEER_PORT": ("sock_common.skc_dport",),
    "SOCK_PORT": ("sock_common.skc_num",),
    "SOCK_PEER": ("sock_common.skc_daddr",),
    "SOCK_ADDRESS": ("sock_common.skc_rcv_saddr",),
    "SOCK_PEER6": ("sock_common.skc_v6_daddr",),
    "SOCK_ADDRESS6": ("sock_common.skc_v6_rcv_saddr",),
}
"""Parameters of the meter's flows, and the members whose offsets add up to each: without
all of them it is not known what a program delivers, and no program can be traced."""


class Choice(enum.Enum):
    """How user copies are to be watched."""

    AUTO = "auto"
    """At the call sites, and by breakpoints beside them, which must see the same bytes."""
    BREAKPOINT = "breakpoint"
    """By breakpoints; at call sites only what no breakpoint sees."""
    CALL_SITE = "callsite"


@dataclass(frozen=True)
class CopyAttachment:
    """One copy site, to be attached.

    ``number`` is the site's in the meter; ``slot`` its handler's. ``address`` is that of
    the instruction for a breakpoint, of the function for a probe. ``kind`` is the
    site's, or a cross-check where call sites count the same bytes. ``exact`` is whether
    this is the mechanism that the catalogue prefers; a fallback only shows the bytes asked
    for, or is passed over in some interrupts. ``note`` says why it had to be one.
    """

    number: int
    slot: int
    site: CopySite
    mechanism: Mechanism
    kind: Kind
    address: int
    length: str
    source: str
    destination: str
    skb: str
    size: int
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


@dataclass(frozen=True)
class HookAttachment:
    """One hook, to be attached at the function's ``address``."""

    hook: Hook
    address: int


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
    calls: tuple[CallAttachment, ...]
    hooks: tuple[HookAttachment, ...]
    events: tuple[EventAttachment, ...]
    blind: tuple[Blind, ...]
    parameters: tuple[tuple[str, str], ...]
    """Names and values for the meter's ``-D``."""
    tells_skips: bool = False
    """Whether the kernel counts how often it has skipped a probe's or tracepoint's program."""

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


def plan(catalogue: Catalogue, kernel: KernelFacts, choice: Choice = Choice.AUTO) -> AttachPlan:
    """Match the catalogue with what ``kernel`` offers.

    Of copy sites, a quantity gets at most one attachment: the first of its rows, in the
    catalogue's order, that can be attached. Call targets are all attached. Where both
    watch a quantity, the call sites count and the other is a cross-check.
    """
    calls, no_calls = _plan_calls(catalogue.calls, kernel, choice)
    # What its call sites count already, a breakpoint only checks.
    at_calls = {attachment.target.breakpoint for attachment in calls if attachment.calls}
    copies: list[CopyAttachment] = []
    blind: list[Blind] = []
    used = {Mechanism.FENTRY: 0, Mechanism.BREAKPOINT_RETURN: 0}
    quantities = dict.fromkeys(site.quantity for site in catalogue.copies)
    for quantity in quantities:
        rows = [site for site in catalogue.copies if site.quantity == quantity]
        reasons = []
        for site in rows:
            kind = Kind.CROSS_CHECK if site.function in at_calls else site.kind
            number = len(calls) + len(copies)
            attachment = _attach(site, kernel, number, kind, used, choice)
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
                    Kind.CROSS_CHECK
                    if any(site.function in at_calls for site in rows)
                    else rows[0].kind,
                )
            )
    at_functions = {attachment.site.quantity for attachment in copies}
    wanted = {site.quantity for site in catalogue.copies}
    watched_otherwise = at_functions | wanted
    blind += [b for b in no_calls if b.quantity not in watched_otherwise]
    if no_kinds := _no_iterators(kernel):
        blind += [
            dataclasses.replace(b, kind=Kind.CROSS_CHECK)
            for b in no_calls
            if b.quantity in watched_otherwise and b.reason in (kernel.text, no_kinds)
        ]
    attached = _plan_hooks(catalogue.hooks, kernel)
    events, unseen = _plan_events(catalogue.events, kernel, len(calls) + len(copies))
    return AttachPlan(
        tuple(copies),
        tuple(calls),
        attached,
        tuple(events),
        tuple(blind + unseen),
        tuple(_parameters(copies, catalogue.events, events, kernel).items()),
        kernel.tells_skips,
    )


def _plan_hooks(wanted: Sequence[Hook], kernel: KernelFacts) -> tuple[HookAttachment, ...]:
    """The first of each quantity that there is and that the kernel lets be probed."""
    attached: dict[str, HookAttachment] = {}
    for hook in wanted:
        function = kernel.functions.get(hook.function)
        if function and not function.kprobe:
            attached.setdefault(hook.quantity, HookAttachment(hook, function.address))
    return tuple(attached.values())


def _plan_calls(
    targets: Sequence[CallTarget], kernel: KernelFacts, choice: Choice
) -> tuple[list[CallAttachment], list[Blind]]:
    """The call targets that can be attached, and why none of a quantity can."""
    attachments: list[CallAttachment] = []
    refused: list[tuple[CallTarget, tuple[Call, ...]]] = []
    reasons: dict[str, str] = {}
    there = [
        target
        for target in targets
        if kernel.calls.get(target.function)
        and (not target.beside or target.beside in kernel.calls)
        and target.without not in kernel.calls
    ]
    # A target that calls another one has been counted when the other one is called.
    relays = {target.function for target in there}
    for target in targets:
        if target not in there:
            reason = kernel.text or "this kernel calls no such function"
        elif choice is Choice.BREAKPOINT and target.breakpoint:
            reason = "only breakpoints were asked for"
        elif target.iterator and (no_kinds := _no_iterators(kernel)):
            reason = no_kinds
        else:
            calls = [c for c in kernel.calls[target.function] if plain(c.caller) not in relays]
            reached = tuple(c for c in calls if c.traced and not c.jump)
            unreached = tuple(c for c in calls if c not in reached)
            if reached:
                attachments.append(CallAttachment(len(attachments), target, reached, unreached))
                continue
            reason = "called by others only"
            if calls:
                reason = f"refused in all {len(calls)} callers"
                refused.append((target, unreached))
        reasons[target.quantity] = min(
            reasons.get(target.quantity, reason), reason, key=lambda r: r.startswith("this")
        )
    at_calls = {attachment.target.quantity for attachment in attachments}
    # Nothing is attached for these; that some of the quantity is missed must be said.
    for target, unreached in refused:
        if target.quantity in at_calls:
            attachments.append(CallAttachment(len(attachments), target, (), unreached))
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
        if quantity not in at_calls
    ]
    return attachments, blind


def _no_iterators(kernel: KernelFacts) -> str:
    """Why the kinds of iterators are unknown; empty if they are not."""
    if kernel.iterators and _iterator_type(kernel):
        return ""
    return f"kinds of iov_iter unknown: {kernel.btf or 'not in the type information'}"


def _iterator_type(kernel: KernelFacts) -> tuple[int, int, int] | None:
    """Offset, bytes and mask of an ``iov_iter``'s kind; ``None`` if unknown."""
    if "iov_iter.iter_type" in kernel.members:
        return kernel.members["iov_iter.iter_type"], 1, 0xFF
    if "iov_iter.type" in kernel.members:
        return kernel.members["iov_iter.type"], 4, 0xFFFFFFFE
    return None


def _zerocopy_flag(kernel: KernelFacts) -> tuple[int, int]:
    """Where a socket buffer says that its pages are a zero-copy send's: offset and bit.

    No bit if unknown: then no buffer says so.
    """
    if "skb_shared_info.flags" in kernel.members:
        # SKBFL_ZEROCOPY_ENABLE: since Linux kernel commit 06b4feb37e64 ("net: group
        # skb_shinfo zerocopy related bits together.") (in v5.12).
        return kernel.members["skb_shared_info.flags"], 1 << 0
    if "skb_shared_info.tx_flags" in kernel.members:
        return kernel.members["skb_shared_info.tx_flags"], 1 << 3  # SKBTX_DEV_ZEROCOPY
    return 0, 0


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
            return f"offset of {name} unknown: {kernel.btf or 'not in the type information'}"
    if mechanism in AT_ENTRY:
        if used[Mechanism.FENTRY] >= ENTRY_SLOTS:
            return f"all {ENTRY_SLOTS} handlers are taken"
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
    context = _CONTEXTS.get(mechanism, "ctx->regs.")
    offset = function.returns[0] if at_return and function.returns else 0
    return CopyAttachment(
        number=number,
        slot=used[_budget(mechanism)],
        site=site,
        mechanism=mechanism,
        kind=kind,
        address=function.address + offset,
        length=_expression(length, context, kernel),
        source=_address(site.source, context),
        destination=_address(site.destination, context),
        skb=_address(site.skb, context),
        size=function.size,
        exact=at_return or mechanism not in site.mechanisms[1:],
        note="; ".join(reasons),
    )


def _expression(length: Length, context: str, kernel: KernelFacts) -> str:
    """C, over the handler's context, for the number of bytes."""
    if isinstance(length, Register):
        cast = "(u32)" if length.bits == 32 else ""
        return f"{cast}{context}{length.name}"
    if isinstance(length, Where):
        return f"((u8){context}{length.condition} ? (u32){context}{length.name} : 0)"
    if isinstance(length, Within):
        offset, many = (f"{context}{name}" for name in (length.offset, length.length))
        return f"within({context}{length.skb}, {offset}, {many})"
    offset = str(kernel.members[f"{length.structure}.{length.member}"])
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
    copies: Sequence[CopyAttachment],
    event_sites: Sequence[EventSite],
    events: Iterable[EventAttachment],
    kernel: KernelFacts,
) -> dict[str, str]:
    parameters = _kernel_parameters(kernel)
    for copy in copies:
        if copy.mechanism in AT_ENTRY:
            name = f"{copy.mechanism.name}_{copy.slot}"
            assert copy.site.direction is not None
            direction = DIRECTION_NUMBERS[copy.site.direction]
            values = [str(direction), copy.skb, f"{copy.address:#x}ULL", str(copy.size)]
        else:
            name = f"BREAKPOINT_{copy.slot}"
            values = [copy.source, copy.destination]
        parameters[name] = ", ".join((str(copy.number), copy.length, *values))
    # The routine under user copies: the one whose direction the addresses tell.
    routines = [c.number for c in copies if c.site.direction is None]
    parameters["ROUTINE_SITE"] = str(routines[0] if routines else -1)
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


def _kernel_parameters(kernel: KernelFacts) -> dict[str, str]:
    """Where the meter finds things in the kernel's structures; 0 what is not known.

    What needs something unknown is not attached; it is compiled all the same.
    """
    offset, size, mask = _iterator_type(kernel) or (0, 1, 0xFF)
    user = [kernel.iterators[n] for n in ("ITER_UBUF", "ITER_IOVEC") if n in kernel.iterators]
    parameters = {
        "ITER_TYPE_OFFSET": str(offset),
        "ITER_TYPE_BYTES": str(size),
        "ITER_TYPE_MASK": f"{mask:#x}U",
        "IS_USER_ITER(kind)": "(" + (" || ".join(f"(kind) == {n}" for n in user) or "1") + ")",
    }
    for kind in ("DISCARD", "PIPE"):
        number = kernel.iterators.get(f"ITER_{kind}")
        parameters[f"IS_{kind}_ITER(kind)"] = "0" if number is None else f"((kind) == {number})"
    for parameter, member in (
        ("TASK_MM", "task_struct.mm"),
        ("SKB_LEN", "sk_buff.len"),
        ("SKB_HEAD", "sk_buff.head"),
        ("SKB_END", "sk_buff.end"),
        ("SKB_DATA", "sk_buff.data"),
        ("SKB_SOCK", "sk_buff.sk"),
        ("SKB_DEVICE", "sk_buff.dev"),
        ("SHINFO_DESTRUCTOR_ARG", "skb_shared_info.destructor_arg"),
        ("SOCK_NET", "sock_common.skc_net"),
        ("DEVICE_NET", "net_device.nd_net"),
        ("DEVICE_NUMBER", "net_device.ifindex"),
        ("DEVICE_NAME", "kobject.name"),
        ("SCATTER_LENGTH", "scatterlist.length"),
    ):
        parameters[parameter] = str(kernel.members.get(member, 0))
    flags, bit = _zerocopy_flag(kernel)
    parameters["SHINFO_FLAGS"], parameters["SHINFO_ZEROCOPY"] = str(flags), f"{bit:#x}U"
    for parameter, members in FLOW_MEMBERS.items():
        parameters[parameter] = str(sum(kernel.members.get(member, 0) for member in members))
    # The size of a structure is not asked for; its last member ends where it does.
    last = max(
        kernel.members.get(f"scatterlist.{m}", 0) for m in ("dma_length", "dma_flags", "length")
    )
    parameters["SCATTER_BYTES"] = str((last + 4 + 7) // 8 * 8)
    parameters["NET_INODE"] = str(
        kernel.members.get("net.ns", 0) + kernel.members.get("ns_common.inum", 0)
    )
    (merge,) = (hook.function for hook in hooks.HOOKS if hook.quantity == hooks.MERGE)
    function = kernel.functions.get(merge)
    parameters["MERGE_START"] = f"{function.address if function else 0:#x}ULL"
    parameters["MERGE_SIZE"] = str(function.size if function else 0)
    return parameters
