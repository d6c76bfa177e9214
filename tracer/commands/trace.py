"""``zctrace trace`` and ``zctrace check``: is this program really zero-copy?"""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console

from zctrace.analysis import program as traced
from zctrace.analysis.program import Answer
from zctrace.commands.common import (
    Outputs,
    find,
    require_collector,
    require_command,
    require_controls,
)
from zctrace.commands.progress import shown
from zctrace.errors import KernelError, LimitError, UsageError
from zctrace.evidence.account import Look
from zctrace.evidence.schema import Subject
from zctrace.machine import places, program_job
from zctrace.machine.places import HOST, Place
from zctrace.machine.program_job import Wanted
from zctrace.reports.text import live


def subject_of(
    command: Sequence[str],
    pids: Sequence[int],
    cgroup: str,
    seconds: float | None,
    *,
    follow: bool,
    stacks: bool = False,
    interval: float | None = None,
) -> Subject:
    """What was asked for; raises :class:`UsageError` unless it is one thing."""
    given = [
        name
        for name, value in (("a command", command), ("-p", pids), ("--cgroup", cgroup))
        if value
    ]
    if len(given) != 1:
        raise UsageError(
            f"{' and '.join(given)} together" if given else "nothing to trace",
            "one program at a time: a command, processes, or a cgroup",
            "zctrace trace -- COMMAND, zctrace trace -p PID or zctrace trace --cgroup PATH",
        )
    for option, value in (("-d", seconds), ("-i", interval)):
        if value is not None and value <= 0:
            raise UsageError(f"{option} {value:g}: more than 0 seconds")
    program_job.check_processes(tuple(pids))
    if cgroup:
        cgroup = program_job.check_cgroup(cgroup)
    return Subject(
        command=tuple(command),
        folder=str(Path.cwd()),
        pids=tuple(dict.fromkeys(pids)),
        cgroup=cgroup,
        seconds=seconds,
        follow=follow,
        stacks=stacks,
        interval=interval,
    )


def trace(
    wanted: Wanted, name: str, outputs: Outputs, *, quiet: bool, most: float | None = None
) -> int | None:
    """Everything; returns a command's status. Raises ``ZctraceError``.

    ``most`` is how many copies for each byte are allowed, if there is a limit.
    """
    outputs.check()
    require_collector()
    require_command(wanted.subject.command)
    with shown(quiet=quiet) as say:
        place = _place(name, wanted, say)
        lines = live.Lines()

        def look_on(seconds: float, look: Look) -> None:
            for line in lines.next(seconds, look):
                say.line(line)

        evidence = program_job.trace(place, wanted, say, look_on)
        say("adding up")
        found = traced.answer(evidence)
    show([found], outputs, Console())
    require_controls([found])
    if most is not None:
        check(found, most)
    return found.trace.status


def show(answers: Sequence[Answer], outputs: Outputs, console: Console) -> None:
    """Write the forms that were asked for, and the report on the terminal."""
    from zctrace.reports import flamegraph
    from zctrace.reports.text import program as reports

    forms = {
        "--csv": reports.flows_csv,
        "--json": reports.result_json,
        "--folded": flamegraph.folded,
        "--speedscope": flamegraph.speedscope,
    }
    outputs.write(forms, answers)
    if not outputs.on_stdout:
        # The command may have had standard output for itself.
        reports.render(answers, console, os.uname().release)


def check(found: Answer, most: float) -> None:
    """Raise :class:`LimitError` where more was copied, or where that is not known."""
    if found.copies is None or found.most_copies is None:
        raise LimitError(
            "nothing was delivered or received, so that copies cannot be related to it",
            hint="a command that moves something by system calls",
        )
    if found.most_copies > most:
        also = f", and {found.unassigned} B are nobody's" if found.unassigned else ""
        raise LimitError(
            f"{found.copies:.4g} copies for each byte {found.basis[0]}{also}; "
            f"{most:g} are allowed",
            traced.sentence(found),
        )
    if found.doubts:
        raise LimitError(
            f"no more than {most:g} copies were seen, but not everything was", found.doubts[0]
        )


def _place(name: str, wanted: Wanted, say: places.Say) -> Place:
    """Where to trace; what is there already is on this machine's own kernel."""
    if wanted.subject.command:
        return find(name, say)
    if name not in (places.AUTO, HOST):
        raise UsageError(
            f"--kernel {name} for a program that is running",
            "it runs on this machine's own kernel",
            "without --kernel; or with a command: zctrace trace --kernel 6.1 -- COMMAND",
        )
    if name == places.AUTO and (reasons := places.why_not_host()):
        raise KernelError(
            f"this machine's kernel {os.uname().release} cannot be measured",
            "; ".join(reasons),
            "a command, in a virtual machine: zctrace trace -- COMMAND; zctrace doctor",
        )
    return Place(None)
