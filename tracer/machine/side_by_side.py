"""Measure at several places, as many at once as there is room for; results in order.

The main thread prepares, cleans up and hears signals. A thread for each place waits for its
collector, and looks all the time whether it is to stop.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from contextlib import AbstractContextManager, ExitStack
from dataclasses import dataclass
from typing import Protocol

from zctrace.errors import ZctraceError
from zctrace.evidence.schema import Evidence
from zctrace.notices import Say

_LOOK_SECONDS = 0.2
"""How long a signal may go unheard that comes just when the main thread begins to wait: then
Python runs the handler after the wait."""


class Prepared(Protocol):
    """:class:`zctrace.machine.job.PreparedRun`."""

    def collect(self, meanwhile: Callable[[], None]) -> Evidence: ...


@dataclass(frozen=True)
class Job:
    """A place to measure at. ``name`` is the kernel's in messages, empty if there is one only.

    ``prepare`` makes a context manager, which is entered and left in the main thread.
    """

    name: str
    prepare: Callable[[], AbstractContextManager[Prepared]]
    say: Say


class _StoppedError(Exception):
    """Another place failed, or the run is being ended."""


@dataclass(frozen=True)
class _Running:
    number: int
    job: Job
    resources: ExitStack


def collect(jobs: Sequence[Job], width: int) -> tuple[list[Evidence], ZctraceError | None]:
    """Do all jobs, ``width`` at a time, in the order given.

    Returns the evidence in that order, and the first error. After an error no job is begun,
    and those that run are ended; the evidence of those that were done by then is returned.
    """
    found: dict[int, Evidence] = {}
    failure: ZctraceError | None = None
    waiting = list(enumerate(jobs))
    running: dict[Future[Evidence], _Running] = {}
    stop = threading.Event()

    def go_on() -> None:
        if stop.is_set():
            raise _StoppedError

    # On the way out: first every thread ends its guest, then the folders are removed.
    with ExitStack() as folders, ThreadPoolExecutor(width) as pool, ExitStack() as orders:
        orders.callback(stop.set)
        while running or (waiting and not failure):
            while waiting and not failure and len(running) < width:
                number, job = waiting.pop(0)
                resources = folders.enter_context(ExitStack())
                try:
                    prepared = resources.enter_context(job.prepare())
                except ZctraceError as error:
                    failure = _named(error, job)
                else:
                    future = pool.submit(prepared.collect, go_on)
                    running[future] = _Running(number, job, resources)
            if failure:
                stop.set()
            done, _ = wait(running, _LOOK_SECONDS, FIRST_COMPLETED)
            for future in sorted(done, key=lambda future: running[future].number):
                ended = running.pop(future)
                ended.resources.close()
                try:
                    found[ended.number] = future.result()
                    if width > 1:
                        ended.job.say("measured")
                except ZctraceError as error:
                    failure = failure or _named(error, ended.job)
                except _StoppedError:
                    ended.job.say("ended, because another kernel failed")
    return [found[number] for number in sorted(found)], failure


def _named(error: ZctraceError, job: Job) -> ZctraceError:
    """The error with the name of the kernel that it is about, where there are several."""
    if not job.name:
        return error
    return type(error)(f"{job.name}: {error.what}", error.why, error.hint)
