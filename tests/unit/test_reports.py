"""The reports' data, not their boxes."""

import csv
import dataclasses
import io
import json

import pytest
from rich.console import Console

from tracer import summary
from tracer.evidence import Evidence
from tracer.reports import files, terminal


def rendered(evidences, width=80, **options):
    text = io.StringIO()
    console = Console(file=text, width=width, **options)
    terminal.render(summary.judge(evidences), console, "0.0-host")
    return text.getvalue()


def broken(evidence):
    """The evidence with every run's probe on _copy_to_iter dead."""
    runs = tuple(
        dataclasses.replace(
            run, counts=tuple(c for c in run.counts if c.function != "_copy_to_iter")
        )
        for run in evidence.runs
    )
    return dataclasses.replace(evidence, runs=runs)


def test_csv_equals_the_figures(evidence):
    judged = summary.judge([evidence])
    rows = list(csv.DictReader(io.StringIO(files.summary_csv(judged))))
    assert len(rows) == len(judged)
    for row, j in zip(rows, judged, strict=True):
        assert list(row) == list(summary.COLUMNS)
        for column, value in j.figures.items():
            if value is None:
                assert row[column] == "", column
            elif isinstance(value, float):
                assert float(row[column]) == value
            else:
                assert row[column] == str(value), column


def test_csv_never_says_zero_for_unknown(evidence):
    rows = list(
        csv.DictReader(io.StringIO(files.summary_csv(summary.judge([broken(evidence)]))))
    )
    for row in rows:
        assert row["cpu_copies"] == ""
        assert row["cpu_copied_bytes"] == ""
        assert row["verdict_copies"] == "not measured"
        assert "_copy_to_iter" in row["coverage"]


def test_json_reads_back(evidence):
    result = json.loads(files.result_json(summary.judge([evidence])))
    assert [Evidence.from_json(e) for e in result["evidence"]] == [evidence]
    assert len(result["summary"]) == len(evidence.runs)
    assert all(c["passed"] for row in result["summary"] for c in row["control_results"])


def test_evidence_csv_has_every_role(evidence):
    rows = list(csv.DictReader(io.StringIO(files.evidence_csv(summary.judge([evidence])))))
    assert {"sender", "sink", "neighbour", "control_before", "control_idle"} <= {
        row["role"] for row in rows
    }


def test_the_table_says_whose_kernel_it_is(evidence):
    text = rendered([evidence])
    assert evidence.kernel["release"] in text
    assert "not this machine's own kernel, which is 0.0-host" in text


@pytest.mark.parametrize("width", [80, 100, 200])
def test_eighty_columns(evidence, width):
    lines = rendered([evidence], width).splitlines()
    assert max(map(len, lines)) <= 80
    assert not any("…" in line for line in lines)


def test_two_results_of_one_kernel_stand_apart(evidence):
    other = dataclasses.replace(evidence, machine={**evidence.machine, "kind": "host"})
    text = rendered([evidence, other])
    assert text.count(f"Linux {evidence.kernel['release']}, ") == 2
    assert "this machine's own kernel\n" in text


def test_measured_stands_beside_claimed(evidence):
    text = rendered([evidence])
    row = next(line.split() for line in text.splitlines() if line.startswith(" splice"))
    assert row == ["splice", "#0", "0", "0", "holds", "64", "2", "refuted"]
    assert "2 switches claimed, 64 measured" in text


def test_failed_controls_come_first_and_mark_the_cells(evidence):
    text = rendered([broken(evidence)])
    assert text.startswith("CONTROLS FAILED")
    row = next(line.split() for line in text.splitlines() if line.startswith(" sendfile"))
    assert terminal.UNMEASURED in row
    assert "holds" in row  # the switches are vouched for by controls of their own


def test_colour_only_where_it_is_wanted(evidence, monkeypatch):
    assert "\x1b" not in rendered([evidence])
    assert "\x1b[32m" in rendered([evidence], force_terminal=True, color_system="standard")
    monkeypatch.setenv("NO_COLOR", "1")
    assert "\x1b[32m" not in rendered([evidence], force_terminal=True)


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (None, "–"),
        (0, "0"),
        (2.0, "2"),
        (1.5, "1.500"),
        (1 + 2**-20, "1.00000095367431640625"),
        (2**-20, "9.5367431640625e-07"),
    ],
)
def test_copies_are_not_rounded_to_whole_ones(value, text):
    shown = terminal.copies(value)
    assert shown == text or float(shown) == value
    assert value is None or value == int(value) or not shown.isdigit()
