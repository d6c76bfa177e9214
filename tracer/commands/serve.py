"""``zctrace serve``: windows for a command whose processes measure themselves."""

from __future__ import annotations

from pathlib import Path

from zctrace.collect.describe import SERVING
from zctrace.commands.common import find, require_collector, require_command
from zctrace.commands.options import (
    BootTimeout,
    Command,
    CopyOut,
    Cpus,
    Keep,
    Kernel,
    Mechanism,
    Modules,
    Quiet,
    Sabotage,
    User,
    taken_out,
    wanted,
)
from zctrace.commands.progress import shown
from zctrace.errors import UsageError
from zctrace.evidence.schema import Subject
from zctrace.machine import modules, program_job
from zctrace.machine.places import AUTO
from zctrace.machine.program_job import Wanted
from zctrace.machine.progress import BOOT_SECONDS
from zctrace.plan.attachments import Choice


def command(
    words: Command = None,
    user: User = None,
    kernel: Kernel = AUTO,
    cpus: Cpus = None,
    mechanism: Mechanism = Choice.AUTO,
    module: Modules = None,
    copy_out: CopyOut = None,
    keep: Keep = False,
    boot_timeout: BootTimeout = BOOT_SECONDS,
    quiet: Quiet = False,
    sabotage: Sabotage = None,
) -> int | None:
    """Run a command that measures parts of itself, such as pytest with the fixture zctrace.

    The command keeps its input, output and exit status, and runs as the user who called.
    Processes that it starts may open windows, too, if they are that user's.
    """
    subject = Subject(
        command=tuple(words or ()),
        folder=str(Path.cwd()),
        marked=True,
        copy_out=taken_out(copy_out),
    )
    how = wanted(
        *(subject, user, mechanism),
        keep=keep,
        boot_timeout=boot_timeout,
        sabotage=sabotage,
        module=module,
    )
    return serve(how, kernel, cpus, quiet=quiet)


def serve(wanted: Wanted, name: str, cpus: int | None, *, quiet: bool) -> int | None:
    """Everything; returns the command's status. Raises ``ZctraceError``."""
    if not wanted.subject.command:
        raise UsageError(
            "nothing to serve", "windows are for a command", "zctrace serve -- pytest …"
        )
    require_collector()
    require_command(wanted.subject.command)
    with shown(quiet=quiet) as say:

        def said(step: str) -> None:
            if step == SERVING:
                say.hide()
            else:
                say(step)

        place = find(name, say, wanted.mechanism, cpus)
        modules.check(wanted.modules, [place])
        return program_job.serve(place, wanted, said)
