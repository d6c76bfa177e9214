"""A meter, attached as planned for the running kernel: observe → plan → load → attach."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from zctrace.collect import cgroups
from zctrace.collect.describe import (
    OBSERVED,
    PROBES,
    Locator,
    Stopwatch,
    evidence_of,
    import_attach,
)
from zctrace.evidence.schema import Evidence, Request
from zctrace.kernel import facts as kernel
from zctrace.plan.attachments import AttachPlan, Choice
from zctrace.plan.plan import plan
from zctrace.probes.model import Catalogue


def survey(
    catalogue: Catalogue, request: Request, watch: Stopwatch
) -> tuple[kernel.KernelFacts, AttachPlan]:
    """What this kernel offers, and what of the catalogue will be attached."""
    with watch.phase("observe", "looking at the kernel"):
        facts = kernel.observe(catalogue, OBSERVED)
    with watch.phase("plan", "planning the probes"):
        return facts, plan(catalogue, facts, Choice(request.mechanism))


@dataclass(frozen=True)
class Instrument:
    """A meter, the cgroup that its controls run in, and what both are made of."""

    meter: Any
    cgroup: Path
    facts: kernel.KernelFacts
    plan: AttachPlan
    bcc_version: str

    def evidence(self, request: Request, watch: Stopwatch, **found: Any) -> Evidence:
        """What is to be said of what was ``found``, as :func:`evidence_of` takes it."""
        return evidence_of(
            request,
            self.facts,
            self.plan,
            self.meter.refused,
            watch,
            self.bcc_version,
            **found,
        )


@contextmanager
def attached(
    request: Request,
    facts: kernel.KernelFacts,
    attach_plan: AttachPlan,
    watch: Stopwatch,
    **options: Any,
) -> Iterator[Instrument]:
    """An instrument, with further ``options`` of its meter; raises ``ZctraceError``."""
    with watch.phase("import", "loading BCC"):
        attach = import_attach()
    own_machine = request.machine != "host"
    with (
        cgroups.cgroup(request.run_id, own_machine=own_machine) as cgroup,
        attach.Meter(
            attach_plan, request.nonce, request.sabotage, Locator(), **options
        ) as meter,
    ):
        with watch.phase("compile", "compiling the probes"):
            meter.load(PROBES)
        with watch.phase("attach", "attaching the probes"):
            meter.attach(cgroup)
        yield Instrument(meter, cgroup, facts, attach_plan, attach.BCC_VERSION)
        if own_machine:
            # The machine ends now, and its probes with it; taking back hundreds of them one
            # by one takes longer than the runs did.
            meter.abandon()
