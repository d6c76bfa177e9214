"""How: load the meter, attach it as planned, read it. The only importer of bcc."""

from __future__ import annotations

import ctypes
import errno
import os
import struct
from collections.abc import Iterable
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import bcc
import bcc.syscall

from tracer import perf
from tracer.errors import TraceError
from tracer.evidence import Count, Hits
from tracer.plan import AttachPlan, CopyAttachment
from workloads import marker

_SOURCES = ("registers.h", "window.c", "tally.c", "meter.c")
_MAX_TALLIES, _MAX_WINDOWS, _MAX_THREADS = 4096, 10240, 10240
_NO_SYSCALL = 0xFFFFFFFF
_TASK_REPORT_MAX = 0x100
"""Set in sched_switch's prev_state for a preempted task (include/linux/sched.h)."""
_LOST = ("tally", "window", "syscall")
"""Causes of loss, in the order of the meter's LOST_* numbers."""
_DIRECTIONS = {0: None, 1: "u2k", 2: "k2u", 3: "k2k", 4: "u2u"}
_SYS_BPF, _OBJ_GET_INFO_BY_FD = 321, 15
_INFO_BYTES, _RECURSION_MISSES = 256, 208
"""bpf(2): size asked for of struct bpf_prog_info, and where recursion_misses stands
(Since Linux kernel commit 9ed9e9ba2337 ("bpf: Count the number of times recursion was
prevented") (in v5.12))."""

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

BCC_VERSION: str = bcc.__version__


