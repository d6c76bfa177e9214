"""``zctrace serve``: windows for a command whose processes measure themselves."""

from __future__ import annotations

from zctrace.collect.describe import SERVING
from zctrace.commands.common import find, require_collector, require_command
from zctrace.commands.progress import shown
from zctrace.errors import UsageError
from zctrace.machine import program_job
from zctrace.machine.program_job import Wanted


def serve(wanted: Wanted, name: str, *, quiet: bool) -> int | None:
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

        return program_job.serve(find(name, say), wanted, said)
