"""The Java virtual machine: one process, whose main thread performs the strategies."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
from collections.abc import Sequence
from contextlib import ExitStack, suppress
from typing import IO

from zctrace.workloads import libc
from zctrace.workloads.jvm import java

_PIDFD_GETFD = 438


class Jvm:
    """One for all that ask it; nothing happens before :meth:`start`.

    Raises ``OSError`` where something fails in it, or it ends.
    """

    def __init__(self) -> None:
        self._process: subprocess.Popen[str] | None = None
        self._stack = ExitStack()
        self._loaded: set[tuple[str, ...]] = set()
        self.thread = 0
        """The one that does what is asked; 0 before it is started."""

    def start(self, command: Sequence[str], nonce: int) -> None:
        """Start it, unless it runs. The nonce is on no command line."""
        if self._process:
            return
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
            self._say(str(nonce))
            self.thread = int(self._line())
        except BaseException:
            self.close()
            raise

    def load(self, words: Sequence[str]) -> None:
        """Have a library loaded; once is enough. ``words`` say which."""
        if (library := tuple(words)) not in self._loaded:
            self.ask(*words)
            self._loaded.add(library)

    def close(self) -> None:
        """End it; it can be started again."""
        if self._process:
            self._process.kill()
            self._process.communicate()
            self._process = None
        self._stack.close()
        self._loaded.clear()
        self.thread = 0

    def second(self, port: int) -> socket.socket:
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

    def ask(self, *words: str | int) -> int:
        """What it answers; raises ``EOFError`` where the file to transfer is shorter."""
        self._say(*words)
        kind, _, rest = self._line().partition(" ")
        if kind == "ok":
            return int(rest)
        name, _, text = rest.partition(" ")
        raise EOFError(text) if name == "EOFException" else OSError(f"in Java, {name}: {text}")

    def _say(self, *words: str | int) -> None:
        assert self._process
        stdin = self._process.stdin
        assert stdin
        with suppress(BrokenPipeError):  # its last words say more
            stdin.write(" ".join(map(str, words)) + "\n")
            stdin.flush()

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