class Meter:
    """The BPF programs of one plan: load, attach, activate, read; a context manager.

    Everything is given back on exit, also after an error. ``sabotage`` names functions
    whose probes are set up but never armed: a meter with a fault that only the controls
    can notice.
    """

    def __init__(
        self, attach_plan: AttachPlan, nonce: int, sabotage: Iterable[str] = ()
    ) -> None:
        self._plan = attach_plan
        self._nonce = nonce
        self._sabotage = frozenset(sabotage)
        self._bpf: Any = None
        self._programs: dict[str, int] = {}
        self._breakpoints: dict[str, list[int]] = {}
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
        text = "".join(
            f'#line 1 "{name}"\n{(probes / "bpf" / name).read_text()}' for name in _SOURCES
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

    def attach(self, cgroup: Path) -> None:
        """Attach everything planned; breakpoints for the tasks in ``cgroup``, disarmed.

        Raises :class:`TraceError` naming the probe that the kernel refused.
        """
        self._cpus = set(perf.online_cpus())
        folder = os.open(cgroup, os.O_RDONLY | os.O_DIRECTORY)
        try:
            for copy in self._plan.breakpoints:
                self._open_breakpoint(copy, folder)
        finally:
            os.close(folder)
        for copy in self._plan.kprobes:
            name = f"on_kprobe_{copy.slot}"
            self._load(name, bcc.BPF.KPROBE)
            if copy.site.function not in self._sabotage:
                self._try(
                    copy.site.function,
                    self._bpf.attach_kprobe,
                    event=copy.site.function.encode(),
                    fn_name=name.encode(),
                )
        attached = set()
        for event in self._plan.events:
            site = event.site
            if site.handler in attached:
                continue
            attached.add(site.handler)
            self._load(site.handler, bcc.BPF.TRACEPOINT)
            self._try(
                site.tracepoint,
                self._bpf.attach_tracepoint,
                tp=site.tracepoint.encode(),
                fn_name=site.handler.encode(),
            )

    def activate(self) -> None:
        """Arm the breakpoints."""
        for function, events in self._breakpoints.items():
            if function not in self._sabotage:
                for event in events:
                    perf.enable(event)

    def deactivate(self) -> None:
        """Disarm the breakpoints, so that their counts and the programs' can be compared."""
        for events in self._breakpoints.values():
            for event in events:
                perf.disable(event)

    def counts(self) -> list[Count]:
        """Everything tallied since the last :meth:`reset`."""
        names = self._names()
        counts = []
        for key, cells in self._bpf["tallies"].items():
            function, quantity = names[key.site]
            counts.append(
                Count(
                    role=marker.role_name(key.role),
                    quantity=quantity,
                    function=function,
                    direction=_DIRECTIONS[key.direction],
                    syscall=_syscall_name(key.syscall),
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
            seen = sum(table[ctypes.c_int(copy.number)])
            readings = [perf.read(e) for e in self._breakpoints.get(copy.site.function, ())]
            result[copy.site.function] = Hits(
                program=seen,
                perf=sum(r.count for r in readings) if readings else None,
                multiplexed=any(r.running < r.enabled for r in readings),
            )
        return result

    def lost(self) -> dict[str, int]:
        """Events not counted since loading, by cause."""
        table = self._bpf["lost"]
        lost = {cause: table[ctypes.c_int(i)].value for i, cause in enumerate(_LOST)}
        return lost

    def skipped(self) -> dict[str, int]:
        """Times the kernel has skipped each program since loading, where it tells.

        Reading or clearing a map from here makes the kernel skip every program on this
        processor, and while that system call is preempted, for other threads too. So this
        is to be read with no such call between it and what is being watched; it makes
        none itself.
        """
        skips = {name: _recursion_misses(fd) for name, fd in self._programs.items()}
        return {f"{name}-skipped": count for name, count in skips.items() if count is not None}

    def unwatched_cpus(self) -> int:
        """Processors that have come online since attaching: no breakpoint is on them."""
        return len(set(perf.online_cpus()) - self._cpus)

    def reset(self) -> None:
        """Forget tallies and windows; hits and losses go on."""
        for name in ("tallies", "windows", "syscall_of"):
            self._bpf[name].clear()
        self._bpf["watching"][ctypes.c_int(0)] = ctypes.c_ulonglong(0)

    def _parameters(self) -> dict[str, str]:
        sites = len(self._plan.copies) + len(self._plan.events)
        watched = sorted(marker.WATCHED)
        return {
            "MARKER_OPTION": hex(marker.OPTION),
            "NONCE": f"{self._nonce}ULL",
            "ROLE_OUTSIDE": hex(marker.OUTSIDE),
            "IS_WATCHED(role)": f"({' || '.join(f'(role) == {r:d}' for r in watched)})",
            "MAX_SITES": str(max(sites, 1)),
            "MAX_TALLIES": str(_MAX_TALLIES),
            "MAX_WINDOWS": str(_MAX_WINDOWS),
            "MAX_THREADS": str(_MAX_THREADS),
            "SWITCH_PREEMPTED": hex(_TASK_REPORT_MAX),
            **dict(self._plan.parameters),
        }

    def _names(self) -> dict[int, tuple[str, str]]:
        """Function and quantity by the meter's site numbers."""
        copies = {c.number: (c.site.function, c.site.quantity) for c in self._plan.copies}
        events = {e.number: (e.site.tracepoint, e.site.quantity) for e in self._plan.events}
        return copies | events

    def _load(self, handler: str, kind: int) -> int:
        function = self._try(handler, self._bpf.load_func, handler.encode(), kind)
        self._programs[handler] = function.fd
        fd: int = function.fd
        return fd

    def _open_breakpoint(self, copy: CopyAttachment, cgroup: int) -> None:
        program = self._load(f"on_breakpoint_{copy.slot}", bcc.BPF.PERF_EVENT)
        events = self._breakpoints.setdefault(copy.site.function, [])
        for cpu in sorted(self._cpus):
            event = self._try(
                f"{copy.site.function}, breakpoint",
                perf.open_breakpoint,
                copy.address,
                cgroup=cgroup,
                cpu=cpu,
            )
            self._cleanup.callback(os.close, event)
            events.append(event)
            perf.set_program(event, program)

    def _try(self, what: str, call: Any, *arguments: Any, **named: Any) -> Any:
        try:
            return call(*arguments, **named)
        except Exception as error:  # BCC raises nothing more precise
            why, hint = _REFUSALS.get(
                error.errno if isinstance(error, OSError) else None,
                (str(error), "zctrace doctor says what this kernel offers"),
            )
            raise TraceError(f"the kernel refused the probe on {what}", why, hint) from error


def _syscall_name(number: int) -> str | None:
    if number == _NO_SYSCALL:
        return None
    name = bcc.syscall.syscalls.get(number)
    return name.decode() if name else f"syscall_{number}"


def _recursion_misses(program: int) -> int | None:
    """How often the kernel skipped the program because one was running; None if untold.

    Kernels before 6.7 have the figure but do not count the programs of probes and
    tracepoints in it: there 0 means little.
    """
    info = ctypes.create_string_buffer(_INFO_BYTES)
    attributes = ctypes.create_string_buffer(
        struct.pack("=IIQ", program, _INFO_BYTES, ctypes.addressof(info)), 128
    )
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.syscall(_SYS_BPF, _OBJ_GET_INFO_BY_FD, attributes, 16):
        return None
    (length,) = struct.unpack_from("=I", attributes.raw, 4)
    if length < _RECURSION_MISSES + 8:
        return None
    (misses,) = struct.unpack_from("=Q", info.raw, _RECURSION_MISSES)
    return int(misses)
