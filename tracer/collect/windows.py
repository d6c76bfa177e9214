"""Windows for programs that measure themselves: the collector's phases for ``serve``.

observe → plan → load → attach → (controls → the program's own window → controls)…, as often
as somebody asks. The probes are attached once. What is said and when:
``zctrace.evidence.session_protocol``.
"""

from __future__ import annotations

import dataclasses
import os
import select
import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from zctrace.collect.describe import SERVING, SOCKET_NAME, Stopwatch
from zctrace.collect.launcher import Launcher, ProgramGroup
from zctrace.collect.program import Tracer, following
from zctrace.errors import ResourceError, RightsError, SessionError, UsageError, ZctraceError
from zctrace.evidence.schema import Evidence, Request, Subject
from zctrace.evidence.session_protocol import (
    PATH_BYTES,
    PROCESS,
    PROTOCOL,
    REQUEST_BYTES,
    SOCKET,
    THREAD,
    Channel,
    GoneError,
)
from zctrace.notices import Say

_POLL_SECONDS = 0.05
_PATIENCE_SECONDS = 5.0
"""For a client that has connected and has to say what it wants, or to take its answer."""
_BACKLOG = 64
_ADDRESSES = ("functions", "calls")
"""Members of the kernel's facts that have addresses."""


def serve(
    request: Request,
    streams: list[int],
    environment: dict[str, str],
    stop: Callable[[], bool],
    say: Say,
    folder: Path,
) -> int | None:
    """Serve windows as long as ``request.subject.command`` runs; returns its status.

    Without a command until ``stop`` says so, which otherwise interrupts the command. The
    socket is in ``folder``, or, in a machine of our own, which cannot have one there, in
    ``/run``. Raises ``ZctraceError``.
    """
    subject = request.subject
    assert subject is not None
    if request.machine != "host":
        folder = Path(f"/run/zctrace-{request.run_id}")
        folder.mkdir()
    path = folder / SOCKET_NAME
    watch = Stopwatch(say)
    with (
        listening(path, request.uid, request.gid) as listener,
        following(request, watch) as (instrument, price),
    ):
        tracer = Tracer(
            request,
            instrument.meter,
            instrument.cgroup,
            streams,
            {**environment, SOCKET: str(path)},
            stop,
            lambda step: None,
        )
        tracer.price = price

        def trace(wanted: Subject, meanwhile: Callable[[], None]) -> Evidence:
            began = Stopwatch(lambda step: None)
            instrument.renew()
            with began.phase("trace"):
                traced = tracer.marked(wanted, meanwhile)
            asked = dataclasses.replace(request, subject=wanted)
            return instrument.evidence(asked, began, rights=tracer.rights, trace=traced)

        server = Server(listener, request.uid, request.nonce, trace)
        if not subject.command:
            say(SERVING)
            server.run(lambda: not stop())
            return None
        with tracer.group.launch("none", subject) as launcher:
            launcher.execute()
            say(SERVING)
            server.run(_lasting(launcher, tracer.group, stop))
            return launcher.end()


def _lasting(
    launcher: Launcher, group: ProgramGroup, stop: Callable[[], bool]
) -> Callable[[], bool]:
    """Whether the command still runs; interrupts it once where it is to stop."""
    interrupted = False

    def runs() -> bool:
        nonlocal interrupted
        if not interrupted and stop():
            interrupted = True
            group.interrupt()
        return launcher.runs()

    return runs


def _without_addresses(evidence: Evidence) -> Evidence:
    """For a client, which the kernel tells no addresses. No figure depends on them."""
    kernel = {name: v for name, v in evidence.kernel.items() if name not in _ADDRESSES}
    sites = tuple(dataclasses.replace(site, address=None) for site in evidence.sites)
    return dataclasses.replace(evidence, kernel=kernel, sites=sites)


