"""A client of a traced server: a command that runs at the same time, and ends the tracing.

It is not part of what is traced. Part of collecting.
"""

from __future__ import annotations

import subprocess
import time
from collections.abc import Collection, Iterable, Iterator
from contextlib import suppress
from pathlib import Path

from zctrace.collect import open_files, processes
from zctrace.errors import WorkloadError
from zctrace.evidence.schema import Request, Subject

_PATIENCE_SECONDS = 120.0
"""For a server to listen; an emulated machine may be slow."""
_LISTENING, _UNIX_LISTENING = "0A", "00010000"
"""TCP_LISTEN of include/net/tcp_states.h; __SO_ACCEPTCON of include/linux/net.h."""
_UNIX_FLAGS, _UNIX_INODE = 3, 6
_TCP_STATE, _TCP_INODE = 3, 9
"""Columns in /proc/net/unix and /proc/net/tcp: proc(5)."""


class Client:
    """As ``request`` and ``subject`` say; a context manager that ends what it has started.

    It has ``streams`` as its input, output and error, as a traced command has.
    """

    def __init__(
        self,
        request: Request,
        streams: list[int],
        environment: dict[str, str],
        subject: Subject,
    ) -> None:
        self._request, self._subject = request, subject
        self._streams, self._environment = streams, environment
        self._process: subprocess.Popen[bytes] | None = None
        self._began = time.monotonic()

    def __enter__(self) -> Client:
        return self

    def __exit__(self, *_: object) -> None:
        if self._process is not None:
            processes.end(self._process)

    @property
    def status(self) -> int | None:
        """Its exit status, as a shell has it; ``None`` where it has not ended."""
        status = self._process.poll() if self._process else None
        return None if status is None else processes.shell_status(status)

    @property
    def wanted(self) -> bool:
        return bool(self._subject.client)

    def has_ended(self, servers: Iterable[int]) -> bool:
        """Whether it has; it is started when one of ``servers``, processes, listens.

        Those that ran before the tracing do so already. Raises :class:`WorkloadError`.
        """
        if not self.wanted:
            return False
        if self._process is not None:
            return self._process.poll() is not None
        if not self._subject.command or is_listening(set(servers)):
            self._start()
        elif time.monotonic() - self._began > _PATIENCE_SECONDS:
            raise WorkloadError(
                f"the command was not listening after {_PATIENCE_SECONDS:.0f} s",
                "--client waits for a TCP or Unix socket of the command's that listens",
                "start server and client yourself: zctrace trace -p PID",
            )
        return False

    def require_started(self) -> None:
        """Raise :class:`WorkloadError` where it was wanted, and never ran."""
        if self.wanted and self._process is None:
            raise WorkloadError(
                "the command ended before it listened, so --client was not started",
                "the client waits for a TCP or Unix socket of the command's that listens",
                "look at what the command says",
            )

    def _start(self) -> None:
        request = self._request
        try:
            self._process = subprocess.Popen(
                ["/bin/sh", "-c", self._subject.client],
                stdin=subprocess.DEVNULL,
                stdout=self._streams[1] if self._streams else None,
                stderr=self._streams[2] if self._streams else None,
                cwd=self._subject.folder,
                user=request.uid,
                group=request.gid,
                extra_groups=request.groups,
                env=self._environment,
            )
        except OSError as error:
            raise WorkloadError(f"the client could not be started: {error}") from error
        open_files.limit_as_found(self._process.pid)


def is_listening(processes: Collection[int]) -> bool:
    """Whether one of them has a TCP or Unix socket that listens."""
    return any(_sockets(process) & _listening(process) for process in processes)


def _sockets(process: int) -> set[str]:
    """Inodes of the sockets that it has open."""
    found = set()
    with suppress(OSError):
        for link in Path(f"/proc/{process}/fd").iterdir():
            with suppress(OSError):
                kind, _, inode = str(link.readlink()).partition(":")
                if kind == "socket":
                    found.add(inode.strip("[]"))
    return found


def _listening(process: int) -> set[str]:
    """Inodes of those that listen in its network namespace."""
    net = Path(f"/proc/{process}/net")
    tcp = {
        row[_TCP_INODE]
        for name in ("tcp", "tcp6")
        for row in _rows(net / name)
        if len(row) > _TCP_INODE and row[_TCP_STATE] == _LISTENING
    }
    return tcp | {
        row[_UNIX_INODE]
        for row in _rows(net / "unix")
        if len(row) > _UNIX_INODE and row[_UNIX_FLAGS] == _UNIX_LISTENING
    }


def _rows(table: Path) -> Iterator[list[str]]:
    with suppress(OSError):
        yield from (line.split() for line in table.read_text(errors="replace").splitlines()[1:])
