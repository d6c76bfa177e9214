"""Processors go off and come back: as one says, or all but the first when a machine sleeps.

With a processor the kernel removes the events that are limited to it, for good and silently: a
breakpoint stays open and counts nothing (perf_event_exit_cpu in kernel/events/core.c).
"""

from __future__ import annotations

from typing import Any

from zctrace.kernel import perf_events


class Processors:
    """Those that breakpoints are on; ``changes`` is the meter's table of what has changed."""

    def __init__(self, changes: Any) -> None:
        self._changes = changes
        self.online = frozenset(perf_events.online_cpus())
        self.unwatched: set[int] = set()
        """Those that went off or came while breakpoints were to count."""

    def have_changed(self) -> bool:
        """Whether events must be opened anew for what is online now; once for each time."""
        changed = self._changed()
        self._changes.clear()
        self.online = frozenset(perf_events.online_cpus())
        return bool(changed)

    def note(self) -> None:
        """That breakpoints were to count until now."""
        self.unwatched |= self._changed()

    def _changed(self) -> set[int]:
        changed = {key.value for key in self._changes}
        return changed | self.online ^ set(perf_events.online_cpus())
