"""The standard input of a command in a guest: what it was outside, and how it gets in.

A file that the guest has, too, is opened there. Everything else is a stream: it comes as files
of one piece each, in the request's folder, and the command reads it from a pipe. An empty piece
is the end. A thread of the collector fills the pipe. The thread is outside of the command's
cgroup, so that its copies are not the command's.
"""

from __future__ import annotations

import dataclasses
import json
import os
import shutil
import stat
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from zctrace.collect.describe import INPUT, PIECES, SERVING, TRACING

_POLL_SECONDS = 0.05
_MEMORY_DEVICES = 1
"""The major number of ``/dev/null``, ``/dev/zero``, ``/dev/urandom`` and the like."""


@dataclass(frozen=True)
class Source:
    """What standard input is outside: a file, with where it is read from, or a stream."""

    path: str = ""
    """Empty for a stream."""
    position: int = 0
    state: tuple[int, ...] = ()
    """How the file with that name is recognised in a guest."""

    @classmethod
    def of(cls, descriptor: int | None) -> Source:
        """Of a descriptor; without one, or if it is closed, there is nothing to be read."""
        number = -1 if descriptor is None else descriptor
        try:
            about = os.fstat(number)
        except OSError:
            return cls(os.devnull, 0, _state(Path(os.devnull).stat()))
        if not _state(about):
            return cls()
        regular = stat.S_ISREG(about.st_mode)
        position = os.lseek(number, 0, os.SEEK_CUR) if regular else 0
        return cls(str(Path(f"/proc/self/fd/{number}").readlink()), position, _state(about))

    def write(self, folder: Path) -> None:
        """For :func:`opened`, in the request's folder."""
        (folder / INPUT).write_text(json.dumps(dataclasses.asdict(self)))

    def open(self) -> int | None:
        """A descriptor of the file; ``None`` for a stream, and where it is not that file."""
        with suppress(OSError):
            # A pipe of that name would have to be waited for.
            if self.path and _state(Path(self.path).stat()) == tuple(self.state):
                descriptor = os.open(self.path, os.O_RDONLY)
                if self.position:
                    os.lseek(descriptor, self.position, os.SEEK_SET)
                return descriptor
        return None


def _state(about: os.stat_result) -> tuple[int, ...]:
    """The same for two names of one file, here and in a guest; empty for a stream."""
    kind = stat.S_IFMT(about.st_mode)
    if stat.S_ISREG(kind):
        return kind, about.st_size, about.st_mtime_ns
    if stat.S_ISCHR(kind) and os.major(about.st_rdev) == _MEMORY_DEVICES:
        return kind, about.st_rdev
    return ()


class Input:
    """A command's standard input in a guest: ``descriptor``."""

    def __init__(self, folder: Path) -> None:
        source = Source.of(None)
        with suppress(FileNotFoundError):  # where there is no command
            source = Source(**json.loads((folder / INPUT).read_text()))
        self._pieces = folder / PIECES
        self._over = threading.Event()
        self._filled: int | None = None
        """Where the pump writes, until it has begun and owns it."""
        descriptor = source.open()
        if descriptor is None:
            descriptor, self._filled = os.pipe()
        self.descriptor = descriptor

    def step(self, name: str) -> None:
        """Pump from the step at which the command runs to the next one."""
        if name in (TRACING, SERVING):
            if self._filled is not None:
                pipe, self._filled = self._filled, None
                self._pieces.mkdir(mode=0o700)
                # We do not wait for it: a process may hold the other end for ever.
                threading.Thread(target=self._pump, args=(pipe,), daemon=True).start()
        elif self._filled is None:
            self._over.set()

    def close(self) -> None:
        """Input that was not read is dropped."""
        self._over.set()
        os.close(self.descriptor)
        if self._filled is not None:
            os.close(self._filled)
        shutil.rmtree(self._pieces, ignore_errors=True)

    def _pump(self, pipe: int) -> None:
        number = 0
        try:
            with suppress(BrokenPipeError, FileNotFoundError):
                while piece := self._piece(number):
                    rest = memoryview(piece)
                    while rest:
                        rest = rest[os.write(pipe, rest) :]
                    (self._pieces / str(number)).unlink()
                    number += 1
        finally:
            os.close(pipe)

    def _piece(self, number: int) -> bytes:
        path = self._pieces / str(number)
        while not self._over.is_set():
            with suppress(FileNotFoundError):
                return path.read_bytes()
            self._over.wait(_POLL_SECONDS)
        return b""


@contextmanager
def opened(folder: Path) -> Iterator[Input]:
    """The input that :meth:`Source.write` has described in ``folder``."""
    found = Input(folder)
    try:
        yield found
    finally:
        found.close()
