"""Why a statement about copies has to be left open: what was not seen, or not explained."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from zctrace.analysis import controls, routine
from zctrace.evidence.schema import LEFT, UNWATCHED, Evidence, Run, losses
from zctrace.evidence.sites import Site
from zctrace.probes.model import Direction, Kind, Mechanism, Path, Purpose, Quantity

_METADATA_BYTES = 256
"""More than any system call here copies in addition to payload and metadata."""


def failed_controls(failed: list[controls.Control], figures: str) -> list[str]:
    return [f"self-test failed: {c.name}: {c.detail}" for c in failed if c.figures == figures]


def unseen(evidence: Evidence, run: Run, paths: frozenset[Path]) -> Iterable[str]:
    """Where bytes could have been copied without being counted for certain."""
    for blind in evidence.blind:
        if blind.kind is Kind.COPY and paths & blind.paths:
            yield f"not covered: {' or '.join(blind.functions)} ({blind.reason})"
    controlled = {moved.quantity for moved in run.expected.moved}
    if run.user_copies_from is not None and Quantity.USER_MEMORY not in controlled:
        yield "no self-test: no known bytes were copied within the program's own memory"
    for site in evidence.sites_of(Kind.COPY):
        if site.purpose is Purpose.METADATA or not paths & site.paths:
            continue
        if not site.exact:
            yield f"inexact: {site.function} {_short_of(site)} ({site.note})"
        if site.quantity not in controlled:
            yield f"no self-test: no known bytes pass through {site.function}"
    yield from (f"not covered: {what}" for what in unreached(evidence, paths))


def unreached(evidence: Evidence, paths: frozenset[Path] | None = None) -> Iterator[str]:
    """Callers of functions that copy payload which are not probed, and what nothing else sees.

    Of functions on ``paths`` alone, if there are any given. The processor's routine sees all
    copies of user memory, a function's breakpoint all of that function's.
    """
    checks = evidence.sites_of(Kind.CROSS_CHECK)
    routine = any(check.direction is None for check in checks)
    checked = {check.function for check in checks}
    for site in evidence.sites_of(Kind.COPY):
        if site.purpose is not Purpose.PAYLOAD or not site.unreached:
            continue
        within = site.direction is Direction.KERNEL_TO_KERNEL
        seen_otherwise = (routine and not within) or site.breakpoint in checked
        if not seen_otherwise and (paths is None or paths & site.paths):
            callers = ", ".join(site.unreached)
            yield f"{site.function} from {callers} (the call site is not probed)"


def _short_of(site: Site) -> str:
    """What a mechanism that is not the best of a site does not see."""
    if site.mechanism is Mechanism.KPROBE:
        return "is skipped in some interrupts"
    return "shows the bytes requested, not the bytes copied"


def unexplained(
    copies: dict[str, int], events: dict[str, int], run: Run, outside: int
) -> Iterable[str]:
    """Bytes that somebody copied, and that no copy site accounts for."""
    if outside:
        yield (
            f"unattributed: during the transfer {outside} B were copied inside the kernel in "
            "another thread's context; they may belong to it"
        )
    other = copies.get("other_user_bytes", 0)
    if other < 0:
        yield (
            f"contradiction: the processor's copy routine copied {-other} B less user memory "
            "than the copy sites counted"
        )
    if other and (
        other >= run.payload_bytes or other > _METADATA_BYTES * events.get("syscalls", 0)
    ):
        yield (
            f"contradiction: the processor's copy routine copied {other} B more than the copy "
            "sites counted, so much that it may be payload"
        )


def uncounted(evidence: Evidence, run: Run) -> Iterator[str]:
    """What of a traced program is known not to have been counted, or not for certain."""
    lost = losses(run.lost)
    if lost.pop(LEFT, 0):
        yield (
            "part of the program ran in another cgroup (systemd-run, a container): its copies "
            "there are not counted"
        )
    if lost.pop(UNWATCHED, 0):
        yield (
            "a CPU went offline or online (hotplug, suspend): what the program copied on it "
            "after that is not counted"
        )
    if lost:
        causes = ", ".join(f"{cause} {many}" for cause, many in lost.items())
        yield f"figures are lower bounds: {sum(lost.values())} events were lost ({causes})"
    if short := routine.cut_short(evidence, run):
        yield (
            f"the copy routine was asked for {short} B more than its callers report as copied: "
            "some copies failed halfway, or were missed"
        )
    if unarmed := [name for name, hits in run.hits.items() if hits.multiplexed]:
        yield (
            f"the breakpoint on {' and '.join(unarmed)} was not armed all the time: a CPU had "
            "no free debug register"
        )
    missed = {
        name: hits for name, hits in run.hits.items() if not (hits.agree or hits.multiplexed)
    }
    if missed:
        yield "figures are lower bounds: executions were missed of " + ", ".join(
            f"{name} ({hits.program} of {hits.perf} counted)" for name, hits in missed.items()
        )
