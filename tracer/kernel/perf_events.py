"""perf_event_open(2) for the events that BCC does not manage well.

BCC keeps breakpoint descriptors under (type, config), so that several breakpoints
overwrite each other; here each is a descriptor of its own. Source: perf_event_open(2),
include/uapi/linux/perf_event.h.
"""

from __future__ import annotations

import ctypes
import fcntl
import functools
import os
import struct
import threading
from dataclasses import dataclass
from pathlib import Path

EVENTS = (Path("/sys/kernel/tracing/events"), Path("/sys/kernel/debug/tracing/events"))
"""Where tracefs has the tracepoints; the first that is there."""
_SYS_PERF_EVENT_OPEN = 298  # x86-64
_TYPE_TRACEPOINT, _TYPE_BREAKPOINT = 2, 5
_BP_EXECUTE = 4
_BP_LENGTH = 8  # sizeof(long): the only length the kernel takes for execution on x86-64
_FLAG_FD_CLOEXEC = 8
_FLAG_PID_CGROUP = 4
_DISABLED, _PINNED = 1, 4
_IOC_ENABLE = 0x2400
_IOC_DISABLE = 0x2401
_IOC_SET_BPF = 0x40042408

_libc = ctypes.CDLL(None, use_errno=True)


class _Attributes(ctypes.Structure):
    """struct perf_event_attr, as far as these events need it (PERF_ATTR_SIZE_VER7)."""

    _fields_ = (
        ("type", ctypes.c_uint32),
        ("size", ctypes.c_uint32),
        ("config", ctypes.c_uint64),
        ("sample_period", ctypes.c_uint64),
        ("sample_type", ctypes.c_uint64),
        ("read_format", ctypes.c_uint64),
        ("flags", ctypes.c_uint64),
        ("wakeup_events", ctypes.c_uint32),
        ("bp_type", ctypes.c_uint32),
        ("config1", ctypes.c_uint64),  # union with bp_addr, kprobe_func
        ("config2", ctypes.c_uint64),  # union with bp_len, probe_offset
        ("rest", ctypes.c_uint64 * 7),
    )


@dataclass(frozen=True)
class Reading:
    """An event's own count, and whether it was armed as long as it was wanted.

    If the event was not armed all the time, its count is not known, and 0. The times that the
    kernel keeps for an event do not show this: for a cgroup's event they may go on although no
    thread of the cgroup runs.
    """

    count: int
    armed: bool = True


def online_cpus() -> list[int]:
    """The processors that are online, by number."""
    return _cpus("online")


def possible_cpus() -> list[int]:
    """Those that may ever be; maps have room for each of them."""
    return _cpus("possible")


def _cpus(which: str) -> list[int]:
    cpus: list[int] = []
    with open(f"/sys/devices/system/cpu/{which}") as file:
        for part in file.read().strip().split(","):
            first, _, last = part.partition("-")
            cpus += range(int(first), int(last or first) + 1)
    return cpus


def _open(attributes: _Attributes, pid: int, cpu: int, flags: int) -> int:
    attributes.size = ctypes.sizeof(attributes)
    fd: int = _libc.syscall(
        _SYS_PERF_EVENT_OPEN,
        ctypes.byref(attributes),
        pid,
        cpu,
        -1,
        flags | _FLAG_FD_CLOEXEC,
    )
    if fd < 0:
        errno = ctypes.get_errno()
        raise OSError(errno, os.strerror(errno))
    return fd


def open_breakpoint(address: int, *, cgroup: int | None = None, cpu: int = -1) -> int:
    """A disabled execution breakpoint on the instruction at ``address``.

    With ``cgroup``, a descriptor of a cgroup's folder, it fires for the tasks in there
    on ``cpu``; without, for everybody on that ``cpu``; and with neither for the calling
    thread. Raises ``OSError``.
    """
    attributes = _Attributes(
        type=_TYPE_BREAKPOINT,
        sample_period=1,
        flags=_DISABLED | _PINNED,
        bp_type=_BP_EXECUTE,
        config1=address,
        config2=_BP_LENGTH,
    )
    if cgroup is None:
        return _open(attributes, 0 if cpu < 0 else -1, cpu, 0)
    return _open(attributes, cgroup, cpu, _FLAG_PID_CGROUP)


