"""Whether a run's numbers may be believed: known amounts in, the same amounts out.

Pure functions of evidence. A control that fails does not make a number wrong, it makes
it worthless, and the reports treat it so.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

from zctrace.analysis import counted, own_word, routine
from zctrace.evidence.schema import INTERRUPTS, Evidence, Run
from zctrace.probes.model import Direction, Kind, Mechanism, Quantity
from zctrace.workloads.known import Known, Moved
from zctrace.workloads.marker import RoleName

COPIES, SWITCHES, FAULTS, CONTEXT = "copies", "switches", "page faults", "context switches"
DMA = "DMA"
_MAPPED = ("page", "address", "list")

_DEPEND = {
    (COPIES,): (
        "syscall", "cpus", "call", "part", "on_breakpoint", "on_fentry", "on_kprobe",
        "on_call", "on_return", "on_zerocopy", "on_merge", "on_backlog", "on_fexit",
        "on_bounced", "on_user_copy", "on_tap", "on_fentry_tap", "on_fexit_tap",
    ),
    (COPIES, DMA): ("owner", "on_socket", "on_spliced", "on_fentry_socket"),
    (DMA,): (
        "request", "mapping", "on_request", "on_transmit",
        *(f"{on}_{what}_mapped" for on in ("on", "on_fentry") for what in _MAPPED),
    ),
    (SWITCHES,): ("on_sys_",),
    (FAULTS,): ("on_page_fault",),
    (CONTEXT,): ("on_sched_switch",),
    (): (INTERRUPTS,),
    (COPIES, SWITCHES, FAULTS, CONTEXT, DMA): ("",),
}  # fmt: skip
_LOSSES = {cause: figures for figures, causes in _DEPEND.items() for cause in causes}
"""By the beginning of a cause's name, the longest that fits. Without its system call a copy's
direction may be wrong; without a window nothing is right."""
DISK_READ_CONTROL = Moved(Quantity.DISK_READ, Direction.DEVICE_TO_KERNEL)
"""The control's bytes from the disk; see ``zctrace.workloads.control_stimuli``."""
_POSITIVE = (RoleName.CONTROL_BEFORE, RoleName.CONTROL_AFTER)
_CALLS = (Quantity.SYSCALL_ENTER, Quantity.SYSCALL_EXIT)


@dataclass(frozen=True)
class Control:
    """One comparison. ``figures`` says which figures it checks: copies, switches, page
    faults, context switches or DMA.

    ``detail`` tells what was compared, in numbers.
    """

    name: str
    figures: str
    passed: bool
    detail: str


def check(evidence: Evidence, run: Run) -> list[Control]:
    """Every control of one run, passed or not; none of one that was not possible."""
    if run.unavailable:
        return []
    return [
        *_positive(evidence, run),
        _idle(evidence, run),
        _placed(evidence, run),
        *_agreement(evidence, run),
        *_routine(evidence, run),
        *_breakpoints(run),
        *_losses(run),
        *_switches(evidence, run),
        *_own_word(evidence, run),
        *_devices(evidence, run),
        Control(
            "delivery",
            COPIES,
            run.received_bytes == run.payload_bytes,
            f"{run.received_bytes} of {run.payload_bytes} B arrived",
        ),
    ]


def check_program(evidence: Evidence, run: Run) -> list[Control]:
    """The self-tests around a traced program.

    Events that were lost while the program ran fail no self-test, because the program cannot
    be run again. They make the figures lower bounds, and the answer says so.
    """
    return [
        *_positive(evidence, run),
        _idle(evidence, run),
        _placed(evidence, run),
        *_agreement(evidence, run),
        *_routine(evidence, run),
        *_inside_routine(evidence, run),
        *_known_calls(evidence, run),
    ]


def _bytes(
    evidence: Evidence, run: Run, role: RoleName, *, captured: bool = False
) -> Counter[Moved]:
    """Bytes that add up; ``captured`` ones apart, which a packet capture had copied besides."""
    total: Counter[Moved] = Counter()
    for count in run.counts:
        site = evidence.site_of(count)
        if count.role != role or count.was_captured != captured:
            continue
        if site and site.kind is Kind.COPY:
            way = counted.direction_of(count.direction, site.direction, count.syscall)
            total[Moved(count.quantity, way)] += count.bytes
    return total


def _expected(evidence: Evidence, known: Known) -> dict[Moved, int]:
    """Those of the known amounts that something counts on this kernel."""
    watched = {site.quantity for site in evidence.sites_of(Kind.COPY)}
    return {moved: size for moved, size in known.moved.items() if moved.quantity in watched}


