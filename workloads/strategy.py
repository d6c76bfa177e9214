"""What a strategy is, and what the textbook says it costs."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from probes.site import Path


@dataclass(frozen=True)
class Expected:
    """The textbook's claim for one transfer, disk to network card.

    Copies are in units of the whole payload, ``switches`` in single crossings between
    user and kernel mode; ``None`` where the textbook is silent.
    """

    cpu_copies: int | None
    switches: int | None
    dma_copies: int | None


class Transfer(Protocol):
    """One prepared transfer: descriptors open, buffers touched."""

    def run(self) -> None:
        """Move the whole payload. Called inside the window; raises ``OSError``."""

    def close(self) -> None:
        """Give back what preparing took. Called outside the window."""


@dataclass(frozen=True)
class Task:
    """What to move: ``size`` bytes from ``file`` to ``sock``, both open descriptors.

    ``chunk`` is the most that one call is asked to move, ``None`` for as much as the
    kernel takes; ``pipe_size`` sets the capacity of a pipe in between, ``None`` for the
    kernel's default. Sizes in bytes.
    """

    file: int
    sock: int
    size: int
    chunk: int | None = None
    pipe_size: int | None = None

    @property
    def step(self) -> int:
        """The most that one call is asked to move."""
        return min(self.chunk or self.size, self.size)


class Strategy(Protocol):
    """A way of moving a file to a socket."""

    name: str
    """As on the command line."""
    summary: str
    """The system calls, in a line."""
    expected: Expected
    paths: frozenset[Path]
    """The kernel code that the payload may pass through."""

    def prepare(self, task: Task) -> Transfer:
        """Get everything ready that does not belong to the transfer itself."""
