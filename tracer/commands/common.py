"""What several commands need: outputs, rights, the place to measure at."""

from __future__ import annotations

import os
import shlex
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

_ELF, _HEAD_BYTES = b"\x7fELF", 256
"""The latter: as many as the kernel looks at (BINPRM_BUF_SIZE)."""
_MORE_FORMATS = "/proc/sys/fs/binfmt_misc"


def require_collector() -> None:
    """Raise ``ZctraceError`` for the first thing without which nothing can be counted."""
    require_root("only root may attach probes to a kernel")
    machine_places.require_architecture()
    machine_places.require_modules()


def require_command(command: Sequence[str]) -> None:
    """Raise :class:`UsageError` for one that cannot be started, before anything is booted."""
    if not command:
        return
    name = command[0]
    if found := shutil.which(name):
        _require_format(name, found)
    elif "/" not in name or not os.path.lexists(name):
        raise UsageError(
            f"{name or repr(name)}: there is no such command",
            "no file has this name" if "/" in name else "no folder of PATH has it",
            "the path of a program, or the name of one in PATH",
        )
    elif not os.path.exists(name):
        raise UsageError(
            f"{name}: there is no such command",
            "it is a symbolic link that leads nowhere",
            f"readlink -e {shlex.quote(name)}",
        )
    else:
        raise UsageError(
            f"{name} cannot be executed",
            "it is no file" if not os.path.isfile(name) else "its mode does not allow that",
            "the path of a program; chmod +x where it is one; or sh SCRIPT",
        )


def _require_format(name: str, path: str) -> None:
    """As the kernel asks, which else says so when a machine has been booted."""
    try:
        with open(path, "rb") as file:
            line = file.read(_HEAD_BYTES).partition(b"\n")[0]
    except OSError:
        return  # not ours to read, and maybe to execute
    interpreter = line[2:].split(maxsplit=1)[:1] if line.startswith(b"#!") else []
    if interpreter and not os.path.exists(interpreter[0]):
        raise UsageError(
            f"{name} cannot be executed",
            f"its first line names {os.fsdecode(interpreter[0])}, which does not exist",
            f"with an interpreter that there is: INTERPRETER {shlex.quote(name)}",
        )
    if not interpreter and not line.startswith(_ELF) and not _takes_more_formats():
        raise UsageError(
            f"{name} cannot be executed",
            "it is neither an ELF program nor a script that begins with #!",
            f"sh {shlex.quote(name)}",
        )


def _takes_more_formats() -> bool:
    """Whether other formats are registered (binfmt_misc.rst): any file may then run."""
    try:
        return bool(set(os.listdir(_MORE_FORMATS)) - {"register", "status"})
    except OSError:
        return False


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
            "self-test failed: do not trust these figures",
            "a probe did not count exactly the known bytes that were sent through it",
            "zctrace doctor; then report it, with the --json file",
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
