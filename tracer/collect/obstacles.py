"""Why nothing can be measured on this machine's kernel: asked before anything is compiled.

``zctrace doctor``, the choice between this machine and a virtual one, and the collector itself
ask here, so that none of them says yes where another one fails.
"""

from __future__ import annotations

import itertools
import os
from collections.abc import Iterable, Iterator
from contextlib import ExitStack
from pathlib import Path

from zctrace.collect import cgroups
from zctrace.collect.attaching import attempt
from zctrace.errors import TraceError
from zctrace.kernel import perf_events, switches
from zctrace.kernel.facts import KernelFacts
from zctrace.plan.attachments import AttachPlan, Choice
from zctrace.plan.parameters import FLOW_MEMBERS
from zctrace.probes.model import Quantity

_INITIAL_PID_NAMESPACE = 0xEFFFFFFC
"""PROC_PID_INIT_INO: the inode of the only one whose numbers the kernel's programs see."""
_CAP_SYS_ADMIN = 21
_ALL_USERS = ["0", "0", "4294967295"]
"""The uid_map of who is in no user namespace but the first."""
_LOCKED = "confidentiality"
"""The lockdown that keeps the kernel's memory from everybody: kernel_lockdown(7)."""


def switched_off() -> Iterator[TraceError]:
    """What is to be asked before anything else: rights, and switches.

    Where ftrace is off, the kernel accepts probes, too, and does not know of them when ftrace
    is on again. Linux 6.1 then finds its text changed, and refuses all probes until a reboot.
    """
    yield from of_rights()
    for switch in switches.off():
        yield TraceError("the kernel accepts probes but does not run them", *switch[1:])


def of_rights(process: Path = Path("/proc/self")) -> Iterator[TraceError]:
    """What the root of a container may lack: CAP_SYS_ADMIN, of the first user namespace.

    Without it the kernel refuses breakpoints at its own addresses (hw_breakpoint_arch_parse(),
    perf_event_open(2)), each for a reason that does not tell of rights.
    """
    lines = (process / "status").read_text().splitlines()
    (effective,) = [line.split()[1] for line in lines if line.startswith("CapEff:")]
    users = process / "uid_map"  # missing without CONFIG_USER_NS
    whole = not users.exists() or users.read_text().split() == _ALL_USERS
    if int(effective, 16) >> _CAP_SYS_ADMIN & 1 and whole:
        return
    yield TraceError(
        "root may not watch the kernel here, as in a container",
        "it has no CAP_SYS_ADMIN" if whole else "it is root in a user namespace only",
        "zctrace outside of the container, or in one with all rights: docker run --privileged; "
        "or a kernel in a virtual machine: zctrace run --kernel 6.1",
    )


def of_plan(
    facts: KernelFacts, attach_plan: AttachPlan, choice: Choice
) -> Iterator[TraceError]:
    """What this kernel refuses for good, of what every measurement needs."""
    watched = {event.site.quantity for event in attach_plan.events}
    traced = {Quantity.SYSCALL_ENTER, Quantity.SYSCALL_EXIT} <= watched
    if not traced and facts.lockdown == _LOCKED:
        yield TraceError(
            f"Linux {facts.release} is locked down ({facts.lockdown})",
            "in this mode not even root can read tracepoints and kernel memory",
            "lockdown=integrity at boot, which refuses nothing that is needed; or another "
            "kernel, in a virtual machine: zctrace run --kernel 6.1",
        )
    elif not traced:
        yield TraceError(
            f"Linux {facts.release} has no tracepoints for system calls",
            "zctrace counts system calls with them",
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
    if facts.text and not facts.functions:
        yield TraceError(
            f"Linux {facts.release} hides the addresses of its functions",
            facts.text,
            "sysctl kernel.kptr_restrict=1; or another kernel, in a virtual machine: "
            "zctrace run --kernel 6.1",
        )
    if facts.breakpoint and choice is not Choice.CALL_SITE:
        yield TraceError(
            f"Linux {facts.release} refuses breakpoints in its own code",
            facts.breakpoint,
            "--mechanism callsite, without a cross-check; or another kernel, in a virtual "
            "machine: zctrace run --kernel 6.1",
        )
    if choice is Choice.CALL_SITE and not attach_plan.calls:
        yield TraceError(
            f"Linux {facts.release}: no call site of a copy function can be probed",
            facts.text or "no call site was found",
            "another kernel, in a virtual machine: zctrace run --kernel 6.1",
        )


def of_programs(facts: KernelFacts) -> Iterator[TraceError]:
    """What only the tracing of programs needs."""
    members = set(itertools.chain(*FLOW_MEMBERS.values()))
    if unknown := sorted(members - facts.members.keys()):
        yield TraceError(
            f"Linux {facts.release} does not describe its file structures",
            f"unknown: {', '.join(unknown)}: {facts.btf or 'not in its type information'}",
            "a kernel with BTF, in a virtual machine: --kernel 6.1",
        )


def of_numbers(own: Path = Path("/proc/self/ns/pid")) -> Iterator[TraceError]:
    """What stands in the way of following processes by their numbers: a PID namespace.

    Its numbers would lead to no process, or to another one.
    """
    try:
        number = own.stat().st_ino
    except FileNotFoundError:
        return  # a kernel without them: CONFIG_PID_NS
    if number != _INITIAL_PID_NAMESPACE:
        yield TraceError(
            "zctrace runs in a PID namespace, as in a container",
            "its process numbers differ from the ones that the kernel's programs see",
            "zctrace outside of the container, or in one with the host's PID namespace "
            "(docker run --pid=host); or a command: zctrace trace -- COMMAND",
        )


def of_machine(
    attach_plan: AttachPlan, run_id: str, *, own_machine: bool = False
) -> Iterator[TraceError]:
    """What stands in the way now, and may not later: cgroups, debug registers.

    For a moment there is a cgroup, as :func:`zctrace.collect.cgroups.cgroup` makes it, and the
    breakpoints that are planned, on one processor after the other.
    """
    try:
        with (
            cgroups.cgroup(run_id, own_machine=own_machine) as folder,
            ExitStack() as outer,
        ):
            cgroup = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
            outer.callback(os.close, cgroup)
            for cpu in perf_events.online_cpus():
                with ExitStack() as stack:
                    for copy in attach_plan.breakpoints:
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
            "no cgroup can be created for the traced program",
            str(error),
            "in a container: one that may write to /sys/fs/cgroup, or outside of all",
        )


def require(obstacles: Iterable[TraceError]) -> None:
    """Raise the first, if there is one."""
    for obstacle in obstacles:
        raise obstacle
