"""How: load the meter, attach it as planned, read it. The only importer of bcc."""

from __future__ import annotations

import ctypes
import dataclasses
import errno
import itertools
import os
import struct
from collections.abc import Callable, Iterable, Mapping
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Any, NamedTuple

import bcc
import bcc.syscall

from zctrace.collect import flows, settings, stacks, user_functions
from zctrace.errors import TraceError
from zctrace.evidence import account as evidence_account
from zctrace.evidence.schema import CALLED, SKIPPED, Count, Hits
from zctrace.kernel import bpf_syscall, perf_events
from zctrace.kernel.callsites import CALL_BYTES
from zctrace.plan.attachments import AttachPlan, CallAttachment, CopyAttachment
from zctrace.plan.plan import REGISTER_NUMBERS, Amount
from zctrace.probes.model import (
    DIRECTION_NUMBERS,
    Call,
    Direction,
    Mechanism,
    Quantity,
    Returned,
)
from zctrace.probes.user_functions import USER_COPIES
from zctrace.workloads import marker

_SOURCES = (
    "settings.h",
    "registers.h",
    "direction.h",
    "window.c",
    "tally.c",
    "calls.c",
    "owner.c",
    "devices.c",
)
_FLOWS, _COPIES, _USER_MEMORY, _METER = "flows.c", "copies.c", "user_memory.c", "meter.c"
_MAX_TALLIES, _MAX_WINDOWS, _MAX_THREADS, _MAX_OWNERS = 8192, 10240, 10240, 65536
_MAX_REQUESTS, _MAX_MAPPINGS = 65536, 256
_NO_SYSCALL = 0xFFFFFFFF
_TASK_REPORT_MAX = 0x100
"""Set in sched_switch's prev_state for a preempted task (include/linux/sched.h)."""
_LOST = ("tally", "window", "syscall", "call", "part", "owner", "request", "mapping")
"""Causes of loss, in the order of their numbers; of flows there is one more."""
_LOST_FLOWS = ("flow",)
_DIRECTIONS = {number: way for way, number in DIRECTION_NUMBERS.items()}
_ARGUMENTS = (0, *(REGISTER_NUMBERS[name] for name in ("di", "si", "dx", "cx", "r8", "r9")))
"""The register of the argument of that number; 0: none."""
_INSTRUCTION_POINTERS = (0, 1)
"""What the instruction pointer may say in a probe: the place probed, or, on x86, the byte
behind the breakpoint instruction that the probe puts there."""

_ON_BREAKPOINT, _ON_FENTRY, _ON_KPROBE, _ON_USER_COPY = (
    *("on_breakpoint", CALLED, "on_kprobe", "on_user_copy"),
)
"""Handlers that are loaded once for each place; each such program's name has a number, too."""
_REFUSALS: dict[int | None, tuple[str, str]] = {
    errno.ENOSPC: (
        "all debug registers are in use",
        "end the other zctrace, perf or debugger",
    ),
    errno.ENOENT: (
        "new cgroups have no perf_event controller, because nobody has configured any",
        "echo +pids > /sys/fs/cgroup/cgroup.subtree_control, as systemd does at boot",
    ),
}
"""What perf_event_open's errors mean for a breakpoint limited to a cgroup, and what to do."""

_NEWER_SYSCALLS = {425: "io_uring_setup", 426: "io_uring_enter", 427: "io_uring_register"}
"""Those that BCC's own table has not (x86-64)."""

SECTOR_BYTES = 512
_MAPPED = {
    0: (Direction.KERNEL_TO_DEVICE, Direction.DEVICE_TO_KERNEL),
    1: (Direction.KERNEL_TO_DEVICE,),
    2: (Direction.DEVICE_TO_KERNEL,),
}
"""enum dma_data_direction (include/linux/dma-direction.h)."""

_BUILD_ID_DIGITS = 40
_NO_PLACE: Mapping[str, int] = {}
_SUBJECT, _PEER = 1, 2
"""What the meter calls the ends of a transfer."""

BCC_VERSION: str = bcc.__version__


