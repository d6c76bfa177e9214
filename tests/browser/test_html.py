"""The page in a real browser: it shows, it needs nothing, and its numbers are the CSV's."""

import csv
import io
import re

import pytest

from tests.conftest import recorded_evidence
from zctrace.analysis import runs
from zctrace.reports import machine_readable, wording
from zctrace.reports.html import page as html

LINES = ("5.10", "6.1", "7.3", "6.1-e1000", "7.3-e1000")
JAVA = ("6.1-java", "6.1-netty")
WIDTHS = (320, 360, 768, 1000, 1280)
CELLS = """[...document.querySelectorAll("td[data-row]")].map(cell => ({
    row: +cell.dataset.row, column: cell.dataset.column, text: cell.innerText,
    value: cell.querySelector("data")?.value ?? null}))"""
"""Every cell that has a place in the CSV."""
CONTRAST = """(() => {
    const parse = colour => colour.match(/[\\d.]+/g).map(Number);
    const light = colour => {
        const [r, g, b] = parse(colour).slice(0, 3).map(value => {
            value /= 255;
            return value <= 0.04045 ? value / 12.92 : ((value + 0.055) / 1.055) ** 2.4;
        });
        return 0.2126 * r + 0.7152 * g + 0.0722 * b;
    };
    const behind = element => {
        for (let at = element; at; at = at.parentElement) {
            const colour = getComputedStyle(at).backgroundColor;
            if ((parse(colour)[3] ?? 1) > 0) return colour;
        }
        return "rgb(255, 255, 255)";
    };
    const boxes = getComputedStyle(document.documentElement).getPropertyValue("--box");
    const found = [];
    for (const element of document.querySelectorAll("body *")) {
        const words = [...element.childNodes].some(
            node => node.nodeType === 3 && node.textContent.trim());
        if (!words || !element.getClientRects().length) continue;
        if (element.closest("title, desc, style")) continue;
        const style = getComputedStyle(element);
        const drawn = element instanceof SVGElement;
        const ink = light(drawn ? style.fill : style.color), page = light(behind(element));
        found.push({text: element.textContent.trim().slice(0, 40), drawn,
            ratio: (Math.max(ink, page) + 0.05) / (Math.min(ink, page) + 0.05)});
    }
    return {page: light(behind(document.body)), found};
})()"""
"""By the formula of WCAG 2, of every text that is shown."""
CUT_OFF = """[...document.querySelectorAll("svg")].flatMap(drawing => {
    const frame = drawing.getBoundingClientRect();
    if (!frame.width) return [];
    return [...drawing.querySelectorAll("text, rect, line, polygon, polyline")].filter(one => {
        const box = one.getBoundingClientRect();
        return box.left < frame.left - 1 || box.right > frame.right + 1
            || box.top < frame.top - 1 || box.bottom > frame.bottom + 1;
    }).map(one => one.textContent || one.outerHTML);
})"""
OVERLAPPING = """[...document.querySelectorAll("svg")].flatMap(drawing => {
    const boxes = [...drawing.querySelectorAll("text")].map(
        text => [text.textContent, text.getBoundingClientRect()]);
    return boxes.flatMap(([one, a], index) => boxes.slice(index + 1).filter(([_, b]) =>
        Math.min(a.right, b.right) - Math.max(a.left, b.left) > 1
        && Math.min(a.bottom, b.bottom) - Math.max(a.top, b.top) > 5
    ).map(([other, _]) => `${one} / ${other}`));
})"""


@pytest.fixture(scope="module")
def judged():
    return runs.judge([recorded_evidence(line) for line in LINES])


@pytest.fixture(scope="module")
def page(judged, tmp_path_factory):
    path = tmp_path_factory.mktemp("page") / "report.html"
    path.write_text(html.page(judged))
    return path


@pytest.fixture(scope="module")
def java(tmp_path_factory):
    """Copies inside the user buffer, and long names."""
    path = tmp_path_factory.mktemp("page") / "java.html"
    judged = runs.judge([recorded_evidence(line) for line in JAVA])
    path.write_text(html.page(judged))
    return path


def test_it_loads_nothing_and_complains_of_nothing(chromium, page):
    chromium.open(page)
    names = [event["method"] for event in chromium.events]
    asked = [
        event["params"]["request"]["url"]
        for event in chromium.events
        if event["method"] == "Network.requestWillBeSent"
    ]
    assert [url for url in asked if not url.startswith("data:")] == [page.as_uri()]
    assert not {"Log.entryAdded", "Runtime.consoleAPICalled", "Runtime.exceptionThrown"} & {
        *names
    }
    assert chromium.evaluate("document.compatMode") == "CSS1Compat"


