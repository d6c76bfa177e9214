"""Sessions and windows: a program measures a part of itself.

::

    with Session() as session:
        with session.window() as window:
            serve_file(…)
        assert window.copies < 0.01

The program stays unprivileged; a collector, another process, counts as root. The program opens
and closes a window by a system call. In between it sends the collector nothing, so only the
body of the ``with`` is counted. That includes what Python itself does there, such as reading a
module that is imported.
"""

from __future__ import annotations

import os
import socket
import sys
from contextlib import AbstractContextManager, suppress
from types import TracebackType
from typing import TYPE_CHECKING, Any, Literal

from zctrace import errors
from zctrace.errors import ControlError, FigureError, SessionError, UsageError
from zctrace.evidence.session_protocol import PROTOCOL, SOCKET, Channel, GoneError
from zctrace.session.own_collector import Attendant

if TYPE_CHECKING:
    from zctrace.analysis.program import Answer


SECONDS = 300.0
"""How long to wait for a collector. In an emulated machine the controls around a window take
it 20 s."""
_NONCE = 1 << 62
"""Larger than any number that opens a window."""
_ANSWER_BYTES = 64 << 20
"""More than any evidence has; without an end, a listener could fill the memory."""
_TRY = "sudo zctrace serve -- COMMAND; its standard error says what went wrong"


class Session:
    """Windows, one after the other. A context manager.

    Asks the collector that the environment variable ``ZCTRACE_SOCKET`` names, as below
    ``zctrace serve``. Without one it starts a collector for this machine's kernel: as it is
    where we are root, and otherwise by ``sudo -n``, which never asks for a password. That
    takes some seconds, and the collector ends with the session or the process.

    Raises :class:`~tracer.errors.RightsError` if neither is possible,
    :class:`~tracer.errors.KernelError` if this machine's kernel cannot be probed, and
    whatever else keeps a collector from starting (``zctrace.errors``). Nothing is asked of a
    collector that is there already before the first window.
    """

    def __init__(self, *, seconds: float = SECONDS) -> None:
        """``seconds`` is how long to wait for any one answer of the collector."""
        self._seconds = seconds
        self._windows: list[Window] = []
        path = os.environ.get(SOCKET)
        self._attendant = None if path else Attendant()
        self._path = path or (self._attendant.path if self._attendant else "")

    def __enter__(self) -> Session:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """End the collector, if it is the session's own; windows stay readable."""
        if self._attendant:
            self._attendant.close()

    def window(self, scope: Literal["process", "thread"] = "process") -> Window:
        """A window, to be entered by ``with``.

        It covers every thread of this process and every process started in it; or, with
        ``thread``, only the thread that enters it, which is the one to leave it, too.
        """
        if scope not in ("process", "thread"):
            raise UsageError(
                f"a window of scope {scope!r}: there is no such scope",
                "a window covers the process, or the thread that enters it",
                'session.window(), or session.window("thread")',
            )
        window = Window(self._path, scope, self._seconds)
        self._windows.append(window)
        return window

    def take_measured(self) -> list[Window]:
        """The windows that were closed and measured since the last time that this was asked."""
        taken = [window for window in self._windows if window._answer]
        self._windows = [window for window in self._windows if not window._answer]
        return taken