def open_kprobe(address: int, *, at_return: bool = False) -> int:
    """A probe on the instruction at ``address``, or on the return of the function there.

    It is armed from the beginning; without a program it does nothing. Raises ``OSError``:
    EINVAL where the kernel lets nothing be traced, EILSEQ where no instruction begins.
    """
    attributes = _Attributes(type=_pmu_type("kprobe"), config=int(at_return), config2=address)
    return _open(attributes, _parked(), -1, 0)


def open_tracepoint(name: str) -> int:
    """The tracepoint of that name, as ``sched:sched_switch``.

    It is armed from the beginning; without a program it does nothing. Raises ``OSError``.
    """
    folder = next(root for root in EVENTS if root.is_dir() or root is EVENTS[-1])
    number = int((folder / name.replace(":", "/") / "id").read_text())
    return _open(_Attributes(type=_TYPE_TRACEPOINT, config=number), _parked(), -1, 0)


@functools.cache
def _parked() -> int:
    """A thread of ours that never runs.

    What a probe or tracepoint runs depends on its being there, not on whom its event is for;
    but at every switch between two cgroups the kernel takes all events of the processor off and
    puts them back on. Those of a thread that sleeps are no processor's.
    """
    thread = threading.Thread(target=threading.Event().wait, name="parked", daemon=True)
    thread.start()
    assert thread.native_id is not None
    return thread.native_id


def open_kprobe_counter(address: int, cpu: int) -> int:
    """A disabled event that counts, on ``cpu``, executions of the instruction there."""
    attributes = _Attributes(
        type=_pmu_type("kprobe"), config2=address, flags=_DISABLED | _PINNED
    )
    return _open(attributes, -1, cpu, 0)


def open_uprobe(path: str, offset: int, process: int) -> int:
    """A probe on the instruction at ``offset`` in a file, for one process, all its threads.

    With ``process`` -1 for every process that maps the file. It is armed from the beginning;
    without a program it does nothing. Raises ``OSError``.
    """
    name = ctypes.create_string_buffer(os.fsencode(path))
    attributes = _Attributes(
        type=_pmu_type("uprobe"), config1=ctypes.addressof(name), config2=offset
    )
    # An event for every process is opened on one processor. Its program runs on all of them.
    return _open(attributes, process, 0 if process < 0 else -1, 0)


def try_kprobe(function: str) -> None:
    """Ask the kernel for a probe on ``function``'s entry and give it back at once.

    Raises ``OSError`` where the kernel refuses: EINVAL or ENOENT for a function that
    it does not let be traced or does not have.
    """
    name = ctypes.create_string_buffer(function.encode())
    attributes = _Attributes(type=_pmu_type("kprobe"), config1=ctypes.addressof(name))
    os.close(_open(attributes, -1, 0, 0))


@functools.cache
def _pmu_type(name: str) -> int:
    with open(f"/sys/bus/event_source/devices/{name}/type") as file:
        return int(file.read())


def set_program(event: int, program: int) -> None:
    """Have the loaded BPF ``program`` (a descriptor) run at each overflow."""
    fcntl.ioctl(event, _IOC_SET_BPF, program)


def enable(event: int) -> None:
    fcntl.ioctl(event, _IOC_ENABLE, 0)


def disable(event: int) -> None:
    fcntl.ioctl(event, _IOC_DISABLE, 0)


def read(event: int) -> Reading:
    """Of a pinned event: nothing can be read where the kernel could not have it count."""
    content = os.read(event, 8)
    return Reading(*struct.unpack("=Q", content)) if content else Reading(0, armed=False)
