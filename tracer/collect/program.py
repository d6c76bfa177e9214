"""One program, from its exec or from now on: the collector's phases for ``zctrace trace``.

observe → plan → load → attach → controls → watch → controls → evidence. The controls run in
a cgroup of ours, before and after; in between breakpoints are for the program's own.
"""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from zctrace.collect import cgroups
from zctrace.collect.attached import Instrument, attached, survey
from zctrace.collect.describe import ISOLATED, TRACING, Say, Stopwatch, hits_since, require
from zctrace.collect.stacks import Programs
from zctrace.errors import SessionError, TraceError, UsageError, WorkloadError
from zctrace.evidence.account import CLOSED, EXITED, INTERRUPTED, STRATEGY, TIME, Look
from zctrace.evidence.schema import Evidence, Hits, Request, Run, Subject, Trace
from zctrace.plan.attachments import Choice
from zctrace.plan.parameters import FLOW_MEMBERS
from zctrace.probes.catalogue import PROGRAM_CATALOGUE
from zctrace.workloads.marker import Role, Scope, role_name

Show = Callable[[float, Look], None]
"""Takes what there was up to so many seconds from the beginning."""
_POLL_SECONDS = 0.05
_NOTES_SECONDS = 1.0
"""How often to look which programs' files are there; those of shorter lives are noted by the
meter, as far as they read or execute them."""
_ORDERLY_SECONDS = 5.0
_FOLDERS = ("/dev/shm", "/run", "/tmp")
"""Where the controls' files may live: in memory, if possible."""


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
    watch = Stopwatch(say)
    with following(request, watch) as instrument:
        meter, cgroup = instrument.meter, instrument.cgroup
        tracer = Tracer(request, meter, cgroup, streams, environment, stop, say, show)
        with watch.phase("trace", "running the controls"):
            traced = tracer.run(subject)
        return instrument.evidence(request, watch, rights=tracer.rights, trace=traced)


@contextmanager
def following(request: Request, watch: Stopwatch) -> Iterator[Instrument]:
    """An instrument that follows bytes from thing to thing; raises ``ZctraceError``."""
    facts, attach_plan = survey(PROGRAM_CATALOGUE, request, watch)
    require(facts, attach_plan, Choice(request.mechanism))
    unknown = sorted({m for ms in FLOW_MEMBERS.values() for m in ms} - facts.members.keys())
    if unknown:
        raise TraceError(
            f"Linux {facts.release} does not tell what is behind a descriptor",
            f"unknown: {', '.join(unknown)}: {facts.btf or 'not in its type information'}",
            "a kernel with BTF, in a virtual machine: --kernel 6.1",
        )
    stacks = bool(request.subject and request.subject.stacks)
    with attached(
        request, facts, attach_plan, watch, follow_flows=True, keep_stacks=stacks
    ) as instrument:
        instrument.meter.measure_costs()
        yield instrument


