"""Pages of traces and comparisons, without a browser."""

import dataclasses
import html
import re
import xml.etree.ElementTree as ET
from pathlib import Path

import pytest
from typer.testing import CliRunner

from tests.conftest import recorded_evidence
from tests.unit.test_html import HOSTILE, Page
from zctrace import cli
from zctrace.analysis import runs, saved
from zctrace.analysis.comparison import pairing
from zctrace.commands.example import FOLDER, Example
from zctrace.errors import UsageError
from zctrace.evidence.account import Stack
from zctrace.reports import blocks, comparison, program
from zctrace.reports.html import flames as html_flames
from zctrace.reports.html import result_page

TRACES = [one for one in Example if one is not Example.TEXTBOOK]


def invoke(*arguments):
    return CliRunner().invoke(cli.app, [*map(str, arguments)])


def answers(name):
    return saved.read(FOLDER / f"{name}.json").programs


def result():
    return pairing.compare(
        *(saved.read(FOLDER / f"{name}.json") for name in ("web-server", "web-server-sendfile"))
    )


def cells(page):
    return re.findall(r"<(?:td|th role=\"rowheader\")[^>]*>(.*?)</t[dh]>", page, re.S)


def bare(text):
    return " ".join(html.unescape(re.sub(r"<[^>]*>", " ", text)).split())


@pytest.mark.parametrize("name", TRACES)
def test_the_page_of_a_trace_has_all_that_its_report_has(name):
    """Each paragraph, and each row of each table, also those that the terminal leaves out."""
    found = answers(name)
    page = result_page.of_programs(found)
    words, shown = bare(page), [bare(cell) for cell in cells(page)]
    rows = 0
    for block in program.of_answer(found[0]):
        match block:
            case blocks.Text(text=text):
                assert words.count(" ".join(text.split())) >= 1
            case blocks.Table():
                for row in block.rows:
                    rows += 1
                    at = shown.index(str(row.cells[0]))
                    assert shown[at : at + len(row.cells)] == [*map(str, row.cells)]
                    del shown[at : at + len(row.cells)]
    assert rows > 10
    assert shown == []


def test_the_page_of_a_comparison_has_all_that_differs():
    page = result_page.of_comparison(result())
    words = bare(page)
    for block in comparison.report(result()):
        if isinstance(block, blocks.Text):
            assert " ".join(block.text.split()) in words
        elif isinstance(block, blocks.Table):
            assert all(str(row.cells[0]) in words for row in block.rows)
    assert "134573798" in words


def test_runs_that_are_compared_have_a_page():
    sides = [
        saved.Saved(Path(line), tuple(runs.judge([recorded_evidence(line)])))
        for line in ("5.10", "7.3")
    ]
    page = result_page.of_comparison(pairing.compare(*sides))
    assert len(cells(page)) > 10


def test_what_a_program_is_called_is_not_taken_for_html():
    (found,) = answers("cp")
    lines = [dataclasses.replace(line, name=HOSTILE) for line in found.calls]
    found = dataclasses.replace(found, calls=lines, things=lines, doubts=(HOSTILE,))
    page = Page(result_page.of_programs([found]))
    assert [tag for tag, _ in page.tags].count("script") == 1
    assert not [v for _, values in page.tags for v in values if v.startswith("on")]


def test_failed_self_tests_come_first_and_nothing_is_drawn():
    (found,) = answers("cp")
    failed = [dataclasses.replace(found.checked[0], passed=False)]
    page = result_page.of_programs([dataclasses.replace(found, checked=failed, copied=None)])
    assert page.index("SELF-TEST FAILED") < page.index('class="answer"')
    assert "<svg" not in page


def test_ids_are_unique_where_several_traces_share_a_page():
    found = [*answers("cp"), *answers("web-server")]
    page = Page(result_page.of_programs(found))
    assert len(page.ids) == len(set(page.ids)) > 4


@pytest.mark.parametrize("name", Example)
def test_each_example_is_shown_as_a_page(name, tmp_path):
    out = tmp_path / "page.html"
    assert invoke("example", name, "--html", out).exit_code == 0
    assert out.read_text().startswith("<!doctype html>")


def test_a_comparison_is_written_as_a_page(tmp_path):
    out = tmp_path / "page.html"
    sides = FOLDER / "web-server.json", FOLDER / "web-server-sendfile.json"
    assert invoke("compare", *sides, "--html", out).exit_code == 0
    assert "What changed?" in out.read_text()


def test_runs_and_traces_do_not_share_a_page(tmp_path):
    both = FOLDER / "cp.json", FOLDER / "textbook.json"
    done = invoke("report", *both, "--html", tmp_path / "page.html")
    assert isinstance(done.exception, UsageError)
    assert "zctrace report twice" in done.exception.hint
    assert list(tmp_path.iterdir()) == []


def flames(stacks, *, narrow=False):
    drawn = ET.fromstring(html_flames.draw(stacks, "p", "a title", narrow=narrow))
    boxes = [
        (
            box.find("title").text,
            float(box.get("x")),
            float(box.get("y")),
            float(box.get("width")),
        )
        for box in drawn.iter("rect")
    ]
    return boxes, [text.text for text in drawn.iter("text")], drawn


def stack(size, user, kernel=("_copy_to_iter", "f"), name="cat"):
    return Stack(1, name, kernel[0], "read", None, kernel, user, 1, size)


def test_a_box_is_as_wide_as_what_was_copied_below_it():
    boxes, names, drawn = flames([stack(300, ("g", "main")), stack(100, ("h", "main"))])
    about = {words.partition(":")[0]: width for words, _, _, width in boxes if "main" in words}
    assert about["main"] == pytest.approx(999, abs=1)
    by_row = {(words.partition(":")[0], y): width for words, _, y, width in boxes}
    (wide,) = [w for (name, _), w in by_row.items() if name == "g"]
    (narrow,) = [w for (name, _), w in by_row.items() if name == "h"]
    assert wide + 1 == pytest.approx(3 * (narrow + 1), abs=0.1)
    assert "g: 300 B, 75.0 %" in [words for words, *_ in boxes]
    # From the outermost to the innermost, each below the one before.
    order = ["cat", "main", "g", "read(2)", "f", "_copy_to_iter"]
    tops = [next(y for words, _, y, _ in boxes if words.startswith(f"{n}:")) for n in order]
    assert tops == sorted(tops)
    assert names[: len(order)] == order
    assert "400 B; most, 300 B, on: cat, main, g" in drawn.find("desc").text


def test_what_is_too_narrow_has_no_name_or_no_box():
    stacks = [stack(10_000, ("main",)), stack(100, ("thin", "x")), stack(1, ("tiny", "x"))]
    boxes, names, _ = flames(stacks)
    assert any(words.startswith("thin:") for words, *_ in boxes)
    assert "thin" not in names
    assert not any(words.startswith("tiny:") for words, *_ in boxes)


@pytest.mark.parametrize("narrow", [True, False])
def test_names_fit_their_boxes(narrow):
    stacks = [stack(100 + n, (f"{n}_a_long_name" * 9, "main")) for n in range(3)]
    _, names, drawn = flames(stacks, narrow=narrow)
    _, _, width, _ = map(float, drawn.get("viewBox").split())
    assert max(map(len, names)) * 14 * 0.7 <= width
    assert any(name.endswith("…") for name in names)


def test_a_stack_without_end_has_an_end():
    boxes, *_ = flames([stack(100, tuple(f"f{n}" for n in range(500)))])
    assert len(boxes) == 48
