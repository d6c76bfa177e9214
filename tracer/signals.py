"""SIGTERM as an exception, so that what was taken is given back on the way out."""

from __future__ import annotations

import signal


class Terminated(BaseException):
    """SIGTERM, on its way through every context manager."""


def raise_terminated() -> None:
    """From now on the first SIGTERM raises :class:`Terminated`; others are ignored."""
    signal.signal(signal.SIGTERM, _terminate)


def _terminate(*_: object) -> None:
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    raise Terminated