class DiskRequest(NamedTuple):
    """One place on a disk that was read or written; ``start`` and ``bytes`` in bytes.

    ``device`` is its number, ``259:0``; ``operation`` in the block layer's letters
    (Documentation/trace/events.rst and blktrace's: R, RA, RM, W, …).
    """

    role: marker.RoleName
    device: str
    operation: str
    start: int
    bytes: int
    times: int


class Mapped(NamedTuple):
    """What the driver of ``device`` has mapped for DMA."""

    device: str
    direction: tuple[Direction, ...]
    calls: int
    bytes: int


class Meter:
    """The BPF programs of one plan: load, attach, activate, read; a context manager.

    Everything is given back on exit, also after an error. ``sabotage`` names functions
    whose probes are set up but never armed, or, as ``mechanism:function``, those of one
    mechanism: a meter with a fault that only the controls can notice. ``locate`` turns an
    address in kernel text into the name of the function around it. With ``follow_flows`` it
    also keeps account of files, sockets and pipes (:mod:`zctrace.collect.flows`), in as much
    ``room``, and with ``keep_stacks`` also of who was on the stack at each copy
    (:mod:`zctrace.collect.stacks`).
    Copies of at least ``user_copies_from`` bytes within a program's own memory are counted
    where :meth:`watch_user_memory` says so; ``None`` where nobody will.
    """

    def __init__(
        self,
        attach_plan: AttachPlan,
        nonce: int,
        sabotage: Iterable[str] = (),
        locate: Callable[[int], str] = hex,
        *,
        follow_flows: bool = False,
        room: flows.Room = flows.Room(),  # noqa: B008 - it is frozen
        keep_stacks: bool = False,
        user_copies_from: int | None = None,
    ) -> None:
        self._plan = attach_plan
        self._follow_flows = follow_flows
        self._room = room
        self._keep_stacks = keep_stacks
        self._user_copies_from = user_copies_from
        self._user_process = -1
        self._user_probes = ExitStack()
        self._nonce = nonce
        self._sabotage = frozenset(sabotage)
        self._locate = locate
        self.refused: dict[int, list[str]] = {}
        """Callers that the kernel did not let be probed after all, by target's number."""
        self._bpf: Any = None
        self._programs: dict[str, int] = {}
        self._breakpoints: dict[str, list[int]] = {}
        self._counters: dict[str, list[int]] = {}
        self._places: list[str] = []
        self._cpus: set[int] = set()
        self._cleanup = ExitStack()

    def __enter__(self) -> Meter:
        return self

    def __exit__(self, *_: object) -> None:
        self._cleanup.close()

    def load(self, probes: Path) -> None:
        """Compile the programs against the stub headers in ``probes``.

        Raises :class:`TraceError`. Compiler output goes to stderr.
        """
        # BCC takes "kernel headers" from <here>/include; see the comments in there.
        os.environ["BCC_KERNEL_SOURCE"] = str(probes)
        names = (
            *_SOURCES,
            *([_FLOWS] if self._follow_flows else []),
            _COPIES,
            *([] if self._user_copies_from is None else [_USER_MEMORY]),
            _METER,
        )
        text = "".join(
            f'#line 1 "{name}"\n{(probes / "bpf" / name).read_text()}' for name in names
        )
        try:
            self._bpf = bcc.BPF(
                text=text.encode(),
                cflags=[f"-D{name}={value}" for name, value in self._parameters().items()],
            )
        except Exception as error:  # BCC raises nothing more precise
            raise TraceError(
                "BCC could not compile the meter", str(error), "zctrace doctor"
            ) from error
        self._cleanup.callback(self._bpf.cleanup)
        if self._follow_flows:
            flows.prepare(self._bpf, self._plan)

    def attach(self, cgroup: Path | None) -> None:
        """Attach everything planned; breakpoints as :meth:`scope` does, disarmed.

        Raises :class:`TraceError` naming the probe that the kernel refused.
        """
        self._cpus = set(perf_events.online_cpus())
        self._cleanup.callback(self._close_breakpoints)
        self.scope(cgroup)
        for copy in self._plan.at_entries:
            if copy.mechanism is Mechanism.FENTRY:
                self._attach_fentry(copy)
            else:
                self._attach_kprobe(copy)
        self._attach_calls()
        for attachment in self._plan.hooks:
            hook = attachment.hook
            program = self._load(hook.handler, bpf_syscall.PROBE)
            what = f"{hook.function}: {hook.why}"
            if not self._is_sabotaged(hook.function, Mechanism.KPROBE):
                self._try(
                    what,
                    self._open_probe,
                    program,
                    attachment.address,
                    at_return=hook.at_return,
                )
        attached = set()
        for event in self._plan.events:
            site = event.site
            if (site.handler, site.tracepoint) in attached:
                continue
            attached.add((site.handler, site.tracepoint))
            program = self._load(site.handler, bpf_syscall.TRACEPOINT)
            if not self._is_sabotaged(site.tracepoint, Mechanism.TRACEPOINT):
                self._try(site.tracepoint, self._open_tracepoint, program, site.tracepoint)

    def scope(self, cgroup: Path | None) -> None:
        """Have the breakpoints for the tasks in ``cgroup`` alone, or for everybody; disarmed.

        Their own counts begin at 0 then. Raises :class:`TraceError`.
        """
        self._close_breakpoints()
        with ExitStack() as stack:
            folder = None
            if cgroup is not None:
                folder = os.open(cgroup, os.O_RDONLY | os.O_DIRECTORY)
                stack.callback(os.close, folder)
            for copy in self._plan.breakpoints:
                self._open_breakpoint(copy, folder)

    def watch_user_memory(self, process: int) -> None:
        """Have the functions probed that copy within the memory of ``process``, of no other.

        Raises :class:`TraceError` where there is one that cannot be. Until the next time.
        """
        self._user_probes.close()
        self._user_process = process
        self._cleanup.push(self._user_probes)
        assert self._user_copies_from is not None
        for slot, copy in enumerate(USER_COPIES):
            try:
                places = user_functions.places(copy, process, _build_id, _offset_of)
            except OSError as error:
                raise TraceError(f"process {process} is gone", str(error)) from error
            if not places:
                continue
            number = self._first_user_copy + slot
            values = user_functions.settings(copy, number, self._user_copies_from)
            program = self._load(_ON_USER_COPY, bpf_syscall.PROBE, slot, values)
            for place in places:
                event = self._try(
                    f"{copy.function} in {place.path}",
                    perf_events.open_uprobe,
                    *(place.path, place.offset, process),
                )
                self._user_probes.callback(os.close, event)
                if not self._is_sabotaged(copy.function, Mechanism.UPROBE):
                    perf_events.set_program(event, program)

    def activate(self) -> None:
        """Arm the breakpoints, and count."""
        for counter in itertools.chain(*self._counters.values()):
            perf_events.enable(counter)
        for copy in self._plan.breakpoints:
            if not self._is_sabotaged(copy.site.function, copy.mechanism):
                for event in self._breakpoints[copy.site.function]:
                    perf_events.enable(event)

    def deactivate(self) -> None:
        """Disarm the breakpoints, so that their counts and the programs' can be compared."""
        for counter in itertools.chain(*self._counters.values()):
            perf_events.disable(counter)
        for events in self._breakpoints.values():
            for event in events:
                perf_events.disable(event)

    def counts(self) -> list[Count]:
        """Everything tallied since the last :meth:`reset`."""
        names = self._names()
        counts = []
        for key, cells in self._bpf["tallies"].items():
            function, quantity, mechanism = names[key.site]
            counts.append(
                Count(
                    role=marker.role_name(key.role),
                    quantity=quantity,
                    function=function,
                    mechanism=mechanism,
                    direction=_DIRECTIONS.get(key.direction),
                    syscall=_syscall_name(key.syscall),
                    caller=self._caller(mechanism, key.caller),
                    calls=sum(cell.calls for cell in cells),
                    bytes=sum(cell.bytes for cell in cells),
                )
            )
        return sorted(counts, key=lambda c: (c.role, c.quantity, c.syscall or "", -c.bytes))

    def hits(self) -> dict[str, Hits]:
        """Per function, since loading: executions seen by the program and by perf."""
        table = self._bpf["hits"]
        result = {}
        for copy in self._plan.copies:
            function = copy.site.function
            seen = sum(table[ctypes.c_int(copy.number)])
            events = self._breakpoints.get(function) or self._counters.get(function, [])
            readings = [perf_events.read(event) for event in events]
            result[function] = Hits(
                program=seen,
                perf=sum(r.count for r in readings) if readings else None,
                multiplexed=any(r.running < r.enabled for r in readings),
                shared=function in self._counters,
            )
        return result

    def lost(self) -> dict[str, int]:
        """Events not counted since loading, by cause."""
        table = self._bpf["lost"]
        causes = (*_LOST, *(_LOST_FLOWS if self._follow_flows else ()))
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
            if name.startswith(_ON_FENTRY)
            or (self._plan.tells_skips and not name.startswith(_ON_BREAKPOINT))
        }
        return {f"{name}{SKIPPED}": count for name, count in skips.items() if count is not None}

    def unwatched_cpus(self) -> int:
        """Processors that have come online since attaching: no breakpoint is on them."""
        return len(set(perf_events.online_cpus()) - self._cpus)

    def abandon(self) -> None:
        """Leave everything attached, for the machine's end to take it away."""
        self._cleanup.pop_all()

    def reset(self) -> None:
        """Forget tallies and windows; hits and losses go on."""
        for name in (
            "tallies",
            "windows",
            "syscall_of",
            "calls",
            "owners",
            *(flows.TABLES if self._follow_flows else ("requests", "mappings")),
            *(stacks.TABLES if self._keep_stacks else ()),
        ):
            _empty(self._bpf[name])
        self._watch_nobody()

    def set_ends(self, namespaces: Iterable[tuple[int, ...]]) -> None:
        """Which network namespaces, by inode, are the subject's and which its peer's."""
        table = self._bpf["ends"]
        _empty(table)
        for end, inodes in zip((_SUBJECT, _PEER), namespaces, strict=True):
            for inode in inodes:
                table[table.Key(inode)] = table.Leaf(end)

    def open_window(self, process: int, role: marker.Role, scope: marker.Scope) -> None:
        """As if the process had opened one by the marker, and were back from it."""
        table = self._bpf["windows"]
        table[table.Key(process)] = table.Leaf(role=role, scope=scope)
        if role in marker.WATCHED:
            self._bpf["tracked_role"][ctypes.c_int(0)] = ctypes.c_ulonglong(role)

    def saw_window(self, role: marker.Role) -> bool:
        """Whether one of a watched role has been opened, and closed, since the last reset.

        Or since :meth:`close_windows`; by the marker, and with nothing said to be settled.
        """
        opened: int = self._bpf["tracked_role"][ctypes.c_int(0)].value
        return opened == role and all(w.origin for w in self._bpf["windows"].values())

    def close_windows(self) -> None:
        """Count for nobody any more."""
        _empty(self._bpf["windows"])
        self._watch_nobody()

    def account(self, programs: stacks.Programs) -> evidence_account.Account:
        """Files, sockets, pipes and threads since the last :meth:`reset`; stacks, if kept.

        ``programs`` are those that names of functions may be looked up in.
        """
        account = flows.read(self._bpf, _syscall_name)
        if not self._keep_stacks:
            return account
        names = self._names()
        kept = stacks.read(
            self._bpf,
            programs.paths(
                thing.name for thing in account.things if thing.kind == evidence_account.FILE
            ),
            _build_id,
            lambda site: names[site][0],
            self._locate,
            _syscall_name,
            _DIRECTIONS.get,
        )
        return dataclasses.replace(account, stacks=kept)

    def running(self) -> flows.Running:
        """What moves and is copied, to be looked at while it does; a context manager."""
        return flows.Running(
            self._bpf["running"].map_fd, self._bpf["overflow"].map_fd, _syscall_name
        )

    def measure_costs(self) -> None:
        """Have the kernel measure how long programs run, where it can, from now on."""
        switch = bpf_syscall.measure_run_times()
        if switch is not None:
            self._cleanup.callback(os.close, switch)

    def costs(self) -> dict[str, tuple[int, int]]:
        """How often each program has run, and for how many ns, while that was measured."""
        return {name: bpf_syscall.run_time(fd) for name, fd in self._programs.items()}

    def requests(self) -> list[DiskRequest]:
        """What disks were told to do since the last :meth:`reset`, while work was watched."""
        return sorted(
            DiskRequest(
                role=marker.role_name(key.role),
                device=f"{key.device >> 20}:{key.device & 0xFFFFF}",
                operation=struct.pack("=Q", key.operation).split(b"\0")[0].decode(),
                start=key.sector * SECTOR_BYTES,
                bytes=key.bytes,
                times=ctypes.c_int64(times.value).value,
            )
            for key, times in self._bpf["requests"].items()
        )

    def mappings(self) -> list[Mapped]:
        """What was mapped for DMA since the last :meth:`reset`, while work was watched."""
        return [
            Mapped(
                device=bytes(key.device).split(b"\0")[0].decode(errors="replace"),
                direction=_MAPPED[key.direction],
                calls=cell.calls,
                bytes=cell.bytes,
            )
            for key, cell in self._bpf["mappings"].items()
            if key.direction in _MAPPED
        ]

    def _watch_nobody(self) -> None:
        self._bpf["tracked_role"][ctypes.c_int(0)] = ctypes.c_ulonglong(0)

    def _parameters(self) -> dict[str, str]:
        sites = self._first_user_copy + len(USER_COPIES)
        places = len(_INSTRUCTION_POINTERS) * sum(len(c.calls) for c in self._plan.calls)
        watched = sorted(marker.WATCHED)
        return {
            **settings.parameters(),
            **_numbers(),
            "ROLE_UNATTRIBUTED": hex(marker.OUTSIDE),
            "IS_TRACKED(role)": f"({' || '.join(f'(role) == {r:d}' for r in watched)})",
            "MAX_SITES": str(max(sites, 1)),
            "MAX_TALLIES": str(_MAX_TALLIES),
            "MAX_WINDOWS": str(_MAX_WINDOWS),
            "MAX_THREADS": str(_MAX_THREADS),
            "MAX_OWNERS": str(_MAX_OWNERS),
            "MAX_REQUESTS": str(_MAX_REQUESTS),
            "MAX_MAPPINGS": str(_MAX_MAPPINGS),
            "PEER_OF(role)": (
                f"((role) == {marker.Role.RECEIVER:d} ? {marker.Role.SOURCE:d}"
                f" : {marker.Role.SINK:d})"
            ),
            "MAX_CALL_SITES": str(max(places, 1)),
            "END_SUBJECT": str(_SUBJECT),
            "SWITCH_PREEMPTED": hex(_TASK_REPORT_MAX),
            **(flows.parameters(self._room) if self._follow_flows else {}),
            **(stacks.PARAMETERS if self._keep_stacks else {}),
            **dict(self._plan.parameters),
        }

    @property
    def _first_user_copy(self) -> int:
        """The meter's number of the first function that copies within user memory."""
        plan = self._plan
        numbers = [
            *(copy.number for copy in plan.copies),
            *(call.number for call in plan.calls),
            *(event.number for event in plan.events),
        ]
        return 1 + max(numbers, default=-1)

    def _names(self) -> dict[int, tuple[str, Quantity, Mechanism]]:
        """Function, quantity and mechanism by the meter's site numbers."""
        calls = {
            c.number: (c.target.function, c.target.quantity, Mechanism.CALL_SITE)
            for c in self._plan.calls
        }
        copies = {
            c.number: (c.site.function, c.site.quantity, c.mechanism) for c in self._plan.copies
        }
        events = {
            e.number: (e.site.tracepoint, e.site.quantity, Mechanism.TRACEPOINT)
            for e in self._plan.events
        }
        within = {
            number: (copy.function, Quantity.USER_MEMORY, Mechanism.UPROBE)
            for number, copy in enumerate(USER_COPIES, start=self._first_user_copy)
        }
        return calls | copies | events | within

    def _caller(self, mechanism: Mechanism, number: int) -> str | None:
        if not number:
            return None
        if mechanism is Mechanism.TRACEPOINT:
            return f"device {number}"
        if mechanism is Mechanism.CALL_SITE:
            return self._places[number - 1]
        if mechanism is Mechanism.UPROBE:
            name = self._bpf.sym(number, self._user_process, show_module=True)
            return str(name.decode(errors="replace"))
        return self._locate(number)

    def _is_sabotaged(self, function: str, mechanism: Mechanism) -> bool:
        return not self._sabotage.isdisjoint((function, f"{mechanism.value}:{function}"))

    def _attach_calls(self) -> None:
        if not self._plan.calls:
            return
        at_call = self._load("on_call", bcc.BPF.KPROBE)
        at_return = self._load("on_return", bcc.BPF.KPROBE)
        for attachment in self._plan.calls:
            sabotaged = self._is_sabotaged(attachment.target.function, Mechanism.CALL_SITE)
            for call in attachment.calls:
                self._places.append(call.name)
                self._describe(attachment, call, len(self._places))
                if sabotaged:
                    continue
                try:
                    # First the one behind, so that no call is kept and never fetched.
                    for program, address in (
                        (at_return, call.address + CALL_BYTES),
                        (at_call, call.address),
                    ):
                        self._open_probe(program, address)
                except OSError as error:
                    if error.errno != errno.EILSEQ:  # that would not be an instruction
                        self.refused.setdefault(attachment.number, []).append(call.name)

    def _describe(self, attachment: CallAttachment, call: Call, caller: int) -> None:
        """Tell the meter what there is to know about one place."""
        target = attachment.target
        sites, returns = self._bpf["call_sites"], self._bpf["return_sites"]
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
        )
        for offset in _INSTRUCTION_POINTERS:
            sites[sites.Key(call.address + offset)] = site
            returns[returns.Key(call.address + CALL_BYTES + offset)] = returns.Leaf(caller)

    def _attach_fentry(self, copy: CopyAttachment) -> None:
        function = copy.site.function
        program = self._load(_ON_FENTRY, None, copy.slot, dict(copy.place), function)
        if not self._is_sabotaged(function, copy.mechanism):
            self._cleanup.callback(
                os.close, self._try(function, bpf_syscall.attach_at_entry, program)
            )

    def _attach_kprobe(self, copy: CopyAttachment) -> None:
        function = copy.site.function
        program = self._load(_ON_KPROBE, bpf_syscall.PROBE, copy.slot, dict(copy.place))
        if not self._is_sabotaged(function, copy.mechanism):
            self._try(function, self._open_probe, program, copy.address)
        # Another event at the same place that only counts. The kernel passes over a program
        # while another one runs on the same processor, as when an interrupt comes in the
        # middle of it, and before Linux 6.7 it does not tell.
        self._counters[function] = [
            self._try(function, self._open_counter, copy.address, cpu)
            for cpu in sorted(self._cpus)
        ]

    def _open_counter(self, address: int, cpu: int) -> int:
        event = perf_events.open_kprobe_counter(address, cpu)
        self._cleanup.callback(os.close, event)
        return event

    def _open_probe(self, program: int, address: int, *, at_return: bool = False) -> None:
        event = perf_events.open_kprobe(address, at_return=at_return)
        self._cleanup.callback(os.close, event)
        perf_events.set_program(event, program)

    def _open_tracepoint(self, program: int, tracepoint: str) -> None:
        names = (name.encode() for name in tracepoint.split(":"))
        event = bcc.lib.bpf_attach_tracepoint(program, *names)
        if event < 0:
            raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
        self._cleanup.callback(os.close, event)

    def _load(
        self,
        handler: str,
        kind: int | None,
        slot: int | None = None,
        values: Mapping[str, int] = _NO_PLACE,
        function: str = "",
    ) -> int:
        """Load a handler, once; one for each place, once for each ``slot``.

        ``values`` are settings of the place. Without a ``kind`` it is ``function`` that calls
        the program.
        """
        name = handler if slot is None else f"{handler}_{slot}"
        if name not in self._programs:
            known = {"NONCE": self._nonce, **dict(self._plan.settings), **values}
            instructions = settings.put_in(self._bpf.dump_func(handler.encode()), known)
            if kind is None:
                program = self._try(function, bpf_syscall.load_at_entry, function, instructions)
            else:
                program = self._try(name, bpf_syscall.load, kind, instructions)
            self._cleanup.callback(os.close, program)
            self._programs[name] = program
        return self._programs[name]

    def _close_breakpoints(self) -> None:
        for event in itertools.chain(*self._breakpoints.values()):
            os.close(event)
        self._breakpoints.clear()

    def _open_breakpoint(self, copy: CopyAttachment, cgroup: int | None) -> None:
        program = self._load(
            _ON_BREAKPOINT, bpf_syscall.BREAKPOINT, copy.slot, dict(copy.place)
        )
        events = self._breakpoints.setdefault(copy.site.function, [])
        for cpu in sorted(self._cpus):
            event = self._try(
                f"{copy.site.function}, breakpoint",
                perf_events.open_breakpoint,
                copy.address,
                cgroup=cgroup,
                cpu=cpu,
            )
            events.append(event)
            perf_events.set_program(event, program)

    def _try(self, what: str, call: Any, *arguments: Any, **named: Any) -> Any:
        try:
            return call(*arguments, **named)
        except Exception as error:  # BCC raises nothing more precise
            why, hint = _REFUSALS.get(
                error.errno if isinstance(error, OSError) else None,
                (str(error), "zctrace doctor says what this kernel offers"),
            )
            raise TraceError(f"the kernel refused the probe on {what}", why, hint) from error


