"""Processes by their numbers, as /proc has them."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

ORDERLY_SECONDS = 5.0
"""How long a process may take to end after SIGTERM."""


def alive(pid: int) -> bool:
    """Whether there is such a process; one that waits to be waited for is none."""
    with suppress(OSError, IndexError):
        return behind_name(Path(f"/proc/{pid}/stat"))[0] not in b"ZX"
    return False


def behind_name(stat: Path) -> list[bytes]:
    """The fields of such a file from the state on; what comes before may be of any bytes.

    Raises ``OSError``.
    """
    return stat.read_bytes().rpartition(b")")[2].split()


def named(pid: int) -> str:
    """Its name, as the kernel has it, and its number."""
    with suppress(OSError):
        name = Path(f"/proc/{pid}/comm").read_bytes().rstrip(b"\n").decode(errors="replace")
        return f"{name} {pid}"
    return f"process {pid}"


def numbers() -> set[int]:
    """Those of all processes. A thread that is not its process's first has none of them."""
    return {int(entry.name) for entry in Path("/proc").iterdir() if entry.name.isdigit()}


def family(pids: Iterable[int]) -> set[int]:
    """The processes and all their descendants."""
    parents = {}
    for entry in Path("/proc").glob("[0-9]*/stat"):
        with suppress(OSError, IndexError, ValueError):
            parents[int(entry.parent.name)] = int(behind_name(entry)[1])
    found = set(pids)
    while more := {pid for pid, parent in parents.items() if parent in found} - found:
        found |= more
    return found


@contextmanager
def before_others() -> Iterator[None]:
    """Run before every thread of normal priority, as far as that is allowed.

    While a bpf(2) of ours that changes a table is preempted, the kernel runs no BPF program on
    this processor, for any thread.
    """
    policy, parameters = os.sched_getscheduler(0), os.sched_getparam(0)
    with ExitStack() as stack:
        with suppress(OSError):
            os.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param(1))
            stack.callback(os.sched_setscheduler, 0, policy, parameters)
        yield


def end(process: subprocess.Popen[bytes]) -> int:
    """Its status, as a shell has it; ends it, in good order if it can, where it runs."""
    if process.poll() is None:
        process.terminate()
        try:
            process.wait(ORDERLY_SECONDS)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
    return shell_status(process.returncode)


def shell_status(status: int) -> int:
    """Python's ``status`` as a shell has it: after a signal, 128 and its number."""
    return status if status >= 0 else 128 - status
