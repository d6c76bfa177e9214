"""Count what the CPU copies and how often a program enters the kernel.

Two halves that meet in a file. *Collect* (``session`` and below) runs as root next to the
kernel, with the standard library, BCC and a disassembler. *Analyse* (``summary``,
``verdict``, ``reports``) is unprivileged and reads evidence.

For programs that measure themselves there are :class:`Session` and :class:`Window`, for
notebooks :func:`load`; they are imported when they are first asked for.
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from zctrace.analysis.frames import load
    from zctrace.session.api import Session, Window

    __version__: str

__all__ = ["Session", "Window", "__version__", "load"]


def __getattr__(name: str) -> Any:
    if name in ("Session", "Window"):
        from zctrace.session import api

        return getattr(api, name)
    if name == "__version__":
        from zctrace import _version

        return _version.version()
    if name == "load":
        from zctrace.analysis import frames

        return frames.load
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