@dataclass(frozen=True)
class _Watched:
    """What came of watching: the controls' own account, for how long, why no longer."""

    answer: dict[str, Any]
    seconds: float
    ended: str
    status: int | None = None


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
        self._request, self._meter, self._cgroup = request, meter, cgroup
        self._streams, self._environment = streams, environment
        self._stop, self._say, self._show = stop, say, show
        self._programs = Programs()
        self.rights: dict[str, Any] = {}
        """What the program may do; known once it was started."""

    def run(self, subject: Subject) -> Trace:
        """Trace one; raises ``ZctraceError``."""
        watch = self._command if subject.command else self._processes
        return self._traced(lambda stretch: watch(subject, stretch))

    def marked(self, process: int, meanwhile: Callable[[], None]) -> Trace:
        """Trace what a process marks as its windows by itself, during ``meanwhile``.

        Raises ``ZctraceError``, and whatever ``meanwhile`` raises: then the windows are
        closed, and the next trace may begin.
        """
        return self._traced(lambda stretch: self._marked(process, meanwhile, stretch))

    def _traced(self, watch: Callable[[_Stretch], _Watched]) -> Trace:
        """Between controls, what ``watch`` watches; it runs those before it by itself."""
        meter = self._meter
        meter.reset()
        lost, costs = meter.lost(), meter.costs()
        stretch = _Stretch(meter)
        watched = watch(stretch)
        self._say("running the controls again")
        self._control("after", stretch)
        run = Run(
            strategy=STRATEGY,
            role=role_name(Role.PROGRAM),
            file_system="",
            nic="",
            cache="",
            run_index=0,
            payload_bytes=0,
            chunk_bytes=None,
            received_bytes=0,
            counts=tuple(meter.counts()),
            hits=stretch.hits,
            lost={
                **{cause: count - lost[cause] for cause, count in meter.lost().items()},
                **stretch.skips,
                "cpus-unwatched": meter.unwatched_cpus(),
            },
            expected=watched.answer["expected"],
            neighbour=watched.answer["neighbour"],
        )
        spent = {
            name: (runs - costs[name][0], ns - costs[name][1])
            for name, (runs, ns) in meter.costs().items()
        }
        return Trace(
            run,
            meter.account(self._programs),
            watched.seconds,
            watched.ended,
            watched.status,
            spent,
        )

    def _command(self, subject: Subject, stretch: _Stretch) -> _Watched:
        with Launcher(self, "before", subject) as launcher:
            with stretch:
                answer = launcher.control()
            with stretch:
                launcher.execute()
                began = time.monotonic()
                self.rights = cgroups.rights(launcher.pid)
                ended = self._wait(
                    subject, lambda: launcher.runs() or bool(self._left()), self._left
                )
                seconds = time.monotonic() - began
                self._meter.close_windows()
            status = launcher.end()
        return _Watched(answer, seconds, ended, status)

    def _processes(self, subject: Subject, stretch: _Stretch) -> _Watched:
        answer = self._control("before", stretch)
        scope = Scope.PROCESS if subject.follow else Scope.ALONE
        there = self._there(subject)
        cgroup = Path(subject.cgroup) if subject.cgroup else cgroups.common_cgroup(there)
        with self._scoped(cgroup), stretch:
            opened: set[int] = set()
            # Once more, for those that were started meanwhile by who had no window yet.
            while new := self._there(subject) - opened:
                for pid in new:
                    self._meter.open_window(pid, Role.PROGRAM, scope)
                opened |= new
            self.rights = _rights(there)
            began = time.monotonic()
            ended = self._wait(
                subject,
                lambda: any(map(_alive, opened)),
                lambda: self._there(subject) | opened,
            )
            seconds = time.monotonic() - began
            self._meter.close_windows()
        return _Watched(answer, seconds, ended)

    def _marked(
        self, process: int, meanwhile: Callable[[], None], stretch: _Stretch
    ) -> _Watched:
        answer = self._control("before", stretch)
        self.rights = _rights((process,))
        with self._scoped(cgroups.common_cgroup((process,))):
            self._meter.close_windows()
            try:
                with stretch:
                    began = time.monotonic()
                    meanwhile()
                    seconds = time.monotonic() - began
                # Otherwise nothing was counted, which is not the same as nothing copied.
                if not self._meter.saw_window(Role.PROGRAM):
                    raise SessionError(
                        "the window was not seen being opened and closed",
                        "the process's prctl(2) does not reach the kernel, as where a filter "
                        "of system calls refuses it",
                        "without the filter: Seccomp in /proc/PID/status says if there is one",
                    )
            finally:
                # That of a process that has died, or those that it has started.
                self._meter.close_windows()
        return _Watched(answer, seconds, CLOSED)

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

    def _there(self, subject: Subject) -> set[int]:
        """The processes that are to be traced, as far as they are there now."""
        pids = _members(Path(subject.cgroup)) if subject.cgroup else subject.pids
        return _family(pids) if subject.follow else set(pids)

    def _control(self, when: str, stretch: _Stretch) -> dict[str, Any]:
        with Launcher(self, when) as launcher, stretch:
            return launcher.control()

    def _left(self) -> list[int]:
        """Who is left in our cgroup."""
        return _members(self._cgroup)

    def _wait(
        self,
        subject: Subject,
        goes_on: Callable[[], bool],
        there: Callable[[], Iterable[int]],
    ) -> str:
        """Until it is over, and why it is; ``there`` are the processes that are traced."""
        began = time.monotonic()
        deadline = began + (subject.seconds or float("inf"))
        looks = _Every(began, subject.interval)
        notes = _Every(began, _NOTES_SECONDS if subject.stacks else None)
        self._programs.note(there() if subject.stacks else ())
        self._say(TRACING)
        with self._meter.running() as running:
            while goes_on():
                if self._stop():
                    return INTERRUPTED
                now = time.monotonic()
                if now > deadline:
                    return TIME
                if notes.due(now):
                    self._programs.note(there())
                if looks.due(now):
                    self._show(now - began, running.look())
                time.sleep(_POLL_SECONDS)
        return EXITED

    def start(
        self, subject: Subject | None, when: str, channel: int
    ) -> subprocess.Popen[bytes]:
        """The launcher, as the user whose program it is, waiting."""
        request = self._request
        own = [
            sys.executable,
            "-I",
            ISOLATED,
            "zctrace.workloads.launch",
        ]
        own += ["--nonce", str(request.nonce), "--channel", str(channel)]
        own += ["--folder", _writable(request.uid), "--control", when]
        streams = [subprocess.DEVNULL] * 3
        folder, environment = "/", {"PATH": os.defpath}
        if subject:
            own += [*([] if subject.follow else ["--alone"]), "--", *subject.command]
            streams, folder, environment = self._streams, subject.folder, self._environment
        try:
            return subprocess.Popen(
                own,
                stdin=streams[0],
                stdout=streams[1],
                stderr=streams[2],
                cwd=folder,
                user=request.uid,
                group=request.gid,
                extra_groups=request.groups,
                env=environment,
                pass_fds=[channel],
            )
        except OSError as error:
            raise WorkloadError(f"the program could not be started: {error}") from error

    def interrupt(self) -> None:
        """As Ctrl-C does, for everybody in our cgroup."""
        for process in self._left():
            with suppress(ProcessLookupError):
                os.kill(process, signal.SIGINT)

    def enter(self, process: int) -> None:
        """Put a process into our cgroup."""
        (self._cgroup / "cgroup.procs").write_text(str(process))


