"""Where a kernel is measured: this host, or a virtual machine."""

from __future__ import annotations

import os
import subprocess
from dataclasses import dataclass

from zctrace import packages
from zctrace.collect import obstacles
from zctrace.errors import KernelError, MissingError, TraceError, UsageError
from zctrace.kernel import facts as kernel
from zctrace.machine import kernels, observations, qemu
from zctrace.notices import Say
from zctrace.plan.attachments import Choice
from zctrace.plan.plan import plan
from zctrace.probes.catalogue import CATALOGUE, EVENT_SITES
from zctrace.probes.model import Kind
from zctrace.probes.model import Path as DataPath

AUTO, HOST = "auto", "host"
ARCHITECTURE = "x86_64"
COMPILER = "bcc"
MODULES = (COMPILER, "capstone")
"""What collecting imports in addition to the standard library."""


@dataclass(frozen=True)
class Place:
    """A kernel to measure: the host's own, where ``kernel`` is ``None``.

    ``instead`` says why it is not the host's although that was the first choice. A virtual
    machine has so many ``processors``.
    """

    kernel: kernels.Kernel | None
    instead: str = ""
    processors: int = 1


def find_place(
    name: str, say: Say, choice: Choice = Choice.AUTO, processors: int | None = None
) -> Place:
    """The place that ``--kernel name`` means. Needs root; may fetch a kernel.

    Raises ``UsageError`` for a number of ``processors`` where it is this machine's own.
    """
    reasons = why_not_host(choice=choice) if name == AUTO else []
    if name == HOST or (name == AUTO and not reasons):
        require_own_processors(processors)
        return Place(None)
    kernel = kernels.stock(say) if name == AUTO else kernels.resolve(name, say)
    return Place(kernel, "; ".join(reasons), processors or 1)


def require_own_processors(wanted: int | None) -> None:
    """Raise ``UsageError`` where this machine is to have another number."""
    if wanted is not None:
        raise UsageError(
            f"--cpus {wanted} cannot be used with this machine's own kernel",
            "--cpus sets the number of CPUs of a virtual machine",
            "--kernel 6.1 for a virtual machine; or leave --cpus out",
        )


def why_not_host(
    facts: kernel.KernelFacts | None = None, choice: Choice = Choice.AUTO
) -> list[str]:
    """Why this machine's own kernel cannot be measured; empty where it can."""
    return [reason(error) for error in host_obstacles(facts, choice)]


def reason(error: TraceError) -> str:
    """What happened and why, in one."""
    return ": ".join(filter(None, (error.what, error.why)))


def host_obstacles(
    facts: kernel.KernelFacts | None = None, choice: Choice = Choice.AUTO
) -> list[TraceError]:
    """The same, with what to do about each.

    All that the collector asks before it begins, and what it would say of its figures.
    ``facts`` about the kernel, where they are known already; otherwise it is asked.
    """
    if found := [*obstacles.switched_off()]:
        return found
    facts = facts or kernel.observe(CATALOGUE, observations.home(None))
    attach_plan = plan(CATALOGUE, facts, choice)
    found = [
        *obstacles.of_plan(facts, attach_plan, choice),
        *obstacles.of_programs(facts),
        *obstacles.of_machine(attach_plan, f"try-{os.getpid()}"),
    ]
    return found + [TraceError(reason) for reason in _left_open(facts)]


def _left_open(facts: kernel.KernelFacts) -> list[str]:
    """Why a measurement would say nothing of copies."""
    attach_plan = plan(CATALOGUE, facts)
    paths = frozenset({DataPath.FILE, DataPath.PIPE, DataPath.TCP})
    blind = dict.fromkeys(b.reason for b in attach_plan.blind_for(paths))
    counting = [copy for copy in attach_plan.copies if copy.kind is Kind.COPY]
    reasons = [*blind, *(copy.note for copy in counting if not copy.exact)]
    unseen = [
        site.tracepoint for site in EVENT_SITES if site.tracepoint not in facts.tracepoints
    ]
    if unseen:
        reasons.append(f"tracepoints are missing ({unseen[0]}, …): tracefs is not mounted")
    return reasons


def has_module(name: str) -> bool:
    """Whether the distribution's Python, which collects, has a module."""
    look = f"import importlib.util as u; raise SystemExit(u.find_spec({name!r}) is None)"
    try:
        return subprocess.run([qemu.PYTHON, "-I", "-c", look]).returncode == 0
    except FileNotFoundError:
        return False


def require_architecture() -> None:
    """Raise :class:`KernelError` on a processor whose registers zctrace does not know."""
    architecture = os.uname().machine
    if architecture != ARCHITECTURE:
        raise KernelError(
            f"this machine is {architecture}",
            f"zctrace reads byte counts from registers, and knows {ARCHITECTURE} only",
            f"a machine with {ARCHITECTURE}, or a virtual one",
        )


def require_modules() -> None:
    """Raise :class:`MissingError` for a Python module that collecting needs.

    Where something has been compiled before, a collector does without what compiles, or says
    that it has to compile something else.
    """
    for name in MODULES:
        if name == COMPILER and observations.has_compiled():
            continue
        if not has_module(name):
            raise MissingError(
                f"{qemu.PYTHON} has no module {name}",
                "the probes are loaded with the distribution's own Python and BCC",
                packages.remedy(name),
            )
