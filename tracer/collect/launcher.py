"""A program is started by a launcher: it runs the controls, then becomes the program."""

from __future__ import annotations

import dataclasses
import errno
import json
import os
import signal
import socket
import subprocess
import time
from collections.abc import Callable
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Any

from zctrace.collect import cgroups, open_files, processes
from zctrace.collect.describe import isolated
from zctrace.errors import UsageError, WorkloadError
from zctrace.evidence.schema import Request, Subject
from zctrace.workloads import launch
from zctrace.workloads.known import Controls
from zctrace.workloads.marker import NONCE

_POLL_SECONDS = 0.05
_FOLDERS = ("/dev/shm", "/run", "/tmp")
"""Where the controls' files may live: in memory, if possible."""
_NO_LOOPBACK = (
    "they send known bytes over loopback, which is down, as in a new network namespace",
    "ip link set lo up",
)


class ProgramGroup:
    """The cgroup of a request's programs: launches them, and knows which processes are left.

    A command gets ``streams`` as its standard input, output and error, and ``environment``.
    """

    def __init__(
        self,
        request: Request,
        cgroup: Path,
        streams: list[int],
        environment: dict[str, str],
    ) -> None:
        self._request, self._cgroup = request, cgroup
        self._streams, self._environment = streams, environment

    def launch(self, when: str, subject: Subject | None = None) -> Launcher:
        """A launcher in the cgroup, as the request's user; raises :class:`WorkloadError`.

        ``when`` is which controls it runs: ``before``, ``after`` or ``none``. Without a
        ``subject`` it runs these alone.
        """
        with ExitStack() as stack:
            near, far = socket.socketpair()
            stack.callback(near.close)
            with far:
                process = self._start(subject, when, far.fileno())
            (self._cgroup / "cgroup.procs").write_text(str(process.pid))
            stack.pop_all()
            return Launcher(process, near)

    def members(self) -> list[int]:
        """The processes that are in the cgroup."""
        return cgroups.members(self._cgroup)

    def interrupt(self) -> None:
        """Send SIGINT to all of them, as Ctrl-C does."""
        self._signal(signal.SIGINT)

    def end(self, goes_on: Callable[[], bool]) -> None:
        """Send SIGTERM to all of them, and wait a while; for those that stay, SIGKILL."""
        deadline = time.monotonic() + processes.ORDERLY_SECONDS
        self._signal(signal.SIGTERM)
        while goes_on() and time.monotonic() < deadline:
            time.sleep(_POLL_SECONDS)
        self._signal(signal.SIGKILL)

    def _signal(self, number: signal.Signals) -> None:
        for process in self.members():
            with suppress(ProcessLookupError):
                os.kill(process, number)

    def _start(
        self, subject: Subject | None, when: str, channel: int
    ) -> subprocess.Popen[bytes]:
        """The launcher, as the user whose program it is, waiting."""
        request = self._request
        own_memory = bool(request.subject and request.subject.user_copies is not None)
        alone = bool(subject and not subject.follow)
        options = launch.Options(channel, _writable(request.uid), when, own_memory, alone)
        own = [*isolated("zctrace.workloads.launch"), json.dumps(dataclasses.asdict(options))]
        streams = [subprocess.DEVNULL] * 3
        folder, environment = "/", {"PATH": os.defpath}
        if subject:
            own += subject.command
            streams, folder, environment = self._streams, subject.folder, self._environment
        try:
            process = subprocess.Popen(
                own,
                stdin=streams[0],
                stdout=streams[1],
                stderr=streams[2],
                cwd=folder,
                user=request.uid,
                group=request.gid,
                extra_groups=request.groups,
                env={**environment, NONCE: str(request.nonce)},
                pass_fds=[channel],
            )
        except OSError as error:
            raise WorkloadError(f"the program could not be started: {error}") from error
        open_files.limit_as_found(process.pid)
        return process


class Launcher:
    """The process that becomes the program, or only runs the controls; a context manager."""

    def __init__(self, process: subprocess.Popen[bytes], channel: socket.socket) -> None:
        """Of ``process``, which waits at the other end of ``channel``."""
        self._process, self._channel = process, channel
        self._answers = channel.makefile("rb")

    def __enter__(self) -> Launcher:
        return self

    def __exit__(self, *_: object) -> None:
        self.end()
        self._answers.close()
        self._channel.close()

    @property
    def pid(self) -> int:
        return self._process.pid

    def control(self) -> Controls:
        """Have it run the controls; returns what they did."""
        answer = self._step("the self-tests") or self._died("the self-tests")
        return Controls.from_json(answer)

    def execute(self) -> None:
        """Have it become the program; raises :class:`UsageError` where that fails."""
        self._step("exec")

    def runs(self) -> bool:
        return self._process.poll() is None

    def end(self) -> int:
        """Its status, as a shell has it; ends it, in good order if it can, where it runs."""
        return processes.end(self._process)

    def _step(self, what: str) -> dict[str, Any]:
        with suppress(BrokenPipeError):
            self._channel.sendall(b"\n")
        line = self._answers.readline()
        answer: dict[str, Any] = json.loads(line) if line else {}
        if "error" in answer and what == "exec":
            raise UsageError(f"the command could not be started: {answer['error']}")
        if "error" in answer:
            down = os.strerror(errno.ENETUNREACH) in answer["error"]
            raise WorkloadError(f"{what} failed: {answer['error']}", *(_NO_LOOPBACK * down))
        return answer

    def _died(self, what: str) -> dict[str, Any]:
        raise WorkloadError(
            f"{what} failed: their process ended with status {self._process.wait()}",
            "it said why on standard error",
        )


def _writable(uid: int) -> str:
    """A folder where the user may make files, and where that touches no disk if possible."""
    for name in _FOLDERS:
        with suppress(OSError):
            entry = Path(name).stat()
            if entry.st_mode & 0o002 or entry.st_uid == uid:
                return name
    return _FOLDERS[-1]
