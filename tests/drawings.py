"""Drawings of the page as files of their own, for documents."""

import xml.etree.ElementTree as ET

from zctrace.analysis import runs
from zctrace.evidence.schema import Evidence
from zctrace.reports import wording
from zctrace.reports.data_path import way
from zctrace.reports.html import drawing, path_drawing

_HEADING, _GAP, _MARGIN = 34.0, 20.0, 10.0


def of_evidence(evidence, strategies, nic):
    """The same of a recording."""
    return stacked(runs.judge([Evidence.from_json(evidence)]), strategies, nic)


def stacked(judged, strategies, nic):
    """An SVG file: the path of the payload for each of the strategies, one below the other."""
    found = {one.run.strategy: one for one in judged if one.run.nic == nic}
    sheet = ET.Element("svg", {"xmlns": "http://www.w3.org/2000/svg", "class": "sheet"})
    sheet.append(drawing.style())
    top = width = 0.0
    for name in strategies:
        title = _title(found[name])
        drawn = path_drawing.draw(way(found[name]), name, title, narrow=False)
        part = ET.fromstring(drawn)
        _, _, wide, high = map(float, part.get("viewBox").split())
        heading = ET.SubElement(sheet, "text", x=f"{_MARGIN:g}", y=f"{top + _HEADING * 0.7:g}")
        heading.attrib |= {"fill": "var(--ink)", "font-size": "17", "font-weight": "700"}
        heading.text = title
        part.attrib |= {"width": f"{wide:g}", "height": f"{high:g}"}
        part.attrib |= {"x": "0", "y": f"{top + _HEADING:g}"}
        sheet.append(part)
        top, width = top + _HEADING + high + _GAP, max(width, wide)
    sheet.set("viewBox", f"0 0 {width:g} {top - _GAP:g}")
    return ET.tostring(sheet, encoding="unicode") + "\n"


def _title(judged):
    figures = judged.figures
    amounts = (
        f"{wording.copies(figures['cpu_copies'])} CPU copies",
        f"{figures['mode_switches']} mode switches",
        f"{wording.copies(figures['dma_copies'])} DMA copies",
    )
    return f"{judged.run.strategy}, Linux {wording.release(judged)}: {', '.join(amounts)}"
