"""How each mechanism is attached: a class for each.

To add one: its class here, and a row in :class:`~zctrace.probes.model.Mechanism`.
"""

from __future__ import annotations

import errno
import itertools
import os
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from zctrace.collect import compiled, settings
from zctrace.collect.compiling import INSTRUCTION_POINTERS
from zctrace.errors import TraceError, ZctraceError, exhausted
from zctrace.kernel import bpf_syscall, perf_events
from zctrace.kernel.callsites import CALL_BYTES
from zctrace.plan.attachments import AttachPlan, CallAttachment, CopyAttachment
from zctrace.plan.places import REGISTER_NUMBERS
from zctrace.probes.model import DIRECTION_NUMBERS, Call, Mechanism, Purpose

_ARGUMENTS = (0, *(REGISTER_NUMBERS[name] for name in ("di", "si", "dx", "cx", "r8", "r9")))
"""The register of the argument of that number; 0: none."""
ON_BREAKPOINT, ON_FENTRY, ON_KPROBE, ON_USER_COPY = (
    *("on_breakpoint", "on_fentry", "on_kprobe", "on_user_copy"),
)
"""Handlers that are loaded once for each place; each such program's name has a number, too."""
_REFUSALS: dict[int | None, tuple[str, str]] = {
    errno.ENOSPC: (
        "all debug registers are in use",
        "end the other zctrace, perf or debugger",
    ),
    errno.ENOENT: (
        "new cgroups have no perf_event controller, because none is configured",
        "echo +pids > /sys/fs/cgroup/cgroup.subtree_control, as systemd does at boot",
    ),
    errno.EMFILE: (
        "a process may not have so many open files: there is one for each probe, and for a "
        "breakpoint one on each processor",
        "ulimit -Hn 65536, as root; in a container, its limit on open files (nofile)",
    ),
    errno.ENFILE: (
        "there may not be so many open files on this machine",
        "sysctl fs.file-max says how many",
    ),
    errno.ENOMEM: ("the kernel has no memory for it", "end something else, or give it more"),
}
"""What perf_event_open's errors mean for a breakpoint limited to a cgroup, and what to do."""
_TOO_FEW = frozenset((errno.EMFILE, errno.ENFILE, errno.ENOMEM))
"""Errors that say nothing of the place that is to be probed."""

_NO_PLACE: Mapping[str, int] = {}


class Programs:
    """The programs of a compiled meter, loaded when they are first asked for.

    ``sabotage`` names functions whose probes are never armed, or, as ``mechanism:function``,
    those of one mechanism. What is opened is given to ``cleanup``.
    """

    def __init__(
        self,
        compiled: compiled.Programs,
        known: Mapping[str, int],
        sabotage: frozenset[str],
        cleanup: ExitStack,
    ) -> None:
        self._compiled, self._known, self._sabotage = compiled, known, sabotage
        self.cleanup = cleanup
        self.loaded: dict[str, int] = {}
        """Descriptors, by name."""

    def load(
        self,
        handler: str,
        kind: int | None,
        slot: int | None = None,
        values: Mapping[str, int] = _NO_PLACE,
        function: str = "",
        *,
        at_return: bool = False,
    ) -> int:
        """Load a handler, once; one for each place, once for each ``slot``.

        ``values`` are settings of the place. Without a ``kind`` it is ``function`` that calls
        the program, at its entry or ``at_return``. Raises :class:`TraceError`.
        """
        name = handler if slot is None else f"{handler}_{slot}"
        if name not in self.loaded:
            known = {**self._known, **values}
            instructions = settings.put_in(self._compiled.instructions(handler), known)
            if kind is None:
                program = attempt(
                    *(function, bpf_syscall.load_at_entry, function, instructions),
                    at_return=at_return,
                )
            else:
                program = attempt(name, bpf_syscall.load, kind, instructions)
            self.close_later(program)
            self.loaded[name] = program
        return self.loaded[name]

    def is_sabotaged(self, function: str, mechanism: Mechanism) -> bool:
        return not self._sabotage.isdisjoint((function, f"{mechanism.value}:{function}"))

    def close_later(self, descriptor: int) -> None:
        self.cleanup.callback(os.close, descriptor)

    def probe(self, program: int, address: int, *, at_return: bool = False) -> None:
        """Have a program run by a kprobe; raises ``OSError``."""
        event = perf_events.open_kprobe(address, at_return=at_return)
        self.close_later(event)
        perf_events.set_program(event, program)

    def trace(self, program: int, tracepoint: str) -> None:
        """Have a program run by a tracepoint; raises ``OSError``."""
        event = perf_events.open_tracepoint(tracepoint)
        self.close_later(event)
        perf_events.set_program(event, program)

    def trace_raw(self, program: int, tracepoint: str) -> None:
        """Have a program get a tracepoint's arguments; raises ``OSError``."""
        _, _, name = tracepoint.partition(":")
        self.close_later(bpf_syscall.attach_to_raw_tracepoint(program, name))

    def call(self, program: int) -> None:
        """Have a program called by the function it is loaded for; raises ``OSError``."""
        self.close_later(bpf_syscall.attach_at_entry(program))


