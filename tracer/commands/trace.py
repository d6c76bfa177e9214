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
from zctrace.commands.common import (
    find,
    require_collector,
    require_command,
    require_controls,
)
from zctrace.commands.options import (
    BootTimeout,
    Command,
    CopyOut,
    Cpus,
    Duration,
    Keep,
    Kernel,
    Mechanism,
    Modules,
    NoFollow,
    Quiet,
    Sabotage,
    User,
    UserCopies,
    seconds,
    wanted,
    word,
)
from zctrace.commands.outputs import NOWHERE, writes
from zctrace.commands.progress import shown
from zctrace.commands.subjects import NOTHING, finds, narrows, subject_of
from zctrace.errors import KernelError, UsageError
from zctrace.evidence.account import Look, Only
from zctrace.machine import modules, places, program_job
from zctrace.machine.places import AUTO, HOST, Place
from zctrace.machine.program_job import Wanted
from zctrace.machine.progress import BOOT_SECONDS
from zctrace.notices import Say
from zctrace.plan.attachments import Choice
from zctrace.reports import formats, program_data
from zctrace.reports.formats import Of, Outputs
from zctrace.reports.text import live
from zctrace.reports.text.terminal import Terminal


@writes(formats.of(Of.TRACE))
@finds(threads=True)
@narrows
def command(
    words: Command = None,
    running: Mapping[str, Any] = NOTHING,
    part: Only | None = None,
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
        *(words or [], running, duration),
        follow=not no_follow,
        user_copies=user_copies,
        stacks=stacks or outputs.stacks,
        interval=interval or (1.0 if jsonl else None),
        client=client or "",
        copy_out=tuple(copy_out or ()),
        only=part,
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
