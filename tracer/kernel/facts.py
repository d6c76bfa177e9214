"""The kernel as we found it: one value, observed once, faked in tests.

Nothing here compares version numbers; every fact is an answer of the kernel's.
"""

from __future__ import annotations

import dataclasses
import errno
import os
import re
from collections.abc import Callable, Iterable, Mapping, Set
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from zctrace.kernel import bpf_syscall, btf, perf_events, remembered, symbols, text_facts
from zctrace.kernel.members import MEMBERS
from zctrace.kernel.text import TextError
from zctrace.kernel.text_facts import TextFacts
from zctrace.probes.model import Call, Catalogue, CopySite, EventSite, Mechanism, Member

_CPU_FLAGS = frozenset({"erms", "fsrm", "hypervisor"})
_LOCKDOWN = Path("/sys/kernel/security/lockdown")
_COMPAT = Path("/proc/sys/abi/vsyscall32")
"""There where the kernel has been built to run 32-bit programs (CONFIG_IA32_EMULATION)."""
_ITERATOR_TYPES = "iter_type"
NOT_ASKED = "not asked"
"""In place of the reason why a function cannot be probed: no probe is wanted."""
_SETS = ("cpu_flags", "callers", "modules")
"""Members of the kernel's facts that are lists in JSON."""
_FIELD = re.compile(
    r"field:(?P<declaration>[^;]+);\s*offset:(?P<offset>\d+);\s*size:(?P<size>\d+);"
)


@dataclass(frozen=True)
class Function:
    """What the kernel says of one function.

    ``returns`` and ``jumps`` are offsets (see :class:`kernel_text.Exits`), ``None`` where
    the text could not be read. ``kprobe`` is ``None`` where a probe is accepted,
    otherwise why not; ``fentry`` likewise for a program that the function calls.
    """

    address: int
    returns: tuple[int, ...] | None
    jumps: tuple[int, ...] | None
    kprobe: str | None
    size: int = 0
    fentry: str | None = NOT_ASKED


@dataclass(frozen=True)
class KernelFacts:
    """What one running kernel, on one processor, offers.

    ``functions`` has those of the catalogue that exist; ``calls`` where each of the call
    targets that exist is called; ``callers`` which of the callers that a target is limited to
    exist, and ``modules`` which of the modules that they are part of are loaded; ``members``
    byte offsets by ``structure.member``; ``iterators`` the numbers of the kinds of
    ``iov_iter``; ``tracepoints`` byte offsets of the record's fields by ``category:name``.
    ``breakpoint``, ``text``, ``btf`` are ``None`` where available, otherwise why not.
    ``tells_skips`` is whether the kernel counts how often it has skipped the program of a
    probe or tracepoint; not so where that is not known. ``runs_32_bit`` is whether the kernel
    is built to run 32-bit programs; ``typed_task`` whether programs may read the current task's
    members as those of a type.
    """

    release: str
    version: str
    architecture: str
    cpu: str
    cpu_flags: frozenset[str]
    functions: dict[str, Function] = field(default_factory=dict)
    calls: dict[str, tuple[Call, ...]] = field(default_factory=dict)
    callers: frozenset[str] = frozenset()
    modules: frozenset[str] = frozenset()
    iterators: dict[str, int] = field(default_factory=dict)
    members: dict[str, int] = field(default_factory=dict)
    tracepoints: dict[str, dict[str, int]] = field(default_factory=dict)
    breakpoint: str | None = None
    text: str | None = None
    btf: str | None = None
    lockdown: str = "none"
    tells_skips: bool = False
    runs_32_bit: bool = False
    typed_task: bool = False

    def to_json(self) -> dict[str, Any]:
        facts = dataclasses.asdict(self)
        for name in _SETS:
            facts[name] = sorted(facts[name])
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
                function["size"],
                function.get("fentry", NOT_ASKED),
            )
            for name, function in facts["functions"].items()
        }
        return KernelFacts(
            **{
                **facts,
                **{name: frozenset(facts.get(name, ())) for name in _SETS},
                "functions": functions,
                "calls": {
                    name: tuple(Call(**call) for call in calls)
                    for name, calls in facts["calls"].items()
                },
            }
        )


def observe(catalogue: Catalogue, memory: Path | None = None) -> KernelFacts:
    """Ask the running kernel about everything that a catalogue may need. Needs root.

    In the folder ``memory`` is what was found in its text before, and will be from now on.
    """
    uname = os.uname()
    cpu, flags = _processor()
    wanted = text_facts.wanted_by(catalogue)
    untouched = bool(memory) and remembered.is_untouched()
    known = remembered.recall(memory, wanted) if memory else None
    text = known.facts if known else text_facts.look(wanted)
    functions = _functions(catalogue, text, known.accepted if known else {})
    if memory and untouched and remembered.is_untouched():
        accepted = _accepted(functions)
        if not known or not known.complete or known.accepted != accepted:
            remembered.keep(memory, wanted, text, accepted)
    calls = dict(text.calls)
    tells_skips = bool(calls.pop(text_facts.COUNTS_SKIPS, ()))
    members, iterators, typed_task, no_btf = _types(catalogue.copies)
    return KernelFacts(
        release=uname.release,
        version=uname.version,
        architecture=uname.machine,
        cpu=cpu,
        cpu_flags=flags,
        functions=functions,
        calls=calls,
        callers=frozenset().union(*text.callers.values()),
        modules=_loaded(catalogue),
        iterators=iterators,
        members=members,
        tracepoints=_tracepoints(catalogue.events),
        breakpoint=_breakpoint_refused(functions.values()),
        text=text.trouble,
        btf=no_btf,
        lockdown=_lockdown(),
        tells_skips=tells_skips,
        runs_32_bit=_COMPAT.exists(),
        typed_task=typed_task,
    )


