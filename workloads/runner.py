"""One strategy, one or more times: prepare, controls, transfer, controls, check."""

from __future__ import annotations

import gc
import os
import socket
from collections.abc import Callable, Sequence
from pathlib import Path

from zctrace.workloads import cache, libc
from zctrace.workloads.endpoints import OpenEnds, Payload, Peers, read_through
from zctrace.workloads.kernel_account import KernelAccount
from zctrace.workloads.known import Controls, Known
from zctrace.workloads.marker import Role, RoleName, Scope, Window, settled, window
from zctrace.workloads.outcome import Outcome
from zctrace.workloads.peers import (
    Neighbour,
    Received,
    exercise,
    listen_as_sink,
    listen_as_source,
)
from zctrace.workloads.performer import Performer
from zctrace.workloads.strategy import (
    Address,
    Ends,
    Strategy,
    Task,
    Transfer,
    performers_of,
)

_ELSEWHERE = ("/dev/shm", "/tmp", "/var/tmp")
"""Where self-tests make files if they may not in the payload's folder."""


class PayloadError(Exception):
    """What arrived is not what was sent."""


class Runner:
    """Keeps the files and the other processes between runs.

    ``files`` are by name of their file system, "" where that does not matter. As many bytes
    from the beginning of a file are moved as one of ``sizes`` says; its folder is where
    strategies that write files make their own, unnamed ones. So do the controls, unless they
    may not: then they do elsewhere, and without one of the disk if that is another. With
    ``controls`` off only the transfer happens. ``scope`` overrides the strategies' own.
    With ``cold`` a payload is dropped from the page cache before every transfer. ``sink``
    and ``source`` are the sockets that those listen on; of their own on loopback if not
    given. What is sent goes to ``remote`` instead of the sink, if that is given. Who performs
    one of ``strategies`` is there from the beginning; of others, when it is needed.
    """

    def __init__(
        self,
        files: dict[str, Path],
        *,
        sizes: Sequence[int],
        chunk: int | None = None,
        pipe_size: int | None = None,
        nonce: int = 0,
        scope: Scope | None = None,
        controls: bool = True,
        cold: bool = False,
        sink: socket.socket | None = None,
        source: socket.socket | None = None,
        remote: Address | None = None,
        strategies: Sequence[Strategy] = (),
    ) -> None:
        self._cold = cold
        self._sizes, self._chunk, self._pipe_size = sizes, chunk, pipe_size
        self._nonce, self._scope = nonce, scope
        self._payloads = {
            (name, size): _warm(file, size) for name, file in files.items() for size in sizes
        }
        self._file_systems = tuple(files)
        self._peers = Peers(
            nonce, sink or listen_as_sink(), source or listen_as_source(), remote
        )
        self._neighbour = Neighbour(nonce) if controls else None
        self._performers: dict[Performer, None] = {}
        for performer in performers_of(strategies):
            self._performers[performer] = None
            if not performer.refusal():
                self._start(performer)

    @property
    def pids(self) -> dict[str, int]:
        """The processes of a run, by role; of a performer the thread that transfers."""
        pids: dict[str, int] = {
            RoleName.SENDER: os.getpid(),
            RoleName.SINK: self._peers.sink.pid,
            RoleName.SOURCE: self._peers.source.pid,
        }
        if self._neighbour:
            pids[RoleName.NEIGHBOUR] = self._neighbour.pid
        for performer in self._performers:
            pids |= performer.threads
        return pids

    def file_system_for(self, strategy: Strategy) -> str:
        """The first file's that the strategy can use; the first of all where none is."""
        for name in self._file_systems:
            if not name or not strategy.file_systems or name in strategy.file_systems:
                return name
        return self._file_systems[0]

    def run(
        self, strategy: Strategy, file_system: str = "", size: int | None = None
    ) -> Outcome:
        """Move the payload once, of the first of the sizes if none is said.

        Raises ``OSError``, ``EOFError`` or :class:`PayloadError`.
        A strategy that cannot run here is no error: the outcome has the reason.
        """
        payload = self._payloads[file_system, size or self._sizes[0]]
        performer = strategy.performer
        if performer:
            self._performers[performer] = None
        if reason := _unavailable(strategy, file_system, payload):
            return Outcome(0, unavailable=reason)
        if performer:
            self._start(performer)
        # Code that runs for the first time takes page faults; let it be now.
        for size in strategy.rehearsals(payload.size):
            self._transfer(strategy, payload, size, watched=False)
        libc.own_all_memory()
        if performer:
            performer.own_all_memory()
        controls = Controls()
        if self._neighbour:
            controls = Controls(
                self._exercise(Role.CONTROL_BEFORE, payload, performer),
                self._disturb(self._neighbour, payload, performer),
            )
        received, account = self._transfer(strategy, payload, payload.size, watched=True)
        if self._neighbour:
            self._exercise(Role.CONTROL_AFTER, payload, performer)
        if (received.size, received.crc) != (payload.size, payload.crc):
            raise PayloadError(
                f"sent {payload.size} bytes with CRC {payload.crc:#010x}, "
                f"received {received.size} with {received.crc:#010x}"
            )
        return Outcome(received.size, controls, account)

    def close(self) -> None:
        """End the other processes."""
        for performer in self._performers:
            performer.close()
        if self._neighbour:
            self._neighbour.close()
        self._peers.close()
        for payload in self._payloads.values():
            os.close(payload.file)

    def _start(self, performer: Performer) -> None:
        largest = max(self._sizes)
        performer.start(self._nonce, min(self._chunk or largest, largest))

    def _exercise(self, role: Role, payload: Payload, performer: Performer | None) -> Known:
        """In this thread, and before in the performer's: what both did."""
        done = Known()
        if performer:
            stretch = Window(self._nonce, role, Scope.THREAD)
            done += performer.exercise(stretch, payload.workshop)
        return done + exercise(self._nonce, role, payload.workshop, disk=payload.same_disk)

    def _disturb(
        self, neighbour: Neighbour, payload: Payload, performer: Performer | None
    ) -> Known:
        """While this thread is idle, and once more while the performer's is."""
        disturbed = neighbour.disturb(payload.workshop, self._idle)
        if performer:
            stretch = Window(self._nonce, Role.CONTROL_IDLE, Scope.THREAD)

            def idle(_: Callable[[], None]) -> None:
                performer.idle(stretch, neighbour.stage)

            disturbed += neighbour.disturb(payload.workshop, idle)
        return disturbed

    def _idle(self, let_neighbour_go: Callable[[], None]) -> None:
        with window(self._nonce, Role.CONTROL_IDLE, Scope.THREAD):
            let_neighbour_go()

    def _transfer(
        self, strategy: Strategy, payload: Payload, size: int, *, watched: bool
    ) -> tuple[Received, KernelAccount]:
        os.lseek(payload.file, 0, os.SEEK_SET)
        ends = self._peers.open(strategy, payload, size, watched=watched)
        try:
            task = Task(payload.file, ends.sock, size, self._chunk, self._pipe_size, ends.out)
            transfer = strategy.prepare(task)
            account = KernelAccount()
            if self._cold:
                cache.evict(payload.file)
                account = KernelAccount(resident_bytes=cache.resident_bytes(payload.file, size))
            try:
                self._run(strategy, transfer, ends, watched=watched)
                # Checking copies bytes that must not be counted: it comes after the transfer.
                ends.settle()
                if watched:
                    settled(self._nonce, strategy.role)
                account |= ends.account() | transfer.account()
                return ends.received(transfer), account
            finally:
                transfer.close()
        finally:
            ends.close()

    def _run(
        self, strategy: Strategy, transfer: Transfer, ends: OpenEnds, *, watched: bool
    ) -> None:
        # A collection in the middle would free memory, maybe by a system call.
        gc.collect()
        gc.disable()
        scope = self._scope or strategy.scope
        stretch = Window(self._nonce, strategy.role, scope) if watched else None
        ends.begin()
        try:
            transfer.run_in(stretch)
        finally:
            gc.enable()


