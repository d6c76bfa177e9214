"""SVG that matplotlib wrote, made fit to stand inside a page.

Colours become the page's variables, so that dark mode and print reach them; text takes the
page's font; ids carry a prefix, and nothing refers to anything outside.
"""

from __future__ import annotations

import xml.etree.ElementTree as ET
from collections.abc import Iterator, Mapping

HALO = "halo"
"""The id of what is drawn around with the page's colour; becomes a class."""
_XLINK = "{http://www.w3.org/1999/xlink}href"
_COLOURED = ("fill", "stroke")
_FONT = ("font", "font-family", "font-size", "font-style", "font-variant", "font-weight")


def inline(
    written: str, prefix: str, variables: Mapping[str, str], title: str, description: str
) -> str:
    """An ``svg`` element to be put into HTML.

    ``variables`` names the page's variable for every colour that was drawn with, in lower
    case; ``prefix`` is unique on the page. Raises ``KeyError`` for any other colour.
    """
    root = ET.fromstring(written)
    _drop(root)
    for element in root.iter():
        element.tag = str(element.tag).rpartition("}")[2]
        link = element.attrib.pop(_XLINK, None)
        if link is not None:
            element.set("href", f"#{prefix}-{link.removeprefix('#')}")
        _restyle(element, variables)
    _rename(root, prefix)
    for attribute in ("width", "height", "version"):
        root.attrib.pop(attribute, None)
    root.set("role", "img")
    root.set("aria-labelledby", f"{prefix}-title {prefix}-desc")
    _put_first(root, "desc", f"{prefix}-desc", description)
    _put_first(root, "title", f"{prefix}-title", title)
    return ET.tostring(root, encoding="unicode")


def _drop(root: ET.Element) -> None:
    """Metadata and style sheets: the latter would hold for the whole page."""
    for parent in list(root.iter()):
        for child in list(parent):
            if str(child.tag).rpartition("}")[2] in ("metadata", "style"):
                parent.remove(child)


def _put_first(root: ET.Element, tag: str, name: str, text: str) -> None:
    element = ET.Element(tag, {"id": name})
    element.text = text
    root.insert(0, element)


def _declarations(style: str) -> Iterator[tuple[str, str]]:
    for declaration in style.split(";"):
        name, colon, value = declaration.partition(":")
        if colon:
            yield name.strip(), value.strip()


def _restyle(element: ET.Element, variables: Mapping[str, str]) -> None:
    style = dict(_declarations(element.attrib.pop("style", "")))
    for name in _COLOURED:
        value = element.attrib.pop(name, None)
        if value is not None:
            style.setdefault(name, value)
    is_text = element.tag == "text"
    if is_text:
        # What is drawn without saying so is black.
        style.setdefault("fill", "#000000")
        # ``font`` is the short form: [style] [variant] [weight] size family.
        short = style.get("font", "").split("px")[0].split()
        size = style.get("font-size", "").removesuffix("px") or (short[-1] if short else "")
        bold = {"bold", "700"} & {*short, style.get("font-weight", "")}
        style = {name: value for name, value in style.items() if name not in _FONT}
        element.set("font-size", size)
        if bold:
            element.set("font-weight", "700")
    for name in _COLOURED:
        value = style.get(name, "none")
        if value != "none" and not value.startswith("url("):
            style[name] = f"var(--{variables[value.lower()]})"
    if style:
        element.set("style", "; ".join(f"{k}: {v}" for k, v in style.items()))


def _rename(root: ET.Element, prefix: str) -> None:
    """Ids that something refers to get the prefix, the others go."""
    used = {
        value.removeprefix(f"#{prefix}-")
        for element in root.iter()
        for name, value in element.attrib.items()
        if name == "href"
    }
    for element in root.iter():
        name = element.attrib.pop("id", None)
        if name == HALO:
            element.set("class", HALO)
            continue
        if name in used or (name is not None and element.tag == "clipPath"):
            element.set("id", f"{prefix}-{name}")
        clip = element.get("clip-path", "")
        if clip.startswith("url(#"):
            element.set("clip-path", f"url(#{prefix}-{clip.removeprefix('url(#')}")
