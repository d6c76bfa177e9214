"""One program, from its exec or from now on: the collector's phases for ``zctrace trace``.

observe → plan → load → attach → controls → watch → controls → evidence. The controls run in
a cgroup of ours, before and after; in between breakpoints are for the program's own.
"""

from __future__ import annotations

import dataclasses
import functools
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from zctrace.collect import (
    captures,
    cgroups,
    cpu_time,
    obstacles,
    own_memory,
    processes,
    subjects,
    threads,
)
from zctrace.collect.attached import Instrument, attached, survey
from zctrace.collect.busiest import Busiest
from zctrace.collect.calibration import Calibration
from zctrace.collect.client import Client
from zctrace.collect.describe import RUNNING, TRACING, Stopwatch
from zctrace.collect.launcher import ProgramGroup
from zctrace.collect.meter import EMULATED_SETTLING_SECONDS, SETTLING_SECONDS
from zctrace.collect.stacks import Programs
from zctrace.collect.stretch import Every, Stretch
from zctrace.collect.units import Units
from zctrace.errors import SessionError
from zctrace.evidence.account import CLOSED, EXITED, INTERRUPTED, SERVED, STRATEGY, TIME, Look
from zctrace.evidence.schema import (
    LEFT,
    UNWATCHED,
    Evidence,
    Price,
    Request,
    Run,
    Subject,
    Trace,
)
from zctrace.notices import Say
from zctrace.plan.parameters import unseen_calls
from zctrace.probes.catalogue import PROGRAM_CATALOGUE
from zctrace.workloads.known import Controls
from zctrace.workloads.marker import Role, RoleName, Scope

Show = Callable[[float, Look], None]
"""Takes what there was up to so many seconds from the beginning."""
_POLL_SECONDS = 0.05
_NOTES_SECONDS = 1.0
"""How often to look which programs' files are there; those of shorter lives are noted by the
meter, as far as they read or execute them."""


def trace(
    request: Request,
    streams: list[int],
    environment: dict[str, str],
    stop: Callable[[], bool],
    say: Say,
    show: Show,
) -> Evidence:
    """Trace what ``request.subject`` names; raises ``ZctraceError``.

    A command has ``streams`` as its standard input, output and error. It ends when ``stop``,
    asked again and again, says so. ``show`` gets what has happened so far, every so often,
    if that is wanted.
    """
    subject = request.subject
    assert subject is not None
    if not subject.command:
        obstacles.require(obstacles.of_numbers())
    watch = Stopwatch(say)
    with following(request, watch) as (instrument, price):
        meter, cgroup = instrument.meter, instrument.cgroup
        tracer = Tracer(request, meter, cgroup, streams, environment, stop, say, show)
        within = subject.user_copies is not None
        if within:
            tracer.memory = own_memory.watch(meter.user_functions, subject, environment)
        tracer.price = dataclasses.replace(price, own_copy=tracer.memory.longer)
        with watch.phase("trace", f"{RUNNING} the self-tests"):
            traced = tracer.run(subject)
        return instrument.evidence(
            request, watch, user_memory=within, rights=tracer.rights, trace=traced
        )


@contextmanager
def following(request: Request, watch: Stopwatch) -> Iterator[tuple[Instrument, Price]]:
    """An instrument that follows bytes from thing to thing, and what it costs.

    Raises ``ZctraceError``.
    """
    found = survey(PROGRAM_CATALOGUE, request, watch, sparing=True)
    found.require(request, obstacles.of_programs(found.facts))
    blind = (*found.plan.blind, *unseen_calls(found.facts))
    found = dataclasses.replace(found, plan=dataclasses.replace(found.plan, blind=blind))
    stacks = bool(request.subject and request.subject.stacks)
    calibration = Calibration()
    with attached(
        *(request, found, watch),
        follow_flows=True,
        keep_stacks=stacks,
        user_copies_from=request.subject.user_copies if request.subject else None,
    ) as instrument:
        with watch.phase("calibrate", "timing a system call"):
            price = calibration.price(instrument.meter, instrument.cgroup)
        yield instrument, price


@dataclass(frozen=True)
class _Watched:
    """What came of watching: the controls' own account, for how long, why no longer."""

    controls: Controls
    seconds: float
    ended: str
    status: int | None = None
    client_status: int | None = None
    cpu_seconds: float | None = None


