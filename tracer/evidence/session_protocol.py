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
import time
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
_PIECE_BYTES = 1 << 16
_CREDENTIALS = struct.Struct("=3i")


class GoneError(Exception):
    """The other side has closed the connection, is silent, or says what makes no sense."""


class Channel:
    """One end of a connection, a context manager; raises :class:`GoneError` alone."""

    def __init__(self, connection: socket.socket, seconds: float) -> None:
        """``seconds`` is how long a whole line may take, either way."""
        self._connection, self._seconds = connection, seconds

    def __enter__(self) -> Channel:
        return self

    def __exit__(self, *_: object) -> None:
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
            self._connection.settimeout(self._seconds)  # of all together
            self._connection.sendall(json.dumps(message).encode() + b"\n")
        except OSError as error:
            raise GoneError(error.strerror or str(error)) from error

    def receive(self, most: int) -> dict[str, Any]:
        """The next line, of ``most`` bytes at most; nothing may follow before an answer."""
        try:
            line = self._line(most)
        except TimeoutError as error:
            raise GoneError(f"no whole answer within {self._seconds:g} s") from error
        except OSError as error:
            raise GoneError(error.strerror or str(error)) from error
        if len(line) > most:
            raise GoneError("too long a line")
        if not line.endswith(b"\n"):
            raise GoneError("it has ended")
        try:
            message = json.loads(line)
        except (ValueError, RecursionError) as error:
            raise GoneError("what it said is no JSON") from error
        if not isinstance(message, dict):
            raise GoneError("what it said is no JSON object")
        return message

    def _line(self, most: int) -> bytearray:
        """What comes up to the end of a line or of the connection, or is too much."""
        until = time.monotonic() + self._seconds
        line = bytearray()
        while True:
            left = until - time.monotonic()
            if left <= 0:
                raise TimeoutError
            self._connection.settimeout(left)
            piece = self._connection.recv(_PIECE_BYTES)
            line += piece
            if not piece or b"\n" in piece or len(line) > most:
                return line
