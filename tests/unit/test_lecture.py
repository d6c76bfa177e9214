"""The lecture is written from what was measured, and only where its sentences are right."""

import csv
import dataclasses
import re
import xml.etree.ElementTree as ET

import pytest

from tests.conftest import recorded_evidence
from tests.lecture.__main__ import FOLDER, PAGES, files
from zctrace.analysis import runs

CARDS = ("e1000", "e1000-nosg")


def altered(judged, strategy="", **figures):
    strategy = strategy or judged.run.strategy
    return dataclasses.replace(
        judged,
        run=dataclasses.replace(judged.run, strategy=strategy),
        figures={**judged.figures, "strategy": strategy, **figures},
    )


@pytest.fixture(scope="module")
def judged():
    """A recording, with mmap-write made of read-write."""
    found = [*runs.judge([recorded_evidence("6.1-e1000")])]
    one = {j.run.nic: j for j in found if j.run.strategy == "read-write"}
    for copies, card in enumerate(CARDS, 1):
        found.append(altered(one[card], "mmap-write", cpu_copies=copies, claimed_cpu_copies=1))
    return found


def test_it_has_the_figures_that_were_measured(judged):
    made = files(judged)
    assert set(made) == {path.name for path in FOLDER.iterdir()}
    release = judged[0].figures["kernel"]
    for page in PAGES:
        rows = re.findall(rf"^\| {re.escape(release)} \|.*", made[page], re.M)
        assert [row.split(" | ")[1][0] for row in rows] == ["2", "1", "1", "0", "0"]
        assert rows[-1].endswith("| 64 (2) ✗ |")
        assert "{" not in made[page]


@pytest.mark.parametrize("figure", ["cpu_copies", "dma_copies", "mode_switches"])
@pytest.mark.parametrize("strategy", ["read-write", "mmap-write", "sendfile", "splice"])
def test_no_sentence_is_written_for_other_figures(judged, strategy, figure):
    other = [
        altered(j, **{figure: 7}) if j.run.strategy == strategy else j for j in judged
    ]  # fmt: skip
    with pytest.raises(ValueError, match=f"{strategy} over .*: {figure} is 7"):
        files(other)


def test_a_row_that_was_not_measured_is_missed(judged):
    some = [j for j in judged if j.run.strategy != "splice"]
    with pytest.raises(ValueError, match="no run of splice"):
        files(some)


def test_what_stands_in_the_documents_is_what_the_csv_has():
    rows = list(csv.DictReader((FOLDER / "figures.csv").open(newline="")))
    assert len({row["kernel"] for row in rows}) == 4
    figures = {
        (row["strategy"], row["nic"], row["kernel"]): tuple(
            float(row[name]) for name in ("cpu_copies", "dma_copies", "mode_switches")
        )
        for row in rows
    }
    for page in PAGES:
        text, seen = (FOLDER / page).read_text(), 0
        for part in re.split(r"^## ", text, flags=re.M)[1:6]:
            strategy, nic = re.search(r"\]\(([a-z-]+?)-(e1000[^)]*)\.svg\)", part).groups()
            for line in re.findall(r"^\| (\d.*) \|$", part, re.M):
                release, *cells = line.split(" | ")
                shown = tuple(float(cell.split()[0]) for cell in cells)
                assert shown == figures[strategy, nic, release]
                seen += 1
        assert seen == 20


def test_both_languages_have_the_same_figures():
    tables = [re.findall(r"^\| [\d`].*", (FOLDER / page).read_text(), re.M) for page in PAGES]
    assert tables[0] == tables[1]
    assert len(tables[0]) == 20 + 16


def test_its_drawings_are_drawings():
    drawn = sorted(FOLDER.glob("*.svg"))
    assert len(drawn) == 5
    for path in drawn:
        assert ET.fromstring(path.read_text()).get("viewBox")
