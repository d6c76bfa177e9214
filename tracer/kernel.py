"""The kernel as we found it: one value, observed once, faked in tests.

Nothing here compares version numbers; every fact is an answer of the kernel's.
"""

from __future__ import annotations

import dataclasses
import errno
import os
import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from probes.site import CopySite, EventSite, Mechanism, Member
from tracer import btf, kernel_text, perf

_EVENTS = (Path("/sys/kernel/tracing/events"), Path("/sys/kernel/debug/tracing/events"))
_CPU_FLAGS = frozenset({"erms", "fsrm", "hypervisor"})
_LOCKDOWN = Path("/sys/kernel/security/lockdown")
_FIELD = re.compile(
    r"field:(?P<declaration>[^;]+);\s*offset:(?P<offset>\d+);\s*size:(?P<size>\d+);"
)


@dataclass(frozen=True)
class Function:
    """What the kernel says of one function.

    ``returns`` and ``jumps`` are offsets (see :class:`kernel_text.Exits`), ``None`` where
    the text could not be read. ``kprobe`` is ``None`` where a probe is accepted,
    otherwise why not.
    """

    address: int
    returns: tuple[int, ...] | None
    jumps: tuple[int, ...] | None
    kprobe: str | None


@dataclass(frozen=True)
class KernelFacts:
    """What one running kernel, on one processor, offers.

    ``functions`` has those of the catalogue that exist; ``members`` byte offsets by
    ``structure.member``; ``tracepoints`` byte offsets of the record's fields by
    ``category:name``. ``breakpoint``, ``text``, ``btf`` are ``None`` where available,
    otherwise why not.
    """

    release: str
    version: str
    architecture: str
    cpu: str
    cpu_flags: frozenset[str]
    functions: dict[str, Function] = field(default_factory=dict)
    members: dict[str, int] = field(default_factory=dict)
    tracepoints: dict[str, dict[str, int]] = field(default_factory=dict)
    breakpoint: str | None = None
    text: str | None = None
    btf: str | None = None
    lockdown: str = "none"

    def to_json(self) -> dict[str, Any]:
        facts = dataclasses.asdict(self)
        facts["cpu_flags"] = sorted(self.cpu_flags)
        return facts

    @staticmethod
    def from_json(facts: dict[str, Any]) -> KernelFacts:
        def offsets(values: list[int] | None) -> tuple[int, ...] | None:
            return None if values is None else tuple(values)

        functions = {
            name: Function(
                function["address"],
                offsets(function["returns"]),
                offsets(function["jumps"]),
                function["kprobe"],
            )
            for name, function in facts["functions"].items()
        }
        return KernelFacts(
            **{
                **facts,
                "cpu_flags": frozenset(facts["cpu_flags"]),
                "functions": functions,
            }
        )


def observe(copy_sites: Iterable[CopySite], event_sites: Iterable[EventSite]) -> KernelFacts:
    """Ask the running kernel about everything that a catalogue may need. Needs root."""
    copy_sites = tuple(copy_sites)
    uname = os.uname()
    cpu, flags = _processor()
    symbols, no_text = _symbols(copy_sites)
    functions = _functions(copy_sites, symbols)
    exits, no_exits = _exits(copy_sites, symbols)
    members, no_btf = _members(copy_sites)
    return KernelFacts(
        release=uname.release,
        version=uname.version,
        architecture=uname.machine,
        cpu=cpu,
        cpu_flags=flags,
        functions={
            name: dataclasses.replace(
                function,
                returns=exits[name].returns if name in exits else None,
                jumps=exits[name].jumps if name in exits else None,
            )
            for name, function in functions.items()
        },
        members=members,
        tracepoints=_tracepoints(event_sites),
        breakpoint=_breakpoint_refused(functions.values()),
        text=no_text or no_exits,
        btf=no_btf,
        lockdown=_lockdown(),
    )


