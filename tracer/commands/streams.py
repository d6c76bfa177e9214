"""Standard input, output and error, whatever they were when the command was started."""

from __future__ import annotations

import io
import os
import re
import select
import sys
from typing import TYPE_CHECKING, TextIO

from zctrace.errors import OutputError

if TYPE_CHECKING:
    from _typeshed import ReadableBuffer

_SIZE = re.compile("0*[1-9][0-9]{0,3}")


def prepare() -> None:
    """Make all three usable: what was closed takes everything, and is empty.

    What cannot be encoded there is escaped. Printing raises :class:`OutputError` alone, and
    nothing where it is on standard error.
    """
    open_descriptors()
    sys.stdout = _text(_Output(1, "w", closefd=False), sys.stdout)
    sys.stderr = _text(_Errors(2, "w", closefd=False), sys.stderr)


def open_descriptors() -> None:
    """Those from 0 to 2 that were closed: no file of ours must get such a number."""
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:
            # The least number that is free.
            os.set_inheritable(os.open(os.devnull, os.O_RDWR), True)


def forget_sizes() -> None:
    """Of a terminal of no width, as some consoles say they have, nothing would be seen."""
    for name in ("COLUMNS", "LINES"):
        if not _SIZE.fullmatch(os.environ.get(name, "")):
            os.environ.pop(name, None)


class _Stream(io.FileIO):
    def write(self, data: ReadableBuffer) -> int:
        # Another process that shares the pipe or terminal may have set O_NONBLOCK on it.
        while (done := super().write(data)) is None:
            select.select([], [self], [])
        return done


class _Output(_Stream):
    def write(self, data: ReadableBuffer) -> int:
        try:
            return super().write(data)
        except OSError as error:
            # What is left of it is written once more when the process ends.
            os.dup2(os.open(os.devnull, os.O_WRONLY), self.fileno())
            raise OutputError(
                f"standard output could not be written: {error.strerror}",
                hint="send standard output to a file system with free space",
            ) from error


class _Errors(_Stream):
    """There is no other place to say that nothing can be said here."""

    def write(self, data: ReadableBuffer) -> int:
        try:
            return super().write(data)
        except OSError:
            return memoryview(data).nbytes


def _text(raw: io.FileIO, before: TextIO | None) -> TextIO:
    """As Python makes it; ``before`` is the one that it has made, if it could."""
    return io.TextIOWrapper(
        io.BufferedWriter(raw),
        encoding=before.encoding if before else "utf-8",
        errors="backslashreplace",
        line_buffering=raw.isatty() or raw.fileno() == 2,
    )
