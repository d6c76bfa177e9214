"""Names of code that was made at run time, from the files that runtimes write for perf.

``/tmp/perf-PID.map`` has a line for each piece of code: where it begins, how many bytes it has,
both in hexadecimal, and its name. Node.js writes it with ``--perf-basic-prof``, a JVM with
``-XX:+DumpPerfMapAtExit``, Python 3.12 with ``-X perf``. Source:
tools/perf/Documentation/jit-interface.txt. Part of collecting.
"""

from __future__ import annotations

import bisect
import os
import stat
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

_MOST_BYTES = 256 << 20
"""Of a file, which anybody may have made larger."""


class PerfMap:
    """The code of one process; empty where it has written no such file."""

    def __init__(self, process: int) -> None:
        self._starts: list[int] = []
        self._codes: list[tuple[int, str]] = []
        # What is written last is what is there: addresses are used again.
        codes = {start: (end, name) for start, end, name in _lines(process)}
        for start in sorted(codes):
            self._starts.append(start)
            self._codes.append(codes[start])

    def name(self, address: int) -> str | None:
        """Of the code around an address."""
        at = bisect.bisect_right(self._starts, address) - 1
        if at < 0:
            return None
        end, name = self._codes[at]
        return name if address < end else None


def _lines(process: int) -> Iterator[tuple[int, int, str]]:
    for path in _paths(process):
        text = _read(path)
        if text is None:
            continue
        for line in text.splitlines():
            start, _, rest = line.partition(" ")
            size, _, name = rest.partition(" ")
            with suppress(ValueError):
                begin = int(start, 16)
                yield begin, begin + int(size, 16), name.strip()
        return


def _paths(process: int) -> Iterator[Path]:
    """Where the process has it: under its own number, which is another one in a container."""
    with suppress(OSError):
        status = Path(f"/proc/{process}/status").read_text()
        for line in status.splitlines():
            if line.startswith("NSpid:"):
                own = line.split()[-1]
                yield Path(f"/proc/{process}/root/tmp/perf-{own}.map")
    yield Path(f"/tmp/perf-{process}.map")


def _read(path: Path) -> str | None:
    """A regular file's text, as far as it is read; no link's, which could lead anywhere."""
    try:
        number = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError:
        return None
    if not stat.S_ISREG(os.fstat(number).st_mode):
        os.close(number)
        return None
    with open(number, "rb") as file:
        return file.read(_MOST_BYTES).decode(errors="replace")
