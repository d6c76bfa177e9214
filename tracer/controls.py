"""Whether a run's numbers may be believed: known amounts in, the same amounts out.

Pure functions of evidence. A control that fails does not make a number wrong, it makes
it worthless, and the reports treat it so.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import Any

from probes.site import Direction, Kind
from tracer.evidence import Evidence, Run

COPIES, SWITCHES, FAULTS, CONTEXT = "copies", "switches", "page faults", "context switches"

_STIMULUS_SYSCALLS = {"write": 4, "read": 2, "sendto": 3}
"""System calls that the known amounts are moved with; see workloads/exercise.py."""
_LOSSES = {
    "syscall": (COPIES,),
    "cpus": (COPIES,),
    "on_breakpoint": (COPIES,),
    "on_kprobe": (COPIES,),
    "on_sys_": (SWITCHES,),
    "on_page_fault": (FAULTS,),
    "on_sched_switch": (CONTEXT,),
}
"""By the beginning of a cause's name. Without its system call a copy's direction may be
wrong; without a window nothing is right."""
_POSITIVE = ("control_before", "control_after")


@dataclass(frozen=True)
class Control:
    """One comparison. ``figures`` says what it vouches for: copies, switches, page faults
    or context switches.

    ``detail`` tells what was compared, in numbers.
    """

    name: str
    figures: str
    passed: bool
    detail: str


def check(evidence: Evidence, run: Run) -> list[Control]:
    """Every control of one run, passed or not."""
    return [
        *_positive(evidence, run),
        _idle(evidence, run),
        *_routine(evidence, run),
        *_breakpoints(run),
        *_losses(run),
        *_switches(evidence, run),
        Control(
            "delivery",
            COPIES,
            run.received_bytes == run.payload_bytes,
            f"{run.received_bytes} of {run.payload_bytes} B arrived",
        ),
    ]


def sites_of(evidence: Evidence, kind: Kind) -> list[dict[str, Any]]:
    return [site for site in evidence.sites if site["kind"] == kind.value]


def _bytes(run: Run, role: str) -> Counter[str]:
    """Bytes by quantity."""
    total: Counter[str] = Counter()
    for count in run.counts:
        if count.role == role:
            total[count.quantity] += count.bytes
    return total


def _positive(evidence: Evidence, run: Run) -> list[Control]:
    controls = []
    for site in sites_of(evidence, Kind.COPY):
        quantity, function = str(site["quantity"]), str(site["function"])
        expected = run.expected.get(quantity)
        if expected is None:
            continue  # no stimulus drives it; only strategies on its paths would need one
        for role in _POSITIVE:
            seen = _bytes(run, role)[quantity]
            # A deferred copy may land on top of another thread; it is counted all the same.
            elsewhere = _bytes(run, f"outside:{role}")[quantity]
            controls.append(
                Control(
                    f"known bytes through {function}, {role}",
                    COPIES,
                    seen <= expected <= seen + elsewhere,
                    f"expected {expected} B, seen {seen} B"
                    + (f" and {elsewhere} B in another context" if elsewhere else ""),
                )
            )
    return controls


def _idle(evidence: Evidence, run: Run) -> Control:
    idle, neighbour = _bytes(run, "control_idle"), _bytes(run, "neighbour")
    sites = sites_of(evidence, Kind.COPY)
    strays = {str(s["function"]): n for s in sites if (n := idle[str(s["quantity"])])}
    watched = {str(s["quantity"]) for s in sites}
    expected = {name: size for name, size in run.neighbour.items() if name in watched}
    seen = {name: neighbour[name] for name in expected}
    return Control(
        "a neighbour's copies stay out",
        COPIES,
        not strays and seen == expected,
        f"a neighbour copied {sum(expected.values())} B, seen {sum(seen.values())} B; "
        f"in the window of an idle thread {strays or 'nothing'}",
    )


def _routine(evidence: Evidence, run: Run) -> list[Control]:
    """The processor's copy routine against the sites above it, where both are known.

    Only the controls' windows: there every user copy is one of an iterator.
    """
    controls = []
    directions = {str(s["quantity"]): s["direction"] for s in sites_of(evidence, Kind.COPY)}
    for site in sites_of(evidence, Kind.CROSS_CHECK):
        for direction in (Direction.USER_TO_KERNEL, Direction.KERNEL_TO_USER):
            expected = sum(
                size
                for quantity, size in run.expected.items()
                if directions.get(quantity) == direction.value
            )
            for role in ("control_before", "control_after"):
                seen = sum(
                    c.bytes
                    for c in run.counts
                    if c.role == role
                    and c.quantity == site["quantity"]
                    and c.direction == direction.value
                )
                controls.append(
                    Control(
                        f"{site['function']} agrees, {direction.value}, {role}",
                        COPIES,
                        seen == expected,
                        f"expected {expected} B, seen {seen} B",
                    )
                )
    return controls


def _breakpoints(run: Run) -> list[Control]:
    return [
        Control(
            f"breakpoint on {function}",
            COPIES,
            hits.program == hits.perf and not hits.multiplexed,
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
    for beginning, figures in _LOSSES.items():
        if cause.startswith(beginning):
            return figures
    return (COPIES, SWITCHES, FAULTS, CONTEXT)


def _switches(evidence: Evidence, run: Run) -> list[Control]:
    if not {"syscall-enter", "syscall-exit"} <= set(evidence.events):
        return []
    calls: Counter[tuple[str, str, str | None]] = Counter()
    for count in run.counts:
        calls[count.role, count.quantity, count.syscall] += count.calls
    controls = []
    if run.expected:
        for role in _POSITIVE:
            for quantity in ("syscall-enter", "syscall-exit"):
                seen = {
                    syscall: calls[role, quantity, syscall]
                    for r, q, syscall in calls
                    if (r, q) == (role, quantity)
                }
                controls.append(
                    Control(
                        f"known system calls, {quantity}, {role}",
                        SWITCHES,
                        seen == _STIMULUS_SYSCALLS,
                        f"expected {_STIMULUS_SYSCALLS}, seen {seen}",
                    )
                )
    enters = sum(n for (r, q, _), n in calls.items() if (r, q) == ("sender", "syscall-enter"))
    exits = sum(n for (r, q, _), n in calls.items() if (r, q) == ("sender", "syscall-exit"))
    controls.append(
        Control(
            "as many exits as entries, and some",
            SWITCHES,
            0 < enters == exits,
            f"{enters} entries, {exits} exits",
        )
    )
    return controls
