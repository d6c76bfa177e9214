"""Who is traced: the processes and threads of a subject, now. Part of collecting."""

from __future__ import annotations

import os
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from zctrace.collect import cgroups, processes, threads, user_functions
from zctrace.collect.attaching_users import UserFunctions
from zctrace.evidence.schema import Subject

_NOT_FOUND = "its file is not found"


@dataclass(frozen=True)
class Within:
    """What is watched in programs' own memory.

    ``functions`` are those with probes, and their files, for people; ``files`` the files.
    ``unseen`` are processes that run already and whose copies are not seen, with the reason.
    """

    functions: tuple[str, ...] = ()
    files: tuple[str, ...] = ()
    unseen: tuple[str, ...] = ()

    def unseen_of(self, executed: Iterable[tuple[str, int]]) -> tuple[str, ...]:
        """The same of programs that were started since: their files' paths and sizes."""
        found: dict[str, None] = dict.fromkeys(self.unseen)
        for path, size in executed:
            try:
                # In a container there may be another file of that name.
                same = Path(path).stat().st_size == size
                why = user_functions.unseen_of(path, self.files) if same else _NOT_FOUND
            except OSError:
                why = _NOT_FOUND
            if why:
                found[f"{Path(path).name or 'a program'}: {why}"] = None
        return tuple(found)


def watch_within(
    functions: UserFunctions, subject: Subject, environment: dict[str, str]
) -> Within:
    """Watch for copies in a program's own memory."""
    if subject.command:
        program = user_functions.program_of(subject.command[0], subject.folder, environment)
        programs = [program] if program else []
    else:
        programs = user_functions.programs_of(there(subject))
    watched = functions.watch_files(programs)
    running = set() if subject.command else there(subject)
    files = tuple(dict.fromkeys(path for _, path in watched))
    reasons = {pid: user_functions.unseen_in(pid, files) for pid in sorted(running)}
    return Within(
        tuple(dict.fromkeys(f"{function} in {Path(path).name}" for function, path in watched)),
        files,
        tuple(f"{processes.named(pid)}: {why}" for pid, why in reasons.items() if why),
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
