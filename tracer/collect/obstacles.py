"""Why nothing can be measured on this machine's kernel: asked before anything is compiled.

``zctrace doctor``, the choice between this machine and a virtual one, and the collector itself
ask here, so that none of them says yes where another one fails.
"""

from __future__ import annotations

import itertools
import os
from collections.abc import Iterable, Iterator
from contextlib import ExitStack

from zctrace.collect import cgroups
from zctrace.collect.attaching import attempt
from zctrace.errors import TraceError
from zctrace.kernel import perf_events, switches
from zctrace.kernel.facts import KernelFacts
from zctrace.plan.attachments import AttachPlan, Choice
from zctrace.plan.parameters import FLOW_MEMBERS
from zctrace.probes.model import Quantity


def switched_off() -> Iterator[TraceError]:
    """What is to be asked before anything else.

    Where ftrace is off, the kernel takes probes, too, and is not told of them when it is on
    again: on 6.1 it then finds its text changed, and refuses all probes until it is restarted.
    """
    for switch in switches.off():
        yield TraceError("the kernel takes probes and does not run them", *switch[1:])


def of_plan(
    facts: KernelFacts, attach_plan: AttachPlan, choice: Choice
) -> Iterator[TraceError]:
    """What this kernel refuses for good, of what every measurement needs."""
    watched = {event.site.quantity for event in attach_plan.events}
    if not {Quantity.SYSCALL_ENTER, Quantity.SYSCALL_EXIT} <= watched:
        yield TraceError(
            f"Linux {facts.release} shows no tracepoints for system calls",
            "without them no window can be opened",
            "mount -t tracefs nodev /sys/kernel/tracing",
        )
    if attach_plan.counted_twice:
        yield TraceError(
            f"Linux {facts.release} cannot be measured with --mechanism {choice.value}",
            "; ".join(
                f"{caller} calls {function}, so that bytes would be counted twice"
                for function, caller in attach_plan.counted_twice
            ),
            f"--mechanism {Choice.AUTO.value} or {Choice.CALL_SITE.value}",
        )
    if facts.breakpoint and choice is not Choice.CALL_SITE:
        yield TraceError(
            f"Linux {facts.release} refuses breakpoints in its own code",
            facts.breakpoint,
            "--mechanism callsite, with nothing to agree with; or another kernel, in a "
            "virtual machine: zctrace run --kernel 6.1",
        )
    if choice is Choice.CALL_SITE and not attach_plan.calls:
        yield TraceError(
            f"Linux {facts.release} lets no call of a copying function be watched",
            facts.text or "none was found",
            "another kernel, in a virtual machine: zctrace run --kernel 6.1",
        )


def of_programs(facts: KernelFacts) -> Iterator[TraceError]:
    """What only the tracing of programs needs."""
    members = set(itertools.chain(*FLOW_MEMBERS.values()))
    if unknown := sorted(members - facts.members.keys()):
        yield TraceError(
            f"Linux {facts.release} does not tell what is behind a descriptor",
            f"unknown: {', '.join(unknown)}: {facts.btf or 'not in its type information'}",
            "a kernel with BTF, in a virtual machine: --kernel 6.1",
        )


def of_machine(
    attach_plan: AttachPlan, run_id: str, *, own_machine: bool = False
) -> Iterator[TraceError]:
    """What stands in the way now, and may not later: cgroups, debug registers.

    For a moment there is a cgroup, as :func:`zctrace.collect.cgroups.cgroup` makes it, and the
    breakpoints that are planned.
    """
    try:
        with (
            cgroups.cgroup(run_id, own_machine=own_machine) as folder,
            ExitStack() as stack,
        ):
            cgroup = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
            stack.callback(os.close, cgroup)
            for copy, cpu in itertools.product(
                attach_plan.breakpoints, perf_events.online_cpus()
            ):
                event = attempt(
                    f"{copy.site.function}, breakpoint",
                    *(perf_events.open_breakpoint, copy.address),
                    cgroup=cgroup,
                    cpu=cpu,
                )
                stack.callback(os.close, event)
    except TraceError as error:
        yield error
    except OSError as error:
        yield TraceError(
            "no cgroup can be made for what is measured",
            str(error),
            "in a container: one that may write to /sys/fs/cgroup, or outside of all",
        )


def require(obstacles: Iterable[TraceError]) -> None:
    """Raise the first, if there is one."""
    for obstacle in obstacles:
        raise obstacle
