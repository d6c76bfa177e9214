"""What a run could leave behind on a machine, as comparable values. Standard library.

``snapshot`` is for a machine where nothing else runs: a guest. On one where other guests and
other people's programs come and go, ``of_run`` looks for what carries a run's own marks.
"""

import ctypes
import glob
import os
import struct
from contextlib import suppress
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


def there(pattern, **options):
    """Paths, sorted. Folders that go while they are searched are no error, as with pathlib."""
    return [Path(name) for name in sorted(glob.glob(pattern, **options))]  # noqa: PTH207


def processes(names=(), marks=()):
    """By number, the command lines of processes that name one of ``names``, or carry a mark.

    They carry a mark that stands in their command line or environment.
    """
    found = {}
    for process in there("/proc/[0-9]*"):
        try:
            words = (process / "cmdline").read_bytes().replace(b"\0", b" ")
            environment = (process / "environ").read_bytes() + b"\0" if marks else b""
        except OSError:
            continue
        if int(process.name) != os.getpid() and (
            any(name.encode() in words for name in names)
            or any(mark.encode() in words + environment for mark in marks)
        ):
            found[int(process.name)] = words.decode(errors="replace")
    return found


def perf_events():
    """How many descriptors of perf events are open, in all processes."""
    count = 0
    for link in there("/proc/[0-9]*/fd/*"):
        try:
            count += "perf_event" in str(link.readlink())
        except OSError:
            continue
    return count


def mounts():
    # The kernel mounts that one by itself, for good, when somebody first looks there.
    return sorted(
        line
        for line in Path("/proc/self/mountinfo").read_text().splitlines()
        if " /sys/kernel/debug/tracing " not in line
    )


def namespaces():
    """Of networks."""
    found = set()
    for link in there("/proc/[0-9]*/ns/net"):
        with suppress(OSError):
            found.add(str(link.readlink()))
    return sorted(found)


def cgroups():
    pattern = "/sys/fs/cgroup/**/zctrace-*"
    return [str(path) for path in there(pattern, recursive=True) if path.is_dir()]


def snapshot():
    """Everything that must be the same before and after, of the whole machine."""
    temporary = Path(os.environ.get("TMPDIR") or "/tmp")
    names = ("zctrace", "qemu-system")
    return {
        "bpf programs": bpf_programs(),
        "perf events": perf_events(),
        "mounts": mounts(),
        "network namespaces": namespaces(),
        "processes": sorted(words[:100] for words in processes(names).values()),
        "temporary files": sorted(
            path.name for path in temporary.iterdir() if "zctrace" in path.name
        ),
        "cgroups": cgroups(),
        "loop devices": sorted(
            path.parent.parent.name
            for path in Path("/sys/block").glob("loop*/loop/backing_file")
        ),
    }


def of_run(temporary, run_ids):
    """What is there of runs whose temporary files go to that folder, which is theirs alone.

    Each process that zctrace starts has the mark of its run in its environment, and that
    folder in its environment or command line: a process without the former is found, too.
    BPF programs, perf events and network namespaces end with the processes that hold them.
    """
    marks = [str(temporary), *(f"ZCTRACE_RUN={run_id}\0" for run_id in run_ids)]
    found = {
        "processes": sorted(processes(marks=marks).values()),
        "mounts": [line for line in mounts() if str(temporary) in line],
        "temporary files": sorted(path.name for path in temporary.iterdir()),
        "cgroups": [path for path in cgroups() if any(run in path for run in run_ids)],
        "loop devices": [
            str(path)
            for path in Path("/sys/block").glob("loop*/loop/backing_file")
            if str(temporary) in path.read_text()
        ],
    }
    return {kind: there for kind, there in found.items() if there}
