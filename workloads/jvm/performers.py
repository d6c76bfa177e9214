"""Java, and Netty in it: what they need, and what they are asked to do."""

from __future__ import annotations

import enum
import os
import socket
from contextlib import suppress
from pathlib import Path

from zctrace.notices import Say
from zctrace.probes.model import Direction, Quantity
from zctrace.workloads.control_stimuli import INTO_CACHE, TO_USER
from zctrace.workloads.jvm import java, netty
from zctrace.workloads.jvm.process import Jvm
from zctrace.workloads.known import Known, Moved
from zctrace.workloads.marker import Window
from zctrace.workloads.performer import Performer
from zctrace.workloads.prepared import NotPreparedError, Prepared
from zctrace.workloads.strategy import Address

_NO_WINDOW = (0, 0)
_WRITTEN = (61, 100_003)
_BETWEEN_ARRAYS = (70_001, 8 * 10_007)
_CONTROLS = Known(
    {
        INTO_CACHE: sum(_WRITTEN),
        TO_USER: sum(_WRITTEN),
        Moved(Quantity.USER_MEMORY, Direction.USER_TO_USER): (
            _WRITTEN[-1] + sum(_BETWEEN_ARRAYS)
        ),
    },
    {"write": len(_WRITTEN), "read": len(_WRITTEN), "lseek": 1},
)
"""What ``src/Controls.java`` moves: through the page cache of a file and back; and within user
memory, in each of the ways in which a JVM copies a buffer. Out of an array into memory outside
of the heap and back, ``Unsafe_CopyMemory0`` of libjvm has generated code copy. Between arrays,
interpreted, it is ``memmove`` for bytes, and for words ``_Copy_conjoint_jlongs_atomic`` of
libjvm."""


class Kind(enum.Enum):
    """Of a connection, by its name there."""

    STREAM = "stream"
    """Of one of the classes that Java began with."""
    CHANNEL = "channel"
    NETTY_NIO = "nio"
    NETTY_EPOLL = "epoll"
    NETTY_TLS = "tls"


class Java(Performer):
    """The classes that Java comes with, in a process that others may share."""

    name = "Java"
    role = "jvm"

    def __init__(self, jvm: Jvm) -> None:
        super().__init__()
        self._jvm = jvm

    def prepare(self, cache: Path, say: Say) -> Prepared:
        return java.build(cache).prepared

    def describe(self, cache: Path) -> str:
        jdk = java.find()
        return f"Java {jdk.version} in {jdk.home}"

    def memory_bytes(self, step: int) -> int:
        return java.process_bytes(step)

    def refusal(self) -> str:
        if reason := super().refusal():
            return reason
        program = self._built().jdk.java
        # The user who compiled it may have had other rights, or seen other folders.
        return "" if os.access(program, os.X_OK) else f"{program} cannot be run from here"

    def start(self, nonce: int, step: int) -> None:
        self._jvm.start(self._built().command(step), nonce)

    @property
    def threads(self) -> dict[str, int]:
        return {self.role: self._jvm.thread} if self._jvm.thread else {}

    def connect(self, address: Address, kind: Kind) -> socket.socket:
        """Have it connect, and return a second descriptor of the same connection."""
        return self._jvm.second(self._jvm.ask("connect", kind.value, *address))

    def open(self, strategy: str, file: int, size: int, step: int) -> None:
        """Have it open our file, at the beginning, and make its buffers."""
        self._jvm.ask("prepare", strategy, _path(file), size, step)

    def run(self, stretch: Window | None) -> None:
        """Have it move what is open over the connection, in that window if any.

        Raises ``OSError``, and ``EOFError`` where the file is shorter.
        """
        window = (int(stretch.role), int(stretch.scope)) if stretch else _NO_WINDOW
        self._jvm.ask("run", *window)

    def release(self) -> None:
        """Have it close file and connection. Whether it is there any more does not matter."""
        with suppress(OSError):
            self._jvm.ask("release")

    def own_all_memory(self) -> None:
        self._jvm.ask("own")

    def exercise(self, stretch: Window, folder: str) -> Known:
        file = os.open(folder, os.O_TMPFILE | os.O_RDWR, 0o600)
        try:
            # The first write allocates blocks; and what runs first loads classes.
            os.write(file, bytes(sum(_WRITTEN)))
            self._jvm.ask("copy", _path(file), *_NO_WINDOW)
            self._jvm.ask("copy", _path(file), int(stretch.role), int(stretch.scope))
        finally:
            os.close(file)
        return _CONTROLS

    def idle(self, stretch: Window, stage: str) -> None:
        self._jvm.ask("idle", stage, int(stretch.role), int(stretch.scope))

    def close(self) -> None:
        self._jvm.close()
        super().close()

    def _built(self) -> java.Built:
        return java.Built.of(self.prepared())


class Netty(Java):
    """The library, which is loaded into the same process when it is first needed."""

    name = "Netty"

    def prepare(self, cache: Path, say: Say) -> Prepared:
        driver = java.build(cache)
        return netty.build(driver, cache, say).prepared(driver)

    def describe(self, cache: Path) -> str:
        java.find()
        if reason := netty.why_not(cache):
            raise NotPreparedError(reason)
        fetched = netty.is_in(cache)
        where = f"is in {cache}" if fetched else "Maven fetches when it is first needed"
        return f"Netty {netty.version()}, which {where}"

    def connect(self, address: Address, kind: Kind) -> socket.socket:
        self._jvm.load(self._library().words())
        return super().connect(address, kind)

    def certificate(self) -> Path:
        """For the receiver of TLS; present if nothing refuses Netty."""
        return self._library().certificate

    def _library(self) -> netty.Library:
        return netty.Library.of(self.prepared())


def _path(file: int) -> str:
    """The path by which another process of this user opens what is open here."""
    return f"/proc/{os.getpid()}/fd/{file}"


_JVM = Jvm()
JAVA, NETTY = Java(_JVM), Netty(_JVM)