class Window:
    """A stretch of a program in which copies are counted, and what was counted. See
    :meth:`Session.window`.

    Entering raises :class:`~tracer.errors.SessionError` where the collector is gone, silent,
    or has another window open. When the body raises, the window is closed, too, and
    the exception passes on.

    Every figure raises :class:`~tracer.errors.UsageError` before the window has been
    closed, :class:`~tracer.errors.ControlError` where the controls around it failed, and
    :class:`~tracer.errors.FigureError` where it may be too small: events were lost, or
    something that copies could not be watched. :attr:`answer` has what was seen all the
    same.
    """

    def __init__(self, path: str, scope: str, seconds: float) -> None:
        self._path, self._scope, self._seconds = path, scope, seconds
        self._channel: Channel | None = None
        self._answer: Answer | None = None
        self._failure: errors.ZctraceError | None = None
        self._pid = 0

    def __enter__(self) -> Window:
        from zctrace.workloads import marker

        if self._pid:
            raise UsageError(
                "a window can be entered only once",
                "a window measures one section of the program",
                "session.window() gives another one",
            )
        if sys.maxsize < _NONCE:
            raise SessionError(
                "a 32-bit Python cannot open a window",
                "the number that opens it does not fit into a register",
                "a 64-bit Python; zctrace trace -- COMMAND traces 32-bit programs, too",
            )
        self._pid = os.getpid()
        scope = marker.Scope.PROCESS if self._scope == "process" else marker.Scope.THREAD
        channel = self._channel = self._connected()
        try:
            go = self._exchange(channel, {"protocol": PROTOCOL, "scope": self._scope})
            nonce = go.get("nonce")
            if type(nonce) is not int or not 0 <= nonce < _NONCE:
                raise _not_a_collector(self._path, "it gave no number for the window")
            borders = marker.window(nonce, marker.Role.PROGRAM, scope)
        except BaseException:
            channel.__exit__()
            raise
        self._borders: AbstractContextManager[None] = borders
        borders.__enter__()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        value: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._borders.__exit__(None, None, None)
        if os.getpid() != self._pid:
            return  # a child that was forked in here: the window is its parent's
        channel = self._channel
        assert channel is not None
        with channel:
            try:
                evidence = self._exchange(channel, {"done": True})
                self._answer = _answer(evidence, self._path)
            except errors.ZctraceError as error:
                self._failure = error
        if self._failure and value is None:
            raise self._failure

    def __repr__(self) -> str:
        """With the sentence, so that a failed assertion on a figure shows it."""
        return f"<Window: {self.sentence if self._answer else 'not closed'}>"

    @property
    def answer(self) -> Answer:
        """All that is known, doubts included: by call, by file and socket, by copy site.

        ``answer.doubts`` are why figures may be too small, ``answer.failed`` the controls
        that failed; nothing here is checked for them.
        """
        if self._answer:
            return self._answer
        raise self._failure or UsageError(
            "the window has not been closed",
            "what was counted is known behind the with block",
            "its figures behind the with block",
        )

    @property
    def sentence(self) -> str:
        """Whether it was zero-copy, and if not, who copied; says so where there are doubts."""
        from zctrace.analysis import sentences

        return sentences.sentence(self.answer)

    @property
    def delivered_bytes(self) -> int:
        """What system calls wrote to files, devices, and sockets and pipes to others."""
        return sum(self._sure().delivered.values())

    @property
    def received_bytes(self) -> int:
        """What system calls read from files, devices, and sockets and pipes of others."""
        return sum(self._sure().received.values())

    @property
    def copied_bytes(self) -> int:
        """Bytes of payload that the CPU copied for the window, in whatever direction.

        Raises :class:`~tracer.errors.FigureError` also where bytes were copied during
        the window that could not be attributed: see :attr:`most_copied_bytes`.
        """
        found = self._assigned()
        assert found.copied_bytes is not None
        return found.copied_bytes

    @property
    def copies(self) -> float:
        """:attr:`copied_bytes` for each byte delivered or received, whichever is more.

        Of a window whose bytes go through its own pipes and connections alone, for each byte
        of those (:attr:`Border.basis`, ``zctrace.analysis.border``).

        Raises :class:`~tracer.errors.FigureError` also where neither was.
        """
        copies = _related(self._assigned()).copies
        assert copies is not None
        return copies

    @property
    def most_copied_bytes(self) -> int:
        """:attr:`copied_bytes` if all unattributed and unexplained bytes were the window's.

        On a machine where other programs work, these bytes may be theirs.
        """
        found = self._sure()
        assert found.copied_bytes is not None
        return found.copied_bytes + found.unassigned + found.unexplained_bytes

    @property
    def most_copies(self) -> float:
        """:attr:`copies` if all unattributed and unexplained bytes were its own."""
        copies = _related(self._sure()).most_copies
        assert copies is not None
        return copies

    @property
    def transformed_bytes(self) -> int:
        """Bytes that the CPU encrypted, decrypted or read for checksums; copies of nothing.

        In the kernel, by its crypto API; ``answer.transformed`` has who and for whom. Raises
        :class:`~tracer.errors.FigureError` where some may have been missed or be others'.
        """
        seen = self._sure().transformed
        if seen.bytes is None:
            reason = seen.blind[0] if seen.blind else "the collector is of an older version"
            raise FigureError(
                "what the CPU transformed was not measured",
                reason,
                "answer.transformed has what is known",
            )
        for size, whose in (
            (seen.unassigned, "were transformed by others and could not be attributed"),
            (seen.handed_over, "were passed to a device or to another thread"),
        ):
            if size:
                raise FigureError(
                    f"{seen.bytes} B were transformed for this window, and perhaps more",
                    f"{size} B {whose}",
                    "answer.transformed has all",
                )
        return seen.bytes

    def _sure(self) -> Answer:
        """The answer, if there is no doubt about what was seen."""
        found = self.answer
        if found.failed:
            raise ControlError(
                "self-test failed: do not trust the figures of this window",
                f"{found.failed[0].name}: {found.failed[0].detail}",
                "window.answer still has the figures; zctrace doctor",
            )
        if found.doubts:
            raise FigureError(
                "the figures of this window may be too small",
                found.doubts[0],
                "window.answer has what was seen; once more, on a machine with less to do",
            )
        return found

    def _assigned(self) -> Answer:
        found = self._sure()
        if found.unexplained:
            most = found.unexplained[0]
            raise FigureError(
                f"{found.copied_bytes} B were copied for this window; unknown for "
                f"{found.unexplained_bytes} B",
                f"{most.bytes} B went through {found.name_of(most.thing)}: {most.why}",
                "most_copied_bytes and most_copies take them for copied",
            )
        if found.unassigned:
            raise FigureError(
                f"{found.copied_bytes} B were copied for this window, and perhaps more",
                f"{found.unassigned} B were copied inside the kernel and could not be "
                "attributed",
                "most_copied_bytes and most_copies take them for the window's",
            )
        return found

    def _connected(self) -> Channel:
        connection = socket.socket(socket.AF_UNIX)
        try:
            connection.settimeout(self._seconds)
            connection.connect(self._path)
        except OSError as error:
            connection.close()
            raise SessionError(
                f"there is no collector at {self._path}", error.strerror or str(error), _TRY
            ) from error
        return Channel(connection, self._seconds)

    def _exchange(self, channel: Channel, message: dict[str, Any]) -> dict[str, Any]:
        """Say it, and return the answer; raises what the collector has answered instead."""
        try:
            with suppress(GoneError):  # it may have said why before it hung up
                channel.send(message)
            answer = channel.receive(_ANSWER_BYTES)
        except GoneError as error:
            raise SessionError(
                "the collector does not answer", f"{self._path}: {error}", _TRY
            ) from error
        if "error" in answer:
            why = f"the collector at {self._path} does not say why"
            raise errors.from_json(answer, why, _TRY)
        return answer


def _not_a_collector(path: str, why: str) -> SessionError:
    return SessionError(f"what listens at {path} is no collector of zctrace", why, _TRY)


def _answer(evidence: dict[str, Any], path: str) -> Answer:
    from zctrace.analysis import program
    from zctrace.evidence.schema import Evidence

    try:
        return program.answer(Evidence.from_json(evidence))
    except errors.ZctraceError:
        raise
    except Exception as error:
        why = "its evidence cannot be read: it is damaged, or of another version"
        raise _not_a_collector(path, why) from error


def _related(found: Answer) -> Answer:
    """Itself, if there is something that copies can be related to."""
    if found.copies is None:
        raise FigureError(
            "nothing was delivered or received: there is no number of copies per byte",
            f"{found.copied_bytes} B were copied",
            "copied_bytes",
        )
    return found