def _numbers() -> dict[str, str]:
    """For the meter's ``-D``: what it and its readers have numbers for."""
    causes = (*_LOST, *_LOST_FLOWS)
    return {
        "MARKER_OPTION": hex(marker.OPTION),
        "NO_SYSCALL": f"{_NO_SYSCALL:#x}U",
        "LOST_CAUSES": str(len(causes)),
        **{f"LOST_{cause.upper()}": str(number) for number, cause in enumerate(causes)},
        **{f"MARKER_{o.name}": str(o.value) for o in marker.Operation},
        **{f"SCOPE_{scope.name}": str(scope.value) for scope in marker.Scope},
        **{way.name: str(number) for way, number in DIRECTION_NUMBERS.items()},
        **{f"RETURNED_{returned.name}": str(returned.value) for returned in Returned},
        **{f"AMOUNT_{amount.name}": str(amount.value) for amount in Amount},
        **{f"REGISTER_{name.upper()}": str(n) for name, n in REGISTER_NUMBERS.items()},
    }


def _empty(table: Any) -> None:
    """Take everything out of a table, also while the meter's programs do.

    BCC takes it for an error when a row is gone that it has just seen: that of a process which
    ends at this moment, say.
    """
    while True:
        with suppress(KeyError):
            table.clear()
            return


def _build_id(path: str) -> str:
    """Of a program or library, in hexadecimal digits; empty if it has none."""
    digits = ctypes.create_string_buffer(_BUILD_ID_DIGITS + 1)
    found = bcc.lib.bcc_elf_get_buildid(path.encode(), digits) == 0
    return digits.value.decode() if found else ""


def _offset_of(path: str, name: str) -> int | None:
    """Where in the file a function's code is; ``None`` if there is no such symbol."""
    symbol = bcc.bcc_symbol()
    found = bcc.lib.bcc_resolve_symname(
        path.encode(), name.encode(), 0, 0, None, ctypes.byref(symbol)
    )
    if found < 0:
        return None
    bcc.lib.bcc_procutils_free(symbol.module)
    return int(symbol.offset)


def _syscall_name(number: int) -> str | None:
    if number == _NO_SYSCALL:
        return None
    name = bcc.syscall.syscalls.get(number)
    return name.decode() if name else _NEWER_SYSCALLS.get(number, f"syscall_{number}")
