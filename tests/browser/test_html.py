"""The page in a real browser: it shows, it needs nothing, and its numbers are the CSV's."""

import csv
import io
import re

import pytest

from tests.browser import boxes
from tests.conftest import recorded_evidence
from zctrace.analysis import runs
from zctrace.reports import machine_readable, wording
from zctrace.reports.html import page as html

LINES = ("5.10", "6.1", "7.3", "6.1-e1000", "7.3-e1000")
CELLS = """[...document.querySelectorAll("td[data-row]")].map(cell => ({
    row: +cell.dataset.row, column: cell.dataset.column, text: cell.textContent.trim(),
    value: cell.querySelector("data")?.value ?? null}))"""
"""Every cell that has a place in the CSV."""


@pytest.fixture(scope="module")
def judged():
    return runs.judge([recorded_evidence(line) for line in LINES])


@pytest.fixture(scope="module")
def page(judged, tmp_path_factory):
    path = tmp_path_factory.mktemp("page") / "report.html"
    path.write_text(html.page(judged))
    return path


def test_the_numbers_on_it_are_the_csvs(chromium, page, judged):
    chromium.open(page)
    rows = list(csv.DictReader(io.StringIO(machine_readable.summary_csv(judged))))
    cells = chromium.evaluate(CELLS)
    assert {cell["row"] for cell in cells} == set(range(len(rows)))
    for cell in cells:
        expected, column = rows[cell["row"]][cell["column"]], cell["column"]
        if expected == "":
            assert cell["value"] is None, cell
            assert not re.search(r"\d", cell["text"]), cell
        elif column == "kernel":
            assert cell["value"] == expected
        elif column.startswith("verdict_"):
            assert cell["text"] == expected
        else:
            assert float(cell["value"]) == float(expected), cell
            shown = re.search(r"[\d.]+", cell["text"])[0]
            assert shown == wording.copies(float(expected)), cell


def test_everything_has_a_name_for_those_who_hear_it(chromium, page):
    chromium.open(page)
    chromium.evaluate(boxes.UNFOLD)
    nodes = chromium.call("Accessibility.getFullAXTree")["nodes"]
    names = {}
    for node in nodes:
        if not node.get("ignored"):
            role = node["role"].get("value")
            names.setdefault(role, []).append(node.get("name", {}).get("value", ""))
    drawings = names.get("image", []) + names.get("img", [])
    shown = chromium.evaluate(
        """[...document.querySelectorAll("svg")].filter(
            one => one.getClientRects().length).length"""
    )
    assert len([name for name in drawings if name]) >= shown > 10
    assert all(names["table"])
    tables = "[...document.querySelectorAll('table')].filter(t => t.checkVisibility()).length"
    assert len(names["table"]) == chromium.evaluate(tables) > 5
    assert len(names["heading"]) > 10


def test_a_failed_control_is_seen_first(chromium, tmp_path):
    from tests.unit.test_html import broken

    failed = runs.judge([broken(recorded_evidence("6.1"))])
    path = tmp_path / "failed.html"
    path.write_text(html.page(failed))
    chromium.open(path)
    headline, _ = wording.alarm(failed)
    assert headline in chromium.evaluate("document.body.innerText.slice(0, 300)")
    top = "document.querySelector('section.alarm').getBoundingClientRect().top < innerHeight"
    assert chromium.evaluate(top)
    assert chromium.evaluate(boxes.OVERLAPPING) == []
