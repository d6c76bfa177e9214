"""Evidence says where, when and with which command it was made; and so do all reports."""

import csv
import dataclasses
import io
import json
from datetime import datetime

import pytest
from rich.console import Console

from tests.conftest import HERE, recorded_evidence
from zctrace._version import version
from zctrace.analysis import frames, program, runs
from zctrace.evidence.origin import FACTS, Origin
from zctrace.evidence.schema import Evidence
from zctrace.machine import collector_process
from zctrace.reports import machine_readable, markdown, program_data, wording
from zctrace.reports import program as program_report
from zctrace.reports.html import page
from zctrace.reports.text import paper
from zctrace.reports.text import runs as text_of_runs

ORIGIN = Origin(
    "lab-7", "6.18.1-lab", "2026-11-28T23:15:00+01:00", ("zctrace", "run", "a b", "\x1b[31m"),
    "0.1.0.dev377+g1825c75",
)  # fmt: skip
SAID = ("lab-7", "6.18.1-lab", "2026-11-28T23:15:00+01:00", "0.1.0.dev377+g1825c75")


def told(judged):
    """All that is written of runs, by form."""
    text = io.StringIO()
    text_of_runs.render(judged, Console(file=text, width=80))
    return {
        "terminal": text.getvalue(),
        "html": page.page(judged),
        "markdown": markdown.document(judged),
        "csv": machine_readable.summary_csv(judged),
        "evidence": machine_readable.evidence_csv(judged),
        "json": machine_readable.result_json(judged),
    }


def program_evidence(**values):
    text = (HERE / "evidence" / "programs-6.1.json").read_text()
    return dataclasses.replace(Evidence.from_json(json.loads(text)["cp"]), **values)


def test_every_report_of_runs_says_where_it_is_from():
    evidence = dataclasses.replace(recorded_evidence("5.10"), origin=ORIGIN)
    for form, text in told(runs.judge([evidence])).items():
        flat = " ".join(text.replace("&#39;", "'").split())
        for word in (*SAID, "'a b'"):
            assert word in flat, form
        assert "\x1b" not in text, form


def test_every_report_of_a_program_says_where_it_is_from():
    answers = [program.answer(program_evidence(origin=ORIGIN))]
    text = io.StringIO()
    paper.show(program_report.report(answers), Console(file=text, width=80))
    for told_of in (text.getvalue(), program_data.flows_csv(answers)):
        assert all(word in " ".join(told_of.split()) for word in SAID)
    assert program_data.COLUMNS[-5:] == list(FACTS)


def test_what_older_evidence_does_not_say_is_told_as_not_recorded():
    judged = runs.judge([recorded_evidence("5.10")])
    texts = told(judged)
    for form in ("terminal", "html", "markdown"):
        flat = " ".join(texts[form].split())
        assert "host, date and command line not recorded; zctrace 0.1.0" in flat
    row = next(csv.DictReader(io.StringIO(texts["csv"])))
    assert [row[name] for name in FACTS] == [""] * 5
    assert frames.summary(judged)["host"].isna().all()


@pytest.mark.parametrize(
    ("kind", "second"),
    [
        ("host", "measured on"),
        ("qemu-kvm", "the host's own kernel (6.18.1-lab) was not measured"),
    ],
)
def test_whose_kernel_it_is_comes_from_the_evidence(kind, second):
    evidence = recorded_evidence("6.1")
    machine = {**evidence.machine, "kind": kind}
    lines = wording.heading(dataclasses.replace(evidence, machine=machine, origin=ORIGIN))
    assert ("the host's own kernel" in lines[0]) is (kind == "host")
    assert lines[1].startswith(second)


def test_what_a_collector_answers_gets_the_origin_of_this_command(monkeypatch):
    monkeypatch.setattr("sys.argv", ["/somewhere/zctrace", "run", "caf\udce9"])
    values = recorded_evidence("6.1").to_json()
    origin = collector_process.evidence_from(values, 1.5).origin
    assert origin.command == ("zctrace", "run", "caf\\xe9")
    assert origin.version == version()
    assert datetime.fromisoformat(origin.ended).utcoffset() is not None
    assert Evidence.from_json({**values, "origin": dataclasses.asdict(origin)}).origin == origin
