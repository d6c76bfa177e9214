"""Functions that copy within programs' own memory: probes in their code. Part of collecting."""

from __future__ import annotations

import os
from collections.abc import Iterable
from contextlib import ExitStack

from zctrace.collect import compiled, user_functions
from zctrace.collect.attaching import ON_USER_COPY, Programs, attempt
from zctrace.collect.user_functions import Place
from zctrace.errors import TraceError
from zctrace.kernel import bpf_syscall, perf_events
from zctrace.probes.model import Mechanism
from zctrace.probes.user_functions import PROGRAM_COPIES, USER_COPIES, UserCopy

_EVERYBODY = -1


class UserFunctions:
    """The functions that copy within user memory.

    ``first`` is the meter's number of the first; copies count from ``least`` bytes on.
    """

    def __init__(self, programs: Programs, first: int, least: int) -> None:
        self._programs, self._first, self._least = programs, first, least
        self._probes = ExitStack()
        programs.cleanup.callback(self._probes.close)

    def watch(self, process: int) -> None:
        """Probe those of ``process``, of no other, until the next time.

        Raises :class:`TraceError` where there is a function that cannot be probed.
        """
        self._probes.close()
        find = compiled.names()
        for slot, copy in enumerate(USER_COPIES):
            try:
                places = user_functions.places(copy, process, find.build_id, find.offset_of)
            except OSError as error:
                raise TraceError(f"process {process} is gone", str(error)) from error
            self._attach(copy, slot, places, process)

    def watch_files(self, programs: Iterable[str]) -> list[tuple[str, str]]:
        """Probe those of our C library, and of ``programs``, which are files.

        Every process that has mapped these files passes the probes, until the next time.
        Returns what is watched: functions and their files. Raises :class:`TraceError`.
        """
        self._probes.close()
        names, watched = compiled.names(), []
        # Each has what our C library has, which needs no program.
        files = list(programs) or [""]
        for slot, copy in enumerate(PROGRAM_COPIES):
            places = {
                place
                for file in files
                for place in user_functions.places_in(
                    copy, file, names, user_functions.libraries_beside(file)
                )
            }
            self._attach(copy, slot, sorted(places, key=str), _EVERYBODY)
            watched += [(copy.function, path) for path in sorted({p.path for p in places})]
        return watched

    def _attach(self, copy: UserCopy, slot: int, places: Iterable[Place], process: int) -> None:
        values = user_functions.settings(copy, self._first + slot, slot, self._least)
        for place in places:
            program = self._programs.load(ON_USER_COPY, bpf_syscall.PROBE, slot, values)
            event = attempt(
                f"{copy.function} in {place.path}",
                perf_events.open_uprobe,
                *(place.path, place.offset, process),
            )
            self._probes.callback(os.close, event)
            if not self._programs.is_sabotaged(copy.function, Mechanism.UPROBE):
                perf_events.set_program(event, program)
