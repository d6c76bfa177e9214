"""One strategy, one or more times: prepare, controls, transfer, controls, check."""

from __future__ import annotations

import gc
import os
import zlib
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path

from workloads import libc
from workloads.marker import Role, Scope, settled, window
from workloads.peers import Neighbour, Sink, exercise
from workloads.strategy import Strategy, Task

_READ_BYTES = 1024 * 1024
_REHEARSAL_BYTES = 4096


class PayloadError(Exception):
    """What arrived is not what was sent."""


@dataclass(frozen=True)
class Outcome:
    """What a run did, as the processes themselves saw it.

    ``received`` in bytes; ``expected`` is what each of the sender's controls moved,
    ``neighbour`` what the other process did, in bytes per quantity.
    """

    received: int
    expected: dict[str, int]
    neighbour: dict[str, int]


class Runner:
    """Keeps the file, the sink and the neighbour between runs.

    ``size`` bytes from the beginning of ``file`` are moved; the folder of ``file`` is
    where the controls make their own, unnamed one. With ``controls`` off only the
    transfer happens.
    """

    def __init__(
        self,
        file: Path,
        *,
        size: int,
        chunk: int | None = None,
        pipe_size: int | None = None,
        nonce: int = 0,
        scope: Scope = Scope.THREAD,
        controls: bool = True,
    ) -> None:
        self._folder = str(file.parent)
        self._size, self._chunk, self._pipe_size = size, chunk, pipe_size
        self._nonce, self._scope = nonce, scope
        self._file = os.open(file, os.O_RDONLY)
        self._crc = self._warm_cache()
        self._sink = Sink(nonce)
        self._neighbour = Neighbour(nonce, self._folder) if controls else None

    @property
    def pids(self) -> dict[str, int]:
        """The processes of a run, by role."""
        pids = {"sender": os.getpid(), "sink": self._sink.pid}
        if self._neighbour:
            pids["neighbour"] = self._neighbour.pid
        return pids

    def run(self, strategy: Strategy) -> Outcome:
        """Move the payload once; raises ``OSError`` or :class:`PayloadError`."""
        # Code that runs for the first time takes page faults; let it be now.
        self._transfer(strategy, min(self._size, _REHEARSAL_BYTES), watched=False)
        self._sink.received()
        libc.own_all_memory()
        expected: dict[str, int] = {}
        disturbed: dict[str, int] = {}
        if self._neighbour:
            expected = exercise(self._nonce, Role.CONTROL_BEFORE, self._folder)
            disturbed = self._neighbour.disturb(self._idle)
        self._transfer(strategy, self._size, watched=True)
        received = self._sink.received()
        settled(self._nonce, Role.SENDER)
        if self._neighbour:
            exercise(self._nonce, Role.CONTROL_AFTER, self._folder)
        if (received.size, received.crc) != (self._size, self._crc):
            raise PayloadError(
                f"sent {self._size} bytes with CRC {self._crc:#010x}, "
                f"received {received.size} with {received.crc:#010x}"
            )
        return Outcome(received.size, expected, disturbed)

    def close(self) -> None:
        """End the other processes."""
        if self._neighbour:
            self._neighbour.close()
        self._sink.close()
        os.close(self._file)

    def _idle(self, let_neighbour_go: Callable[[], None]) -> None:
        with window(self._nonce, Role.CONTROL_IDLE, Scope.THREAD):
            let_neighbour_go()

    def _transfer(self, strategy: Strategy, size: int, *, watched: bool) -> None:
        os.lseek(self._file, 0, os.SEEK_SET)
        with self._sink.connect(watched=watched) as sock:
            task = Task(self._file, sock.fileno(), size, self._chunk, self._pipe_size)
            transfer = strategy.prepare(task)
            # A collection in the middle would free memory, maybe by a system call.
            gc.collect()
            gc.disable()
            stretch = (
                window(self._nonce, Role.SENDER, self._scope) if watched else nullcontext()
            )
            try:
                with stretch:
                    transfer.run()
            finally:
                gc.enable()
                transfer.close()

    def _warm_cache(self) -> int:
        """Read the payload once; returns its CRC-32."""
        buffer = libc.Buffer(min(self._size, _READ_BYTES))
        view, crc, left = buffer.view(), 0, self._size
        while left:
            got = libc.read(self._file, buffer.address, min(buffer.size, left))
            if not got:
                raise PayloadError(f"the file is {left} bytes shorter than {self._size}")
            crc = zlib.crc32(view[:got], crc)
            left -= got
        buffer.close()
        return crc
