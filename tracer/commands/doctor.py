"""``zctrace doctor``: what this machine offers, and what to do about the rest."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from dataclasses import dataclass

from rich.console import Console
from rich.text import Text

from zctrace import packages, trust
from zctrace.collect import obstacles
from zctrace.commands.strategies import performers
from zctrace.errors import MissingError, OutputError, RightsError, TraceError
from zctrace.kernel import facts as kernel
from zctrace.kernel.facts import KernelFacts
from zctrace.machine import kernels, kvm, places, qemu
from zctrace.machine.places import MODULES
from zctrace.probes.catalogue import CATALOGUE, EVENT_SITES
from zctrace.reports.text.terminal import Terminal


@dataclass(frozen=True)
class Finding:
    """One thing looked at. ``remedy`` is what to do where it is not ``fine``."""

    topic: str
    fine: bool
    what: str
    remedy: str = ""


def findings() -> list[Finding]:
    """Everything, in the order in which a run needs it."""
    return [*_rights(), *_programs(), *_host(), *_kernels(), *_systems()]


def command() -> None:
    """Check what this machine and its kernel support, and what to do about the rest."""
    show(Terminal())


def show(console: Console) -> None:
    """Print the findings; raises when nothing could be measured."""
    found = findings()
    for finding in found:
        mark, style = ("ok", "green") if finding.fine else ("--", "yellow")
        line = Text(f"{mark}  ", style=style).append(
            f"{finding.topic}: {finding.what}", style=""
        )
        console.print(line, width=min(console.width, 79))
        if not finding.fine and finding.remedy:
            console.print(Text(f"      what to do: {finding.remedy}"), soft_wrap=True)
    fine = {finding.topic: finding.fine for finding in found}
    if not fine["rights"]:
        raise RightsError(
            "zctrace run needs root, and so does zctrace doctor",
            "only root can find out what the kernel allows",
            "sudo zctrace doctor",
        )
    needed = [
        "processor",
        "cache",
        *(name for name in (*MODULES, *(tool for tool, _ in _TOOLS))),
    ]
    lacking = [f for f in found if f.topic in needed and not f.fine]
    if not fine["this machine's kernel"]:
        lacking += [f for f in found if f.topic == "virtual machines" and not f.fine]
    if lacking:
        raise MissingError(
            "zctrace run does not work here yet",
            "; ".join(f"{finding.topic}: {finding.what}" for finding in lacking),
            "; ".join(finding.remedy for finding in lacking),
        )
    where = "this machine's kernel" if fine["this machine's kernel"] else "a virtual machine"
    console.print(f"zctrace run works here, on {where}.")


def _rights() -> Iterator[Finding]:
    root = os.geteuid() == 0
    yield Finding("rights", root, "root" if root else "not root", "sudo zctrace doctor")


def _programs() -> Iterator[Finding]:
    architecture = os.uname().machine
    yield Finding(
        "processor",
        architecture == places.ARCHITECTURE,
        architecture,
        f"a machine with {places.ARCHITECTURE}",
    )
    for module in MODULES:
        there = places.has_module(module)
        yield Finding(
            module,
            there,
            f"{qemu.PYTHON} {'has' if there else 'lacks'} the module",
            packages.remedy(module),
        )
    for tool, need in _TOOLS:
        there = shutil.which(tool, path=trust.SYSTEM_PATH) is not None
        yield Finding(
            tool,
            there,
            "there" if there else "not installed",
            packages.remedy(need),
        )
    lacking = qemu.missing()
    yield Finding(
        "virtual machines",
        not lacking,
        "QEMU and the tools to boot a kernel in it are installed"
        if not lacking
        else f"missing: {', '.join(what for what, _ in lacking)}",
        "; ".join(remedy for _, remedy in lacking),
    )
    try:
        at_hand = kernels.cached()
    except OutputError:  # reported below
        at_hand = []
    works = kvm.kvm_known(at_hand[-1]) if at_hand else None
    yield Finding(
        "KVM",
        works is not False,
        {
            True: "boots a kernel",
            False: "not usable: virtual machines are emulated, which is slower but as exact",
            None: "/dev/kvm is there; zctrace tries it before the first use",
        }[works],
        "nested virtualisation, where this machine is itself virtual",
    )


def _systems() -> Iterator[Finding]:
    """What some strategies are performed by. The reasons name the remedies."""
    for system, there, what in performers():
        yield Finding(f"strategies of {system}", there, what)


def _accepted(what: str, of: str, reasons: list[str | None]) -> Finding:
    """How many of those that are wanted the kernel lets be watched that way."""
    asked = [reason for reason in reasons if reason != kernel.NOT_ASKED]
    accepted = asked.count(None)
    refused = next(filter(None, asked), "no function known")
    return Finding(
        what,
        accepted > 0,
        f"accepted on {accepted} of {len(asked)} {of}" if accepted else refused,
        _VIRTUAL,
    )


def _host() -> Iterator[Finding]:
    if os.geteuid() != 0:
        yield Finding(
            "this machine's kernel", False, "unknown without root", "sudo zctrace doctor"
        )
        return
    if found := [*obstacles.switched_off()]:
        yield _measurable(found)
        return
    facts = kernel.observe(CATALOGUE)
    yield Finding(
        "breakpoints in kernel code",
        facts.breakpoint is None,
        facts.breakpoint or "accepted",
        _VIRTUAL,
    )
    functions = facts.functions.values()
    yield _accepted("kprobes", "functions", [f.kprobe for f in functions])
    yield _accepted("fentry programs", "copy functions", [f.fentry for f in functions])
    yield Finding(
        "kernel text", facts.text is None, facts.text or "readable", _text_remedy(facts)
    )
    yield Finding(
        "type information (BTF)",
        facts.btf is None,
        facts.btf or "readable",
        "a kernel built with CONFIG_DEBUG_INFO_BTF",
    )
    wanted = {site.tracepoint for site in EVENT_SITES}
    absent = sorted(wanted - facts.tracepoints.keys())
    yield Finding(
        "tracepoints",
        not absent,
        f"missing: {', '.join(absent)}" if absent else f"all {len(wanted)} are there",
        "mount -t tracefs nodev /sys/kernel/tracing",
    )
    yield _measurable(places.host_obstacles(facts))


def _measurable(found: list[TraceError]) -> Finding:
    """Whether the collector will measure this machine's kernel."""
    release = os.uname().release
    reasons = "; ".join(map(places.reason, found))
    return Finding(
        "this machine's kernel",
        not found,
        f"{release} cannot be measured: {reasons}" if found else f"{release} can be measured",
        "; ".join(dict.fromkeys(error.hint or _VIRTUAL for error in found)),
    )


_TOOLS = (("mkfs.ext4", "ext4"), ("ip", "ip"), ("ethtool", "ethtool"))
_VIRTUAL = "no action needed: zctrace falls back to a virtual machine"


def _text_remedy(facts: KernelFacts) -> str:
    if facts.lockdown != "none":
        return f"the kernel is locked down ({facts.lockdown}): {_VIRTUAL}"
    return "sysctl kernel.kptr_restrict=0, as root; /proc mounted with kcore"


def _kernels() -> Iterator[Finding]:
    try:
        at_hand = kernels.cached()
    except OutputError as error:
        yield Finding("cache", fine=False, what=error.what, remedy=error.hint)
        return
    yield Finding(
        "stock kernels",
        bool(at_hand),
        ", ".join(k.release for k in at_hand) or "none fetched yet; the first run fetches one",
        "zctrace kernels fetch stock",
    )
