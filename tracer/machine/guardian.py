"""Cleans up after a run that was killed: a process that outlives it.

A run owns a folder, processes and, on a host, a cgroup. Context managers give them back
on every orderly way out; SIGKILL is none. So a small process, forked before anything is
created, waits for the run's end at a pipe that only the run holds open, and then
removes what is still there.
"""

from __future__ import annotations

import os
import shutil
import signal
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from zctrace import trust
from zctrace.collect import cgroups
from zctrace.errors import UsageError

_RUN = "ZCTRACE_RUN"
_PASSES, _QUIET_PASSES, _PAUSE_SECONDS = 100, 3, 0.02
"""Processes start others while they are being killed, and in the middle of an exec a process
shows no environment: only several looks without a find are proof."""


def write_private(path: Path, text: str) -> None:
    """A file that no other user can read, from the first moment on."""
    with open(path, "w", opener=lambda name, flags: os.open(name, flags, 0o600)) as file:
        file.write(text)


class RunFolder:
    """A run's own folder, and the mark that its processes carry."""

    def __init__(self, path: Path, run_id: str) -> None:
        self.path = path
        self.environment = {_RUN: run_id}
        """To be in the environment of every process that the run starts."""


@contextmanager
def guarded(run_id: str) -> Iterator[RunFolder]:
    """A temporary folder for a run, world-readable, gone afterwards whatever happens.

    Also gone: every process that carries the run's mark, and the cgroup of ``run_id``. Raises
    :class:`UsageError` where somebody else could put another folder in its place: root runs the
    code in it.
    """
    temporary = Path(tempfile.gettempdir())
    if why := trust.why_not(temporary, trust.owners(), sticky=True):
        raise UsageError(
            f"{temporary} is no folder for root's temporary files",
            why,
            "TMPDIR=/var/tmp, or another folder that no other user can change",
        )
    folder = temporary / f"zctrace-{run_id}"
    end, alive = os.pipe()
    out_of_reach, says_so = os.pipe()
    # First the guardian, then the folder: there is no moment without one.
    guardian = os.fork()
    if not guardian:
        try:
            _guard(end, says_so, folder, run_id)
        finally:
            os._exit(0)
    os.close(end)
    os.close(says_so)
    try:
        # Until then it dies with us where the whole process group is killed.
        os.read(out_of_reach, 1)
        os.close(out_of_reach)
        folder.mkdir(mode=0o700)
        folder.chmod(0o755)  # whatever the umask
        yield RunFolder(folder, run_id)
    finally:
        os.close(alive)
        os.waitpid(guardian, 0)


def _guard(end: int, says_so: int, folder: Path, run_id: str) -> None:
    os.setsid()  # out of reach of the terminal's Ctrl-C and of a killed process group
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    os.write(says_so, b"\0")
    # A process that reads the run's output must not wait for the guardian, nor must the
    # guardian of another run at the same time: this one has inherited its pipe, too.
    null = os.open(os.devnull, os.O_RDWR)
    for fd in (0, 1, 2):
        os.dup2(null, fd)
    for fd in map(int, os.listdir("/proc/self/fd")):
        if fd > 2 and fd != end:
            with suppress(OSError):  # the descriptor of the listing itself is closed already
                os.close(fd)
    while os.read(end, 1):
        pass
    clean(folder, run_id)


def clean(folder: Path, run_id: str) -> None:
    """Kill and remove everything that a run owned; what is gone already is fine."""
    mark, quiet = f"{_RUN}={run_id}\0".encode(), 0
    for _ in range(_PASSES):
        quiet = 0 if _kill_marked(mark) else quiet + 1
        if quiet == _QUIET_PASSES:
            break
        time.sleep(_PAUSE_SECONDS)
    for cgroup in cgroups.leftovers(run_id):
        with suppress(OSError):
            cgroups.remove(cgroup)
    shutil.rmtree(folder, ignore_errors=True)


def _kill_marked(mark: bytes) -> int:
    """Kill every process with ``mark`` in its environment; returns how many there were.

    By the mark and not by a list of numbers: there is no moment between starting a process
    and noting its number, and a number may belong to somebody else by now.
    """
    killed = 0
    for process in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):
            if mark in (process / "environ").read_bytes() + b"\0":
                os.kill(int(process.name), signal.SIGKILL)
                killed += 1
    return killed
