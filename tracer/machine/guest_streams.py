"""A command's standard input, output and error in a guest: how they get there and back.

All are files of the share. What it prints is appended to one, and shown here as it comes. What
it reads is described in ``zctrace.collect.standard_input``: a stream is read here in pieces,
each a file, and only as many as the guest can take.
"""

from __future__ import annotations

import os
import select
import sys
import time
from contextlib import suppress
from pathlib import Path

from zctrace.collect.describe import OUTPUTS, PIECES
from zctrace.collect.standard_input import Source

PIECE_BYTES, MOST_PIECES = 256 << 10, 16
"""Of one piece, at most, and how many may wait for the guest."""
_ROUND_SECONDS, _PAUSE_SECONDS = 0.05, 0.005
"""How long to read in one go, and how long to wait for who writes in the meantime."""


class GuestStreams:
    """Those of a command in the guest that has ``share``; to be forwarded again and again."""

    def __init__(self, share: Path) -> None:
        self._outputs = _Outputs(share)
        # Of what was closed when we were started, the number is somebody else's by now.
        number = sys.__stdin__.fileno() if sys.__stdin__ else None
        Source.of(number).write(share)
        self._input = Pieces(share / PIECES, number)

    def forward(self) -> None:
        """Whatever is there and was not forwarded before."""
        self._outputs.forward()
        self._input.forward()


class Pieces:
    """The stream at a descriptor, as pieces in ``folder``, once the guest has made that."""

    def __init__(self, folder: Path, descriptor: int | None) -> None:
        self._folder, self._descriptor = folder, descriptor
        self._number = 0
        self._ended = False

    def forward(self) -> None:
        """Pass on what has come, as far as the guest can take it; never waits for long."""
        until = time.monotonic() + _ROUND_SECONDS
        while not self._ended and time.monotonic() < until and self._wanted():
            piece = self._read(until)
            if piece:
                self._put(piece)
            if self._ended:
                self._put(b"")
            if not piece:
                return

    def _wanted(self) -> bool:
        oldest = self._folder / str(self._number - MOST_PIECES)
        return self._folder.is_dir() and not oldest.exists()

    def _read(self, until: float) -> bytes:
        """What there is; the end of it is noted."""
        piece = bytearray()
        while len(piece) < PIECE_BYTES and self._ready(until if piece else None):
            try:
                assert self._descriptor is not None
                some = os.read(self._descriptor, PIECE_BYTES - len(piece))
            except BlockingIOError:
                break
            except OSError:  # a folder, or a terminal that has gone
                some = b""
            piece += some
            if not some:
                self._ended = True
                break
        return bytes(piece)

    def _ready(self, until: float | None) -> bool:
        """Whether reading would not wait, soon. A terminal in whose foreground others are
        would stop us."""
        if self._descriptor is None:
            return False
        with suppress(OSError):
            if os.tcgetpgrp(self._descriptor) != os.getpgrp():
                return False
        poll = select.poll()
        poll.register(self._descriptor, select.POLLIN)
        pause = min(_PAUSE_SECONDS, until - time.monotonic()) if until else 0.0
        return bool(poll.poll(max(0.0, pause * 1000)))

    def _put(self, piece: bytes) -> None:
        """Whole or not at all, for the guest looks for the name."""
        partial = self._folder / "partial"
        try:
            partial.write_bytes(piece)
            partial.rename(self._folder / str(self._number))
        except FileNotFoundError:  # the command has ended
            self._ended = True
        self._number += 1


class _Outputs:
    """What a command prints, on its way to our own standard output and error."""

    def __init__(self, share: Path) -> None:
        self._paths = [share / name for name in OUTPUTS]
        self._done = [0] * len(OUTPUTS)

    def forward(self) -> None:
        ours = (sys.stdout.buffer, sys.stderr.buffer)
        for number, (path, out) in enumerate(zip(self._paths, ours, strict=True)):
            with suppress(FileNotFoundError), path.open("rb") as file:
                file.seek(self._done[number])
                text = file.read()
                self._done[number] += len(text)
                out.write(text)
                out.flush()
