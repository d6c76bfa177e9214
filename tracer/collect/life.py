"""Signs of life: whether the collector, or a process it has started, has done something.

Who waits for the collector takes a step for hung that shows none for a long time. No step has
to tell of what it does. Looking at the kernel, compiling and collecting results touch new
memory. A payload is bytes read and written. Each probe attached is a descriptor. Time on a
processor is no sign: a hung kernel has that, too.
"""

from __future__ import annotations

import os
import resource
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from zctrace.collect import processes
from zctrace.collect.describe import RUNNING, SERVING, TRACING

PERIOD_SECONDS = 20.0
"""Several times within the limit of a step, and seldom: most steps are over by then."""
LEAST_BYTES = 64 << 10
"""An idle process touches a page now and then."""
_DESCRIPTORS, _DESCRIPTOR_BYTES = Path("/proc/self/fd"), resource.getpagesize()
"""Ours, and what each counts for."""


class Life:
    """What was done, from look to look."""

    def __init__(self, look: Callable[[], dict[str, int]]) -> None:
        self._look = look
        self._before = look()

    def shown(self) -> bool:
        """Whether enough was done since it last was, or since the beginning."""
        now = self._look()
        # A thread that is gone has done what it had done.
        grown = (max(0, done - self._before.get(name, 0)) for name, done in now.items())
        if sum(grown) < LEAST_BYTES:
            return False
        self._before = now
        return True


def done() -> dict[str, int]:
    """Bytes by thread, of ours and of all that we have started, but for the one that asks."""
    found = {"descriptors": len([*_DESCRIPTORS.iterdir()]) * _DESCRIPTOR_BYTES}
    us = str(threading.get_native_id())
    for pid in processes.family((os.getpid(),)):
        # It may be gone, and a kernel need not count what is read and written.
        with suppress(OSError):
            for task in Path(f"/proc/{pid}/task").iterdir():
                with suppress(OSError, ValueError):
                    if task.name != us:
                        found[f"memory of {task.name}"] = _touched(task)
                        found[f"bytes of {task.name}"] = _moved(task)
    return found


def _touched(task: Path) -> int:
    minor, _, major = processes.behind_name(task / "stat")[7:10]
    return (int(minor) + int(major)) * resource.getpagesize()


def _moved(task: Path) -> int:
    lines = (task / "io").read_text().splitlines()
    return sum(int(line.split()[1]) for line in lines if line.startswith(("rchar", "wchar")))


@contextmanager
def watched(tell: Callable[[], None]) -> Iterator[Callable[[str], None]]:
    """Have a thread call ``tell`` for signs of life, as long as this lasts.

    The yielded function takes the steps' names. While a program is traced, or a strategy or a
    self-test runs, the thread does nothing: its work on another processor could be counted as
    theirs.
    """
    over, limited = threading.Event(), threading.Event()

    def run() -> None:
        life = Life(done)
        while not over.wait(PERIOD_SECONDS):
            if limited.is_set() and life.shown():
                tell()

    def step(name: str) -> None:
        counting = name in (TRACING, SERVING) or name.startswith(RUNNING)
        (limited.clear if counting else limited.set)()

    threading.Thread(target=run, daemon=True).start()
    try:
        yield step
    finally:
        over.set()
