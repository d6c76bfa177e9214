"""The terminal that reports, progress and errors are printed on."""

from __future__ import annotations

from collections.abc import Iterator

from rich.console import Console, ConsoleOptions, RenderableType
from rich.segment import Segment

from zctrace.printable import printable


class Terminal(Console):
    """A console that obeys nothing in what it prints: no markup, no escape sequences."""

    def __init__(self, *, stderr: bool = False) -> None:
        super().__init__(stderr=stderr, markup=False, emoji=False)

    def render(
        self, renderable: RenderableType, options: ConsoleOptions | None = None
    ) -> Iterator[Segment]:
        """As Console does; control codes of rich itself pass, those in texts are escaped."""
        for segment in super().render(renderable, options):
            if segment.control or segment.text.isprintable():
                yield segment
                continue
            lines = "\n".join(map(printable, segment.text.split("\n")))
            yield Segment(lines, segment.style)
