"""``zctrace metrics``: what is moved and copied, for Prometheus."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Annotated, Any

import typer

from zctrace.analysis import program as traced
from zctrace.commands.common import require_collector, require_command, require_controls
from zctrace.commands.options import (
    BootTimeout,
    Command,
    Cpus,
    Keep,
    Kernel,
    Mechanism,
    Modules,
    Quiet,
    User,
    seconds,
    wanted,
)
from zctrace.commands.progress import notice, shown
from zctrace.commands.subjects import NOTHING, finds, subject_of
from zctrace.commands.trace import place_of
from zctrace.errors import UsageError
from zctrace.evidence.account import INTERRUPTED, Look
from zctrace.evidence.schema import Subject
from zctrace.machine import modules, program_job
from zctrace.machine.places import AUTO
from zctrace.machine.program_job import Wanted
from zctrace.machine.progress import BOOT_SECONDS
from zctrace.notices import Say
from zctrace.plan.attachments import Choice
from zctrace.reports.metrics import Exported, serving

_PORT, _INTERVAL_SECONDS, _TRACE_SECONDS = 9973, 5.0, 3600.0
_AGAIN_SECONDS = 2.0
"""How long to wait before it is looked again whether the subject runs."""


@finds(threads=False)
def command(
    words: Command = None,
    running: Mapping[str, Any] = NOTHING,
    port: Annotated[
        int,
        typer.Option(
            min=0, max=65535, metavar="N", help="Port on 127.0.0.1; 0: any that is free."
        ),
    ] = _PORT,
    interval: Annotated[
        float,
        typer.Option(
            "--interval",
            "-i",
            parser=seconds,
            metavar="SECONDS",
            help="How often the counters are renewed.",
        ),
    ] = _INTERVAL_SECONDS,
    period: Annotated[
        float,
        typer.Option(
            parser=seconds,
            metavar="SECONDS",
            help="How long a trace lasts. Then self-tests run, and the next one begins.",
        ),
    ] = _TRACE_SECONDS,
    user: User = None,
    kernel: Kernel = AUTO,
    cpus: Cpus = None,
    mechanism: Mechanism = Choice.AUTO,
    module: Modules = None,
    keep: Keep = False,
    boot_timeout: BootTimeout = BOOT_SECONDS,
    quiet: Quiet = False,
) -> int | None:
    """Serve counters of moved and copied bytes, by system call, for Prometheus.

    Of all programs on this machine, by systemd unit, unless some are named. Goes on until
    Ctrl-C; with a command, until that ends. A unit, container or name may end and come back.
    """
    by_unit = not words and not running

    def subject() -> Subject:
        return subject_of(
            *(words or [], running, period),
            follow=True,
            interval=interval,
            or_everybody=True,
            by_unit=by_unit,
        )

    first = subject()
    if words:
        first = replace(first, seconds=None)
    how = wanted(first, user, mechanism, keep=keep, boot_timeout=boot_timeout, module=module)
    exported = Exported(first.called or first.words, by_unit=by_unit)
    with serving(exported, port) as where, shown(quiet=quiet) as say:
        notice(f"metrics at {where}")
        return export(how, kernel, cpus, exported, subject, say)


def export(
    wanted: Wanted,
    kernel: str,
    cpus: int | None,
    exported: Exported,
    again: Callable[[], Subject],
    say: Say,
) -> int | None:
    """Trace, again and again; returns a command's status. Raises ``ZctraceError``.

    ``again`` finds the subject anew, and raises ``UsageError`` while it does not run.
    """
    require_collector()
    require_command(wanted.subject.command)
    place = place_of(kernel, cpus, wanted, say)
    modules.check(wanted.modules, [place])

    exported.kernel = place.kernel.release if place.kernel else os.uname().release

    def look_on(_: float, look: Look) -> None:
        exported.look(look)

    while True:
        found = traced.answer(program_job.trace(place, wanted, say, look_on))
        exported.end(found)
        if wanted.subject.command:
            require_controls([found])
            return found.trace.status
        if found.trace.ended == INTERRUPTED:
            return None
        wanted = replace(wanted, subject=_there_again(again, say))


def _there_again(again: Callable[[], Subject], say: Say) -> Subject:
    waits = False
    while True:
        try:
            return again()
        except UsageError as error:
            if not waits:
                say(f"waiting: {error.what}")
            waits = True
            time.sleep(_AGAIN_SECONDS)