def _warm(path: Path, size: int) -> Payload:
    """Open the file and read the payload once, which also puts it into the page cache."""
    file = os.open(path, os.O_RDONLY)
    there = read_through(file, size)
    if there.size < size:
        raise PayloadError(f"{path} is {size - there.size} bytes shorter than {size}")
    path = path.resolve()
    folder = str(path.parent)
    refused = _refused(folder)
    workshop = _workshop(folder, file) if refused else folder
    return Payload(path, file, size, there.crc, refused, workshop, _same(workshop, file))


def _refused(folder: str) -> str:
    """Why no file without a name can be made in the folder; empty if one can."""
    try:
        os.close(os.open(folder, os.O_TMPFILE | os.O_RDWR, 0o600))
    except OSError as error:
        return os.strerror(error.errno or 0)
    return ""


def _workshop(folder: str, file: int) -> str:
    """Another folder for the controls' files, on the file's own disk if there is one.

    Where there is none it is ``folder`` again: they fail there, and say why.
    """
    possible = [other for other in _ELSEWHERE if not _refused(other)]
    return min(possible, key=lambda other: not _same(other, file), default=folder)


def _same(folder: str, file: int) -> bool:
    """Whether a file in the folder is on the file system of the open one."""
    return os.stat(folder).st_dev == os.fstat(file).st_dev


def _unavailable(strategy: Strategy, file_system: str, payload: Payload) -> str:
    if file_system and strategy.file_systems and file_system not in strategy.file_systems:
        return f"needs a file on {' or '.join(strategy.file_systems)}, not on {file_system}"
    if payload.refused and strategy.ends in (Ends.FILE_TO_FILE, Ends.SOCKET_TO_FILE):
        return f"makes a file in the payload's folder, {payload.folder}: {payload.refused}"
    if strategy.performer and (reason := strategy.performer.refusal()):
        return reason
    return strategy.unavailable(payload.file)
