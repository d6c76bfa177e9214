"""What stands on the page, without a browser."""

import csv
import dataclasses
import functools
import io
import re
import subprocess
import sys
import textwrap
import xml.etree.ElementTree as ET
from html.parser import HTMLParser

import pytest
from typer.testing import CliRunner

from tests.conftest import recorded_evidence
from tests.unit.altering import altered, at_return, broken, count, only, run_of
from zctrace import cli
from zctrace.analysis import frames, runs
from zctrace.errors import ControlError, OutputError
from zctrace.evidence.schema import Evidence
from zctrace.evidence.sites import Blind
from zctrace.probes.model import Kind, Path, Quantity
from zctrace.reports import machine_readable, wording
from zctrace.reports.data_path import Arrow, way
from zctrace.reports.html import page as html
from zctrace.reports.html import path_drawing, tables
from zctrace.workloads.route import By, Place

RECORDED = ("5.10", "6.1", "7.3", "6.1-e1000", "7.3-e1000")
SHOWN = {
    "kernel", "cpu_copies", "claimed_cpu_copies", "verdict_copies", "mode_switches",
    "claimed_switches", "verdict_switches", "dma_copies", "claimed_dma_copies", "verdict_dma",
    "k2u_bytes", "u2k_bytes", "k2k_bytes", "u2u_bytes", "cpu_copied_bytes",
    "metadata_bytes", "other_user_bytes", "dma_in_bytes", "dma_out_bytes", "syscalls",
    "page_faults",
    "page_faults_kernel", "context_switches_voluntary", "context_switches_involuntary",
    "interrupts",
}  # fmt: skip
HOSTILE = "<script>alert(1)</script>\"'&\x07$x^2$"
_VOID = {"meta", "link", "br", "hr", "img", "input"}


