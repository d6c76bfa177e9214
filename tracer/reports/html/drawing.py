"""A drawing as it stands on a page, and as a file of its own."""

from __future__ import annotations

import importlib.resources
import re
import xml.etree.ElementTree as ET
from collections.abc import Callable, Iterable
from dataclasses import dataclass

_FONT = 'svg { font-family: "DejaVu Sans", sans-serif; } .sheet { background: var(--page); }'


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


def files(drawings: Iterable[Drawing]) -> dict[str, str]:
    """SVG files that need nothing else, by their names."""
    return {f"{one.id.removeprefix('drawing-')}.svg": _alone(one) for one in drawings}


def _alone(drawing: Drawing) -> str:
    root = ET.fromstring(drawing.wide)
    root.set("xmlns", "http://www.w3.org/2000/svg")
    root.set("class", " ".join(filter(None, (root.get("class"), "sheet"))))
    root.insert(0, style())
    return ET.tostring(root, encoding="unicode") + "\n"


def style() -> ET.Element:
    """The page's font and colours, light and dark, for an SVG element of class ``sheet``."""
    path = importlib.resources.files(__package__) / "templates" / "style.css"
    text = path.read_text().replace(":root", ".sheet")
    scheme = r"^@media screen and .prefers-color-scheme.*?^\}"
    blocks = re.findall(rf"^\.sheet \{{.*?^\}}|{scheme}", text, re.M | re.S)
    found = ET.Element("style")
    found.text = "\n".join(("", _FONT, *blocks, ""))
    return found
