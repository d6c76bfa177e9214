"""Stretches in which the meter counts, and what is done every so often. Part of collecting."""

from __future__ import annotations

from typing import Any

from zctrace.collect.describe import hits_since
from zctrace.evidence.schema import Hits


class Every:
    """Something to be done every so many seconds from ``began`` on; never, if ``None``."""

    def __init__(self, began: float, seconds: float | None) -> None:
        self._seconds = seconds or float("inf")
        self._next = began + self._seconds

    def due(self, now: float) -> bool:
        """Whether it is time again; once for each time."""
        if now < self._next:
            return False
        self._next += self._seconds * (1 + (now - self._next) // self._seconds)
        return True


class Stretch:
    """A stretch in which the meter counts; several, added up. A context manager.

    No table of the meter's is read or changed while something is being watched, except to
    open and close windows: during such a call programs are skipped.
    """

    def __init__(self, meter: Any) -> None:
        self._meter = meter
        self.hits: dict[str, Hits] = {}
        self.skips: dict[str, int] = {}

    def __enter__(self) -> None:
        self._meter.follow_cpus()
        self._before = self._meter.hits()
        self._meter.activate()
        self._skipped = self._meter.skipped()

    def __exit__(self, *_: object) -> None:
        for cause, count in self._meter.skipped().items():
            self.skips[cause] = self.skips.get(cause, 0) + count - self._skipped[cause]
        self._meter.deactivate()
        for name, now in hits_since(self._before, self._meter.hits()).items():
            sofar = self.hits.get(name)
            self.hits[name] = sofar.plus(now) if sofar else now
