"""How: load the meter, attach it as planned, read it."""

from __future__ import annotations

import ctypes
import dataclasses
from collections.abc import Callable, Iterable
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from zctrace.collect import (
    compat,
    compiled,
    compiling,
    flows,
    own_memory,
    processes,
    readings,
    stacks,
    threads,
)
from zctrace.collect.attaching import (
    ON_BREAKPOINT,
    Breakpoints,
    CallSites,
    Entries,
    Programs,
    attach_events,
    attach_hooks,
)
from zctrace.collect.attaching_users import UserFunctions
from zctrace.collect.compiling import MeterOptions
from zctrace.collect.processors import Processors
from zctrace.collect.units import Units
from zctrace.evidence import account as evidence_account
from zctrace.evidence.schema import CALLED, SKIPPED, Count, Hits
from zctrace.kernel import bpf_syscall, perf_events
from zctrace.plan.attachments import AttachPlan, CallAttachment
from zctrace.probes.model import DIRECTIONS_BY_NUMBER, LARGE, Mechanism, Quantity
from zctrace.probes.syscall_numbers import SYSCALLS
from zctrace.workloads import marker

SETTLING_SECONDS, EMULATED_SETTLING_SECONDS = 0.02, 0.2
"""In which a thread, as a rule, has done with a copy that it is in the middle of."""