@contextmanager
def listening(path: Path, uid: int, gid: int) -> Iterator[socket.socket]:
    """A socket that only one user may connect to; raises :class:`ResourceError`."""
    if len(os.fsencode(path)) > PATH_BYTES:
        raise ResourceError(
            f"{path} is too long a name for a socket",
            f"{PATH_BYTES} bytes are possible",
            "TMPDIR=FOLDER puts temporary files elsewhere",
        )
    with socket.socket(socket.AF_UNIX) as listener:
        before = os.umask(0o177)
        try:
            listener.bind(os.fspath(path))
        finally:
            os.umask(before)
        os.chown(path, uid, gid)
        listener.listen(_BACKLOG)
        try:
            yield listener
        finally:
            path.unlink(missing_ok=True)


class Server:
    """Gives out windows, one at a time.

    ``trace`` measures one: it calls back when it counts, and gives the evidence once that
    has returned. Only the user ``uid`` gets any.
    """

    def __init__(
        self,
        listener: socket.socket,
        uid: int,
        nonce: int,
        trace: Callable[[Subject, Callable[[], None]], Evidence],
    ) -> None:
        self._listener, self._uid, self._nonce, self._trace = listener, uid, nonce, trace

    def run(self, goes_on: Callable[[], bool]) -> None:
        """Serve as long as ``goes_on``, which is asked again and again."""
        while goes_on():
            if select.select([self._listener], [], [], _POLL_SECONDS)[0]:
                with self._accepted() as channel, suppress(GoneError):
                    try:
                        self._attend(channel, goes_on)
                    except ZctraceError as error:
                        channel.send(error.to_json())

    def _accepted(self) -> Channel:
        connection, _ = self._listener.accept()
        return Channel(connection, _PATIENCE_SECONDS)

    def _attend(self, channel: Channel, goes_on: Callable[[], bool]) -> None:
        """One client, from its request to its evidence."""
        pid = self._admitted(channel)
        asked = channel.receive(REQUEST_BYTES)
        if asked.get("protocol") != PROTOCOL or asked.get("scope") not in (PROCESS, THREAD):
            raise UsageError(
                f"the session asks for {asked}, the collector has protocol {PROTOCOL}",
                "they are of different versions of zctrace",
                "one version for both: the tests' Python and zctrace serve",
            )
        subject = Subject(pids=(pid,), follow=asked["scope"] == PROCESS, marked=True)
        try:
            # By a descriptor: the number may be somebody else's by the time it is looked at.
            process = os.pidfd_open(pid)
        except OSError as error:
            raise GoneError(str(error)) from error
        try:
            evidence = self._trace(subject, lambda: self._window(channel, process, goes_on))
        finally:
            os.close(process)
        channel.send(_without_addresses(evidence).to_json())

    def _admitted(self, channel: Channel) -> int:
        """The pid of who has connected; raises :class:`RightsError` for somebody else."""
        pid, uid = channel.peer()
        if uid != self._uid:
            raise RightsError(
                f"this collector counts for user {self._uid}, and not for user {uid}",
                "figures show what a process does",
                "zctrace serve --user NAME",
            )
        if not pid:
            raise SessionError(
                "the collector cannot see this process",
                "it is in a PID namespace that the collector is not in, nor above",
                "zctrace serve in the same container, or outside of all",
            )
        return pid

    def _window(self, channel: Channel, process: int, goes_on: Callable[[], bool]) -> None:
        """Let the client go, and wait until it is done; raises :class:`GoneError`.

        Nothing here may touch the meter: see ``Meter.skipped``.
        """
        channel.send({"nonce": self._nonce})
        poll = select.poll()
        for source in (channel.fileno(), process, self._listener.fileno()):
            poll.register(source, select.POLLIN)
        while goes_on():
            ready = {source for source, _ in poll.poll(_POLL_SECONDS * 1000)}
            if channel.fileno() in ready:
                if "done" not in channel.receive(REQUEST_BYTES):
                    raise GoneError("it said something else")
                return
            if process in ready:
                # What it has forked may hold the connection open.
                raise GoneError("it has died")
            if self._listener.fileno() in ready:
                self._refuse()
        raise GoneError("the collector is ending")

    def _refuse(self) -> None:
        with self._accepted() as other, suppress(GoneError):
            other.send(
                SessionError(
                    "another window is open",
                    "a collector measures one window at a time; windows cannot be nested",
                    "close it first; run tests with windows one after another, not in parallel",
                ).to_json()
            )