def _loaded(catalogue: Catalogue) -> frozenset[str]:
    """Those of the modules named there that are loaded."""
    loaded: set[str] = set()
    # A kernel without modules; the search of the text reports a damaged list.
    with suppress(OSError, TextError):
        loaded = {module.name for module in symbols.modules()}
    return frozenset(target.module for target in catalogue.calls) & loaded


def _processor() -> tuple[str, frozenset[str]]:
    model, flags = "unknown", frozenset[str]()
    # A hypervisor may give a processor any name.
    with remembered.CPUINFO.open(errors="replace") as file:
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


def _functions(
    catalogue: Catalogue, text: TextFacts, accepted: remembered.Accepted
) -> dict[str, Function]:
    calling = {s.function for s in catalogue.copies if Mechanism.FENTRY in s.mechanisms}
    probed = {s.function for s in catalogue.copies if Mechanism.KPROBE in s.mechanisms}
    probed |= {hook.function for hook in catalogue.hooks}
    calling |= {hook.function for hook in catalogue.hooks if hook.called}
    there = text.symbols.keys()
    kprobe = _refusals(probed & there, _kprobe_refused, accepted.get("kprobe", ()))
    fentry = _refusals(calling & there, _fentry_refused, accepted.get("fentry", ()))
    return {
        name: Function(
            text.symbols[name].address,
            text.exits[name].returns if name in text.exits else None,
            text.exits[name].jumps if name in text.exits else None,
            kprobe.get(name, NOT_ASKED),
            text.symbols[name].size,
            fentry.get(name, NOT_ASKED),
        )
        for name in text_facts.wanted_by(catalogue).functions
        if name in there
    }


def _refusals(
    names: Set[str], ask: Callable[[str], str | None], accepted: Iterable[str]
) -> dict[str, str | None]:
    """Why the kernel refuses a probe on each function, ``None`` where it does not.

    Of those where it accepted one before only the first is asked: whether it takes any at
    all may have changed, and taking one back takes long.
    """
    known = sorted(names & set(accepted))
    if known and ask(known[0]):
        known = []
    return {name: None if name in known else ask(name) for name in sorted(names)}


def _accepted(functions: dict[str, Function]) -> remembered.Accepted:
    return {
        "kprobe": tuple(name for name, f in functions.items() if f.kprobe is None),
        "fentry": tuple(name for name, f in functions.items() if f.fentry is None),
    }


def _kprobe_refused(name: str) -> str | None:
    try:
        perf_events.try_kprobe(name)
    except FileNotFoundError:
        return "the kernel has no probes on functions (CONFIG_KPROBES)"
    except OSError as error:
        return f"refused by the kernel: {error.strerror}"
    return None


def _fentry_refused(name: str) -> str | None:
    try:
        bpf_syscall.try_at_entry(name)
    except OSError as error:
        return f"refused by the kernel: {error.strerror}"
    return None


def _breakpoint_refused(functions: Iterable[Function]) -> str | None:
    for function in functions:
        try:
            os.close(perf_events.open_breakpoint(function.address))
        except OSError as error:
            if error.errno == errno.ENOSPC:
                return "all debug registers are in use (another zctrace, perf, a debugger?)"
            return f"refused by the kernel: {error.strerror}"
        return None
    return "no kernel function is known"


def _types(
    copy_sites: Iterable[CopySite],
) -> tuple[dict[str, int], dict[str, int], bool, str | None]:
    """Offsets of members, numbers of the kinds of iterators, whether the current task is typed,
    and what went wrong."""
    wanted = {
        (length.structure, length.member)
        for site in copy_sites
        for length in (site.at_entry, site.at_return)
        if isinstance(length, Member)
    }
    members: dict[str, int] = {}
    iterators: dict[str, int] = {}
    try:
        types = btf.vmlinux()
    except btf.BtfError as error:
        return members, iterators, False, str(error)
    # Not every kernel has every member; the code that needs a missing one reports it.
    for structure, member in sorted({*wanted, *MEMBERS}):
        with suppress(btf.BtfError):
            members[f"{structure}.{member}"] = types.offset(structure, member)
    with suppress(btf.BtfError):
        iterators = types.enumerators(_ITERATOR_TYPES)
    helpers: Mapping[str, int] = {}
    with suppress(btf.BtfError):
        helpers = types.enumerators("bpf_func_id")
    return members, iterators, "BPF_FUNC_get_current_task_btf" in helpers, None


def _tracepoints(event_sites: Iterable[EventSite]) -> dict[str, dict[str, int]]:
    found = {}
    for name in {site.tracepoint for site in event_sites}:
        for root in perf_events.EVENTS:
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
