"""Sockets in the meter's table of things: their names, and which are ends of one connection.

An entry is ``struct object`` of probes/bpf/flows.c. Part of collecting.
"""

from __future__ import annotations

import socket
from collections.abc import Iterable
from types import SimpleNamespace
from typing import Any

_INET = (socket.AF_INET, socket.AF_INET6)
_TYPES = {1: "stream", 2: "datagram", 3: "raw", 5: "packets"}
_PROTOCOLS: dict[int, str] = {
    socket.IPPROTO_TCP: "tcp",
    socket.IPPROTO_UDP: "udp",
    socket.IPPROTO_SCTP: "sctp",
    socket.IPPROTO_UDPLITE: "udplite",
    socket.IPPROTO_MPTCP: "mptcp",
}
_RAW = 3
_UNTOLD = b"another"
"""In the place of what stands on top of TCP."""
_MAPPED = bytes(10) + b"\xff\xff"
"""What comes before an IPv4 address where it stands for one of IPv6."""

_End = tuple[bytes, int]
"""An address and a port; or a number that only one socket has."""


def name(inode: int, entry: Any) -> str:
    """Its kind and, of an internet socket, both addresses; for people."""
    if entry.family not in _INET:
        return f"{protocol(entry)} socket:[{inode}]"
    return f"{protocol(entry)} {' → '.join(map(_words, _internet_ends(entry)))}"


def protocol(entry: Any) -> str:
    """``tcp``, ``tcp+tls``, ``unix stream``, or the family's number and what kind it is."""
    kind = _TYPES.get(entry.type, f"type {entry.type}")
    family: int = entry.family
    if family == socket.AF_UNIX:
        return f"unix {kind}"
    if family not in _INET:
        return f"family {family} {kind}"
    if entry.protocol:
        found = _PROTOCOLS.get(entry.protocol, f"{kind} of protocol {entry.protocol}")
    else:
        found = {"stream": "tcp", "datagram": "udp"}.get(kind, kind)
    upper = bytes(entry.upper).split(b"\0")[0].decode(errors="replace")
    return f"{found}+{upper}" if upper else found


def protocol_of_many(sort: int) -> str:
    """The same of sockets that are in one row, by ``sort_of`` of probes/bpf/flows.c."""
    entry = SimpleNamespace(
        family=sort >> 24 & 0x7F,
        type=sort >> 16 & 0xFF,
        protocol=sort & 0xFFFF,
        upper=_UNTOLD if sort >> 31 else b"",
    )
    return protocol(entry)


def peers(sockets: Iterable[tuple[int, Any]]) -> dict[int, int]:
    """By number, the socket at the other end of its connection, where that is given, too.

    ``sockets`` are numbers and entries.
    """
    ends = {number: found for number, entry in sockets if (found := _ends(entry))}
    there = {found: number for number, found in ends.items()}
    return {
        number: there[kind, far, near]
        for number, (kind, near, far) in ends.items()
        if (kind, far, near) in there
    }


def _ends(entry: Any) -> tuple[int, _End, _End] | None:
    """Its type, its own end and its peer's; ``None`` where it has not been connected."""
    if entry.family == socket.AF_UNIX:
        near, far = (b"", entry.sock), (b"", entry.peer_sock)
    elif entry.family in _INET and entry.type != _RAW:
        near, far = _internet_ends(entry)
    else:
        return None
    return (entry.type, near, far) if near[1] and far[1] else None


def _internet_ends(entry: Any) -> tuple[_End, _End]:
    size = 4 if entry.family == socket.AF_INET else 16
    # Java's sockets are of IPv6, and what they carry may be IPv4.
    near, far = (
        bytes(address)[:size].removeprefix(_MAPPED) for address in (entry.address, entry.peer)
    )
    return (near, entry.port), (far, socket.ntohs(entry.peer_port))


def _words(end: _End) -> str:
    raw, port = end
    six = len(raw) > len(_MAPPED)
    text = socket.inet_ntop(socket.AF_INET6 if six else socket.AF_INET, raw)
    return f"[{text}]:{port}" if six else f"{text}:{port}"