class Tracer:
    """One meter, attached, and the programs that are traced with it, one after the other."""

    def __init__(
        self,
        request: Request,
        meter: Any,
        cgroup: Path,
        streams: list[int],
        environment: dict[str, str],
        stop: Callable[[], bool],
        say: Say,
        show: Show = lambda seconds, look: None,
    ) -> None:
        self._meter, self._cgroup = meter, cgroup
        # Emulated processors take turns: a copy may take as long as theirs do.
        emulated = request.machine == "qemu-tcg"
        self._settling = EMULATED_SETTLING_SECONDS if emulated else SETTLING_SECONDS
        self._user_copies = request.subject.user_copies if request.subject else None
        self.group = ProgramGroup(request, cgroup, streams, environment)
        self._client = functools.partial(Client, request, streams, environment)
        self._stop, self._say, self._show = stop, say, show
        self._programs, self._busiest = Programs(), Busiest()
        self._units: Units | None = None
        self.rights: dict[str, Any] = {}
        """What the program may do; known once it was started."""
        self.price: Price | None = None
        """What the meter costs, if it was timed."""
        self.memory = own_memory.OwnMemory()
        """Where copies in its own memory are seen."""

    def run(self, subject: Subject) -> Trace:
        """Trace one; raises ``ZctraceError``."""
        watch = self._command if subject.command else self._processes
        self._units = self._meter.units() if subject.by_unit else None

        def watched(stretch: Stretch) -> _Watched:
            found = watch(subject, stretch)
            if subject.by_unit:
                # What came behind the last look.
                self._show(found.seconds, self._complete(Look({}, {}, {}, 0), subject))
            return found

        return self._traced(watched)

    def marked(self, subject: Subject, meanwhile: Callable[[], None]) -> Trace:
        """Trace what a process marks as its window by itself, during ``meanwhile``.

        Raises ``ZctraceError``, and whatever ``meanwhile`` raises: then the windows are
        closed, and the next trace may begin.
        """
        return self._traced(lambda stretch: self._marked(subject, meanwhile, stretch))

    def _traced(self, watch: Callable[[Stretch], _Watched]) -> Trace:
        """Between controls, what ``watch`` watches; it runs those before it by itself."""
        meter = self._meter
        meter.reset()
        lost = meter.lost()
        stretch = Stretch(meter)
        watched = watch(stretch)
        self._say(f"{RUNNING} the self-tests again")
        self._control("after", stretch)
        counts = tuple(meter.counts())
        run = Run(
            strategy=STRATEGY,
            role=RoleName.PROGRAM,
            file_system="",
            nic="",
            cache="",
            run_index=0,
            payload_bytes=0,
            chunk_bytes=None,
            received_bytes=0,
            counts=counts,
            hits=stretch.hits,
            lost={
                **{cause: count - lost[cause] for cause, count in meter.lost().items()},
                **stretch.skips,
                UNWATCHED: meter.unwatched_cpus(),
                LEFT: meter.left_cgroup(),
            },
            expected=watched.controls.expected,
            neighbour=watched.controls.neighbour,
            captures=captures.behind(counts),
            user_copies_from=self._user_copies,
        )
        account = meter.account(self._programs)
        return Trace(
            *(run, account, watched.seconds, watched.ended, watched.status),
            price=self.price,
            client_status=watched.client_status,
            cpu_seconds=watched.cpu_seconds,
            watched=self.memory.functions,
            unwatched=self.memory.unseen(meter.executed(), account.things),
        )

    def _command(self, subject: Subject, stretch: Stretch) -> _Watched:
        with self.group.launch("before", subject) as launcher:
            with stretch:
                controls = launcher.control()
            with stretch, self._client(subject) as client:
                used = cpu_time.of_cgroup(self._cgroup)
                launcher.execute()
                began = time.monotonic()
                self.rights = cgroups.rights(launcher.pid)

                def runs() -> bool:
                    return launcher.runs() or bool(self.group.members())

                ended = self._wait(subject, runs, self.group.members, client)
                seconds = time.monotonic() - began
                if ended == EXITED:
                    client.require_started()
                if ended == SERVED:
                    # What it still has to do belongs to it.
                    self.group.end(runs)
                self._close()
            status = launcher.end()
        now = cpu_time.of_cgroup(self._cgroup)
        cpu = None if used is None or now is None else now - used
        return _Watched(controls, seconds, ended, status, client.status, cpu)

    def _processes(self, subject: Subject, stretch: Stretch) -> _Watched:
        controls = self._control("before", stretch)
        scope = Scope.PROCESS if subject.follow else Scope.ALONE
        if subject.threads:
            scope = Scope.THREAD
        there = subjects.there(subject)
        # One of another hierarchy, as systemd's of version 1, has no breakpoints of its own.
        named = Path(subject.cgroup) if cgroups.is_scope(subject.cgroup) else None
        cgroup = named or cgroups.common_cgroup(there)
        if cgroup and not there <= set(cgroups.members(cgroup)):
            cgroup = None  # what it has started may be elsewhere
        with self._scoped(cgroup):
            self._meter.about_to_open(subjects.windows(subject), Role.PROGRAM, scope)
            with stretch:
                time.sleep(self._settling)
                return self._opened(subject, controls, scope, there)

    def _opened(
        self, subject: Subject, controls: Controls, scope: Scope, there: set[int]
    ) -> _Watched:
        """What runs already; ``there`` are processes whose windows are about to open."""
        opened: set[int] = set()
        # Repeated: a process without a window may have started others. A process with a window
        # gives it to those that it starts, which may be faster than we look.
        while new := self._windowless(now := subjects.windows(subject) - opened):
            for key in new:
                self._meter.open_window(key, Role.PROGRAM, scope)
            opened |= now
        opened = {threads.number_of(key) for key in opened | now}
        if subject.user_copies is not None:
            self.memory.look_at(opened)
        self.rights = subjects.rights(there)
        began, used = time.monotonic(), cpu_time.of_processes(opened)
        with self._client(subject) as client:
            ended = self._wait(
                subject,
                lambda: any(map(processes.alive, opened)),
                lambda: subjects.there(subject) | opened,
                client,
            )
            seconds = time.monotonic() - began
            cpu = cpu_time.of_processes(subjects.there(subject) | opened) - used
            self._close()
        return _Watched(
            *(controls, seconds, ended),
            client_status=client.status,
            # /proc has that of whole processes.
            cpu_seconds=None if subject.threads else cpu,
        )

    def _windowless(self, keys: set[int]) -> set[int]:
        return {key for key in keys if not self._meter.has_window(key)}

    def _close(self) -> None:
        self._meter.close_windows()
        time.sleep(self._settling)

    def _marked(
        self, subject: Subject, meanwhile: Callable[[], None], stretch: Stretch
    ) -> _Watched:
        (process,) = subject.pids
        if subject.follow:
            obstacles.require(obstacles.of_numbers())
        controls = self._control("before", stretch)
        self.rights = subjects.rights((process,))
        with self._scoped(cgroups.common_cgroup((process,))):
            self._meter.close_windows()
            if subject.follow:
                self._meter.about_to_open((process,), Role.PROGRAM, Scope.PROCESS)
            try:
                with stretch:
                    time.sleep(self._settling)
                    began = time.monotonic()
                    meanwhile()
                    seconds = time.monotonic() - began
                    time.sleep(self._settling)
                # Otherwise nothing was counted, which is not the same as nothing copied.
                if not self._meter.saw_window(Role.PROGRAM, process):
                    raise SessionError(
                        "the window was not seen being opened and closed",
                        "the process's prctl(2) does not reach the kernel, as where a filter "
                        "of system calls refuses it",
                        "without the filter: Seccomp in /proc/PID/status says if there is one",
                    )
            finally:
                # That of a process that has died, or those that it has started.
                self._meter.close_windows()
        return _Watched(controls, seconds, CLOSED)

    @contextmanager
    def _scoped(self, cgroup: Path | None) -> Iterator[None]:
        """Breakpoints are for the tasks in a cgroup, or for everybody; then for ours again."""
        if cgroup == self._cgroup:
            yield
            return
        self._meter.scope(cgroup)
        try:
            yield
        finally:
            self._meter.scope(self._cgroup)

    def _control(self, when: str, stretch: Stretch) -> Controls:
        with self.group.launch(when) as launcher, stretch:
            return launcher.control()

    def _complete(self, look: Look, subject: Subject) -> Look:
        """With what the account has, if that is wanted."""
        units = self._units.rows() if self._units else ()
        busy = self._busiest.rows(self._meter.account(self._programs)) if subject.busy else ()
        return dataclasses.replace(look, busy=busy, units=units)

    def _wait(
        self,
        subject: Subject,
        goes_on: Callable[[], bool],
        there: Callable[[], Iterable[int]],
        client: Client,
    ) -> str:
        """Until it is over, and why it is; ``there`` are the processes that are traced."""
        began = time.monotonic()
        deadline = began + (subject.seconds or float("inf"))
        looks = Every(began, subject.interval)
        within = subject.user_copies is not None
        notes = Every(began, _NOTES_SECONDS if subject.stacks or within else None)
        self._programs.note(there() if subject.stacks else ())
        self._say(TRACING)
        with self._meter.running() as running:
            while goes_on():
                if self._stop():
                    return INTERRUPTED
                now = time.monotonic()
                if now > deadline:
                    return TIME
                if client.has_ended(there() if client.wanted else ()):
                    return SERVED
                if notes.due(now):
                    self._programs.note(there() if subject.stacks else ())
                    self.memory.look_for_jvms(there() if within else ())
                if looks.due(now):
                    self._show(now - began, self._complete(running.look(), subject))
                time.sleep(_POLL_SECONDS)
        return EXITED
