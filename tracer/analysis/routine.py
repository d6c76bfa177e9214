"""The processor's copy routine and the functions that call it, watched by a breakpoint each.

Of a traced program these are the two mechanisms: what a function copied of user memory, by what
it returned, is what the routine was called for from inside it. Less is what failed halfway.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

from zctrace.evidence.schema import Evidence, Run
from zctrace.probes.model import Direction, Kind, Mechanism
from zctrace.workloads.marker import RoleName

_OF_USER_MEMORY = (Direction.USER_TO_KERNEL, Direction.KERNEL_TO_USER)


def compared(evidence: Evidence, run: Run) -> dict[str, dict[RoleName, tuple[int, int]]]:
    """By function and role: bytes by its return, and by the routine; none without a routine."""
    routines = {s.function for s in evidence.sites_of(Kind.CROSS_CHECK) if s.direction is None}
    functions = {
        site.function
        for site in evidence.sites_of(Kind.COPY)
        if site.mechanism is Mechanism.BREAKPOINT_RETURN
    }
    if not routines or not functions:
        return {}
    at_return: Counter[tuple[str, RoleName]] = Counter()
    at_routine: Counter[tuple[str, RoleName]] = Counter()
    for count in run.counts:
        inside = (count.caller or "").partition("+")[0]
        if count.function in routines and inside in functions:
            at_routine[inside, count.role] += count.bytes
        elif count.function in functions and count.direction in _OF_USER_MEMORY:
            at_return[count.function, count.role] += count.bytes
    return {
        function: {
            role: (at_return[function, role], at_routine[function, role])
            for name, role in sorted({*at_return, *at_routine})
            if name == function
        }
        for function in sorted(functions)
    }


def agreements(evidence: Evidence, run: Run) -> Iterator[tuple[str, bool, str]]:
    """Of each function: a control, whether it holds, in numbers. A copy may fail halfway."""
    for function, sums in compared(evidence, run).items():
        differing = [
            f"{role}: {at_return} B by its return, {at_routine} B by the copy routine"
            for role, (at_return, at_routine) in sums.items()
            if at_return > at_routine or (at_return < at_routine and role != RoleName.PROGRAM)
        ]
        total = sum(at_return for at_return, _ in sums.values())
        yield (
            f"two breakpoints agree on {function}",
            not differing,
            "; ".join(differing) or f"{total} B by both",
        )


def cut_short(evidence: Evidence, run: Run) -> int:
    """Bytes of the program's copies that were begun, and that no return was seen for."""
    sums = (of.get(RoleName.PROGRAM, (0, 0)) for of in compared(evidence, run).values())
    return sum(max(at_routine - at_return, 0) for at_return, at_routine in sums)
