"""What a session and its collector say to each other: lines of JSON over a Unix socket.

A connection is a window. The session asks for one, ``{"protocol": 1, "scope": "process"}``;
the collector answers ``{"nonce": N}`` once it counts; then the program opens and closes its
window by itself, with the marker, while nothing is said; the session says ``{"done":
true}``, and the collector answers with the evidence. In the place of either answer there
may be an error, as ``zctrace.errors`` writes it. Standard library.
"""

from __future__ import annotations

import json
import socket
import struct
from typing import Any

SOCKET = "ZCTRACE_SOCKET"
"""The environment variable that names a collector's socket."""
PROTOCOL = 1
PROCESS, THREAD = "process", "thread"
"""Whom a window covers: the process with all it starts, or the thread that opens it."""
REQUEST_BYTES = 4096
"""More than any line to a collector has."""
PATH_BYTES = 107
"""The longest path of a socket (``sockaddr_un``), without the byte that ends it."""
_CREDENTIALS = struct.Struct("=3i")


class GoneError(Exception):
    """The other side has closed the connection, is silent, or says what makes no sense."""


class Channel:
    """One end of a connection, a context manager; raises :class:`GoneError` alone."""

    def __init__(self, connection: socket.socket, seconds: float) -> None:
        """``seconds`` is how long to wait for anything, at most."""
        connection.settimeout(seconds)
        self._connection, self._seconds = connection, seconds
        self._lines = connection.makefile("rb")

    def __enter__(self) -> Channel:
        return self

    def __exit__(self, *_: object) -> None:
        self._lines.close()
        self._connection.close()

    def fileno(self) -> int:
        return self._connection.fileno()

    def peer(self) -> tuple[int, int]:
        """Pid and uid of who has connected, by the kernel's word; pid 0: out of our sight."""
        raw = self._connection.getsockopt(
            socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size
        )
        pid, uid, _ = _CREDENTIALS.unpack(raw)
        return pid, uid

    def send(self, message: dict[str, Any]) -> None:
        try:
            self._connection.sendall(json.dumps(message).encode() + b"\n")
        except OSError as error:
            raise GoneError(str(error)) from error

    def receive(self, most: int = -1) -> dict[str, Any]:
        """The next line, of ``most`` bytes at most if that is not negative."""
        try:
            line = self._lines.readline(most)
        except TimeoutError as error:
            raise GoneError(f"it was silent for {self._seconds:g} s") from error
        except OSError as error:
            raise GoneError(str(error)) from error
        if not line.endswith(b"\n"):
            raise GoneError("too long a line" if line and len(line) == most else "it has ended")
        try:
            message = json.loads(line)
        except ValueError as error:
            raise GoneError("what it said is no JSON") from error
        if not isinstance(message, dict):
            raise GoneError("what it said is no JSON object")
        return message