class Page(HTMLParser):
    """Cells with a place in the CSV, tables, ids, references, and whether tags match."""

    def __init__(self, text):
        super().__init__()
        self.cells, self.ids, self.refers, self.tags = [], [], [], []
        self.tables, self.open, self.cell = [], [], None
        self.feed(text)
        assert self.open == []

    def handle_starttag(self, tag, attributes):
        values = dict(attributes)
        self.tags.append((tag, values))
        if "id" in values:
            self.ids.append(values["id"])
        self.refers += [values[name] for name in ("href", "src", "action") if name in values]
        for name in ("aria-labelledby", "aria-describedby"):
            self.refers += [f"#{one}" for one in values.get(name, "").split()]
        if tag == "table":
            self.tables.append({"caption": 0, "th": 0, "scoped": 0, "td": 0})
        elif tag in ("caption", "th", "td"):
            self.tables[-1][tag] += 1
            self.tables[-1]["scoped"] += tag == "th" and "scope" in values
        if tag == "td":
            self.cell = None
        if tag == "td" and "data-row" in values:
            self.cell = [int(values["data-row"]), values["data-column"], None, ""]
            self.cells.append(self.cell)
        elif tag == "data" and self.cell:
            self.cell[2] = values["value"]
        if tag not in _VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attributes):
        self.handle_starttag(tag, attributes)
        if tag not in _VOID:
            self.handle_endtag(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if "td" in self.open and self.cell:
            self.cell[3] += data


def judged_of(*lines):
    return runs.judge([recorded_evidence(line) for line in lines])


def test_a_claim_that_the_setting_cannot_test_has_neither_headline_nor_mark():
    from zctrace.reports.html import page

    for line, tested in (("6.1", False), ("6.1-e1000", True)):
        judged = [j for j in judged_of(line) if j.run.strategy == "sendfile"]
        assert judged[0].figures["claimed_dma_copies"] == 2
        assert any("DMA" in answer for answer in page._answers(judged)) is tested
        bar = page._bar(judged[0], "", "dma_copies")
        assert (bar.copies, bar.claimed) == ((2, 2) if tested else (None, None))
        assert ("not measured" in bar.shown) is not tested


def page_of(judged):
    return html.page(judged)


@pytest.fixture(scope="module")
def everything():
    """All that was recorded, on one page."""
    judged = judged_of(*RECORDED)
    return judged, page_of(judged)


@pytest.fixture(scope="module")
def parsed(everything):
    """The same page, taken apart."""
    return Page(everything[1])


@functools.cache
def page_of_recorded(line):
    """Drawn once for the tests that look at the page of one kernel."""
    return html.page(judged_of(line))


@functools.cache
def page_of_broken(line):
    judged = runs.judge([broken(recorded_evidence(line))])
    return judged, page_of(judged)


def compare(judged, page):
    """Every cell against the CSV; returns which columns were there, by row."""
    rows = list(csv.DictReader(io.StringIO(machine_readable.summary_csv(judged))))
    seen = {index: set() for index in range(len(rows))}
    for row, column, value, shown in page.cells:
        expected = rows[row][column]
        seen[row].add(column)
        if expected == "":
            assert value is None, (row, column)
            assert not re.search(r"\d", shown), (row, column, shown)
            if not column.startswith("claimed_"):
                assert wording.UNMEASURED in shown, (row, column)
        elif column.startswith("verdict_"):
            assert shown == expected
        elif column == "kernel":
            assert value == expected
            assert expected.startswith(shown)
        else:
            assert float(value) == float(expected), (row, column)
            assert re.search(r"[\d.]+", shown)[0] == wording.copies(float(expected)), column
    return seen


def test_the_numbers_are_those_of_the_csv(everything, parsed):
    judged, _ = everything
    seen = compare(judged, parsed)
    assert len(seen) == len(judged)
    assert all(columns == SHOWN for columns in seen.values())


@pytest.mark.parametrize("line", ["6.1", "7.3-e1000"])
def test_what_failed_its_controls_is_no_number(line):
    judged, text = page_of_broken(line)
    compare(judged, Page(text))
    assert {j.figures["cpu_copies"] for j in judged} == {None}
    assert text.index(wording.alarm(judged)[0]) < text.index('id="claims"')
    for j in judged:
        arrows = [arrow for arrow in way(j).arrows if arrow.by is not By.DMA]
        assert arrows
        assert {arrow.bytes for arrow in arrows} == {None}
        assert {arrow.label for arrow in arrows} == {("?", "not measured")}


def test_nothing_is_said_of_controls_that_passed(everything):
    assert "SELF-TEST FAILED" not in everything[1]


def test_why_something_was_not_available(everything):
    judged, text = everything
    missing = [j for j in judged if j.run.unavailable]
    assert missing
    for j in missing:
        assert way(j) is None
        assert f"Not available on Linux {wording.release(j)}: " in text


def test_every_verdict_has_its_evidence(everything):
    judged, text = everything
    for j in judged:
        for verdict in (j.copies, j.switches, j.dma):
            if not j.run.unavailable:
                assert verdict.sentence in text


def test_the_answer_adds_up():
    text = page_of_recorded("6.1-e1000")
    assert "Claims about CPU copies: 4 of 6 hold, 2 are refuted." in text
    assert "Claims about mode switches: 4 of 6 hold, 2 are refuted." in text
    assert "Claims about DMA copies: 6 of 6 hold." in text


def test_what_could_not_be_measured_is_no_claim_that_holds():
    _, text = page_of_broken("6.1-e1000")
    assert "Claims about CPU copies: 0 of 6 hold, 6 could not be measured." in text


def test_what_nobody_claims_is_not_among_the_claims():
    assert len({run.strategy for run in recorded_evidence("6.1").runs}) == 8
    _, text = page_of_broken("6.1")
    assert "Claims about CPU copies: 0 of 4 hold, 4 could not be measured." in text
    assert "Claims about mode switches: 3 of 4 hold, 1 is refuted." in text


def test_hostile_words_stay_words():
    evidence = recorded_evidence("7.3")
    disks = {
        name: dataclasses.replace(disk, driver=HOSTILE, device=HOSTILE)
        for name, disk in evidence.disks.items()
    }
    nics = {
        name: dataclasses.replace(nic, driver=HOSTILE, device=HOSTILE)
        for name, nic in evidence.nics.items()
    }
    evidence = altered(evidence, "splice", unavailable=HOSTILE)
    evidence = dataclasses.replace(
        evidence,
        disks=disks,
        nics=nics,
        kernel={**evidence.kernel, "version": HOSTILE, "release": f"7.3{HOSTILE}"},
        machine={**evidence.machine, "cpu": HOSTILE, "kind": HOSTILE},
        tool={HOSTILE: HOSTILE},
        request=dataclasses.replace(evidence.request, user=HOSTILE, file=HOSTILE),
        blind=(
            Blind(Quantity.BOUNCE, (HOSTILE,), HOSTILE, frozenset({Path.TCP}), Kind.EVENT),
        ),
    )  # fmt: skip
    text = page_of(runs.judge([evidence]))
    page = Page(text)
    assert "&lt;script&gt;alert(1)" in text
    assert [tag for tag, _ in page.tags].count("script") == 1
    assert not [v for _, values in page.tags for v in values if v.startswith("on")]


def test_the_page_needs_nothing_else(everything, parsed):
    assert not {"img", "iframe", "object", "embed", "video"} & {tag for tag, _ in parsed.tags}
    outside = [to for to in parsed.refers if not to.startswith("#") and to != "data:,"]
    assert outside == []
    assert "://" not in everything[1]
    assert "@import" not in everything[1]
    assert not re.search(r"url\((?!#)", everything[1])


def test_ids_are_unique_and_references_lead_somewhere(everything, parsed):
    assert len(parsed.ids) == len(set(parsed.ids))
    inside = {to[1:] for to in parsed.refers if to.startswith("#")}
    inside |= set(re.findall(r"url\(#([^)]+)\)", everything[1]))
    assert inside <= set(parsed.ids)


def test_every_table_has_a_caption_and_scopes(parsed):
    found = parsed.tables
    assert len(found) > 10
    for table in found:
        assert table["caption"] == 1
        assert table["th"] == table["scoped"] > 0


def test_every_drawing_is_told_in_words(everything):
    drawings = re.findall(r"<svg.*?</svg>", everything[1], re.DOTALL)
    assert len(drawings) > 20
    for one in drawings:
        root = ET.fromstring(one)
        told = {child.get("id"): child.text for child in root if child.tag in ("title", "desc")}
        assert root.get("role") == "img"
        named = root.get("aria-labelledby").split()
        assert all(told[name] for name in named)
        assert re.search(r"\d", told[named[1]])


def test_the_same_results_make_the_same_page(everything):
    judged, text = everything
    assert page_of(judged) == text


def test_kernels_that_agree_share_a_drawing():
    judged = judged_of("6.1-e1000", "7.3-e1000")
    assert len(re.findall("<figcaption>", page_of(judged))) == 6 + 1
    six, seven = (recorded_evidence(line).kernel["release"] for line in ("6.1", "7.3"))
    assert f"read-write on Linux {six} and {seven}" in page_of(judged)


def test_kernels_that_differ_have_one_each():
    first, second = recorded_evidence("6.1"), recorded_evidence("7.3")
    run = run_of(first, "sendfile")
    extra = (
        count(run.role, "copy_page_to_iter", 7, direction="k2k", syscall="sendfile"),
        at_return(run.role, "_copy_to_iter", 7, syscall="sendfile"),
    )
    first = altered(first, "sendfile", counts=(*run.counts, *extra))
    judged = [only(first, "sendfile"), only(second, "sendfile")]
    assert judged[0].figures["k2k_bytes"] == 7
    ways = [way(j) for j in judged]
    assert ways[0] != ways[1]
    assert len(re.findall("<figcaption>", page_of(judged))) == 2 + 1
    # A part was copied, and the rest was not: both are drawn.
    arrows = {(a.by, a.bytes) for a in ways[0].arrows if a.start is Place.CACHE}
    assert arrows == {(By.CPU, 7), (By.REFERENCE, 0)}


@pytest.mark.parametrize("line", RECORDED)
def test_arrows_add_up_to_the_figures(line):
    for j in judged_of(line):
        drawn = way(j)
        if drawn is None:
            continue
        by_cpu = sum(a.bytes for a in drawn.arrows if a.by is By.CPU)
        assert by_cpu == j.figures["cpu_copied_bytes"]
        moved = {a.bytes for a in drawn.arrows if a.by is By.DMA}
        assert moved <= {j.figures["dma_in_bytes"], j.figures["dma_out_bytes"]}
        assert all(a.bytes == 0 for a in drawn.arrows if a.by is By.REFERENCE)
        assert {p for a in drawn.arrows for p in (a.start, a.end)} <= set(drawn.places)


def arrows_of(line, strategy, nic=None):
    (j, *_) = [
        j for j in judged_of(line) if j.run.strategy == strategy and nic in (None, j.run.nic)
    ]
    return {(a.start, a.end): (a.by, a.bytes) for a in way(j).arrows}


MIB = 1 << 20
DISK, CACHE, USER, SOCKET, NIC = (
    Place.DISK, Place.CACHE, Place.USER, Place.SOCKET, Place.NIC,
)  # fmt: skip
DEVICES = {(DISK, CACHE): (By.DMA, MIB), (SOCKET, NIC): (By.DMA, MIB)}
WARM = {(DISK, CACHE): (By.DMA, 0)}


@pytest.mark.parametrize(
    ("line", "strategy", "nic", "expected"),
    [
        (
            "6.1-e1000", "read-write", "e1000",
            {**DEVICES, (CACHE, USER): (By.CPU, MIB), (USER, SOCKET): (By.CPU, MIB)},
        ),
        (
            # Copied once more where packets are put together, not out of the page cache.
            "6.1-e1000", "read-write", "e1000-nosg",
            {
                **DEVICES, (CACHE, USER): (By.CPU, MIB), (USER, SOCKET): (By.CPU, MIB),
                (SOCKET, SOCKET): (By.CPU, MIB),
            },
        ),
        ("6.1-e1000", "sendfile", "e1000", {**DEVICES, (CACHE, SOCKET): (By.REFERENCE, 0)}),
        ("6.1-e1000", "sendfile", "e1000-nosg", {**DEVICES, (CACHE, SOCKET): (By.CPU, MIB)}),
        (
            "7.3", "mmap-write", "lo",
            {**WARM, (CACHE, USER): (By.REFERENCE, 0), (USER, SOCKET): (By.CPU, MIB)},
        ),
        (
            "7.3", "msg-zerocopy", "lo",
            {**WARM, (CACHE, USER): (By.REFERENCE, 0), (USER, SOCKET): (By.CPU, MIB)},
        ),
        (
            "7.3", "io-uring-zc", "lo",
            {**WARM, (CACHE, USER): (By.CPU, MIB), (USER, SOCKET): (By.CPU, MIB)},
        ),
        ("7.3", "copy-file-range", "lo", {**WARM, (CACHE, Place.TARGET): (By.CPU, MIB)}),
        ("7.3", "tcp-zerocopy-receive", "lo", {(SOCKET, USER): (By.REFERENCE, 0)}),
    ],
)  # fmt: skip
def test_the_way_of_what_was_measured(line, strategy, nic, expected):
    assert arrows_of(line, strategy, nic) == expected


def test_no_device_is_no_arrow():
    j = only(recorded_evidence("7.3"), "sendfile")
    assert way(j).absent == {Place.NIC}
    assert "NIC: no device, no DMA" in way(j).sentence


def test_dma_that_nobody_watched_is_not_zero():
    evidence = recorded_evidence("7.3-e1000")
    events = tuple(e for e in evidence.events if e not in ("disk-request", "transmit-payload"))
    judged = runs.judge([dataclasses.replace(evidence, events=events)])
    compare(judged, Page(page_of(judged)))
    for j in judged:
        arrows = [a for a in way(j).arrows if a.by is By.DMA]
        assert [a.label for a in arrows] == [("?", "not measured")] * 2


def test_widths_are_in_proportion():
    def width(size):
        return path_drawing.width_of(Arrow(CACHE, USER, By.CPU, size, MIB))

    assert width(2 * MIB) == 2 * width(MIB) == 4 * width(MIB // 2)
    assert width(3 * MIB) == width(30 * MIB)
    assert width(0) == width(None) == width(1) < width(MIB // 4)


def test_the_evidence_table_shows_who_copied():
    judged = [only(recorded_evidence("7.3"), "read-write")]
    (table,) = tables.evidence(judged)
    shown = [[role, *(cell.text for cell in cells)] for role, cells in table.groups[0].rows]
    frame = frames.tidy([dataclasses.replace(judged[0].evidence, runs=(judged[0].run,))])
    kept = frame[
        (frame["bytes"] > 0) & ~frame["role"].str.contains("control_|neighbour", regex=True)
    ]
    assert len(shown) == len(kept) > 4
    assert sum(int(row[-1]) for row in shown) == kept["bytes"].sum()
    assert {row[0] for row in shown} == set(kept["role"]) >= {"sender", "sink"}


def test_repetitions_and_sizes_are_told_apart():
    evidence = recorded_evidence("7.3")
    run = run_of(evidence, "sendfile")
    again = dataclasses.replace(run, run_index=1)
    judged = runs.judge([dataclasses.replace(evidence, runs=(run, again))])
    text = page_of(judged)
    compare(judged, Page(text))
    assert "sendfile #0, sendfile #1 on Linux" in text


@pytest.fixture
def saved(tmp_path):
    """A result as ``run --json`` writes it, and what it says."""
    judged = judged_of("6.1-e1000")
    path = tmp_path / "result.json"
    path.write_text(machine_readable.result_json(judged))
    return path, judged


def report(*arguments):
    return CliRunner().invoke(cli.app, ["report", *map(str, arguments)])


def test_saved_results_as_a_page(saved, tmp_path):
    path, judged = saved
    out = tmp_path / "report.html"
    result = report(path, "--html", out)
    assert result.exit_code == 0
    assert "refuted" in result.stdout
    compare(judged, Page(out.read_text()))
    assert out.read_text() == page_of_recorded("6.1-e1000")


def test_a_report_without_a_page_imports_nothing_of_drawing(saved):
    script = """
        import sys
        from zctrace import cli
        sys.argv = ["zctrace", "report", sys.argv[1]]
        assert cli._status() == 0
        print({name for name in sys.modules if "reports.html" in name or name == "jinja2"})
    """
    path, _ = saved
    command = [sys.executable, "-c", textwrap.dedent(script), str(path)]
    result = subprocess.run(command, capture_output=True, text=True, check=True)
    assert "refuted" in result.stdout
    assert result.stdout.splitlines()[-1] == "set()"


def test_a_page_is_not_overwritten(saved, tmp_path):
    path, _ = saved
    out = tmp_path / "report.html"
    out.write_text("mine")
    result = report(path, "--html", out)
    assert isinstance(result.exception, OutputError)
    assert result.stdout == ""
    assert out.read_text() == "mine"
    assert report(path, "--html", out, "--force").exit_code == 0
    assert out.read_text().startswith("<!doctype html>")


def test_a_page_on_standard_output_is_alone_there(saved):
    path, _ = saved
    result = report(path, "--html", "-")
    assert result.exit_code == 0
    assert result.stdout == page_of_recorded("6.1-e1000")


def test_a_page_of_failed_controls_is_written_and_complained_of(tmp_path):
    judged = runs.judge([broken(recorded_evidence("6.1-e1000"))])
    path, out = tmp_path / "result.json", tmp_path / "report.html"
    path.write_text(machine_readable.result_json(judged))
    result = report(path, "--html", out)
    assert isinstance(result.exception, ControlError)
    assert "SELF-TEST FAILED" in out.read_text()


def test_evidence_is_read_back_the_same(everything):
    judged, text = everything
    again = runs.judge([Evidence.from_json(e.to_json()) for e in wording.evidences_of(judged)])
    assert page_of(again) == text


@pytest.mark.parametrize(
    ("size", "label"),
    [
        (3 * (1 << 30) + 4096, "> 3 copies"),
        (300_000, "> 0 copies"),
        ((1 << 30) - 1, "< 1 copies"),
    ],
)
def test_a_label_is_short_and_never_rounded_to_a_whole_number(size, label):
    arrow = Arrow(Place.CACHE, Place.USER, By.CPU, size, 1 << 30)
    assert arrow.label == (label, f"{size} B")