class Meter:
    """The BPF programs of one plan: load, attach, activate, read; a context manager.

    Everything is given back on exit, also after an error. ``sabotage`` names functions
    whose probes are set up but never armed, or, as ``mechanism:function``, those of one
    mechanism: a meter with a fault that only the controls can notice. ``locate`` turns an
    address in kernel text into the name of the function around it. What else it
    does is ``options``, by the names of :class:`MeterOptions`; copies within a program's own
    memory are counted where :meth:`watch_user_memory` says so.
    """

    def __init__(
        self,
        attach_plan: AttachPlan,
        nonce: int,
        sabotage: Iterable[str] = (),
        locate: Callable[[int], str] = hex,
        **options: Any,
    ) -> None:
        self._plan = attach_plan
        self._options = MeterOptions(**options)
        self._user_process = -1
        self._nonce = nonce
        self._sabotage = frozenset(sabotage)
        self._locate = locate
        self._bpf: Any = None
        self.bcc_version = ""
        self._cgroup: Path | None = None
        self._left = 0
        self._cleanup = ExitStack()

    def __enter__(self) -> Meter:
        return self

    def __exit__(self, *_: object) -> None:
        self._cleanup.close()

    def load(self, probes: Path, memory: Path | None = None) -> None:
        """Have the programs from ``memory``, or compile them with the headers in ``probes``.

        Raises :class:`TraceError`, or :class:`MissingError` where there is no BCC to compile
        them. Compiler output goes to stderr.
        """
        if self._options.keep_stacks:
            compiled.require_names()
        self._bpf = compiled.programs(
            compiling.source(probes, self._options),
            compiling.parameters(self._plan, self._options),
            probes,
            compiling.entries(self._plan),
            memory,
        )
        self._cleanup.callback(self._bpf.close)
        self.bcc_version = self._bpf.bcc_version
        self._processors = Processors(self._bpf["changed_cpus"])
        if self._options.follow_flows:
            flows.prepare(self._bpf, self._plan)
            compat.prepare(self._bpf, SYSCALLS)
        known = {"NONCE": self._nonce, **dict(self._plan.settings)}
        self._loader = Programs(self._bpf, known, self._sabotage, self._cleanup)
        self._programs = self._loader.loaded
        if (least := self._options.user_copies_from) is not None:
            first = compiling.first_user_copy(self._plan)
            self.user_functions = UserFunctions(self._loader, first, least)

    def attach(self, cgroup: Path | None) -> None:
        """Attach everything planned; breakpoints as :meth:`scope` does, disarmed.

        Raises :class:`TraceError` naming the probe that the kernel refused.
        """
        self._breakpoints = Breakpoints(self._loader, self._plan.breakpoints)
        self.scope(cgroup)
        # First the returns, so that no entry is noted and never taken back.
        attach_hooks(self._loader, self._plan)
        self._entries = Entries(self._loader, self._plan.at_entries)
        self._entries.open(self._processors.online)
        self._call_sites = CallSites(self._loader, self._bpf, self._plan.calls)
        attach_events(self._loader, self._plan)

    def extend(self, attach_plan: AttachPlan, added: Iterable[CallAttachment]) -> None:
        """Attach the calls ``added``, which are part of what the plan is now."""
        self._plan, more = attach_plan, tuple(added)
        if self._options.follow_flows:
            flows.note_payload(self._bpf, self._plan)
        self._call_sites.add(more)

    @property
    def refused(self) -> dict[int, list[str]]:
        """Callers that the kernel did not let be probed after all, by target's number."""
        return self._call_sites.refused

    def scope(self, cgroup: Path | None) -> None:
        """As :meth:`Breakpoints.open`; of a traced program's threads likewise."""
        self.left_cgroup()
        self._breakpoints.open(cgroup, self._processors.online)
        self._cgroup = cgroup
        if self._options.follow_flows:
            threads.limit(self._bpf, cgroup)

    def watch_user_memory(self, process: int) -> None:
        """Have the functions probed that copy within the memory of ``process``, of no other.

        Raises :class:`TraceError` where there is one that cannot be. Until the next time.
        """
        self._user_process = process
        self.user_functions.watch(process)

    def follow_cpus(self) -> None:
        """Watch the processors that are online now, also those that have been offline.

        Before :meth:`hits`, whose own counts may begin at 0 again; not while it counts.
        """
        if self._processors.have_changed():
            self._breakpoints.open(self._cgroup, self._processors.online)
            self._entries.open(self._processors.online)

    def activate(self) -> None:
        """Arm the breakpoints, and count."""
        self._entries.enable()
        self._breakpoints.enable()

    def deactivate(self) -> None:
        """Disarm the breakpoints, so that their counts and the programs' can be compared."""
        self._entries.disable()
        self._breakpoints.disable()
        self._processors.note()

    def counts(self) -> list[Count]:
        """Everything tallied since the last :meth:`reset`."""
        names = compiling.names(self._plan)
        kept = threads.Kept(self._bpf) if self._options.follow_flows else None
        sites = {event.site.quantity: event.number for event in self._plan.events}
        ends = (sites.get(q, -1) for q in (Quantity.SYSCALL_ENTER, Quantity.SYSCALL_EXIT))
        counts = []
        for key, (calls, size) in threads.tallied(self._bpf, kept, *ends).items():
            function, quantity, mechanism = names[key.site]
            counts.append(
                Count(
                    role=marker.role_name(key.role),
                    quantity=quantity,
                    function=function,
                    mechanism=mechanism,
                    direction=DIRECTIONS_BY_NUMBER.get(key.direction & ~LARGE),
                    large=bool(key.direction & LARGE),
                    syscall=readings.syscall_name(key.syscall),
                    caller=self._caller(mechanism, key.caller),
                    calls=calls,
                    bytes=size,
                )
            )
        return sorted(counts, key=lambda c: (c.role, c.quantity, c.syscall or "", -c.bytes))

    def hits(self) -> dict[str, Hits]:
        """Per function, since loading: executions seen by the program and by perf."""
        table, counters = self._bpf["hits"], self._entries.counters
        result = {}
        for copy in self._plan.copies:
            function = copy.site.function
            seen = sum(table[ctypes.c_int(copy.number)])
            events = self._breakpoints.events.get(function) or counters.get(function, [])
            found = [perf_events.read(event) for event in events]
            result[function] = Hits(
                program=seen,
                perf=sum(r.count for r in found) if found else None,
                multiplexed=not all(r.armed for r in found),
                shared=function in counters,
            )
        return result

    def lost(self) -> dict[str, int]:
        """Events not counted since loading, by cause."""
        table = self._bpf["lost"]
        causes = (
            *compiling.LOST,
            *(compiling.LOST_FLOWS if self._options.follow_flows else ()),
        )
        return {cause: table[ctypes.c_int(i)].value for i, cause in enumerate(causes)}

    def skipped(self) -> dict[str, int]:
        """Times the kernel has skipped each program since loading; of none if it does not tell.

        It never tells of breakpoints' programs (``bpf_overflow_handler`` in
        kernel/events/core.c): what they have missed is in :meth:`hits`. Of programs that
        functions call it tells since it skips them at all; they are skipped only on top of
        themselves.

        Reading or clearing a map from here makes the kernel skip every program on this
        processor, and while that system call is preempted, for other threads too. So this
        is to be read with no such call between it and what is being watched; it makes
        none itself.
        """
        skips = {
            name: bpf_syscall.recursion_misses(fd)
            for name, fd in self._programs.items()
            if name.startswith(CALLED)
            or (self._plan.tells_skips and not name.startswith(ON_BREAKPOINT))
        }
        return {f"{name}{SKIPPED}": count for name, count in skips.items() if count is not None}

    def unwatched_cpus(self) -> int:
        """Processors that went off or came while it counted: no breakpoint was on them then.

        Since the last :meth:`reset`.
        """
        return len(self._processors.unwatched)

    def modules_loaded(self) -> set[str]:
        """As :func:`readings.modules`; none while no flows are followed."""
        return readings.modules(self._bpf) if self._options.follow_flows else set()

    def left_cgroup(self) -> int:
        """How many cgroups the traced threads were moved to, out of that of :meth:`scope`.

        Since the last :meth:`reset`."""
        if self._options.follow_flows:
            self._left += threads.left(self._bpf, self._cgroup)
        return self._left

    def abandon(self) -> None:
        """Leave everything attached, for the machine's end to take it away."""
        self._cleanup.pop_all()

    def reset(self) -> None:
        """Forget tallies and windows; hits and losses go on."""
        self._processors.unwatched.clear()
        for name in compiling.tables(self._options):
            self._bpf[name].clear()
        if self._options.follow_flows:
            threads.forget(self._bpf)
            self._left = 0
            threads.windows_changed(self._bpf)
        self._bpf["any_owner"][ctypes.c_int(0)] = ctypes.c_uint32(0)
        self._watch_nobody()

    def set_ends(self, namespaces: Iterable[tuple[int, ...]]) -> None:
        """Which network namespaces, by inode, are the subject's and which its peer's."""
        table = self._bpf["ends"]
        table.clear()
        for end, inodes in zip((compiling.SUBJECT, compiling.PEER), namespaces, strict=True):
            for inode in inodes:
                table[table.Key(inode)] = table.Leaf(end)

    def about_to_open(
        self, keys: Iterable[int], role: marker.Role, scope: marker.Scope
    ) -> None:
        """Windows of these keys will be opened: what goes on there is noted from now on.

        No mechanism counts a copy that such a window opens in. See :data:`SETTLING_SECONDS`.
        """
        table = self._bpf["windows"]
        for key in keys:
            window = table.Leaf(role=role, scope=scope, opener=threads.ABOUT_TO_OPEN)
            table[table.Key(key)] = window
        self._windows_changed()

    def open_window(self, key: int, role: marker.Role, scope: marker.Scope) -> None:
        """As if a process, or a thread, had opened one by the marker, and were back from it."""
        table = self._bpf["windows"]
        with processes.before_others():
            table[table.Key(key)] = table.Leaf(role=role, scope=scope)
            self._windows_changed()
            if role in marker.WATCHED:
                self._bpf["tracked_role"][ctypes.c_int(0)] = ctypes.c_ulonglong(role)

    def has_window(self, key: int) -> bool:
        """Whether that window is open, and not only about to be."""
        return threads.is_open(self._bpf["windows"], key)

    def saw_window(self, role: marker.Role, process: int) -> bool:
        """Whether one of a watched role has been opened, and ``process`` closed its own.

        Since the last reset or :meth:`close_windows`; by the marker, and with nothing said to
        be settled. What the process has started may go on, and have a window still.
        """
        opened: int = self._bpf["tracked_role"][ctypes.c_int(0)].value
        return opened == role and all(k.value != process for k in self._bpf["windows"])

    def close_windows(self) -> None:
        """Stop counting, except copies that have begun.

        They end within :data:`SETTLING_SECONDS`, as a rule.
        """
        windows = self._bpf["windows"]
        with processes.before_others():
            open_ = threads.not_open(windows)
            self._windows_changed()
            windows.clear()
            self._watch_nobody()
        self._left += threads.outside(open_, self._cgroup)

    def account(self, programs: stacks.Programs) -> evidence_account.Account:
        """Files, sockets, pipes and threads since the last :meth:`reset`; stacks, if kept.

        ``programs`` are those that names of functions may be looked up in.
        """
        account = flows.read(
            *(self._bpf, threads.Kept(self._bpf), flows.payload(self._plan)),
            readings.syscall_name,
        )
        if not self._options.keep_stacks:
            return account
        names = compiling.names(self._plan)
        kept = stacks.read(
            self._bpf,
            programs.paths(t.name for t in account.things if t.kind == evidence_account.FILE),
            compiled.names(),
            lambda site: names[site][0],
            self._locate,
            readings.syscall_name,
            DIRECTIONS_BY_NUMBER.get,
        )
        return dataclasses.replace(account, stacks=kept)

    def units(self) -> Units:
        """What units move, from now on."""
        return Units(self._bpf, readings.syscall_name)

    def executed(self) -> list[own_memory.Executed]:
        """As :func:`own_memory.executed`; none where that is not watched."""
        return own_memory.executed(self._bpf) if self._options.own_memory else []

    def running(self) -> flows.Running:
        """What moves and is copied, to be looked at while it does; a context manager."""
        return flows.Running(
            self._bpf["running"].map_fd, self._bpf["overflow"].map_fd, readings.syscall_name
        )

    def requests(self) -> list[readings.DiskRequest]:
        """The requests to disks since the last :meth:`reset`, while work was watched."""
        return readings.requests(self._bpf)

    def mappings(self) -> list[readings.Mapped]:
        """What was mapped for DMA since the last :meth:`reset`, while work was watched."""
        return readings.mappings(self._bpf)

    def _windows_changed(self) -> None:
        if self._options.follow_flows:
            threads.windows_changed(self._bpf)

    def _watch_nobody(self) -> None:
        self._bpf["tracked_role"][ctypes.c_int(0)] = ctypes.c_ulonglong(0)

    def _caller(self, mechanism: Mechanism, number: int) -> str | None:
        if not number:
            return None
        if mechanism is Mechanism.TRACEPOINT:
            return f"device {number}"
        if mechanism is Mechanism.CALL_SITE:
            return self._call_sites.names[number - 1]
        if mechanism is Mechanism.UPROBE:
            return str(compiled.names().name(number, self._user_process))
        return self._locate(number)
