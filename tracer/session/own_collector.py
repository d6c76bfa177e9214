"""A collector for a session that has none: how it is started, and what is started.

``attending UID CLIENT``, as root, collects for the user UID until its standard input or the
process CLIENT ends, whichever is first. It says one line of JSON on standard output: where
the socket is, or what went wrong.
"""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import sys
import tempfile
from contextlib import suppress
from pathlib import Path

import zctrace
from zctrace import errors
from zctrace.errors import RightsError, SessionError
from zctrace.evidence.session_protocol import Channel, GoneError

_START_SECONDS = 300.0
_ORDERLY_SECONDS = 60.0
_ANSWER_BYTES = 1 << 16
"""More than a path or an error has."""
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
        # No pipe: of a socket a line can be read that need not come.
        ours, theirs = socket.socketpair()
        self._channel = Channel(ours, _START_SECONDS)
        with tempfile.TemporaryFile() as complaints:
            with theirs:
                self._process = subprocess.Popen(
                    command,
                    stdin=subprocess.PIPE,
                    stdout=theirs.fileno(),
                    stderr=complaints,
                    # Ctrl-C is for the program.
                    process_group=0,
                )
            try:
                self.path = _socket(self._channel)
            except GoneError as error:
                self.close()
                complaints.seek(0)
                last = complaints.read().decode(errors="replace").strip().splitlines()[-1:]
                status = self._process.returncode
                why = last[0] if last else f"{error}; its status: {status}"
                if os.geteuid() and status:
                    raise _no_rights(why) from None
                raise SessionError("no collector could be started", why, _SERVE) from None
            except BaseException:
                self.close()
                raise

    def close(self) -> None:
        """Have it end, and wait until it has taken its probes back."""
        stdin = self._process.stdin
        assert stdin is not None
        stdin.close()
        self._channel.__exit__()
        with suppress(subprocess.TimeoutExpired):
            # It is root's: where it does not end, we could not end it either.
            self._process.wait(_ORDERLY_SECONDS)


def _socket(channel: Channel) -> str:
    """Where it is, as the collector says; raises :class:`GoneError`, or what that raised."""
    answer = channel.receive(_ANSWER_BYTES)
    if "error" in answer:
        raise errors.from_json(answer, "it does not say why", _SERVE)
    path = answer.get("socket")
    if not isinstance(path, str):
        raise GoneError("what it said names no socket")
    return path


def _no_rights(why: str) -> RightsError:
    return RightsError("counting needs a collector that is root", why, _SERVE)