def test_a_complaint_would_be_seen(chromium, tmp_path):
    path = tmp_path / "bad.html"
    path.write_text("<!doctype html><img src='missing.png'><script>throw Error('x')</script>")
    chromium.open(path)
    names = {event["method"] for event in chromium.events}
    assert {"Log.entryAdded", "Runtime.exceptionThrown"} <= names


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


@pytest.mark.parametrize("width", WIDTHS)
def test_copies_in_user_memory_fit_any_screen(chromium, java, width):
    chromium.open(java, width=width)
    assert chromium.evaluate(CUT_OFF) == []
    assert chromium.evaluate(OVERLAPPING) == []


@pytest.mark.parametrize("width", WIDTHS)
def test_it_fits_any_screen(chromium, page, width):
    chromium.open(page, width=width)
    wide, inner = chromium.evaluate("[document.documentElement.scrollWidth, innerWidth]")
    assert inner == width
    assert wide <= inner
    assert chromium.evaluate(CUT_OFF) == []
    assert chromium.evaluate(OVERLAPPING) == []


def test_text_in_the_way_would_be_seen(chromium, page):
    chromium.open(page)
    move = """(text, where) => text.setAttribute("transform", `translate(${where})`)"""
    chromium.evaluate(
        f"""(() => {{const [one, other] = document.querySelectorAll("#compared .wide text");
            ({move})(one, "-400 0");
            other.setAttribute("x", 0); ({move})(other, "-400 0");
            other.setAttribute("y", one.getAttribute("y")); one.setAttribute("x", 0)}})()"""
    )
    assert len(chromium.evaluate(CUT_OFF)) == 2
    assert len(chromium.evaluate(OVERLAPPING)) == 1


@pytest.mark.parametrize("width", [360, 768, 1000, 1280])
def test_text_in_drawings_can_be_read(chromium, page, width):
    chromium.open(page, width=width)
    sizes = chromium.evaluate(
        """[...document.querySelectorAll("svg text")].filter(
            text => text.getClientRects().length).map(
            text => text.getScreenCTM().a * parseFloat(getComputedStyle(text).fontSize))"""
    )
    assert len(sizes) > 100
    assert min(sizes) >= 12


@pytest.mark.parametrize(("scheme", "dark"), [("light", False), ("dark", True)])
def test_dark_is_dark_and_can_be_read(chromium, page, scheme, dark):
    chromium.open(page, scheme=scheme)
    seen = chromium.evaluate(CONTRAST)
    assert (seen["page"] < 0.05) is dark
    assert (seen["page"] > 0.9) is not dark
    assert any(one["drawn"] for one in seen["found"])
    assert [one for one in seen["found"] if one["ratio"] < 4.5] == []


def test_everything_has_a_name_for_those_who_hear_it(chromium, page):
    chromium.open(page)
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
    tables = "[...document.querySelectorAll('table')].filter(t => !t.closest('details')).length"
    assert len(names["table"]) >= chromium.evaluate(tables) > 5
    assert all(names["region"])
    assert len(names["heading"]) > 10


def test_it_prints_with_everything_open(chromium, page):
    chromium.open(page, scheme="dark")
    data = chromium.pdf()
    assert data.startswith(b"%PDF-")
    chromium.call("Emulation.setEmulatedMedia", media="print")
    assert chromium.evaluate(CONTRAST)["page"] > 0.9
    paper = "[document.documentElement.scrollWidth, innerWidth]"
    chromium.call(
        "Emulation.setDeviceMetricsOverride",
        width=703,  # A4 without its margins
        height=1000,
        deviceScaleFactor=1,
        mobile=False,
    )
    wide, inner = chromium.evaluate(paper)
    assert wide <= inner == 703
    hidden = """[...document.querySelectorAll("details td")].filter(
        cell => !cell.checkVisibility({contentVisibilityAuto: true})
            || !cell.getClientRects().length).length"""
    total = chromium.evaluate("document.querySelectorAll('details td').length")
    assert total > 100
    assert chromium.evaluate(hidden) == 0
    chromium.call("Emulation.setEmulatedMedia", media="screen")
    assert chromium.evaluate(hidden) == total


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
    assert chromium.evaluate(OVERLAPPING) == []
