"""What a run could leave behind on a machine, as comparable values. Standard library."""

import ctypes
import os
import struct
from pathlib import Path

_SYS_BPF, _PROG_GET_NEXT_ID = 321, 11


def bpf_programs():
    """Ids of all loaded BPF programs."""
    libc = ctypes.CDLL(None, use_errno=True)
    found, last = [], 0
    while True:
        attributes = ctypes.create_string_buffer(struct.pack("=II", last, 0), 128)
        if libc.syscall(_SYS_BPF, _PROG_GET_NEXT_ID, attributes, 12):
            return found
        (last,) = struct.unpack_from("=I", attributes.raw, 4)
        found.append(last)


def processes():
    """Command lines of all processes that have to do with a run."""
    found = []
    for status in Path("/proc").glob("[0-9]*"):
        try:
            words = (
                (status / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
            )
        except OSError:
            continue
        if int(status.name) != os.getpid() and any(
            name in words for name in ("zctrace", "qemu-system", "virtme", "vng")
        ):
            found.append(words[:100])
    return sorted(found)


def perf_events():
    """How many descriptors of perf events are open, in all processes."""
    count = 0
    for link in Path("/proc").glob("[0-9]*/fd/*"):
        try:
            count += "perf_event" in str(link.readlink())
        except OSError:
            continue
    return count


def snapshot():
    """Everything that must be the same before and after."""
    temporary = Path(os.environ.get("TMPDIR") or "/tmp")
    return {
        "bpf programs": bpf_programs(),
        "perf events": perf_events(),
        "mounts": sorted(
            line
            for line in Path("/proc/self/mountinfo").read_text().splitlines()
            # The kernel mounts it by itself, for good, when somebody first looks there.
            if " /sys/kernel/debug/tracing " not in line
        ),
        "network namespaces": sorted(
            {
                str(link.readlink())
                for link in Path("/proc").glob("[0-9]*/ns/net")
                if link.exists()
            }
        ),
        "processes": processes(),
        "temporary files": sorted(
            path.name for path in temporary.iterdir() if "zctrace" in path.name
        ),
        "cgroups": sorted(
            str(path) for path in Path("/sys/fs/cgroup").glob("**/zctrace-*") if path.is_dir()
        ),
        "loop devices": sorted(
            path.parent.parent.name
            for path in Path("/sys/block").glob("loop*/loop/backing_file")
        ),
    }
