"""A program of the user's: where it is traced, and how its input and output get there."""

from __future__ import annotations

import fcntl
import json
import os
import pwd
import secrets
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from zctrace import output_files
from zctrace.collect import cgroups
from zctrace.collect.describe import (
    ENVIRONMENT,
    SERVING,
    SOCKET_NAME,
    STOP,
    TAKEN_OUT,
    TRACING,
)
from zctrace.evidence.account import Busy, Look, UnitBytes
from zctrace.evidence.schema import Evidence, Request, Subject
from zctrace.machine import collector_process, job, progress, qemu, staging
from zctrace.machine.collector_process import SHARE
from zctrace.machine.guardian import RunFolder, guarded, write_private
from zctrace.machine.guest_streams import GuestStreams
from zctrace.machine.places import HOST, Place
from zctrace.notices import Say
from zctrace.plan.attachments import Choice

_GUEST_BYTES = 2 << 30
_FIRST_FREE = 10
"""The least number for a copy of a descriptor: far from the standard ones."""
_TIME_BYTES = 64 << 20
"""What the time limit of a step is made for; see ``vm.Progress``."""


@dataclass(frozen=True)
class Wanted:
    """What to trace, and how; ``user`` is whom a command runs as, empty for the caller."""

    subject: Subject
    user: str = ""
    mechanism: str = Choice.AUTO.value
    sabotage: tuple[str, ...] = ()
    keep: bool = False
    boot_seconds: float = progress.BOOT_SECONDS
    work: int = _TIME_BYTES
    modules: tuple[str, ...] = ()


def trace(
    place: Place, wanted: Wanted, say: Say, show: Callable[[float, Look], None]
) -> Evidence:
    """Trace it at one place; raises ``ZctraceError``. Needs root.

    The first interrupt ends the tracing, and everything until then is in the evidence.
    ``show`` gets what there was up to so many seconds, if that is wanted.
    """
    with _prepared(place, wanted, say) as ready:
        steps = _Steps(say)
        theirs = GuestStreams(ready.share) if ready.guest else None
        with (
            _interruptible((ready.share / STOP).touch, lambda: steps.last == TRACING),
            _streams(here=ready.guest is None) as streams,
        ):
            answer = collector_process.answered(
                *ready.whereabouts,
                steps,
                wanted,
                streams,
                theirs.forward if theirs else lambda: None,
                lambda line: show(line["seconds"], _look(line["look"])),
            )
        if theirs:
            theirs.forward()
        ready.take_back(say)
        return collector_process.evidence_from(*answer)


def serve(
    place: Place,
    wanted: Wanted,
    say: Say,
    ready: Callable[[Path], None] = lambda socket: None,
    stopped: Callable[[], bool] = lambda: False,
) -> int | None:
    """Serve windows at one place while a command runs; returns its status. Needs root.

    Without a command: on this machine, until ``stopped`` says so. ``ready`` gets the
    socket once windows can be opened. The first interrupt is for the command alone. Raises
    ``ZctraceError``.
    """
    with _prepared(place, wanted, say) as prepared:
        steps = _Steps(say)
        stop = prepared.share / STOP
        theirs = GuestStreams(prepared.share) if prepared.guest else None
        told = False

        def meanwhile() -> None:
            nonlocal told
            if theirs:
                theirs.forward()
            if not told and steps.last == SERVING:
                told = True
                ready(prepared.share / SOCKET_NAME)
            if stopped():
                stop.touch()

        # A command of this machine's has had the terminal's interrupt already.
        interrupt = stop.touch if prepared.guest else lambda: None
        commanded = prepared.guest is None and bool(wanted.subject.command)
        with (
            _interruptible(interrupt, lambda: steps.last == SERVING),
            _streams(here=commanded) as streams,
        ):
            answer, _ = collector_process.answered(
                *prepared.whereabouts, steps, wanted, streams, meanwhile
            )
        if theirs:
            theirs.forward()
        prepared.take_back(say)
        status: int | None = answer["status"]
        return status


def _look(values: dict[str, Any]) -> Look:
    busy = tuple(Busy(**row) for row in values.pop("busy"))
    units = tuple(UnitBytes(**row) for row in values.pop("units"))
    return Look(**values, busy=busy, units=units)


