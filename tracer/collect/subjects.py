"""Who is traced: the processes and threads of a subject, now. Part of collecting."""

from __future__ import annotations

import os
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path
from typing import Any

from zctrace.collect import cgroups, processes, threads
from zctrace.evidence.schema import Subject


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
