"""``zctrace check``: fail where a command copies more than it may."""

from __future__ import annotations

from typing import Annotated

import typer

from zctrace.analysis import advice, sentences
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
from zctrace.commands.trace import subject_of, trace
from zctrace.errors import LimitError
from zctrace.machine.places import AUTO
from zctrace.machine.progress import BOOT_SECONDS
from zctrace.plan.attachments import Choice
from zctrace.reports import formats
from zctrace.reports.formats import Of, Outputs


@writes([formats.named("json", Of.TRACE)])
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
        *(words or [], [], "", duration), follow=not no_follow, user_copies=user_copies
    )
    return trace(
        wanted(
            *(subject, user, mechanism), keep=keep, boot_timeout=boot_timeout, module=module
        ),
        kernel,
        cpus,
        outputs,
        quiet=quiet,
        require=lambda found: require_limit(found, max_copies),
    )


def require_limit(found: Answer, most: float) -> None:
    """Raise :class:`LimitError` where more was copied, or where that is not known."""
    if found.copies is None or found.most_copies is None:
        raise LimitError(
            "nothing was delivered or received: there is no number of copies per byte",
            hint="check a command that moves bytes through system calls",
        )
    within = found.within_bytes / found.basis[1]
    if found.most_copies + within > most:
        also = f", and {found.unassigned} B could not be attributed" if found.unassigned else ""
        if found.unexplained:
            also += f", and of {found.unexplained_bytes} B it is not known"
        if within:
            also += f", and {within:.4g} in its own memory"
        raise LimitError(
            f"{found.copies:.4g} copies per byte {found.basis[0]}{also}; {most:g} are allowed",
            sentences.sentence(found),
            next((one.words for one in advice.of(found) if one.saves_bytes), ""),
        )
    if found.doubts:
        raise LimitError(
            f"at most {most:g} copies were counted, but some copies may be missing",
            found.doubts[0],
        )
