"""One table of report formats, and what follows from it."""

import re

import pytest
from typer.testing import CliRunner

from tests.conftest import recorded_evidence
from zctrace import cli
from zctrace.analysis import runs
from zctrace.errors import UsageError
from zctrace.reports import formats
from zctrace.reports.formats import Format, Of, Outputs

COMMANDS = {"run": Of.RUN, "trace": Of.TRACE, "compare": Of.COMPARE}


@pytest.fixture(scope="module")
def judged():
    return runs.judge([recorded_evidence("6.1-e1000")])


def invoke(*arguments):
    return CliRunner().invoke(cli.app, [str(one) for one in arguments])


@pytest.mark.parametrize("command", COMMANDS)
def test_every_format_is_an_option_of_its_command(command):
    shown = set(re.findall(r"(--[a-z]+) +(?:FILE|FOLDER)", invoke(command, "--help").stdout))
    assert {one.option for one in formats.of(COMMANDS[command])} == shown - {
        "--file", "--jsonl",
    }  # fmt: skip


def test_a_name_is_one_format_of_a_command():
    keys = [(one.name, one.of) for one in formats.FORMATS]
    assert len(keys) == len(set(keys)) > 10


def test_a_row_is_all_that_a_format_needs(judged, monkeypatch, tmp_path):
    row = Format("lines", Of.RUN, "One line.", lambda found: f"{len(found)} runs\n")
    monkeypatch.setattr(formats, "FORMATS", (*formats.FORMATS, row))
    outputs = Outputs({"lines": tmp_path / "one"})
    outputs.check()
    outputs.write(Of.RUN, judged)
    assert (tmp_path / "one").read_text() == f"{len(judged)} runs\n"


@pytest.mark.parametrize("one", formats.of(Of.RUN), ids=lambda one: one.name)
def test_every_format_of_run_is_written(one, judged, tmp_path):
    Outputs({one.name: tmp_path / "out"}).write(Of.RUN, judged)
    out = tmp_path / "out"
    written = [p for p in out.rglob("*.*") if p.is_file()] if one.files else [out]
    assert len(written) >= 1
    assert any(b"read-write" in path.read_bytes() for path in written)


def test_stacks_are_asked_for_by_formats_that_need_them(tmp_path):
    stacked = {one.name for one in formats.FORMATS if Outputs({one.name: tmp_path}).stacks}
    assert stacked == {"folded", "speedscope"}


def test_a_format_of_other_results_is_refused(judged, tmp_path):
    saved = tmp_path / "run.json"
    Outputs({"json": saved}).write(Of.RUN, judged)
    result = invoke("report", saved, "--folded", tmp_path / "folded")
    assert isinstance(result.exception, UsageError)
    assert "--folded: these are results of zctrace run" in result.exception.what
    assert not (tmp_path / "folded").exists()
