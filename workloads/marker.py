"""Tell a tracer where a measured stretch begins and ends.

The marker is a system call that is otherwise an error: ``prctl`` with an option that
the kernel does not have. Without a tracer nothing happens (the call fails with
EINVAL); a tracer sees it at syscall entry, in the right thread, at the right moment.
"""

from __future__ import annotations

import enum
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from zctrace.workloads import libc

OPTION = 0x7A637472
"""The prctl option: "zctr" in ASCII, far from the numbers that the kernel hands out."""


NONCE = "ZCTRACE_NONCE"
"""The environment variable that names the tracer's nonce. Not an argument: every user can read
the command line of a process, and with the nonce can have other processes' copies counted."""


def given_nonce() -> int:
    """The tracer's; 0 where none is there. Nothing that is started from here has it, too."""
    return int(os.environ.pop(NONCE, "0"))


class Operation(enum.IntEnum):
    OPEN = 1
    CLOSE = 2
    SETTLED = 3
    OPEN_AT_EXEC = 4


class Scope(enum.IntEnum):
    """Whom a window covers."""

    THREAD = 1
    """The calling thread alone."""
    PROCESS = 2
    """Every thread of the process, and every process it starts in the window."""
    ALONE = 3
    """Every thread of the process, and no other process."""


class Role(enum.IntEnum):
    """On whose account a window counts."""

    SENDER = 1
    """The transfer under measurement."""
    SINK = 2
    """The receiving process."""
    CONTROL_BEFORE = 3
    CONTROL_AFTER = 4
    """Known amounts copied by the sender's own thread, around the transfer."""
    CONTROL_IDLE = 5
    """The sender's own thread, idle, while NEIGHBOUR copies."""
    NEIGHBOUR = 6
    """Another process, copying a known amount."""
    RECEIVER = 7
    """The transfer under measurement, where it receives."""
    SOURCE = 8
    """The process that sends to it."""
    PROGRAM = 9
    """A program that is traced, whatever it does."""


WATCHED = frozenset(
    {Role.SENDER, Role.CONTROL_BEFORE, Role.CONTROL_AFTER, Role.RECEIVER, Role.PROGRAM}
)
"""Roles whose work is looked out for in other contexts too, until it is settled."""

OUTSIDE = 0x100
"""Added to a watched role: copied inside the kernel, not in its window, while its work
was unsettled."""


TAPPED = 0x200
"""Added to a watched role: copied for a packet capture that is not the role's own, while its
work was unsettled."""


class RoleName(enum.StrEnum):
    """For whom something was counted, as evidence has it."""

    SENDER = "sender"
    SINK = "sink"
    CONTROL_BEFORE = "control_before"
    CONTROL_AFTER = "control_after"
    CONTROL_IDLE = "control_idle"
    NEIGHBOUR = "neighbour"
    RECEIVER = "receiver"
    SOURCE = "source"
    PROGRAM = "program"
    OUTSIDE_SENDER = "outside:sender"
    """Of a watched role, :data:`OUTSIDE` its window."""
    OUTSIDE_CONTROL_BEFORE = "outside:control_before"
    OUTSIDE_CONTROL_AFTER = "outside:control_after"
    OUTSIDE_RECEIVER = "outside:receiver"
    OUTSIDE_PROGRAM = "outside:program"
    TAPPED_SENDER = "tapped:sender"
    """Likewise :data:`TAPPED`."""
    TAPPED_CONTROL_BEFORE = "tapped:control_before"
    TAPPED_CONTROL_AFTER = "tapped:control_after"
    TAPPED_RECEIVER = "tapped:receiver"
    TAPPED_PROGRAM = "tapped:program"
    EVERYBODY = "everybody"
    """All processes."""

    @property
    def outside(self) -> RoleName:
        """Of a watched role: what was copied outside its window."""
        return RoleName(f"outside:{self}")

    @property
    def tapped(self) -> RoleName:
        """Of a watched role: what was copied in its window for packet captures of others."""
        return RoleName(f"tapped:{self}")


def role_name(number: int) -> RoleName:
    """Of a role, or of one and :data:`OUTSIDE` or :data:`TAPPED`."""
    name = RoleName(Role(number & ~(OUTSIDE | TAPPED)).name.lower())
    if number & TAPPED:
        return name.tapped
    return name.outside if number & OUTSIDE else name


@dataclass(frozen=True)
class Window:
    """What a window says of itself, wherever it is opened."""

    nonce: int
    role: Role
    scope: Scope


@contextmanager
def window(nonce: int, role: Role, scope: Scope) -> Iterator[None]:
    """Everything in the body, and nothing else, counts for ``role``.

    The system calls of the marker itself are not part of the window.
    """
    libc.marker(OPTION, nonce, Operation.OPEN, role, scope)
    try:
        yield
    finally:
        libc.marker(OPTION, nonce, Operation.CLOSE, role, scope)


def settled(nonce: int, role: Role) -> None:
    """Everything that the last window of ``role`` set in motion has arrived."""
    libc.marker(OPTION, nonce, Operation.SETTLED, role, Scope.THREAD)


def open_at_exec(nonce: int, role: Role, scope: Scope) -> None:
    """What this process becomes by exec counts for ``role``, from its first instruction.

    The exec itself does not, nor do attempts that fail.
    """
    libc.marker(OPTION, nonce, Operation.OPEN_AT_EXEC, role, scope)