class Breakpoints:
    """Hardware breakpoints, one event for each processor."""

    def __init__(self, programs: Programs, copies: Iterable[CopyAttachment]) -> None:
        self._programs, self._copies = programs, tuple(copies)
        self.events: dict[str, list[int]] = {}
        """Descriptors, by function."""
        programs.cleanup.callback(self._close)

    def open(self, cgroup: Path | None, cpus: Collection[int]) -> None:
        """Open them for the tasks in ``cgroup`` alone, or for everybody; disarmed.

        Their own counts begin at 0 then. Raises :class:`TraceError`.
        """
        self._close()
        with ExitStack() as stack:
            folder = None
            if cgroup is not None:
                folder = os.open(cgroup, os.O_RDONLY | os.O_DIRECTORY)
                stack.callback(os.close, folder)
            for copy in self._copies:
                self._open(copy, folder, cpus)

    def _open(self, copy: CopyAttachment, cgroup: int | None, cpus: Collection[int]) -> None:
        program = self._programs.load(
            ON_BREAKPOINT, bpf_syscall.BREAKPOINT, copy.slot, dict(copy.place)
        )
        events = self.events.setdefault(copy.site.function, [])
        for cpu in sorted(cpus):
            event = attempt(
                f"{copy.site.function}, breakpoint",
                perf_events.open_breakpoint,
                copy.address,
                cgroup=cgroup,
                cpu=cpu,
            )
            events.append(event)
            perf_events.set_program(event, program)

    def enable(self) -> None:
        for copy in self._copies:
            if not self._programs.is_sabotaged(copy.site.function, copy.mechanism):
                for event in self.events[copy.site.function]:
                    perf_events.enable(event)

    def disable(self) -> None:
        for event in itertools.chain(*self.events.values()):
            perf_events.disable(event)

    def _close(self) -> None:
        for event in itertools.chain(*self.events.values()):
            os.close(event)
        self.events.clear()


class Entries:
    """Programs that functions call at their entry, or that kprobes there run.

    ``counters`` are further events at a kprobe's place that only count. The kernel passes over
    a program while another one runs on the same processor, as when an interrupt comes in the
    middle of it, and before Linux 6.7 it does not tell.
    """

    def __init__(self, programs: Programs, copies: Iterable[CopyAttachment]) -> None:
        self._programs, self._copies = programs, tuple(copies)
        self.counters: dict[str, list[int]] = {}
        """Descriptors, by function."""
        programs.cleanup.callback(self._close)
        for copy in self._copies:
            if copy.mechanism is Mechanism.FENTRY:
                self._call(copy)
            else:
                self._probe(copy)

    def open(self, cpus: Collection[int]) -> None:
        """Open the counters, disarmed, at 0; raises :class:`TraceError`."""
        self._close()
        for copy in self._copies:
            if copy.mechanism is not Mechanism.FENTRY:
                function = copy.site.function
                counters = self.counters.setdefault(function, [])
                for cpu in sorted(cpus):
                    counters.append(
                        attempt(function, perf_events.open_kprobe_counter, copy.address, cpu)
                    )

    def _call(self, copy: CopyAttachment) -> None:
        function = copy.site.function
        program = self._programs.load(ON_FENTRY, None, copy.slot, dict(copy.place), function)
        if not self._programs.is_sabotaged(function, copy.mechanism):
            attempt(function, self._programs.call, program)

    def _probe(self, copy: CopyAttachment) -> None:
        function = copy.site.function
        program = self._programs.load(ON_KPROBE, bpf_syscall.PROBE, copy.slot, dict(copy.place))
        if not self._programs.is_sabotaged(function, copy.mechanism):
            attempt(function, self._programs.probe, program, copy.address)

    def enable(self) -> None:
        for counter in itertools.chain(*self.counters.values()):
            perf_events.enable(counter)

    def disable(self) -> None:
        for counter in itertools.chain(*self.counters.values()):
            perf_events.disable(counter)

    def _close(self) -> None:
        for counter in itertools.chain(*self.counters.values()):
            os.close(counter)
        self.counters.clear()


