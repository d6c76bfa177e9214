"""What a strategy is, and what the textbook says it costs."""

from __future__ import annotations

import enum
import socket
from abc import ABC, abstractmethod
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from zctrace.probes.model import Path
from zctrace.workloads.kernel_account import KernelAccount
from zctrace.workloads.marker import Role, Scope, Window, window
from zctrace.workloads.performer import Performer
from zctrace.workloads.route import Leg

Address = tuple[str, int]

_REHEARSAL_BYTES = 4096


@dataclass(frozen=True)
class Expected:
    """The textbook's claim for one transfer, disk to network card.

    Copies are in units of the whole payload, ``switches`` in single crossings between
    user and kernel mode; ``None`` where the textbook is silent.
    """

    cpu_copies: int | None
    switches: int | None
    dma_copies: int | None


class Ends(enum.Enum):
    """Where the payload comes from, and where it goes."""

    FILE_TO_SOCKET = "file to socket"
    FILE_TO_FILE = "file to file"
    SOCKET_TO_MEMORY = "socket to memory"
    SOCKET_TO_FILE = "socket to file"


class Transfer(ABC):
    """One prepared transfer: descriptors open, buffers touched."""

    @abstractmethod
    def run(self) -> None:
        """Move the whole payload. Called inside the window.

        Raises ``OSError``, and ``EOFError`` where the payload ends early.
        """

    def run_in(self, stretch: Window | None) -> None:
        """The same, in a window of its own if there is to be one."""
        if stretch is None:
            self.run()
            return
        with window(stretch.nonce, stretch.role, stretch.scope):
            self.run()

    def account(self) -> KernelAccount:
        """What the kernel itself said of the transfer; after :meth:`run`."""
        return KernelAccount()

    def crc(self) -> int:
        """The CRC-32 of what :meth:`run` has put into memory; of no other transfer."""
        raise NotImplementedError

    def close(self) -> None:  # noqa: B027 - most transfers take nothing
        """Give back what preparing took. Called outside the window."""


@dataclass(frozen=True)
class Task:
    """What to move: ``size`` bytes, between open descriptors.

    ``file`` is the payload's, at its beginning; ``sock`` the socket to send to or to
    receive from, ``out`` an empty file on the payload's file system. A strategy uses those
    that its ends name. ``chunk`` is the most that one call is asked to move, ``None`` for
    as much as the kernel takes; ``pipe_size`` sets the capacity of a pipe in between,
    ``None`` for the kernel's default. Sizes in bytes.
    """

    file: int
    sock: int
    size: int
    chunk: int | None = None
    pipe_size: int | None = None
    out: int = -1

    @property
    def step(self) -> int:
        """The most that one call is asked to move."""
        return min(self.chunk or self.size, self.size)


class Strategy(ABC):
    """A way of moving a file to a socket, or of a part of that way."""

    name: str
    """As on the command line."""
    summary: str
    """The system calls, in a line."""
    expected: Expected = Expected(None, None, None)
    """Through a network card that gathers a packet from several places."""
    expected_without_gather: Expected | None = None
    """Through one that cannot, where the textbook tells them apart."""
    paths: frozenset[Path]
    """The kernel code that the payload may pass through."""
    route: tuple[Leg, ...] = ()
    """The places that the payload passes in memory, from the first it is brought to."""
    role: Role = Role.SENDER
    """On whose account the transfer's window counts."""
    scope: Scope = Scope.THREAD
    """Whether the kernel may work for it in other threads than the caller's."""
    file_systems: tuple[str, ...] = ()
    """Those that can do it, by the kernel's names; empty: any."""
    ends: Ends = Ends.FILE_TO_SOCKET
    user_memory: bool = False
    """Whether it may copy within its own memory by functions that can be probed."""
    performer: Performer | None = None
    """Who transfers, if that is another process."""

    def claims(self, *, gathers: bool) -> Expected:
        """The textbook's, for a network card that can or cannot do scatter/gather."""
        return self.expected if gathers else self.expected_without_gather or self.expected

    @abstractmethod
    def prepare(self, task: Task) -> Transfer:
        """Get everything ready that does not belong to the transfer itself."""

    def connect(self, address: Address, seconds: float | None = None) -> socket.socket:
        """A fresh connection for a transfer to ``address``, in so many seconds if any."""
        connection = socket.create_connection(address, seconds)
        connection.setblocking(True)
        return connection

    def certificate(self) -> str:
        """A file with the key and certificate by which a receiver must speak TLS; or ""."""
        return ""

    def rehearsals(self, size: int) -> Sequence[int]:
        """How many bytes to move before ``size`` are, to have everything been used."""
        return (min(size, _REHEARSAL_BYTES),)

    def unavailable(self, file: int) -> str:
        """Why this kernel, or the file system of ``file``, cannot do it; else ``""``."""
        return ""


def performers_of(strategies: Iterable[Strategy]) -> tuple[Performer, ...]:
    """Those that perform them, each once."""
    return tuple(dict.fromkeys(s.performer for s in strategies if s.performer))
