"""Everything that can go wrong, with the exit code it ends in.

::

    ZctraceError                 1   a fault in zctrace itself
    ├── UsageError               2   arguments that make no sense together
    ├── RightsError              3   not root
    ├── MissingError             4   a program or library is not installed
    ├── KernelError              5   no such kernel, or it could not be fetched
    ├── MachineError             6   the virtual machine did not boot, or died
    ├── TraceError               7   the kernel refused a probe that is needed
    ├── ControlError             8   the self-tests failed: do not trust the figures
    ├── OutputError              9   an output file cannot be written
    ├── ResourceError           10   not enough memory, disk or file descriptors
    ├── WorkloadError           11   a strategy failed while it ran
    ├── LimitError              12   a program copied more than it was allowed to
    ├── SessionError            13   the collector of a session is gone, busy or silent
    └── FigureError             14   a window's figure is not known, or may be too small

An interrupt ends in 130, a SIGTERM in 143, a SIGHUP in 129. Programs that measure themselves
(``zctrace.session.api``) raise the last two errors; no command ends in them.
"""

from __future__ import annotations

import errno
import os
import signal
from collections.abc import Mapping

from zctrace.printable import printable


class ZctraceError(Exception):
    """What happened, the likely cause, and what to try; ``exit_code`` is the status."""

    exit_code = 1

    def __init__(self, what: str, why: str = "", hint: str = "") -> None:
        super().__init__(what)
        self.what, self.why, self.hint = what, why, hint

    def __str__(self) -> str:
        """All three: what a test that fails or a traceback shows of it."""
        lines = (self.what, self.why and f"why: {self.why}", self.hint and f"try: {self.hint}")
        return "\n    ".join(printable(line) for line in lines if line)

    def to_json(self) -> dict[str, str]:
        """For the way from the collector to the command line, or to a session."""
        return {
            "error": type(self).__name__,
            "what": self.what,
            "why": self.why,
            "hint": self.hint,
        }


class UsageError(ZctraceError):
    exit_code = 2


class RightsError(ZctraceError):
    exit_code = 3


class MissingError(ZctraceError):
    exit_code = 4


class KernelError(ZctraceError):
    exit_code = 5


class MachineError(ZctraceError):
    exit_code = 6


class TraceError(ZctraceError):
    exit_code = 7


class ControlError(ZctraceError):
    exit_code = 8


class OutputError(ZctraceError):
    exit_code = 9


class ResourceError(ZctraceError):
    exit_code = 10


class WorkloadError(ZctraceError):
    exit_code = 11


class LimitError(ZctraceError):
    exit_code = 12


class SessionError(ZctraceError):
    exit_code = 13


class FigureError(ZctraceError):
    exit_code = 14


_NO_MORE = {
    errno.ENOMEM: ("memory", "more memory for zctrace: ulimit -v, memory.max of its cgroup"),
    errno.ENOSPC: ("room on the disk", "TMPDIR=FOLDER, on a disk with more room"),
    errno.EMFILE: ("file descriptor", "more of them: ulimit -n 1024"),
    errno.ENFILE: ("file descriptor", "a larger fs.file-max, or fewer programs"),
    errno.EDQUOT: ("room in a disk quota", "TMPDIR=FOLDER, outside of the quota"),
}
"""By error number: what there is no more of, and what to try."""
_NO_MEMORY = ("failed to map segment from shared object", "can't start new thread")
"""What the dynamic loader says to an import, and Python where clone(2) fails."""


def exhausted(error: BaseException) -> ResourceError | None:
    """The error where memory, disk or descriptors were used up; else ``None``.

    Copying a folder (:class:`shutil.Error`) tells of numbers by their texts alone.
    """
    other = isinstance(error, ImportError | RuntimeError)
    if isinstance(error, MemoryError) or (other and any(s in str(error) for s in _NO_MEMORY)):
        numbers = {errno.ENOMEM}
    elif isinstance(error, OSError) and error.errno is not None:
        numbers = {error.errno}
    elif isinstance(error, OSError):
        numbers = {number for number in _NO_MORE if os.strerror(number) in str(error)}
    else:
        return None
    for number in numbers & _NO_MORE.keys():
        what, hint = _NO_MORE[number]
        file = getattr(error, "filename", None)
        return ResourceError(
            f"there is no {what} left",
            os.strerror(number) + (f": {file}" if file else ""),
            hint,
        )
    return None


INTERRUPTED = 130
TERMINATED = 143
HUNG_UP = 129
_ENDING = (signal.SIGTERM, signal.SIGHUP)


class Terminated(BaseException):
    """A signal on its way through every context manager: what was taken is given back.

    ``status`` is the exit status of a program that this signal ends.
    """

    def __init__(self, number: int = signal.SIGTERM) -> None:
        super().__init__(number)
        self.status = 128 + number


def raise_terminated() -> None:
    """From now on the first SIGTERM or SIGHUP raises :class:`Terminated`; others are ignored.

    A SIGHUP that was ignored at the start, as by nohup(1), stays ignored.
    """
    signal.signal(signal.SIGTERM, _terminate)
    if signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN:
        signal.signal(signal.SIGHUP, _terminate)


def _terminate(number: int, _: object) -> None:
    if signal.getsignal(number) is signal.SIG_IGN:
        return  # it came together with the first one
    for other in _ENDING:
        signal.signal(other, signal.SIG_IGN)
    raise Terminated(number)


def from_json(message: Mapping[str, object], why: str = "", hint: str = "") -> ZctraceError:
    """The error that :meth:`ZctraceError.to_json` described, with these where it has none."""
    kinds = {kind.__name__: kind for kind in ZctraceError.__subclasses__()}
    kind = kinds.get(str(message.get("error")), ZctraceError)
    what = message.get("what") or "the other side failed and did not say how"
    return kind(str(what), str(message.get("why") or why), str(message.get("hint") or hint))
