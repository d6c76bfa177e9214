"""``zctrace top``: the busiest processes, files and calls of a program, on a screen."""

from __future__ import annotations

import os
import signal
import sys
import termios
import threading
import tty
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Annotated, Any

import typer
from rich.console import Console, ConsoleDimensions
from rich.live import Live

from zctrace.analysis import program as traced
from zctrace.commands.common import require_collector, require_command, require_controls
from zctrace.commands.options import (
    BootTimeout,
    Command,
    Cpus,
    Duration,
    Keep,
    Kernel,
    Mechanism,
    Modules,
    User,
    seconds,
    wanted,
)
from zctrace.commands.subjects import NOTHING, finds, subject_of
from zctrace.commands.trace import place_of
from zctrace.errors import UsageError
from zctrace.evidence.account import INTERRUPTED, Look
from zctrace.machine import modules, program_job
from zctrace.machine.places import AUTO
from zctrace.machine.progress import BOOT_SECONDS
from zctrace.plan.attachments import Choice
from zctrace.reports import program
from zctrace.reports.text import paper
from zctrace.reports.text.terminal import Terminal
from zctrace.reports.text.top import Screen

_STREAMS = (0, 1, 2)


@finds(threads=False)
def command(
    words: Command = None,
    running: Mapping[str, Any] = NOTHING,
    interval: Annotated[
        float,
        typer.Option(
            "--interval",
            "-i",
            parser=seconds,
            metavar="SECONDS",
            help="How often the screen changes.",
        ),
    ] = 1.0,
    duration: Duration = None,
    user: User = None,
    kernel: Kernel = AUTO,
    cpus: Cpus = None,
    mechanism: Mechanism = Choice.AUTO,
    module: Modules = None,
    keep: Keep = False,
    boot_timeout: BootTimeout = BOOT_SECONDS,
) -> int | None:
    """Show the busiest processes, files, sockets and system calls while a program runs.

    Of all programs on this machine, unless some are named. The report follows when it ends. A
    command has no terminal: it reads and prints nothing.
    """
    if not (sys.stdin.isatty() and sys.stdout.isatty()):
        raise UsageError(
            "zctrace top needs a terminal",
            "standard input or output is something else",
            "zctrace trace -i 1, or zctrace trace --jsonl -",
        )
    subject = subject_of(
        words or [],
        running,
        duration,
        follow=True,
        interval=interval,
        busy=True,
        or_everybody=True,
    )
    how = wanted(
        *(subject, user, mechanism), keep=keep, boot_timeout=boot_timeout, module=module
    )
    require_collector()
    require_command(subject.command)
    screen = Screen(subject.called or subject.words)
    with _own_terminal() as (keys, console), _shown(screen, keys, console) as page:

        def say(step: str) -> None:
            screen.status = step.partition("; ")[0]
            page.draw()

        def look_on(passed: float, look: Look) -> None:
            screen.look(passed, look)
            page.draw()

        place = place_of(kernel, cpus, how, say)
        modules.check(how.modules, [place])
        evidence = program_job.trace(place, how, say, look_on)
    found = traced.answer(evidence)
    paper.show(program.report([found]), Terminal())
    require_controls([found])
    # By the key that ends it, a command ends as it should.
    return None if found.trace.ended == INTERRUPTED else found.trace.status


@contextmanager
def _own_terminal() -> Iterator[tuple[int, Console]]:
    """The terminal for us alone: what is started has nothing in place of it."""
    kept = [os.dup(number) for number in _STREAMS]
    null = os.open(os.devnull, os.O_RDWR)
    try:
        sys.stdout.flush()
        for number in _STREAMS:
            os.dup2(null, number)
        with open(os.dup(kept[1]), "w", encoding="utf-8") as out:
            yield kept[0], Console(file=out, markup=False, emoji=False, force_terminal=True)
    finally:
        for number, original in zip(_STREAMS, kept, strict=True):
            os.dup2(original, number)
            os.close(original)
        os.close(null)


@contextmanager
def _shown(screen: Screen, keys: int, console: Console) -> Iterator[_Page]:
    """On another page of the terminal, which obeys each key at once."""
    before = termios.tcgetattr(keys)
    tty.setcbreak(keys)
    try:
        with Live(console=console, screen=True, auto_refresh=False) as live:
            page = _Page(screen, live, keys)
            page.draw()
            threading.Thread(target=page.obey, daemon=True).start()
            yield page
    finally:
        termios.tcsetattr(keys, termios.TCSANOW, before)


class _Page:
    """A screen that is drawn anew by whatever thread has something for it."""

    def __init__(self, screen: Screen, live: Live, terminal: int) -> None:
        self._screen, self._live, self._terminal = screen, live, terminal
        self._lock = threading.Lock()

    def draw(self) -> None:
        """In the size that the terminal has now."""
        with self._lock:
            width, height = os.get_terminal_size(self._terminal)
            # rich would ask the standard streams, which are no terminal now.
            self._live.console.size = ConsoleDimensions(width, height)
            self._live.update(self._screen.render(width, height), refresh=True)

    def obey(self) -> None:
        """Until the key that ends it, which is what Ctrl-C is."""
        while key := os.read(self._terminal, 1):
            if not self._screen.key(key.decode(errors="replace")):
                os.kill(os.getpid(), signal.SIGINT)
                return
            self.draw()
