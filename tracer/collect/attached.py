"""A meter, attached as planned for the running kernel: observe → plan → load → attach."""

from __future__ import annotations

import dataclasses
import itertools
import pathlib
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Any

from zctrace.collect import cgroups, obstacles
from zctrace.collect.describe import (
    OBSERVED,
    PROBES,
    Locator,
    Stopwatch,
    evidence_of,
)
from zctrace.collect.meter import Meter
from zctrace.errors import TraceError
from zctrace.evidence.schema import Evidence, Request
from zctrace.evidence.sites import Blind
from zctrace.kernel import facts as kernel
from zctrace.kernel import later
from zctrace.kernel.facts import KernelFacts
from zctrace.kernel.later import Loading
from zctrace.kernel.text import TextError
from zctrace.plan.attachments import AttachPlan, CallAttachment, Choice
from zctrace.plan.plan import plan, settled
from zctrace.probes.model import Catalogue, Kind, Path, Purpose, Quantity, plain

_CALLERS = 3
"""How many are named."""


@dataclass(frozen=True)
class Survey:
    """What a kernel offers, and what of the catalogue will be attached.

    ``loadings`` are the modules that were there when it was looked at, at the latest.
    """

    catalogue: Catalogue
    choice: Choice
    facts: KernelFacts
    plan: AttachPlan
    loadings: frozenset[Loading]

    def require(self, request: Request, more: Iterable[TraceError] = ()) -> None:
        """Raise :class:`TraceError` for the first thing without which nothing can be counted.

        Before ``more`` such things is what every measurement needs, of this kernel and now.
        """
        obstacles.require(
            itertools.chain(
                obstacles.of_plan(self.facts, self.plan, self.choice),
                more,
                obstacles.of_machine(
                    self.plan, request.run_id, own_machine=request.machine != "host"
                ),
            )
        )

    def renewed(self) -> tuple[Survey, tuple[CallAttachment, ...]]:
        """With what modules have brought that were loaded since; and that alone.

        Raises ``TextError`` where it cannot be looked at.
        """
        now = later.loadings()
        gone, new = self.loadings - now, now - self.loadings
        if self.facts.text or not gone | new:
            return self, ()
        facts = later.look_again(self.catalogue, self.facts, gone, new)
        before, planned = (plan(self.catalogue, f, self.choice) for f in (self.facts, facts))
        others = (blind for blind in self.plan.blind if blind not in before.blind)
        blind = (*planned.blind, *others)
        whole = dataclasses.replace(self.plan, calls=planned.calls, blind=blind)
        modules = {loading.name for loading in new}
        added = (attachment.within(modules) for attachment in planned.calls)
        return (
            dataclasses.replace(self, facts=facts, plan=whole, loadings=now),
            tuple(one for one in added if one.calls or one.unreached),
        )

    def unseen(self, loaded: Iterable[str] = (), *, own_machine: bool) -> Iterator[Blind]:
        """What modules copy that were loaded since, and that is not counted.

        ``loaded`` are names of modules that were, whether or not they are still there.
        """
        if self.facts.text:
            return  # said elsewhere
        try:
            found, added = self.renewed()
        except TextError as error:
            reason = f"modules were loaded that cannot be searched: {error}"
            yield Blind(Quantity.MEMORY_COPY, ("memcpy",), reason, frozenset(Path), Kind.COPY)
            return
        for attachment in added:
            yield uncounted(attachment, own_machine=own_machine)
        # What is said of these modules also where they were there from the beginning.
        yield from (blind for blind in found.plan.blind if blind not in self.plan.blind)
        for name in sorted(set(loaded) - {loading.name for loading in found.loadings}):
            remedy = f"--module {name}" if own_machine else f"modprobe {name}, before"
            reason = (
                "it was loaded after the probes were attached, and has gone again: what it "
                f"copied is not known. To count it: {remedy}"
            )
            what, paths = (f"module {name}",), frozenset(Path)
            yield Blind(Quantity.MEMORY_COPY, what, reason, paths, Kind.COPY, (name,))


def uncounted(attachment: CallAttachment, *, own_machine: bool) -> Blind:
    """Calls that are all in modules that were loaded too late."""
    target, calls = attachment.target, (*attachment.calls, *attachment.unreached)
    modules = sorted({call.module for call in calls})
    callers = sorted({plain(call.caller) for call in calls})
    more = f" and {len(callers) - _CALLERS} more" if len(callers) > _CALLERS else ""
    loaded = f"modules {', '.join(modules)} were" if modules[1:] else f"module {modules[0]} was"
    options = " ".join(f"--module {name}" for name in modules)
    return Blind(
        target.quantity,
        (target.function,),
        f"{loaded} loaded after the probes were attached: calls from "
        f"{', '.join(callers[:_CALLERS])}{more} are not counted. To count them: "
        + (options if own_machine else "measure again, now that it is loaded"),
        target.paths,
        Kind.COPY if target.purpose is Purpose.PAYLOAD else Kind.EVENT,
        tuple(modules),
    )


def survey(
    catalogue: Catalogue, request: Request, watch: Stopwatch, *, sparing: bool = False
) -> Survey:
    """Look at the running kernel, and plan; ``sparing`` is for what is left running.

    Raises :class:`TraceError` where it would run no probe.
    """
    obstacles.require(obstacles.switched_off())
    choice, there = Choice(request.mechanism), later.loadings()
    with watch.phase("observe", "looking at the kernel"):
        facts = kernel.observe(catalogue, OBSERVED)
    with watch.phase("plan", "planning the probes"):
        if sparing:
            choice = settled(catalogue, facts, choice)
        return Survey(catalogue, choice, facts, plan(catalogue, facts, choice), there)


@dataclass
class Instrument:
    """A meter, the cgroup that its controls run in, and what both are made of."""

    meter: Meter
    cgroup: pathlib.Path
    survey: Survey
    bcc_version: str

    def renew(self) -> None:
        """Attach what modules have brought that were loaded since; not while it counts."""
        with suppress(TextError):  # said in the evidence
            found, added = self.survey.renewed()
            if found is not self.survey:
                self.survey = found
                self.meter.extend(found.plan, added)

    def evidence(self, request: Request, watch: Stopwatch, **found: Any) -> Evidence:
        """What is to be said of what was ``found``, as :func:`evidence_of` takes it."""
        said = evidence_of(
            request,
            self.survey.facts,
            self.survey.plan,
            self.meter.refused,
            watch,
            self.bcc_version,
            **found,
        )
        late = self.survey.unseen(
            self.meter.modules_loaded(), own_machine=request.machine != "host"
        )
        return dataclasses.replace(said, blind=(*said.blind, *late))


@contextmanager
def attached(
    request: Request, found: Survey, watch: Stopwatch, **options: Any
) -> Iterator[Instrument]:
    """An instrument, with further ``options`` of its meter; raises ``ZctraceError``."""
    own_machine = request.machine != "host"
    with (
        cgroups.cgroup(request.run_id, own_machine=own_machine) as cgroup,
        Meter(found.plan, request.nonce, request.sabotage, Locator(), **options) as meter,
    ):
        with watch.phase("compile", "compiling the probes"):
            meter.load(PROBES, OBSERVED)
        with watch.phase("attach", "attaching the probes"):
            meter.attach(cgroup)
        yield Instrument(meter, cgroup, found, meter.bcc_version)
        if own_machine:
            # The machine ends now, and its probes with it; taking back hundreds of them one
            # by one takes longer than the runs did.
            meter.abandon()
