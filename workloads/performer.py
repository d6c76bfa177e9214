"""What a performer is: another process that transfers, and what it needs to be there."""

from __future__ import annotations

import sys
from abc import ABC, abstractmethod
from collections.abc import Iterable
from contextlib import ExitStack
from pathlib import Path

from zctrace.notices import Say
from zctrace.workloads.known import Known
from zctrace.workloads.marker import Window
from zctrace.workloads.prepared import NotPreparedError, Prepared, own_cache, staged


class Performer(ABC):
    """Another process that transfers, in one of its threads, in place of this one.

    One object for all strategies that name it. What it needs is prepared where zctrace is
    called, and staged; the strategies' process, where it transfers, takes what is staged, or
    prepares it by itself if nothing is. From :meth:`start` on its methods raise ``OSError``
    where something fails in it, or it ends.
    """

    name: str
    """The system's, as people write it."""
    role: str
    """Of the thread that transfers. Performers of the same role share their process."""

    def __init__(self) -> None:
        self._prepared: Prepared | NotPreparedError | None = None
        self._stack = ExitStack()

    @property
    def key(self) -> str:
        """The name of the folder that is staged for it."""
        return self.name.lower()

    @abstractmethod
    def prepare(self, cache: Path, say: Say) -> Prepared:
        """Make what it needs in ``cache``, or find it there. ``say`` gets what takes long.

        Raises :class:`NotPreparedError`, and ``OSError`` where ``cache`` cannot be written to.
        """

    @abstractmethod
    def describe(self, cache: Path) -> str:
        """What performs here, and where it is, without making anything.

        Raises :class:`NotPreparedError` where it is plain that nothing will.
        """

    @abstractmethod
    def memory_bytes(self, step: int) -> int:
        """Memory that its process takes, for calls that move ``step`` bytes at most."""

    @abstractmethod
    def start(self, nonce: int, step: int) -> None:
        """Start it, for calls that move ``step`` bytes at most; once is enough."""

    @property
    @abstractmethod
    def threads(self) -> dict[str, int]:
        """The thread that transfers, by role; none before it is started."""

    @abstractmethod
    def own_all_memory(self) -> None:
        """As :func:`zctrace.workloads.libc.own_all_memory`, there."""

    @abstractmethod
    def exercise(self, stretch: Window, folder: str) -> Known:
        """Copy known amounts in a window of that thread; returns them.

        As :func:`zctrace.workloads.peers.exercise` does, but nothing is said to be settled.
        """

    @abstractmethod
    def idle(self, stretch: Window, stage: str) -> None:
        """Let the neighbour work while that thread is idle in a window.

        ``stage`` is :attr:`zctrace.workloads.peers.Neighbour.stage`.
        """

    def refusal(self) -> str:
        """Why there can be none here; else ""."""
        try:
            self.prepared()
        except NotPreparedError as error:
            return str(error)
        return ""

    def prepared(self) -> Prepared:
        """What was staged, or is prepared now. Raises :class:`NotPreparedError`."""
        if self._prepared is None:
            try:
                self._prepared = staged(self.key) or self._prepare()
            except NotPreparedError as error:
                # Remembered: to find out again may take minutes.
                self._prepared = error
        if isinstance(self._prepared, NotPreparedError):
            raise NotPreparedError(str(self._prepared))
        return self._prepared

    def _prepare(self) -> Prepared:
        def say(text: str) -> None:
            print(text, file=sys.stderr)

        try:
            return self.prepare(own_cache(), say)
        except OSError:
            import tempfile  # late, as in whole()

            folder = self._stack.enter_context(tempfile.TemporaryDirectory(prefix="zctrace-"))
            return self.prepare(Path(folder), say)

    def close(self) -> None:
        """End it, and forget what was prepared; it can be started again."""
        self._stack.close()
        self._prepared = None


def attempt(performer: Performer, cache: Path, say: Say) -> Prepared | NotPreparedError:
    """What ``performer`` needs, to be staged; or why there is none."""
    say(f"preparing what {performer.name} needs, if that was not done before")
    try:
        return performer.prepare(cache, say)
    except NotPreparedError as error:
        return error
    except OSError as error:
        return NotPreparedError(f"{performer.name} cannot be prepared: {error}")


def memory_bytes(performers: Iterable[Performer], step: int) -> int:
    """What all of them take together, as :meth:`Performer.memory_bytes`."""
    most: dict[str, int] = {}
    for performer in performers:
        most[performer.role] = max(most.get(performer.role, 0), performer.memory_bytes(step))
    return sum(most.values())