def _processor() -> tuple[str, frozenset[str]]:
    model, flags = "unknown", frozenset[str]()
    with open("/proc/cpuinfo") as file:
        for line in file:
            name, _, value = line.partition(":")
            if name.strip() == "model name":
                model = value.strip()
            elif name.strip() == "flags":
                flags = frozenset(value.split()) & _CPU_FLAGS
                break
    return model, flags


def _lockdown() -> str:
    try:
        modes = _LOCKDOWN.read_text()
    except OSError:
        return "none"
    chosen = re.search(r"\[(\w+)\]", modes)
    return chosen[1] if chosen else "none"


def _symbols(
    copy_sites: tuple[CopySite, ...],
) -> tuple[dict[str, kernel_text.Symbol], str | None]:
    names = {site.function for site in copy_sites}
    try:
        return kernel_text.find_symbols(names, kernel_text.KALLSYMS.read_bytes()), None
    except (OSError, kernel_text.TextError) as error:
        return {}, str(error)


def _functions(
    copy_sites: tuple[CopySite, ...], symbols: dict[str, kernel_text.Symbol]
) -> dict[str, Function]:
    probed = {s.function for s in copy_sites if Mechanism.KPROBE in s.mechanisms}
    return {
        name: Function(
            symbols[name].address,
            None,
            None,
            _kprobe_refused(name) if name in probed else "not asked",
        )
        for name in sorted({site.function for site in copy_sites} & symbols.keys())
    }


def _kprobe_refused(name: str) -> str | None:
    try:
        perf.try_kprobe(name)
    except FileNotFoundError:
        return "the kernel has no probes on functions (CONFIG_KPROBES)"
    except OSError as error:
        return f"refused by the kernel: {error.strerror}"
    return None


def _breakpoint_refused(functions: Iterable[Function]) -> str | None:
    for function in functions:
        try:
            os.close(perf.open_breakpoint(function.address))
        except OSError as error:
            if error.errno == errno.ENOSPC:
                return "all debug registers are in use (another zctrace, perf, a debugger?)"
            return f"refused by the kernel: {error.strerror}"
        return None
    return "no kernel function is known"


def _exits(
    copy_sites: tuple[CopySite, ...], symbols: dict[str, kernel_text.Symbol]
) -> tuple[dict[str, kernel_text.Exits], str | None]:
    wanted = {
        site.function
        for site in copy_sites
        if Mechanism.BREAKPOINT_RETURN in site.mechanisms and site.function in symbols
    }
    exits, trouble = {}, None
    try:
        text = kernel_text.LiveText()
    except kernel_text.TextError as error:
        return {}, str(error)
    try:
        for name in sorted(wanted):
            try:
                exits[name] = kernel_text.find_exits(name, symbols, text)
            except kernel_text.TextError as error:
                trouble = str(error)
    except ImportError:
        return {}, "no disassembler (Debian: apt-get install python3-capstone)"
    finally:
        text.close()
    return exits, trouble


def _members(copy_sites: tuple[CopySite, ...]) -> tuple[dict[str, int], str | None]:
    wanted = {
        (length.structure, length.member)
        for site in copy_sites
        for length in (site.at_entry, site.at_return)
        if isinstance(length, Member)
    }
    members: dict[str, int] = {}
    try:
        types = btf.vmlinux()
        for structure, member in sorted(wanted):
            members[f"{structure}.{member}"] = types.offset(structure, member)
    except btf.BtfError as error:
        return members, str(error)
    return members, None


def _tracepoints(event_sites: Iterable[EventSite]) -> dict[str, dict[str, int]]:
    found = {}
    for name in {site.tracepoint for site in event_sites}:
        for root in _EVENTS:
            try:
                description = (root / name.replace(":", "/") / "format").read_text()
            except OSError:
                continue
            found[name] = {
                match["declaration"].split()[-1].split("[")[0]: int(match["offset"])
                for match in _FIELD.finditer(description)
            }
            break
    return found
