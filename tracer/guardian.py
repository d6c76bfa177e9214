"""What cleans up when nobody else can: a process that outlives a killed one.

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
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from tracer import target

_PIDS = "pids"


class RunFolder:
    """A run's own folder, and a list of the process groups that belong to it."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def own(self, group: int) -> None:
        """Note a process group to be killed with the run."""
        (self.path / _PIDS / str(group)).touch()

    def disown(self, group: int) -> None:
        """It has ended: its number may belong to somebody else from now on."""
        (self.path / _PIDS / str(group)).unlink(missing_ok=True)


@contextmanager
def guarded(run_id: str) -> Iterator[RunFolder]:
    """A temporary folder for a run, world-readable, gone afterwards whatever happens.

    Also gone: the process groups noted in it and the cgroup of ``run_id``.
    """
    folder = Path(tempfile.gettempdir()) / f"zctrace-{run_id}"
    end, alive = os.pipe()
    # First the guardian, then the folder: there is no moment without one.
    guardian = os.fork()
    if not guardian:
        try:
            _guard(end, alive, folder, run_id)
        finally:
            os._exit(0)
    os.close(end)
    try:
        folder.mkdir(mode=0o755)
        (folder / _PIDS).mkdir()
        yield RunFolder(folder)
    finally:
        os.close(alive)
        os.waitpid(guardian, 0)


def _guard(end: int, alive: int, folder: Path, run_id: str) -> None:
    os.setsid()  # out of reach of the terminal's Ctrl-C and of a killed process group
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    os.close(alive)
    # Whoever reads our output must not wait for us.
    null = os.open(os.devnull, os.O_RDWR)
    for fd in (0, 1, 2):
        os.dup2(null, fd)
    while os.read(end, 1):
        pass
    clean(folder, run_id)


def clean(folder: Path, run_id: str) -> None:
    """Kill and remove everything that a run owned; what is gone already is fine."""
    with suppress(OSError):
        for group in (folder / _PIDS).iterdir():
            with suppress(ProcessLookupError):
                os.killpg(int(group.name), signal.SIGKILL)
    for cgroup in target.leftovers(run_id):
        with suppress(OSError):
            target.remove(cgroup)
    shutil.rmtree(folder, ignore_errors=True)
