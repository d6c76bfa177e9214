"""A collector's steps, as they come, with a time limit on a step that shows no sign of life.

On a busy machine a step may take any time. A hung one writes nothing: what the collector takes
for a sign is in ``zctrace.collect.life``.
"""

from __future__ import annotations

import errno
import json
import shutil
import subprocess
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from zctrace import errors
from zctrace.errors import MachineError
from zctrace.machine.last_words import last_words
from zctrace.notices import Say

BOOT_SECONDS = 420.0
_STEP_SECONDS = 180.0
"""Without a sign of life."""
_SLOWEST_BYTES_PER_SECOND = 1 << 20
"""Of payload, in one emulated step: written, read, checked and moved."""
_LEAST_BYTES = 64 << 10
"""What a log and an error take; a disk with less is full."""
POLL_SECONDS = 0.05


@dataclass
class Progress:
    """The collector's steps, as they come through a file; with a time limit on each.

    ``file`` gets a line of JSON per step, ``answer`` appears when there is one. Other lines
    are for ``show``, but for mere signs of life. The limit is counted from the last line.
    """

    file: Path
    answer: Path
    say: Say
    payload_bytes: int
    boot_seconds: float = BOOT_SECONDS
    boots: bool = True
    """Whether there is a machine to boot first, or only a process to start."""
    endless: str = ""
    """The step that may take as long as it likes."""
    show: Callable[[dict[str, Any]], None] = lambda line: None
    meanwhile: Callable[[], None] = lambda: None
    """To be called all the time while waiting."""
    booted_after: float = 0.0
    """Seconds until the first step; known after :meth:`wait`."""
    clock: Callable[[], float] = time.monotonic
    sleep: Callable[[float], None] = time.sleep
    _read: int = 0

    def wait(
        self,
        process: subprocess.Popen[bytes],
        console: Path,
        log: Path,
        beside: Callable[[], None] = lambda: None,
    ) -> None:
        """Until there is an answer; raises :class:`MachineError` when there will be none.

        Calls ``beside`` each time it looks, as it does ``meanwhile``.
        """
        seen = False
        limit = self.boot_seconds
        step = "boot" if self.boots else "start"
        began = self.clock()
        deadline = began + limit
        while not self.answer.exists():
            self.meanwhile()
            beside()
            for line in self._lines():
                if "step" in line:
                    step = line["step"]
                    self.say(step)
                elif "alive" not in line:
                    self.show(line)
                self.booted_after = self.booted_after or self.clock() - began
                seen = True
                limit = _STEP_SECONDS + self.payload_bytes / _SLOWEST_BYTES_PER_SECOND
                deadline = self.clock() + limit
            if process.poll() is not None:
                if self.answer.exists():
                    return
                early = (
                    "the kernel did not boot" if self.boots else "the collector did not start"
                )
                raise self._failure(
                    f"the collector died at: {step}" if seen else early, log, console
                )
            if self.clock() > deadline and step != self.endless:
                what = f"no progress for {limit:.0f} s at: {step}"
                raise self._failure(what, log, console, slow=self.boots and not seen)
            self.sleep(POLL_SECONDS)

    def _failure(
        self, what: str, log: Path, console: Path, *, slow: bool = False
    ) -> errors.ZctraceError:
        # Neither its log nor its answer can be written then.
        if shutil.disk_usage(self.file.parent).free < _LEAST_BYTES:
            full = errors.exhausted(OSError(errno.ENOSPC, "", str(self.file.parent)))
            assert full
            return errors.ResourceError(what, full.why, full.hint)
        kind = MachineError if self.boots else errors.TraceError
        hint = "--boot-timeout SECONDS for a slow machine; " if slow else ""
        return kind(
            what,
            last_words(log, console) or "it left no message",
            f"{hint}--keep keeps its log; zctrace doctor looks for the cause",
        )

    def _lines(self) -> list[dict[str, Any]]:
        """What has come since the last time: whole lines only."""
        with suppress(FileNotFoundError), self.file.open("rb") as file:
            file.seek(self._read)
            text = file.read()
            whole = text[: text.rfind(b"\n") + 1]
            self._read += len(whole)
            return [json.loads(line) for line in whole.splitlines()]
        return []
