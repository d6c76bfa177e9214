"""``zctrace check``: fail where a command copies more than it may."""

from __future__ import annotations

from typing import Annotated

import typer

from zctrace.analysis import limits
from zctrace.analysis.program import Answer
from zctrace.commands.options import (
    BootTimeout,
    Command,
    Cpus,
    Duration,
    Keep,
    Kernel,
    Mechanism,
    Modules,
    NoFollow,
    Quiet,
    User,
    UserCopies,
    ratio,
    wanted,
)
from zctrace.commands.outputs import NOWHERE, writes
from zctrace.commands.subjects import NOTHING, narrows, subject_of
from zctrace.commands.trace import trace
from zctrace.errors import LimitError
from zctrace.evidence.account import Only
from zctrace.machine.places import AUTO
from zctrace.machine.progress import BOOT_SECONDS
from zctrace.plan.attachments import Choice
from zctrace.reports import formats, markdown, step_summary
from zctrace.reports.formats import Of, Outputs


@writes([one for one in formats.of(Of.TRACE) if not one.stacks])
@narrows
def command(
    words: Command = None,
    max_copies: Annotated[
        float,
        typer.Option(
            parser=ratio,
            metavar="COPIES",
            help="Copies allowed per byte delivered or received.",
        ),
    ] = 0.01,
    part: Only | None = None,
    duration: Duration = None,
    no_follow: NoFollow = False,
    user: User = None,
    kernel: Kernel = AUTO,
    cpus: Cpus = None,
    mechanism: Mechanism = Choice.AUTO,
    module: Modules = None,
    user_copies: UserCopies = None,
    outputs: Outputs = NOWHERE,
    keep: Keep = False,
    boot_timeout: BootTimeout = BOOT_SECONDS,
    quiet: Quiet = False,
) -> int | None:
    """Fail, with status 12, if a command copies more than allowed.

    Traces as zctrace trace does. If the command fails, its exit status is returned.
    """
    subject = subject_of(
        *(words or [], NOTHING, duration),
        follow=not no_follow,
        user_copies=user_copies,
        only=part,
    )
    return trace(
        wanted(
            *(subject, user, mechanism), keep=keep, boot_timeout=boot_timeout, module=module
        ),
        kernel,
        cpus,
        outputs,
        quiet=quiet,
        require=lambda found: _require(found, max_copies),
    )


def _require(found: Answer, most: float) -> None:
    """Hold it to the limit, and say so where a CI service shows it."""
    failure = None
    try:
        limits.require(found, most)
    except LimitError as error:
        failure = error
    try:
        step_summary.append(markdown.of_check(found, most, str(failure or "")))
    finally:
        if failure:
            raise failure
