"""``zctrace trace``: is this program really zero-copy, and if not, who copies?"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console

from zctrace import output_files
from zctrace.analysis import program as traced
from zctrace.analysis.program import Answer
from zctrace.commands.choices import choose_own_copies
from zctrace.commands.common import (
    find,
    require_collector,
    require_command,
    require_controls,
)
from zctrace.commands.options import (
    BootTimeout,
    Calls,
    Cgroup,
    Command,
    Container,
    CopyOut,
    Cpus,
    Descriptors,
    Duration,
    Files,
    Keep,
    Kernel,
    Mechanism,
    Modules,
    Name,
    NoFollow,
    Pids,
    Ports,
    Quiet,
    Sabotage,
    Threads,
    Unit,
    User,
    UserCopies,
    only,
    seconds,
    wanted,
    word,
)
from zctrace.commands.outputs import NOWHERE, writes
from zctrace.commands.progress import shown
from zctrace.errors import KernelError, UsageError
from zctrace.evidence.account import Look, Only
from zctrace.evidence.schema import Subject
from zctrace.machine import modules, places, program_job, subjects
from zctrace.machine.places import AUTO, HOST, Place
from zctrace.machine.program_job import Wanted
from zctrace.machine.progress import BOOT_SECONDS
from zctrace.machine.subjects import Running
from zctrace.notices import Say
from zctrace.plan.attachments import Choice
from zctrace.reports import formats, program_data
from zctrace.reports.formats import Of, Outputs
from zctrace.reports.text import live
from zctrace.reports.text.terminal import Terminal


@writes(formats.of(Of.TRACE))
def command(
    words: Command = None,
    pid: Pids = None,
    name: Name = None,
    unit: Unit = None,
    container: Container = None,
    cgroup: Cgroup = None,
    thread: Threads = None,
    port: Ports = None,
    file: Files = None,
    fd: Descriptors = None,
    syscall: Calls = None,
    duration: Duration = None,
    no_follow: NoFollow = False,
    user: User = None,
    kernel: Kernel = AUTO,
    cpus: Cpus = None,
    mechanism: Mechanism = Choice.AUTO,
    module: Modules = None,
    client: Annotated[
        str | None,
        typer.Option(
            parser=word,
            metavar="COMMAND",
            help="A client, in quotes. It runs when the traced command listens, is not traced, "
            "and ends the tracing.",
        ),
    ] = None,
    interval: Annotated[
        float | None,
        typer.Option(
            "--interval",
            "-i",
            parser=seconds,
            metavar="SECONDS",
            help="Print a progress line every SECONDS.",
        ),
    ] = None,
    jsonl: Annotated[
        Path | None,
        typer.Option(
            "--jsonl",
            metavar="FILE",
            help="A JSON object for each progress line, and one for the end; - for stdout. "
            "Every second, or as -i says.",
        ),
    ] = None,
    stacks: Annotated[
        bool, typer.Option("--stacks", help="Record kernel and user stacks of each copy.")
    ] = False,
    user_copies: UserCopies = None,
    copy_out: CopyOut = None,
    outputs: Outputs = NOWHERE,
    keep: Keep = False,
    boot_timeout: BootTimeout = BOOT_SECONDS,
    quiet: Quiet = False,
    sabotage: Sabotage = None,
) -> int | None:
    """Trace a program: is it zero-copy, and if not, who copies?

    A command is traced from its first instruction, a running process from now on. A command
    keeps its input, output and exit status, and runs as the user who called.
    """
    subject = subject_of(
        words or [],
        {
            "-p": pid,
            "--name": name,
            "--unit": unit,
            "--container": container,
            "--cgroup": cgroup,
            "--thread": thread,
        },
        duration,
        follow=not no_follow,
        stacks=stacks or outputs.stacks,
        interval=interval or (1.0 if jsonl else None),
        client=client or "",
        user_copies=user_copies,
        copy_out=copy_out or (),
        part=only(port, file, fd, syscall),
    )
    how = wanted(
        *(subject, user, mechanism),
        keep=keep,
        boot_timeout=boot_timeout,
        sabotage=sabotage,
        module=module,
    )
    return trace(
        how, kernel, cpus, outputs, quiet=quiet, jsonl=jsonl, shows_lines=interval is not None
    )


def subject_of(
    command: Sequence[str],
    running: Mapping[str, Any],
    seconds: float | None,
    *,
    follow: bool,
    stacks: bool = False,
    interval: float | None = None,
    client: str = "",
    user_copies: str | None = None,
    copy_out: Sequence[str] = (),
    busy: bool = False,
    part: Only | None = None,
) -> Subject:
    """What was asked for: a command, or by one of the options of ``running`` what runs.

    Raises :class:`UsageError` unless it is one thing, and if it does not run.
    """
    given = [*(["a command"] if command else []), *(n for n, value in running.items() if value)]
    if len(given) != 1:
        raise UsageError(
            f"{' and '.join(given)} together" if given else "nothing to trace",
            "zctrace traces one thing at a time: a command, or what runs already",
            "zctrace trace -- COMMAND, zctrace trace -p PID or zctrace trace --name NAME",
        )
    (one,) = given
    there = Running() if command else _RUNNING[one](running[one])
    if there.threads and not follow:
        raise UsageError("--thread and --no-follow together", "a thread has no children")
    return Subject(
        command=tuple(command),
        folder=str(Path.cwd()),
        pids=there.pids,
        cgroup=there.cgroup,
        seconds=seconds,
        follow=follow,
        stacks=stacks,
        interval=interval,
        client=client,
        user_copies=choose_own_copies(user_copies),
        called=there.called,
        threads=there.threads,
        copy_out=tuple(copy_out),
        busy=busy,
        only=part,
    )


_RUNNING: dict[str, Callable[[Any], Running]] = {
    "-p": subjects.by_number,
    "--name": subjects.by_name,
    "--unit": subjects.by_unit,
    "--container": subjects.by_container,
    "--cgroup": subjects.by_cgroup,
    "--thread": subjects.by_thread,
}


def trace(
    wanted: Wanted,
    name: str,
    cpus: int | None,
    outputs: Outputs,
    *,
    quiet: bool,
    require: Callable[[Answer], None] = lambda found: None,
    jsonl: Path | None = None,
    shows_lines: bool = False,
) -> int | None:
    """Everything; returns a command's status, or its client's. Raises ``ZctraceError``.

    ``require`` is called last, and may raise one, too. ``jsonl`` gets an object for each look
    and for the end.
    """
    outputs.check()
    if jsonl:
        output_files.check(jsonl, "--jsonl", force=outputs.force)
    require_collector()
    require_command(wanted.subject.command)
    with ExitStack() as stack:
        put = stack.enter_context(output_files.lines(jsonl)) if jsonl else None
        say = stack.enter_context(shown(quiet=quiet))
        place = place_of(name, cpus, wanted, say)
        modules.check(wanted.modules, [place])
        lines = live.Lines()

        def look_on(seconds: float, look: Look) -> None:
            if put:
                put(live.as_json(seconds, look))
            for line in lines.next(seconds, look) if shows_lines else ():
                say.line(line)

        evidence = program_job.trace(place, wanted, say, look_on)
        say("adding up")
        found = traced.answer(evidence)
        if put:
            put(program_data.summary_line(found))
    if not (jsonl and output_files.is_stdout(jsonl)):
        show([found], outputs, Terminal())
    else:
        outputs.write(Of.TRACE, [found])
    require_controls([found])
    require(found)
    # The server was ended by a signal.
    return found.trace.client_status if wanted.subject.client else found.trace.status


def show(answers: Sequence[Answer], outputs: Outputs, console: Console) -> None:
    """Write the forms that were asked for, and the report on the terminal."""
    from zctrace.reports import program
    from zctrace.reports.text import paper

    outputs.write(Of.TRACE, answers)
    if not outputs.on_stdout:
        # The command may have had standard output for itself.
        paper.show(program.report(answers), console)


def place_of(name: str, cpus: int | None, wanted: Wanted, say: Say) -> Place:
    """Where to trace; what is there already is on this machine's own kernel."""
    if wanted.subject.command:
        return find(name, say, wanted.mechanism, cpus)
    if name not in (places.AUTO, HOST):
        raise UsageError(
            f"--kernel {name} for a program that is running",
            "it runs on this machine's own kernel",
            "without --kernel; or with a command: zctrace trace --kernel 6.1 -- COMMAND",
        )
    choice = Choice(wanted.mechanism)
    if name == places.AUTO and (reasons := places.why_not_host(choice=choice)):
        raise KernelError(
            f"this machine's kernel {os.uname().release} cannot be measured",
            "; ".join(reasons),
            "a command, in a virtual machine: zctrace trace -- COMMAND; zctrace doctor",
        )
    return find(HOST, say, wanted.mechanism, cpus)
