"""Who captures packets on this machine: the processes behind its packet sockets.

Looked for only when something was copied for one. Part of collecting: the standard library.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import suppress
from pathlib import Path

from zctrace.evidence.schema import Capture, Count
from zctrace.workloads.marker import WATCHED, role_name

_PROCESSES = Path("/proc")
_TAPPED = frozenset(role_name(role).tapped for role in WATCHED)


def behind(counts: Iterable[Count]) -> tuple[Capture, ...]:
    """Who captures now, if anything was copied for a capture; a process once."""
    if not any(count.role in _TAPPED or count.was_captured for count in counts):
        return ()
    return tuple(sorted(_capturing(), key=lambda capture: capture.process))


def _capturing() -> Iterator[Capture]:
    sockets = {f"socket:[{inode}]" for inode in _packet_sockets()}
    for folder in _PROCESSES.glob("[0-9]*") if sockets else ():
        with suppress(OSError):
            if any(_leads_to(fd) in sockets for fd in (folder / "fd").iterdir()):
                name = (folder / "comm").read_bytes().decode(errors="replace").strip()
                yield Capture(int(folder.name), name)


def _leads_to(descriptor: Path) -> str:
    """What it captures; empty if it has been closed."""
    with suppress(OSError):
        return str(descriptor.readlink())
    return ""


def _packet_sockets() -> set[str]:
    """The inodes of those that get packets, of every network namespace that a process is in."""
    seen, inodes = set(), set()
    for folder in _PROCESSES.glob("[0-9]*"):
        with suppress(OSError):
            namespace = (folder / "ns/net").readlink()
            if namespace in seen:
                continue
            seen.add(namespace)
            inodes |= set(_inodes((folder / "net/packet").read_text()))
    return inodes


def _inodes(table: str) -> Iterator[str]:
    """Of /proc/net/packet: sk RefCnt Type Proto Iface R Rmem User Inode."""
    for line in table.splitlines()[1:]:
        _, _, _, protocol, _, running, *_, inode = line.split()
        if int(protocol, 16) and running == "1":
            yield inode
