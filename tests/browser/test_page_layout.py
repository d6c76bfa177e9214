"""Every page, as it is shown: nothing cut, nothing covered, at any width, in dark, on paper."""

import shutil
import subprocess
import time
import xml.etree.ElementTree as ET
from importlib import resources

import pytest

from tests.browser import boxes
from tests.browser.pages import PAGES
from tests.conftest import or_skip

WIDTHS = (320, 390, 768, 1000, 1300, 1400)
SVG = "{http://www.w3.org/2000/svg}"
_AXE = """axe.run(document, {resultTypes: ["violations"]}).then(found => found.violations.map(
    one => `${one.impact}: ${one.id}: ${one.nodes.map(node => node.html.slice(0, 99))}`))"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("pages")


@pytest.fixture(params=PAGES)
def page(request, folder):
    """The page as a file, made once for all tests."""
    path = folder / f"{request.param}.html"
    if not path.exists():
        path.write_text(PAGES[request.param]())
    return path


def has_strategies(path):
    return '<details class="strategy"' in path.read_text()


@pytest.mark.parametrize("width", WIDTHS)
def test_it_fits_any_screen(chromium, page, width):
    chromium.open(page, width=width)
    chromium.evaluate(boxes.UNFOLD)
    wide, inner = chromium.evaluate("[document.documentElement.scrollWidth, innerWidth]")
    assert inner == width
    assert wide <= inner
    assert chromium.evaluate(boxes.CUT_OFF) == []
    assert chromium.evaluate(boxes.OVERLAPPING) == []
    assert chromium.evaluate(boxes.CROSSED) == []
    # Infinity of no drawing is not one of JSON's values.
    assert (chromium.evaluate(boxes.SMALLEST) or 12) >= 12


def test_what_is_in_the_way_would_be_seen(chromium, folder):
    path = folder / "bad.html"
    path.write_text(
        """<!doctype html><body style="margin: 0"><p style="width: 9000px">cut off, far away
        <b style="position: absolute; left: 8000px">here</b></p>
        <div style="position: relative"><i>covered</i><b style="position: absolute; left: 0">
        covering</b></div><svg viewBox="0 0 100 100" width="100">
        <text x="10" y="50" font-size="9">crossed</text>
        <line x1="20" x2="20" y1="0" y2="99" stroke="red"/></svg>"""
    )
    chromium.open(path, width=1000)
    assert chromium.evaluate(boxes.CUT_OFF) == ["here"]
    assert chromium.evaluate(boxes.OVERLAPPING) == ["covered / covering"]
    assert chromium.evaluate(boxes.CROSSED) == ["crossed"]
    assert chromium.evaluate(boxes.SMALLEST) == 9


def test_it_loads_nothing_and_complains_of_nothing(chromium, page):
    chromium.open(page)
    names = {event["method"] for event in chromium.events}
    asked = [
        event["params"]["request"]["url"]
        for event in chromium.events
        if event["method"] == "Network.requestWillBeSent"
    ]
    assert [url for url in asked if not url.startswith("data:")] == [page.as_uri()]
    assert not {"Log.entryAdded", "Runtime.consoleAPICalled", "Runtime.exceptionThrown"} & names
    assert chromium.evaluate("document.compatMode") == "CSS1Compat"


def test_a_complaint_would_be_seen(chromium, folder):
    path = folder / "complaint.html"
    path.write_text("<!doctype html><img src='missing.png'><script>throw Error('x')</script>")
    chromium.open(path)
    names = {event["method"] for event in chromium.events}
    assert {"Log.entryAdded", "Runtime.exceptionThrown"} <= names


def test_the_browser_would_stop_what_the_page_must_not_do(chromium, page, folder):
    """Another script and a picture from elsewhere, put into the page."""
    path = folder / "attacked.html"
    bad = "<script>document.title = 'run'</script><img src='https://127.0.0.1:9/x.png'></body>"
    path.write_text(page.read_text().replace("</body>", bad))
    chromium.open(path)
    assert chromium.evaluate("document.title") != "run"
    params = {event["method"]: event["params"] for event in chromium.events}
    assert params["Network.requestWillBeSent"]["request"]["url"] == "https://127.0.0.1:9/x.png"
    assert params["Network.loadingFailed"]["blockedReason"] == "csp"


@pytest.mark.parametrize(("scheme", "dark"), [("light", False), ("dark", True)])
def test_dark_is_dark_and_can_be_read(chromium, page, scheme, dark):
    chromium.open(page, scheme=scheme)
    chromium.evaluate(boxes.UNFOLD)
    seen = chromium.evaluate(boxes.CONTRAST)
    assert (seen["page"] < 0.05) is dark
    assert (seen["page"] > 0.9) is not dark
    assert [one for one in seen["found"] if one["ratio"] < 4.5] == []


@pytest.mark.parametrize("width", [390, 1400])
def test_axe_finds_nothing(chromium, page, width):
    chromium.open(page, width=width)
    chromium.evaluate(boxes.UNFOLD)
    axe = resources.files("axe_core_python") / "axe.min.js"
    chromium.evaluate(axe.read_text(encoding="utf-8") + "; 0")
    assert chromium.evaluate(_AXE, promise=True) == []


def test_axe_would_find_something(chromium, folder):
    path = folder / "unnamed.html"
    path.write_text(
        "<!doctype html><html><title>x</title><main><button></button></main></html>"
    )
    chromium.open(path)
    axe = resources.files("axe_core_python") / "axe.min.js"
    chromium.evaluate(axe.read_text(encoding="utf-8") + "; 0")
    found = chromium.evaluate(_AXE, promise=True)
    assert any("button-name" in one for one in found)


def test_each_drawing_is_saved_as_a_file(chromium, page, tmp_path):
    """As SVG that stands alone, and as PNG of 2000 pixels; both in the colours shown."""
    chromium.open(page, width=1400)
    chromium.evaluate(boxes.UNFOLD)
    names = chromium.evaluate("[...document.querySelectorAll('figure')].map(one => one.id)")
    assert all(names)
    assert len(names) == len(set(names))
    for name in names[:2]:
        for form in ("svg", "png"):
            click = f"document.querySelector('#{name} [data-form={form}]').click()"
            saved = chromium.download(click, tmp_path)
            assert saved.name == f"{name}.{form}"
            data = saved.read_bytes()
            if form == "png":
                assert data.startswith(b"\x89PNG")
                assert int.from_bytes(data[16:20]) == 2000
                continue
            root = ET.fromstring(data)
            assert b"var(" not in data
            assert root.find(f"{SVG}rect").get("fill") == "#ffffff"
            words = [text.text for text in root.iter(f"{SVG}text")]
            shown = chromium.evaluate(
                f"""[...[...document.querySelectorAll('#{name} svg')].find(
                    one => one.getClientRects().length).querySelectorAll('text')].map(
                    one => one.textContent)"""
            )
            assert words == shown


def test_a_link_unfolds_what_it_leads_to(chromium, page):
    if not has_strategies(page):
        pytest.skip("a page without strategies")
    chromium.open(page)
    fold = "document.querySelectorAll('details').forEach(one => { one.open = false; })"
    chromium.evaluate(fold)
    link = "document.querySelector('nav li.strategy a')"
    chromium.evaluate(f"{link}.click()")
    target = f"document.querySelector({link}.getAttribute('href'))"
    until = time.monotonic() + 10
    while not chromium.evaluate(f"{target}.checkVisibility()") and time.monotonic() < until:
        time.sleep(0.1)
    assert chromium.evaluate(f"{target}.closest('details').open")


def test_all_strategies_unfold_and_fold(chromium, page):
    if not has_strategies(page):
        pytest.skip("a page without strategies")
    chromium.open(page)
    count = "document.querySelectorAll('details.strategy[open]').length"
    every = chromium.evaluate("document.querySelectorAll('details.strategy').length")
    for which, many in (("open", every), ("", 0)):
        chromium.evaluate(f"document.querySelector('[data-fold=\"{which}\"]').click()")
        assert chromium.evaluate(count) == many


def test_it_prints_with_everything_open(chromium, page):
    chromium.open(page, scheme="dark")
    chromium.call("Emulation.setEmulatedMedia", media="print")
    assert chromium.evaluate(boxes.CONTRAST)["page"] > 0.9
    chromium.call(
        "Emulation.setDeviceMetricsOverride",
        width=703,  # A4 without its margins
        height=1000,
        deviceScaleFactor=1,
        mobile=False,
    )
    wide, inner = chromium.evaluate("[document.documentElement.scrollWidth, innerWidth]")
    assert wide <= inner == 703
    assert chromium.evaluate(boxes.CUT_OFF) == []
    assert chromium.evaluate(boxes.OVERLAPPING) == []
    hidden = """[...document.querySelectorAll("details td")].filter(
        cell => !cell.checkVisibility({contentVisibilityAuto: true})
            || !cell.getClientRects().length).length"""
    assert chromium.evaluate(hidden) == 0


def parted(chromium, path):
    """Headings with which a sheet of paper ends."""
    if not shutil.which("pdftotext"):
        or_skip("pdftotext is not installed: apt-get install poppler-utils")
    chromium.open(path)
    headings = chromium.evaluate(
        "[...document.querySelectorAll('h2, h3, h4')].map(one => one.textContent.trim())"
    )
    printed = path.with_suffix(".pdf")
    printed.write_bytes(chromium.pdf())
    text = subprocess.run(
        ["pdftotext", printed, "-"], capture_output=True, text=True, check=True
    )
    papers = [[line.strip() for line in paper.split("\n")] for paper in text.stdout.split("\f")]
    ends = [next(filter(None, reversed(paper)), "") for paper in papers]
    return [last for last in ends if last in headings]


def test_no_heading_is_parted_from_what_it_heads(chromium, page):
    assert parted(chromium, page) == []


def test_a_parted_heading_would_be_seen(chromium, folder):
    path = folder / "parted.html"
    path.write_text("<!doctype html><h2 style='break-after: page'>Alone</h2><p>Far away")
    assert parted(chromium, path) == ["Alone"]