class _Steps:
    """Passes each step on, and remembers the last."""

    def __init__(self, say: Say) -> None:
        self._say = say
        self.last = ""

    def __call__(self, text: str) -> None:
        self.last = text
        self._say(text)


@dataclass(frozen=True)
class _Prepared:
    """A run's folder with everything that a collector reads; ``guest`` to boot, if any."""

    request: Request
    guest: qemu.Guest | None
    run_folder: RunFolder
    code: Path

    @property
    def share(self) -> Path:
        return self.run_folder.path / SHARE

    def take_back(self, say: Say) -> None:
        """Write here what was taken out of the virtual machine; raises :class:`OutputError`."""
        subject = self.request.subject
        assert subject is not None
        for number, file in enumerate(subject.copy_out if self.guest else ()):
            try:
                # Written by the virtual machine, as a file.
                path = self.share / TAKEN_OUT.format(number)
                with open(os.open(path, os.O_RDONLY | os.O_NOFOLLOW), "rb") as taken:
                    content = taken.read()
            except OSError:
                say(f"not copied out of the virtual machine, since it is not there: {file}")
                continue
            output_files.write(Path(subject.folder, file), content)

    @property
    def whereabouts(self) -> tuple[Request, qemu.Guest | None, RunFolder, Path]:
        """As :func:`zctrace.machine.collector_process.answered` takes them."""
        return self.request, self.guest, self.run_folder, self.code


@contextmanager
def _prepared(place: Place, wanted: Wanted, say: Say) -> Iterator[_Prepared]:
    run_id = secrets.token_hex(8)
    with guarded(run_id) as run_folder:
        code = staging.stage(run_folder.path)
        share = run_folder.path / SHARE
        share.mkdir(mode=0o700)
        if wanted.subject.marked and not place.kernel:
            share.chmod(0o711)  # for the socket
        guest = None
        if place.kernel:
            guest = job.make_guest(place, run_folder, _GUEST_BYTES, say)
        uid, gid, groups, user = cgroups.caller(wanted.user)
        request = Request(
            run_id=run_id,
            settings=(),
            sizes=(),
            chunk=None,
            pipe_size=None,
            repeat=1,
            uid=uid,
            gid=gid,
            groups=groups,
            user=user,
            machine=guest.machine if guest else HOST,
            images={},
            mount="",
            nonce=secrets.randbits(62),
            mechanism=wanted.mechanism,
            sabotage=wanted.sabotage,
            subject=wanted.subject,
            modules=wanted.modules,
        )
        write_private(share / ENVIRONMENT, json.dumps(_environment(user)))
        yield _Prepared(request, guest, run_folder, code)


@contextmanager
def _streams(*, here: bool) -> Iterator[list[int]]:
    """Our standard input, output and error under other numbers; none for a guest.

    Those from 0 to 2 are the collector's own when it starts.
    """
    copies = [_copied(number) for number in range(3)] if here else []
    try:
        yield copies
    finally:
        for copy in copies:
            os.close(copy)


def _copied(number: int) -> int:
    try:
        return fcntl.fcntl(number, fcntl.F_DUPFD_CLOEXEC, _FIRST_FREE)
    except OSError:  # the caller has closed it
        null = os.open(os.devnull, os.O_RDWR)
        try:
            return fcntl.fcntl(null, fcntl.F_DUPFD_CLOEXEC, _FIRST_FREE)
        finally:
            os.close(null)


def _environment(user: str) -> dict[str, str]:
    """Ours, with the home and the name of whom the command runs as."""
    entry = pwd.getpwnam(user)
    return {**os.environ, "HOME": entry.pw_dir, "USER": user, "LOGNAME": user}


@contextmanager
def _interruptible(first: Callable[[], None], patient: Callable[[], bool]) -> Iterator[None]:
    """The first interrupt that comes while ``patient`` calls ``first``; others are ones."""
    seen = False

    def interrupt(*_: object) -> None:
        nonlocal seen
        if seen or not patient():
            raise KeyboardInterrupt
        seen = True
        first()

    before = signal.signal(signal.SIGINT, interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)
