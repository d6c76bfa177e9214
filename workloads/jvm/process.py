"""The Java virtual machine: one process, whose main thread does what it is told."""

from __future__ import annotations

import enum
import os
import signal
import socket
import subprocess
import sys
import tempfile
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import IO

from zctrace.probes.model import Direction, Quantity
from zctrace.workloads import libc
from zctrace.workloads.control_stimuli import INTO_CACHE, TO_USER
from zctrace.workloads.jvm import java, netty
from zctrace.workloads.known import Known, Moved
from zctrace.workloads.marker import Window
from zctrace.workloads.strategy import Address, Performer

ROLE = "jvm"
_PIDFD_GETFD = 438
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

    @property
    def of_netty(self) -> bool:
        return self not in (Kind.STREAM, Kind.CHANNEL)


class Jvm(Performer):
    """One for all strategies that are given it; nothing happens before :meth:`start`."""

    def __init__(self) -> None:
        self._process: subprocess.Popen[str] | None = None
        self._thread = 0
        self._stack = ExitStack()
        self._built: java.Built | None = None
        self._netty: netty.Netty | None = None
        self._no_netty = ""
        self._has_netty = False

    def refusal(self) -> str:
        try:
            program = self._build().jdk.java
        except java.NoJavaError as error:
            return str(error)
        # Whoever compiled it may have had other rights, or have seen other folders.
        return "" if os.access(program, os.X_OK) else f"{program} cannot be run from here"

    def netty_refusal(self) -> str:
        """Why it cannot do what takes Netty, which is fetched if need be; else ""."""
        if reason := self.refusal() or self._no_netty:
            return reason
        try:
            self._build_netty()
        except (netty.NoNettyError, OSError) as error:
            # Remembered: to be told so by Maven may take minutes.
            self._no_netty = str(error)
        return self._no_netty

    def certificate(self) -> Path:
        """For whoever it is to send to by TLS; there where nothing refuses Netty."""
        return self._build_netty().certificate

    def start(self, nonce: int, step: int) -> None:
        if self._process:
            return
        command = self._build().command(nonce, step)
        # A file, for it may say more than anybody reads: a pipe would fill up.
        self._complaints = self._stack.enter_context(
            os.fdopen(os.memfd_create("zctrace-jvm"), "w+", errors="replace")
        )
        self._process = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._complaints,
            cwd="/",
            env=java.ENVIRONMENT,
            text=True,
        )
        try:
            self._thread = int(self._line())
        except BaseException:
            self.close()
            raise

    @property
    def threads(self) -> dict[str, int]:
        return {ROLE: self._thread}

    def connect(self, address: Address, kind: Kind) -> socket.socket:
        """Have it connect, and return a second descriptor of the same connection."""
        if kind.of_netty and not self._has_netty:
            self._ask(*self._build_netty().words())
            self._has_netty = True
        return self._second(self._ask("connect", kind.value, *address))

    def prepare(self, strategy: str, file: int, size: int, step: int) -> None:
        """Have it open our file, at the beginning, and make its buffers."""
        self._ask("prepare", strategy, _path(file), size, step)

    def run(self, stretch: Window | None) -> None:
        """Have it move what is prepared over the connection, in that window if any.

        Raises ``OSError``, and ``EOFError`` where the file is shorter.
        """
        window = (int(stretch.role), int(stretch.scope)) if stretch else _NO_WINDOW
        self._ask("run", *window)

    def release(self) -> None:
        """Have it close file and connection. Whether it is there any more does not matter."""
        with suppress(OSError):
            self._ask("release")

    def own_all_memory(self) -> None:
        self._ask("own")

    def exercise(self, stretch: Window, folder: str) -> Known:
        file = os.open(folder, os.O_TMPFILE | os.O_RDWR, 0o600)
        try:
            # The first write allocates blocks; and what runs first loads classes.
            os.write(file, bytes(sum(_WRITTEN)))
            self._ask("copy", _path(file), *_NO_WINDOW)
            self._ask("copy", _path(file), int(stretch.role), int(stretch.scope))
        finally:
            os.close(file)
        return _CONTROLS

    def idle(self, stretch: Window, stage: str) -> None:
        self._ask("idle", stage, int(stretch.role), int(stretch.scope))

    def close(self) -> None:
        if self._process:
            self._process.kill()
            self._process.communicate()
            self._process = None
        self._stack.close()
        self._built = self._netty = None
        self._no_netty = ""
        self._has_netty = False

    def _build(self) -> java.Built:
        """Raises :class:`java.NoJavaError`."""
        if self._built is None:
            self._built = java.staged() or self._compiled()
        return self._built

    def _compiled(self) -> java.Built:
        try:
            return java.build(java.own_cache())
        except OSError:
            folder = self._stack.enter_context(tempfile.TemporaryDirectory(prefix="zctrace-"))
            return java.build(Path(folder))

    def _build_netty(self) -> netty.Netty:
        """Raises :class:`netty.NoNettyError` and ``OSError``."""
        if self._netty is None:
            self._netty = netty.staged() or netty.build(
                self._build(), java.own_cache(), lambda text: print(text, file=sys.stderr)
            )
        return self._netty

    def _second(self, port: int) -> socket.socket:
        """A descriptor here of the socket there that is bound to ``port``.

        So that the kernel's word on the connection, and its end, are as for any other.
        """
        assert self._process
        pid = self._process.pid
        process = os.pidfd_open(pid)
        try:
            for name in os.listdir(f"/proc/{pid}/fd"):
                if not os.readlink(f"/proc/{pid}/fd/{name}").startswith("socket:"):
                    continue
                number = libc.syscall("pidfd_getfd", _PIDFD_GETFD, process, int(name), 0)
                candidate = socket.socket(fileno=number)
                if candidate.family != socket.AF_UNIX and candidate.getsockname()[1] == port:
                    return candidate
                candidate.close()
        finally:
            os.close(process)
        raise OSError(f"the JVM has no connection from port {port}")

    def _ask(self, *words: str | int) -> int:
        assert self._process
        stdin = self._process.stdin
        assert stdin
        with suppress(BrokenPipeError):  # its last words say more
            stdin.write(" ".join(map(str, words)) + "\n")
            stdin.flush()
        kind, _, rest = self._line().partition(" ")
        if kind == "ok":
            return int(rest)
        name, _, text = rest.partition(" ")
        raise EOFError(text) if name == "EOFException" else OSError(f"in Java, {name}: {text}")

    def _line(self) -> str:
        assert self._process
        stdout: IO[str] | None = self._process.stdout
        assert stdout
        if line := stdout.readline():
            return line.rstrip("\n")
        status = self._process.wait()
        self._complaints.seek(0)
        said = [line for line in self._complaints.read().splitlines() if line.strip()]
        how = signal.Signals(-status).name if status < 0 else f"status {status}"
        raise OSError(f"the JVM ended with {how}: {said[-1] if said else 'it said nothing'}")


def _path(file: int) -> str:
    """The path by which another process of this user opens what is open here."""
    return f"/proc/{os.getpid()}/fd/{file}"