def _positive(evidence: Evidence, run: Run) -> list[Control]:
    controls = []
    for role in _POSITIVE:
        seen, elsewhere = (_bytes(evidence, run, r) for r in (role, role.outside))
        for moved, expected in _expected(evidence, run.expected).items():
            # A deferred copy may land on top of another thread; it is counted there, too.
            here, there = seen[moved], elsewhere[moved]
            controls.append(
                Control(
                    f"known bytes, {moved}, {role}",
                    COPIES,
                    here <= expected <= here + there,
                    f"expected {expected} B, seen {here} B"
                    + (f" and {there} B in another context" if there else ""),
                )
            )
    return controls


def _idle(evidence: Evidence, run: Run) -> Control:
    idle = _bytes(evidence, run, RoleName.CONTROL_IDLE)
    neighbour = _bytes(evidence, run, RoleName.NEIGHBOUR)
    strays = {str(moved): size for moved, size in idle.items() if size}
    expected = _expected(evidence, run.neighbour)
    seen = {moved: neighbour[moved] for moved in expected}
    return Control(
        "a neighbour's copies stay out",
        COPIES,
        not strays and seen == expected,
        f"a neighbour copied {sum(expected.values())} B, seen {sum(seen.values())} B; "
        f"in the window of an idle thread {strays or 'nothing'}",
    )


def _placed(evidence: Evidence, run: Run) -> Control:
    """What is counted at no site of the evidence's is in no figure."""
    strays = counted.at_no_site(evidence, run)
    seen = ", ".join(f"{size} B at {where}" for where, size in strays.items()) or "nothing"
    return Control("every copy is at a site", COPIES, not strays, f"at no site: {seen}")


def _agreement(evidence: Evidence, run: Run) -> list[Control]:
    """Call sites against the breakpoint that the same bytes pass, for every role."""
    controls = []
    for site in evidence.sites_of(Kind.CROSS_CHECK):
        function = site.function
        targets = {
            s.function
            for s in evidence.sites_of(Kind.COPY)
            if s.breakpoint == function and s.mechanism is Mechanism.CALL_SITE
        }
        if not targets or not site.exact:
            continue
        # Calls in modules that came too late are not counted there, which is said.
        late = any(b.modules and targets & set(b.functions) for b in evidence.blind)
        # On 5.10 functions that copy pages by themselves leave kernel memory to another.
        others = {
            s.function
            for s in evidence.sites_of(Kind.COPY)
            if s.quantity == site.quantity and not s.breakpoint
        }
        at_calls: Counter[tuple[RoleName, bool]] = Counter()
        at_breakpoint: Counter[tuple[RoleName, bool]] = Counter()
        inside_others: Counter[tuple[RoleName, bool]] = Counter()
        for count in run.counts:
            where = (count.role, count.syscall is not None)
            if count.mechanism is Mechanism.CALL_SITE and count.function in targets:
                at_calls[where] += count.bytes
            elif (count.function, count.mechanism) == (function, site.mechanism):
                at_breakpoint[where] += count.bytes
            elif count.function in others and count.direction is Direction.KERNEL_TO_KERNEL:
                inside_others[where] += count.bytes
        fewer = {where for where in at_breakpoint if at_calls[where] < at_breakpoint[where]}
        differing = [
            f"{role}: {at_calls[role, inside]} B at call sites, "
            f"{at_breakpoint[role, inside]} B at the breakpoint"
            for role, inside in sorted({*at_calls, *at_breakpoint})
            if at_breakpoint[role, inside] - at_calls[role, inside]
            not in (0, inside_others[role, inside])
            # Kernel threads that work on the program's memory, outside of any system call
            # and of the cgroup: a breakpoint does not see them, the call sites do.
            and (inside or (role, inside) in fewer)
            and not (late and role not in _POSITIVE and (role, inside) in fewer)
            # Of a call that had begun before the tracing did, only its end may be seen.
            and (inside or role is not RoleName.PROGRAM)
        ]
        controls.append(
            Control(
                f"two mechanisms agree on {function}",
                COPIES,
                not differing,
                "; ".join(differing)
                or f"{sum(at_calls.values())} B at call sites, "
                f"{sum(at_breakpoint.values())} B at the breakpoint",
            )
        )
    return controls


def _routine(evidence: Evidence, run: Run) -> list[Control]:
    """The processor's copy routine against the sites above it, where both are known.

    Only the controls' windows: there every user copy is one of an iterator.
    """
    controls = []
    routines = [s for s in evidence.sites_of(Kind.CROSS_CHECK) if s.direction is None]
    for site in routines:
        for direction in (Direction.USER_TO_KERNEL, Direction.KERNEL_TO_USER):
            expected = sum(
                size
                for moved, size in run.expected.moved.items()
                if moved.direction is direction
            )
            for role in _POSITIVE:
                seen = sum(
                    c.bytes
                    for c in run.counts
                    if c.role == role
                    and c.quantity == site.quantity
                    and c.direction is direction
                )
                if direction is Direction.KERNEL_TO_USER:
                    seen -= counted.time_bytes(run, role)
                controls.append(
                    Control(
                        f"{site.function} agrees, {direction}, {role}",
                        COPIES,
                        seen == expected,
                        f"expected {expected} B, seen {seen} B",
                    )
                )
    return controls


