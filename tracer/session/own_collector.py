"""A collector for a session that has none: how it is started, and what is started.

``attending UID CLIENT``, as root, collects for the user UID until its standard input or the
process CLIENT ends, whichever is first. It says one line of JSON on standard output: where
the socket is, or what went wrong.
"""

from __future__ import annotations

import json
import os
import select
import shutil
import subprocess
import sys
import tempfile
from contextlib import suppress
from pathlib import Path

import zctrace
from zctrace import errors
from zctrace.errors import RightsError, SessionError

_START_SECONDS = 300.0
_ORDERLY_SECONDS = 60.0
_SERVE = "sudo zctrace serve -- pytest …"


class Attendant:
    """A collector of our own; raises ``ZctraceError`` where there can be none."""

    def __init__(self) -> None:
        isolated = str(Path(zctrace.__path__[0]) / "collect" / "isolated.py")
        command = [sys.executable, "-I", isolated, "zctrace.machine.session_collector"]
        command += [str(os.geteuid()), str(os.getpid())]
        if os.geteuid():
            if not shutil.which("sudo"):
                raise _no_rights("there is no sudo here")
            command = ["sudo", "-n", "--", *command]
        with tempfile.TemporaryFile() as complaints:
            self._process = subprocess.Popen(
                command,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=complaints,
                # Ctrl-C is for the program.
                process_group=0,
            )
            try:
                self.path = self._socket()
            except GaveNothingError:
                self.close()
                complaints.seek(0)
                last = complaints.read().decode(errors="replace").strip().splitlines()[-1:]
                why = last[0] if last else f"it ended with status {self._process.returncode}"
                if os.geteuid():
                    raise _no_rights(why) from None
                raise SessionError("no collector could be started", why, _SERVE) from None
            except BaseException:
                self.close()
                raise

    def close(self) -> None:
        """Have it end, and wait until it has taken its probes back."""
        stdin, stdout = self._process.stdin, self._process.stdout
        assert stdin is not None
        assert stdout is not None
        stdin.close()
        stdout.close()
        with suppress(subprocess.TimeoutExpired):
            # It is root's: where it does not end, we could not end it either.
            self._process.wait(_ORDERLY_SECONDS)

    def _socket(self) -> str:
        stdout = self._process.stdout
        assert stdout is not None
        if not select.select([stdout], [], [], _START_SECONDS)[0]:
            raise SessionError(
                f"the collector was not ready after {_START_SECONDS:g} s", hint=_SERVE
            )
        line = stdout.readline()
        if not line:
            raise GaveNothingError
        answer: dict[str, str] = json.loads(line)
        if "error" in answer:
            raise errors.from_json(answer)
        return answer["socket"]


class GaveNothingError(Exception):
    """It has ended without a word on standard output."""


def _no_rights(why: str) -> RightsError:
    return RightsError("counting needs a collector that is root", why, _SERVE)
