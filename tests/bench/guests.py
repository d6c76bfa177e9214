"""Guests whose instructions are counted, and the compiler for what runs in them."""

import contextlib
import dataclasses
import os
import subprocess
from pathlib import Path
from unittest import mock

from tests.bench import figures
from tests.live.conftest import run_in_guest
from zctrace import errors
from zctrace.machine import qemu

HERE = Path(__file__).parent
SCRIPT = "bench_guest.py"
FILE_SYSTEM, ROOM_BYTES = "ext4", 8 << 20
COUNTING = ("-icount", "shift=0,sleep=off")
"""The guest's clocks advance by a nanosecond for each instruction, and leap where it sleeps;
its time stamp counter advances by one."""
_COMPILE = ("gcc", "-O2", "-Wall")


def build(folder):
    """Compile the workload and the plugin into ``folder``; returns both files."""
    workload, plugin = folder / "workload" / "workload", folder / "where.so"
    workload.parent.mkdir()
    for words, source, target in (
        (("-static",), "workload.c", workload),
        (("-shared", "-fPIC", "-fvisibility=hidden"), "where.c", plugin),
    ):
        subprocess.run([*_COMPILE, *words, "-o", target, HERE / source], check=True)
    return workload, plugin


@contextlib.contextmanager
def emulated(*options):
    """Guests that are started meanwhile are emulated, by QEMU with these options."""
    run = qemu.run

    def emulating(guest, *arguments):
        run(dataclasses.replace(guest, kvm=False, qemu_options=options), *arguments)

    # Nor is anything remembered of the kernel, so that every run of the benchmark is the same.
    with (
        mock.patch.object(qemu, "run", emulating),
        mock.patch.dict(os.environ, {"ZCTRACE_OBSERVE": "anew"}),
    ):
        yield


def _answer(line, workload, what, names):
    return run_in_guest(
        line,
        SCRIPT,
        what,
        *names,
        file_systems=(FILE_SYSTEM,),
        room_bytes=ROOM_BYTES,
        folders=(workload.parent,),
        modules=[HERE / name for name in (SCRIPT, "tracers.py", "bpf_programs.py")],
    )


def operations(line, workload, keys):
    """What each tracer costs, on one kernel."""
    with emulated(*COUNTING):
        return _answer(line, workload, "operations", keys)


def symbols(line, workload, plugin, keys):
    """Where the instructions go, on one kernel: :func:`tests.bench.figures.by_symbol`.

    Raises ``ZctraceError``.
    """
    written = plugin.with_name("where")
    with emulated(*COUNTING, "-plugin", f"file={plugin},out={written}"):
        found = _answer(line, workload, "symbols", keys)["found"]
    for key, one in found.items():
        if why := figures.failed(one):
            raise errors.WorkloadError(f"{line}, {key}: {why}")
    return figures.by_symbol(found, written.read_text())


def growth(line, workload, points):
    """What zctrace needs for more threads and sockets; nothing is counted in there."""
    names = [f"{threads},{pairs}" for threads, pairs in points]
    return _answer(line, workload, "growth", names)["found"]
