"""The documents as a site, opened as files: it needs no network, and its search finds."""

import importlib.util
import json
import time

import pytest

from tests.conftest import or_skip
from tests.unit.test_documents import ASKED, build_site

_SECONDS = 30
_ASK = """(asked => {
    const box = document.querySelector("[data-md-component=search-query]");
    const open = document.querySelector("#__search");
    if (!open.checked) open.click();
    box.focus();
    box.value = asked;
    box.dispatchEvent(new Event("keyup", {bubbles: true}));
})"""
_FOUND = """[...document.querySelectorAll(".md-search-result__link")].map(
    link => [new URL(link.href).pathname.split("/site/").pop(), link.innerText])"""


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    if not importlib.util.find_spec("mkdocs"):
        or_skip("mkdocs is not installed: make docs")
    folder = tmp_path_factory.mktemp("documents") / "site"
    assert build_site(folder) == (0, "")
    return folder


@pytest.mark.parametrize("asked", ASKED)
def test_search_finds_the_answer(chromium, site, asked):
    """Among the first three pages is the one with questions and answers."""
    chromium.open(site / "guides" / "run.html")
    until = time.monotonic() + _SECONDS
    while not (found := chromium.evaluate(_FOUND)) and time.monotonic() < until:
        # What is asked before the index has been read is lost.
        chromium.evaluate(f"{_ASK}({json.dumps(asked)})")
        time.sleep(0.5)
    pages = list(dict.fromkeys(page for page, _ in found))
    assert "questions.html" in pages[:3]


def test_the_site_loads_nothing_from_the_network(chromium, site):
    chromium.open(site / "index.html")
    asked_for = [
        event["params"]["request"]["url"]
        for event in chromium.events
        if event["method"] == "Network.requestWillBeSent"
    ]
    assert any(url.endswith("iframe-worker.js") for url in asked_for)
    assert [url for url in asked_for if not url.startswith(("file:", "data:"))] == []