class _Every:
    """Something to be done every so many seconds from ``began`` on; never, if ``None``."""

    def __init__(self, began: float, seconds: float | None) -> None:
        self._seconds = seconds or float("inf")
        self._next = began + self._seconds

    def due(self, now: float) -> bool:
        """Whether it is time again; once for each time."""
        if now < self._next:
            return False
        self._next += self._seconds * (1 + (now - self._next) // self._seconds)
        return True


class _Stretch:
    """A stretch in which the meter counts; several, added up. A context manager.

    No table of the meter's is read or changed while something is being watched, except to
    open and close windows: programs are skipped meanwhile.
    """

    def __init__(self, meter: Any) -> None:
        self._meter = meter
        self.hits: dict[str, Hits] = {}
        self.skips: dict[str, int] = {}

    def __enter__(self) -> None:
        self._before = self._meter.hits()
        self._meter.activate()
        self._skipped = self._meter.skipped()

    def __exit__(self, *_: object) -> None:
        for cause, count in self._meter.skipped().items():
            self.skips[cause] = self.skips.get(cause, 0) + count - self._skipped[cause]
        self._meter.deactivate()
        for name, now in hits_since(self._before, self._meter.hits()).items():
            sofar = self.hits.get(name)
            self.hits[name] = sofar.plus(now) if sofar else now


class Launcher:
    """The process that becomes the program, or only runs the controls; a context manager.

    ``when`` is which controls these are: ``before``, ``after`` or ``none``; with the last
    the program is only run, and not traced.
    """

    def __init__(self, tracer: Tracer, when: str, subject: Subject | None = None) -> None:
        self._channel, far = socket.socketpair()
        with far:
            self._process = tracer.start(subject, when, far.fileno())
        self._answers = self._channel.makefile("rb")
        tracer.enter(self._process.pid)

    def __enter__(self) -> Launcher:
        return self

    def __exit__(self, *_: object) -> None:
        self.end()
        self._answers.close()
        self._channel.close()

    @property
    def pid(self) -> int:
        return self._process.pid

    def control(self) -> dict[str, Any]:
        """Have it run the controls; returns what they moved."""
        return self._step("the controls") or self._died("the controls")

    def execute(self) -> None:
        """Have it become the program; raises :class:`UsageError` where that fails."""
        self._step("exec")

    def runs(self) -> bool:
        return self._process.poll() is None

    def end(self) -> int:
        """Its status, as a shell has it; ends it, in good order if it can, where it runs."""
        if self._process.poll() is None:
            self._process.terminate()
            try:
                self._process.wait(_ORDERLY_SECONDS)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait()
        status = self._process.returncode
        return status if status >= 0 else 128 - status

    def _step(self, what: str) -> dict[str, Any]:
        with suppress(BrokenPipeError):
            self._channel.sendall(b"\n")
        line = self._answers.readline()
        answer: dict[str, Any] = json.loads(line) if line else {}
        if "error" in answer and what == "exec":
            raise UsageError(f"the command could not be started: {answer['error']}")
        if "error" in answer:
            raise WorkloadError(f"{what} failed: {answer['error']}")
        return answer

    def _died(self, what: str) -> dict[str, Any]:
        raise WorkloadError(
            f"{what} failed: their process ended with status {self._process.wait()}",
            "it said why on standard error",
        )


def _members(folder: Path) -> list[int]:
    """Who is in a cgroup, or in one inside it."""
    found: list[int] = []
    for file in folder.glob("**/cgroup.procs"):
        with suppress(OSError):
            found += map(int, file.read_text().split())
    return found


def _alive(pid: int) -> bool:
    """Whether there is such a process; one that waits to be waited for is none."""
    with suppress(OSError, IndexError):
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    return False


def _family(pids: Iterable[int]) -> set[int]:
    """The processes and all their descendants."""
    parents = {}
    for entry in Path("/proc").glob("[0-9]*/stat"):
        with suppress(OSError, IndexError, ValueError):
            parents[int(entry.parent.name)] = int(
                entry.read_text().rpartition(")")[2].split()[1]
            )
    found = set(pids)
    while more := {pid for pid, parent in parents.items() if parent in found} - found:
        found |= more
    return found


def _rights(pids: Iterable[int]) -> dict[str, Any]:
    for pid in sorted(pids):
        with suppress(OSError, KeyError):
            return cgroups.rights(pid)
    return {}


def _writable(uid: int) -> str:
    """A folder where the user may make files, and where that touches no disk if possible."""
    for name in _FOLDERS:
        with suppress(OSError):
            entry = Path(name).stat()
            if entry.st_mode & 0o002 or entry.st_uid == uid:
                return name
    return _FOLDERS[-1]