class CallSites:
    """Probes on CALL instructions and behind them.

    ``names`` are the places' by the meter's numbers, from 1. ``refused`` are those that the
    kernel did not let be probed after all, by target's number.
    """

    def __init__(
        self, programs: Programs, bpf: Any, attachments: Iterable[CallAttachment]
    ) -> None:
        self._programs = programs
        self._sites, self._returns = bpf["call_sites"], bpf["return_sites"]
        self.names: list[str] = []
        self.refused: dict[int, list[str]] = {}
        self.add(attachments)

    def add(self, attachments: Iterable[CallAttachment]) -> None:
        """Attach more; raises :class:`TraceError`."""
        for attachment in attachments:
            self._attach(attachment)

    def _attach(self, attachment: CallAttachment) -> None:
        at_call = self._programs.load("on_call", bpf_syscall.PROBE)
        at_return = self._programs.load("on_return", bpf_syscall.PROBE)
        function = attachment.target.function
        sabotaged = self._programs.is_sabotaged(function, Mechanism.CALL_SITE)
        for call in attachment.calls:
            self.names.append(call.name)
            self._describe(attachment, call, len(self.names))
            if sabotaged:
                continue
            try:
                # First the one behind, so that no call is kept and never fetched.
                self._programs.probe(at_return, call.address + CALL_BYTES)
                self._programs.probe(at_call, call.address)
            except OSError as error:
                if error.errno in _TOO_FEW:
                    raise refusal(call.name, error) from error
                if error.errno != errno.EILSEQ:  # that would not be an instruction
                    self.refused.setdefault(attachment.number, []).append(call.name)

    def _describe(self, attachment: CallAttachment, call: Call, caller: int) -> None:
        """Tell the meter what there is to know about one place."""
        target = attachment.target
        sites, returns = self._sites, self._returns
        site = sites.Leaf(
            site=attachment.number,
            caller=caller,
            size=target.size,
            length=_ARGUMENTS[target.length],
            iterator=_ARGUMENTS[target.iterator],
            direction=DIRECTION_NUMBERS[target.direction],
            returned=target.returned.value,
            pages_to_pipe=target.pages_to_pipe,
            int_length=target.int_length,
            payload=target.purpose is Purpose.PAYLOAD,
        )
        for offset in INSTRUCTION_POINTERS:
            sites[sites.Key(call.address + offset)] = site
            returns[returns.Key(call.address + CALL_BYTES + offset)] = returns.Leaf(caller)


def attach_hooks(programs: Programs, plan: AttachPlan) -> None:
    """Programs that count nothing but tell whose work is done; raises :class:`TraceError`."""
    loads: Counter[str] = Counter()
    for attachment in plan.hooks:
        hook, mechanism = attachment.hook, attachment.mechanism
        what, at_return = f"{hook.function}: {hook.why}", hook.at_return
        if mechanism is Mechanism.FENTRY:
            # What a function calls is loaded for this one alone.
            slot = loads[hook.called] or None
            loads[hook.called] += 1
            program = programs.load(
                *(hook.called, None, slot), function=hook.function, at_return=at_return
            )
            if not programs.is_sabotaged(hook.function, mechanism):
                attempt(what, programs.call, program)
        else:
            program = programs.load(hook.handler, bpf_syscall.PROBE)
            if not programs.is_sabotaged(hook.function, mechanism):
                attempt(what, programs.probe, program, attachment.address, at_return=at_return)


_AT_TRACEPOINT = {
    Mechanism.TRACEPOINT: (bpf_syscall.TRACEPOINT, Programs.trace),
    Mechanism.RAW_TRACEPOINT: (bpf_syscall.RAW_TRACEPOINT, Programs.trace_raw),
}
"""The kind of program, and how it is attached."""


def attach_events(programs: Programs, plan: AttachPlan) -> None:
    """Tracepoints; raises :class:`TraceError`."""
    sites = dict.fromkeys(
        (e.site.handler, e.site.tracepoint, e.site.mechanism) for e in plan.events
    )
    for handler, tracepoint, mechanism in sites:
        kind, attach = _AT_TRACEPOINT[mechanism]
        program = programs.load(handler, kind)
        if not programs.is_sabotaged(tracepoint, Mechanism.TRACEPOINT):
            attempt(tracepoint, attach, programs, program, tracepoint)


def attempt(what: str, call: Callable[..., Any], *arguments: Any, **named: Any) -> Any:
    """The call's result; raises :class:`TraceError` that names ``what`` was refused."""
    try:
        return call(*arguments, **named)
    except Exception as error:  # BCC raises nothing more precise
        raise refusal(what, error) from error


def refusal(what: str, error: Exception) -> ZctraceError:
    """The kernel refused the probe on ``what``, why, and what to do; or memory was lacking."""
    number = error.errno if isinstance(error, OSError) else None
    if number is None and (lacking := exhausted(error)):
        return lacking
    other = str(error), "zctrace doctor says what this kernel offers"
    return TraceError(f"the kernel refused the probe on {what}", *_REFUSALS.get(number, other))
