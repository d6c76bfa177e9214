"""What is happening, on stderr: a line that changes on a terminal, lines elsewhere."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.text import Text

from tracer.machine import Say


@contextmanager
def shown(*, quiet: bool) -> Iterator[Say]:
    """A function to be told each step."""
    if quiet:
        yield lambda step: None
        return
    console = Console(stderr=True)
    if console.is_terminal:
        with console.status("starting") as status:
            yield lambda step: status.update(Text(step))
        return
    began = time.monotonic()

    def say(step: str) -> None:
        console.print(Text(f"[{time.monotonic() - began:6.1f} s] {step}"), soft_wrap=True)

    yield say


def notice(text: str) -> None:
    """Something the user should know although all is well; stderr."""
    Console(stderr=True).print(Text(f"zctrace: {text}"), soft_wrap=True)
