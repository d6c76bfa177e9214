"""What several commands need: outputs, rights, the place to measure at."""

from __future__ import annotations

import os
import shutil
from collections.abc import Sequence
from typing import TYPE_CHECKING

from zctrace.commands.progress import notice
from zctrace.errors import ControlError, RightsError, UsageError
from zctrace.machine import places as machine_places
from zctrace.machine.places import Place
from zctrace.notices import Say
from zctrace.plan.attachments import Choice

if TYPE_CHECKING:
    from zctrace.analysis.program import Answer
    from zctrace.analysis.runs import Judged


def require_collector() -> None:
    """Raise ``ZctraceError`` for the first thing without which nothing can be counted."""
    require_root("only root may attach probes to a kernel")
    machine_places.require_architecture()
    machine_places.require_modules()


def require_command(command: Sequence[str]) -> None:
    """Raise :class:`UsageError` where a command to start is not there."""
    if command and not shutil.which(command[0]):
        raise UsageError(f"{command[0]}: there is no such command")


def require_root(why: str) -> None:
    if os.geteuid() != 0:
        raise RightsError(
            "zctrace needs root for this",
            why,
            "sudo zctrace …; the strategies themselves run as you, not as root",
        )


def require_controls(results: Sequence[Judged] | Sequence[Answer]) -> None:
    """Raise :class:`ControlError` where one failed."""
    if any(result.failed for result in results):
        raise ControlError(
            "controls failed: the numbers are not to be trusted",
            "a probe that should have counted known bytes did not count exactly those",
            "zctrace doctor; then report it with the --json file",
        )


def find(name: str, say: Say, mechanism: str, cpus: int | None = None) -> Place:
    """The place for ``--kernel name``, with a notice where it is not the first choice.

    Where it is to be measured with ``mechanism``. Raises ``ZctraceError``.
    """
    place = machine_places.find_place(name, say, Choice(mechanism), cpus)
    if place.kernel and place.instead:
        notice(
            f"this machine's kernel {os.uname().release} cannot be measured: {place.instead}"
        )
        notice(f"using the stock kernel {place.kernel.release} in a virtual machine instead")
    return place
