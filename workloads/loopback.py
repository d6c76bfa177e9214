"""Connections from this machine to itself."""

from __future__ import annotations

import socket

ADDRESS = "127.0.0.1"


def connection() -> tuple[socket.socket, socket.socket]:
    """Both ends of a TCP connection over loopback."""
    with socket.create_server((ADDRESS, 0)) as listener:
        one = socket.create_connection(listener.getsockname())
        other, _ = listener.accept()
    return one, other
