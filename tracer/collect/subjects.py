"""Who is traced: the processes and threads of a subject, now. Part of collecting."""

from __future__ import annotations

import os
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path
from typing import Any

from zctrace.collect import cgroups, processes, threads, user_functions
from zctrace.collect.attaching_users import UserFunctions
from zctrace.evidence.schema import Subject


def watch_within(
    functions: UserFunctions, subject: Subject, environment: dict[str, str]
) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Watch for copies in a program's own memory.

    Returns what is watched, and processes that run already in which nothing is.
    """
    if subject.command:
        program = user_functions.program_of(subject.command[0], subject.folder, environment)
        programs = [program] if program else []
    else:
        programs = user_functions.programs_of(there(subject))
    watched = functions.watch_files(programs)
    running = set() if subject.command else there(subject)
    strangers = user_functions.strangers(running, (path for _, path in watched))
    return (
        tuple(dict.fromkeys(f"{function} in {Path(path).name}" for function, path in watched)),
        tuple(processes.named(pid) for pid in strangers),
    )


def there(subject: Subject) -> set[int]:
    """The processes that are to be traced, as far as they are there now.

    The collector and what called it are not, unless they were named: the shell that zctrace
    was typed into, or the cgroup that it runs in, can be traced.
    """
    pids = cgroups.members(Path(subject.cgroup)) if subject.cgroup else subject.pids
    alone = subject.threads or not subject.follow
    found = set(pids) if alone else processes.family(pids)
    return found - ({os.getpid(), os.getppid()} - set(subject.pids))


def windows(subject: Subject) -> set[int]:
    """The keys of the windows of all that are to be traced and are there now."""
    if subject.threads:
        return {threads.window_of(number) for number in subject.threads}
    return there(subject)


def rights(pids: Iterable[int]) -> dict[str, Any]:
    """What the first of them that is there may do."""
    for pid in sorted(pids):
        with suppress(OSError, KeyError):
            return cgroups.rights(pid)
    return {}