def _inside_routine(evidence: Evidence, run: Run) -> list[Control]:
    """Two breakpoints against each other."""
    said = routine.agreements(evidence, run)
    return [Control(name, COPIES, passed, detail) for name, passed, detail in said]


def _own_word(evidence: Evidence, run: Run) -> list[Control]:
    """What the kernel tells the program of its transfer, against what was counted."""
    nic = evidence.nics.get(run.nic)
    said = own_word.compared(
        run,
        _bytes(evidence, run, run.role),
        _bytes(evidence, run, run.role, captured=True),
        gathers=nic is None or nic.scatter_gather,
    )
    return [Control(name, COPIES, passed, detail) for name, passed, detail in said]


def _breakpoints(run: Run) -> list[Control]:
    return [
        Control(
            f"every hit of {function}",
            COPIES,
            hits.agree,
            f"{hits.perf} hits by its own count, {hits.program} by the program's"
            + (", not armed all the time" if hits.multiplexed else ""),
        )
        for function, hits in run.hits.items()
        if hits.perf is not None
    ]


def _losses(run: Run) -> list[Control]:
    return [
        Control(f"nothing lost: {cause}", figures, count == 0, f"{count} events")
        for cause, count in run.lost.items()
        for figures in _vouched_for(cause)
    ]


def _vouched_for(cause: str) -> tuple[str, ...]:
    """The figures that a loss makes worthless; of every figure where in doubt."""
    return _LOSSES[max(filter(cause.startswith, _LOSSES), key=len)]


def _devices(evidence: Evidence, run: Run) -> list[Control]:
    """What the disk and the network device were seen moving, against what they must have."""
    controls = []
    left = run.account.resident_bytes
    if left is not None:
        controls.append(
            Control("the page cache is cold", DMA, not left, f"{left} B of the payload in it")
        )
    expected = run.expected.moved.get(DISK_READ_CONTROL)
    if expected and not evidence.disk_of(run).trouble:
        for role in _POSITIVE:
            here, there = (
                sum(
                    c.bytes
                    for c in run.counts
                    if c.role == r
                    and c.quantity in (Quantity.DISK_READ, Quantity.DISK_READ_OTHER)
                    # The file system's own, as it says itself.
                    and "M" not in (c.caller or "").rpartition(" ")[2]
                )
                for r in (role, role.outside)
            )
            controls.append(
                Control(
                    f"known bytes from the disk, {role}",
                    DMA,
                    here <= expected <= here + there,
                    f"expected {expected} B, seen {here} B"
                    + (f" and {there} B in another context" if there else ""),
                )
            )
    payload = Quantity.TRANSMIT_PAYLOAD
    again = run.account.retransmitted_bytes
    if again is not None and payload in evidence.events:
        sent, arrived = counted.transmitted(evidence, run, payload), run.arrived_bytes
        # Where packets went unseen, so may have copies of them.
        controls += [
            Control(
                "what arrived was transmitted",
                figures,
                arrived <= sent <= arrived + again,
                f"{sent} B transmitted, {arrived} B arrived, {again} B sent again",
            )
            for figures in (COPIES, DMA)
        ]
    return controls


def _switches(evidence: Evidence, run: Run) -> list[Control]:
    controls = _known_calls(evidence, run)
    if not _sees_calls(evidence):
        return []
    enters, exits = (
        sum(c.calls for c in run.counts if (c.role, c.quantity) == (run.role, quantity))
        for quantity in _CALLS
    )
    return [
        *controls,
        Control(
            "as many exits as entries, and some",
            SWITCHES,
            0 < enters == exits,
            f"{enters} entries, {exits} exits",
        ),
    ]


def _sees_calls(evidence: Evidence) -> bool:
    return set(_CALLS) <= set(evidence.events)


def _known_calls(evidence: Evidence, run: Run) -> list[Control]:
    """The system calls that the controls have made."""
    expected = run.expected.calls
    if not expected or not _sees_calls(evidence):
        return []
    controls = []
    for role in _POSITIVE:
        for quantity in _CALLS:
            seen: Counter[str | None] = Counter()
            for count in run.counts:
                if (count.role, count.quantity) == (role, quantity):
                    seen[count.syscall] += count.calls
            seen.pop(counted.TIME_CALL, None)  # a runtime's own, whenever it likes
            controls.append(
                Control(
                    f"known system calls, {quantity}, {role}",
                    SWITCHES,
                    dict(seen) == expected,
                    f"expected {expected}, seen {dict(seen)}",
                )
            )
    return controls
