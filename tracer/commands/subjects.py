"""Whom a command traces, and what part of it: options, and what they stand for."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, TypeVar

import typer

from zctrace.commands.choices import choose_own_copies
from zctrace.commands.gathered import Option, gathered
from zctrace.commands.options import count, word
from zctrace.errors import UsageError
from zctrace.evidence.account import Only
from zctrace.evidence.schema import Subject
from zctrace.machine import subjects
from zctrace.machine.subjects import Running
from zctrace.probes import syscalls

_T = TypeVar("_T")


def descriptor(text: str) -> int:
    """A number of a file, at least 0."""
    if not (str(text).isascii() and str(text).isdigit()):
        raise typer.BadParameter(f"{text}: a whole number, at least 0.")
    return int(text)


def call(text: str) -> str:
    """A system call that moves bytes, or an operation of io_uring or io_submit."""
    if text not in {transfer.syscall for transfer in syscalls.TRANSFERS}:
        raise typer.BadParameter(f"{text}: no system call or operation that moves bytes.")
    return text


_PIDS = Option(
    Annotated[
        list[int] | None,
        typer.Option(
            "--pid",
            "-p",
            parser=count,
            metavar="PID",
            help="PID of a running process to trace, with its threads and children. Can be "
            "repeated.",
        ),
    ]
)
_NAME = Option(
    Annotated[
        str | None,
        typer.Option(
            parser=word,
            metavar="NAME",
            help="Trace the running processes of this name, and their children.",
        ),
    ]
)
_UNIT = Option(
    Annotated[
        str | None,
        typer.Option(parser=word, metavar="UNIT", help="Trace a systemd unit."),
    ]
)
_CONTAINER = Option(
    Annotated[
        str | None,
        typer.Option(
            parser=word,
            metavar="ID",
            help="Trace a container, by its name, its ID or the beginning of that; a "
            "Kubernetes pod, by its UID.",
        ),
    ]
)
_CGROUP = Option(
    Annotated[
        str | None,
        typer.Option(parser=word, metavar="PATH", help="Trace all processes in a cgroup."),
    ]
)
_THREADS = Option(
    Annotated[
        list[int] | None,
        typer.Option(
            parser=count, metavar="TID", help="Trace one thread alone. Can be repeated."
        ),
    ]
)
_PORTS = Option(
    Annotated[
        list[int] | None,
        typer.Option(
            "--port",
            parser=count,
            metavar="N",
            help="Only sockets with this port, their own or their peer's. Can be repeated.",
        ),
    ]
)
_FILES = Option(
    Annotated[
        list[str] | None,
        typer.Option(
            "--file",
            parser=word,
            metavar="PATTERN",
            help="Only files, pipes and devices of this path, or of this name where it has no "
            "/; * stands for anything. Can be repeated.",
        ),
    ]
)
_DESCRIPTORS = Option(
    Annotated[
        list[int] | None,
        typer.Option(
            "--fd",
            parser=descriptor,
            metavar="N",
            help="Only what has this descriptor in any process. Can be repeated.",
        ),
    ]
)
_CALLS = Option(
    Annotated[
        list[str] | None,
        typer.Option(
            "--syscall",
            parser=call,
            metavar="NAME",
            help="Only this system call, or operation of io_uring. Can be repeated.",
        ),
    ]
)
_RUNNING: dict[str, tuple[str, Option, Callable[[Any], Running]]] = {
    "pid": ("-p", _PIDS, subjects.by_number),
    "name": ("--name", _NAME, subjects.by_name),
    "unit": ("--unit", _UNIT, subjects.by_unit),
    "container": ("--container", _CONTAINER, subjects.by_container),
    "cgroup": ("--cgroup", _CGROUP, subjects.by_cgroup),
    "thread": ("--thread", _THREADS, subjects.by_thread),
}
"""By the name of the parameter: the option, and how its value is found."""
_PART = {"port": _PORTS, "file": _FILES, "fd": _DESCRIPTORS, "syscall": _CALLS}
NOTHING: Mapping[str, Any] = {}
"""The default of a command's parameter ``running``."""


def finds(*, threads: bool) -> Callable[[Callable[..., _T]], Callable[..., _T]]:
    """Give a command options for what runs already in place of its parameter ``running``."""
    wanted = {name: option for name, (_, option, _) in _RUNNING.items()}
    if not threads:
        del wanted["thread"]
    return gathered("running", wanted, lambda given: {n: v for n, v in given.items() if v})


def narrows(function: Callable[..., _T]) -> Callable[..., _T]:
    """Give a command options for a part of a program in place of its parameter ``part``."""

    def gather(given: dict[str, Any]) -> Only | None:
        found = Only(*(tuple(given[name] or ()) for name in _PART))
        return None if found == Only() else found

    return gathered("part", _PART, gather)(function)


def subject_of(
    command: Sequence[str],
    running: Mapping[str, Any],
    seconds: float | None,
    *,
    follow: bool,
    user_copies: str | None = None,
    or_everybody: bool = False,
    **others: Any,
) -> Subject:
    """What was asked for: a command, or what runs, by one option of :func:`finds`.

    ``others`` are members of the subject. Raises :class:`UsageError` unless it is one thing,
    and if it does not run. Nothing is everybody, where that may be.
    """
    given = [*(["a command"] if command else []), *(_RUNNING[name][0] for name in running)]
    if len(given) != 1 and not (or_everybody and not given):
        raise UsageError(
            f"{' and '.join(given)} together" if given else "nothing to trace",
            "zctrace traces one thing at a time: a command, or what runs already",
            "zctrace trace -- COMMAND, zctrace trace -p PID or zctrace trace --name NAME",
        )
    there = Running() if given else subjects.everybody()
    for name, value in running.items():
        _, _, find = _RUNNING[name]
        there = find(value)
    if there.threads and not follow:
        raise UsageError("--thread and --no-follow together", "a thread has no children")
    return Subject(
        command=tuple(command),
        folder=str(Path.cwd()),
        pids=there.pids,
        cgroup=there.cgroup,
        called=there.called,
        threads=there.threads,
        seconds=seconds,
        follow=follow,
        user_copies=choose_own_copies(user_copies),
        **others,
    )
