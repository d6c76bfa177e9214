"""A drawing as it stands on a page."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass


@dataclass(frozen=True)
class Drawing:
    """The same drawing in two forms. ``id`` is unique on the page, and a good file name."""

    id: str
    wide: str
    narrow: str
    caption: str

    @classmethod
    def of(cls, name: str, caption: str, draw: Callable[[bool], str]) -> Drawing:
        """``draw`` gets whether it is the narrow form that is wanted."""
        return cls(f"drawing-{name}", draw(False), draw(True), caption)
