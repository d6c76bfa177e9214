"""What a traced program did with files, sockets and pipes: the values both halves share."""

from __future__ import annotations

import enum
from dataclasses import dataclass

from zctrace.probes.model import Direction

NO_CALL = "no call"
"""In the place of a system call's name: softirqs, and kernel threads."""


class ThingKind(enum.StrEnum):
    FILE = "file"
    SOCKET = "socket"
    PIPE = "pipe"
    DEVICE = "device"
    MEMORY = "memory"
    """Another process's."""
    QUEUE = "queue"
    """Of messages, System V's."""
    KERNEL = "kernel"
    """What the kernel makes up by itself: random numbers."""
    OTHER = "other"
    UNKNOWN = "unknown"
    """Behind a descriptor that was not seen."""


FILE, SOCKET, PIPE = ThingKind.FILE, ThingKind.SOCKET, ThingKind.PIPE
DEVICE, OTHER = ThingKind.DEVICE, ThingKind.OTHER


class FlowWay(enum.StrEnum):
    """Seen from the program."""

    IN = "in"
    OUT = "out"


@dataclass(frozen=True)
class Thing:
    """A file, socket, pipe or device; ``name`` is its path, or addresses, for people.

    ``many``: stands for all further ones of its kind, which there was no room for. ``type``
    is the kernel's own word for its kind: a file system, the driver of a device, a protocol;
    ``None`` if it was not recorded. ``beneath`` are the file systems and drivers below it.
    ``peer``: the index of the socket at the other end of the connection, if that was seen.
    """

    kind: ThingKind
    name: str
    many: bool = False
    type: str | None = None
    beneath: tuple[str, ...] = ()
    peer: int | None = None


@dataclass(frozen=True)
class Flow:
    """What one system call moved through one descriptor of one process.

    ``thing`` is an index, ``None`` where the descriptor was not seen, because the call had
    begun before the tracing did. ``descriptor`` is ``None`` then, for files that a program has
    registered with a ring, and where the row is for several processes (``process`` is 0).
    ``syscall`` may be an operation of io_uring or io_submit(2). ``way`` is seen from the
    program. ``direct`` is whether the descriptor is open with O_DIRECT.
    """

    thing: int | None
    process: int
    descriptor: int | None
    syscall: str | None
    way: FlowWay
    calls: int
    bytes: int
    direct: bool = False


@dataclass(frozen=True)
class Booking:
    """Payload that the CPU copied in ``syscall`` for one thing; ``None`` where unknown.

    ``syscall`` is ``None`` for what was copied outside of any, in a softirq. ``process`` is
    whose thread copied: ``None`` in a softirq, and where the row is for several processes.
    """

    thing: int | None
    syscall: str | None
    direction: Direction | None
    calls: int
    bytes: int
    process: int | None = None


@dataclass(frozen=True)
class Worker:
    """A thread that moved bytes, and the payload that the CPU copied on it.

    Thread 0: in softirqs, on any thread; with a name, on all that there was no room for.
    """

    thread: int
    process: int
    name: str
    calls: int
    bytes: int


@dataclass(frozen=True)
class Account:
    """Everything of one program.

    ``overflow``: bytes, moved or copied, in rows of many things or threads, because there
    were more than there is room for. ``stacks`` are empty unless they were asked for.
    """

    things: tuple[Thing, ...] = ()
    flows: tuple[Flow, ...] = ()
    bookings: tuple[Booking, ...] = ()
    workers: tuple[Worker, ...] = ()
    overflow: int = 0
    stacks: tuple[Stack, ...] = ()


@dataclass(frozen=True)
class Look:
    """What had moved, been copied and found no row of its own until now; bytes, by call.

    Unlike an account it does not know what is inside the program: what goes through a pipe
    in there is received and delivered, too. If that is wanted, ``busy`` are the processes, and
    the files, sockets and pipes, that moved the most since the last look, and ``units`` what
    each unit or other cgroup has moved.
    """

    received: dict[str, int]
    delivered: dict[str, int]
    copied: dict[str, int]
    overflow: int
    busy: tuple[Busy, ...] = ()
    units: tuple[UnitBytes, ...] = ()


@dataclass(frozen=True)
class UnitBytes:
    """What a unit, or another cgroup, has moved in one call until now, and the CPU copied."""

    unit: str
    call: str
    received: int
    delivered: int
    copied: int


@dataclass(frozen=True)
class Busy:
    """What one process, or one file, socket or pipe, has moved until now; bytes.

    ``is_process`` tells which of them it is; ``name`` has a process's number, too.
    ``descriptors`` are those of a thing, as text.
    """

    is_process: bool
    name: str
    descriptors: str
    calls: int
    received: int
    delivered: int
    copied: int


@dataclass(frozen=True)
class Stack:
    """Payload that was copied with these functions on the stack, the innermost first.

    ``process`` and ``name``, a thread's, are 0 and empty for softirqs, which come on top of
    anybody; then there is no ``user`` part. ``function`` is what copied.
    """

    process: int
    name: str
    function: str
    syscall: str | None
    direction: Direction | None
    kernel: tuple[str, ...]
    user: tuple[str, ...]
    calls: int
    bytes: int


@dataclass(frozen=True)
class Only:
    """A part of a program: of each kind that is named, one of these.

    ``ports`` are a socket's own or its peer's, ``files`` patterns of paths or names,
    ``descriptors`` numbers that any process has for a file, ``calls`` system calls.
    """

    ports: tuple[int, ...] = ()
    files: tuple[str, ...] = ()
    descriptors: tuple[int, ...] = ()
    calls: tuple[str, ...] = ()


STRATEGY = "trace"
"""What evidence has in the place of a strategy's name."""
EXITED, TIME, INTERRUPTED, CLOSED = "exited", "time", "interrupted", "closed"
SERVED = "served"
