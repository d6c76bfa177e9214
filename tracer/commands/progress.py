"""What is happening, on stderr: a line that changes on a terminal, lines elsewhere."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.status import Status
from rich.text import Text

from zctrace.notices import Say
from zctrace.reports.text.terminal import Terminal


class Steps:
    """A function that prints each step on ``console``, or on its ``status`` line."""

    def __init__(self, console: Console, status: Status | None, *, quiet: bool) -> None:
        self._console, self._status, self._quiet = console, status, quiet
        self._began = time.monotonic()
        self._latest: dict[str, str] = {}
        self._lock = threading.Lock()

    def __call__(self, step: str) -> None:
        self._show("", step)

    def of(self, name: str) -> Say:
        """To be called with the steps of one of several runs at once, from any thread.

        Each line begins with ``name``; a terminal shows the latest step of every run.
        """
        return lambda step: self._show(name, f"{name}: {step}")

    def _show(self, name: str, text: str) -> None:
        with self._lock:
            if self._status:
                self._latest = {**self._latest, name: text} if name else {}
                self._status.update(Text("\n".join(self._latest.values()) or text))
            elif not self._quiet:
                self.line(f"[{time.monotonic() - self._began:6.1f} s] {text}")

    def hide(self) -> None:
        """The terminal is somebody else's from here on."""
        if self._status:
            self._status.stop()

    def line(self, text: str) -> None:
        """Something that was asked for: it is there to stay."""
        self._console.print(Text(text), soft_wrap=True)


@contextmanager
def shown(*, quiet: bool) -> Iterator[Steps]:
    """A function that prints each step."""
    console = Terminal(stderr=True)
    if console.is_terminal and not quiet:
        with console.status("starting") as status:
            yield Steps(console, status, quiet=False)
    else:
        yield Steps(console, None, quiet=quiet)


def notice(text: str) -> None:
    """Something the user should know although all is well; stderr."""
    Terminal(stderr=True).print(Text(f"zctrace: {text}"), soft_wrap=True)
