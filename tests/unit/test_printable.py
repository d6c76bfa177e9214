"""Names that somebody else has chosen reach no terminal as they are."""

import csv
import dataclasses
import io
import json
import re

import pytest

from tests.conftest import HERE, recorded_evidence
from zctrace import cli, errors
from zctrace.analysis import program, runs
from zctrace.evidence.schema import Evidence
from zctrace.printable import csv_cell, printable
from zctrace.reports import flamegraph, machine_readable, markdown, program_data
from zctrace.reports.text.layout import new_table, print_table
from zctrace.reports.text.terminal import Terminal


@pytest.mark.parametrize(
    ("name", "shown"),
    [
        ("plain – ü", "plain – ü"),
        ("1\u202f000\xa0B", "1\u202f000\xa0B"),
        ("\x1b]0;title\x07", r"\x1b]0;title\x07"),
        ("two\nlines\r\t", r"two\nlines\r\t"),
        ("\x9b31m", r"\x9b31m"),
        ("a\u202eb\u200b", r"a\u202eb\u200b"),
        ("\udcff", r"\xff"),
    ],
)
def test_what_is_not_printable_is_escaped(name, shown):
    assert printable(name) == shown


def test_a_terminal_gets_no_escape_sequence_and_no_markup_of_a_name(capsys):
    terminal = Terminal()
    terminal.print("[bold]a[/x]\x1b[2J", soft_wrap=True)
    table = new_table("name", "bytes")
    table.add_row("[/red]\x1b]0;x\u202e", "1048576")
    print_table(table, terminal)
    shown = capsys.readouterr().out
    assert "\x1b" not in shown
    assert "\u202e" not in shown
    assert r"[bold]a[/x]\x1b[2J" in shown
    assert "1048576" in shown


def test_an_error_cannot_be_continued_by_a_name(capsys):
    cli._complain(errors.UsageError("/tmp/x\n    try: rm -r /\x1b[0m: no such file", "why"))
    shown = capsys.readouterr().err.splitlines()
    assert shown == [r"zctrace: /tmp/x\n    try: rm -r /\x1b[0m: no such file", "    why: why"]


def test_a_markdown_row_stays_one_row():
    assert markdown._harmless(markdown._row("a\nb|c", "1")) == r"| a\nb\|c | 1 |"


def test_a_frame_of_folded_stacks_stays_one():
    assert flamegraph._escaped("a;b\nc 7") == r"a:b\nc 7"


HOSTILE = "=1+1|<img src=x onerror=alert(1)>\n# x [x](javascript:1)"


@pytest.mark.parametrize("start", ["=", "+", "-", "@", "\t", "\r"])
def test_a_spreadsheet_takes_no_name_for_a_formula(start):
    assert csv_cell(f"{start}1") == f"'{start}1"


@pytest.mark.parametrize("value", ["", "/tmp/=1", "a-b", -1, 1.5, None, True])
def test_what_is_no_formula_is_written_as_it_is(value):
    assert csv_cell(value) is value


def test_no_cell_of_a_csv_begins_as_a_formula(runs_of_anybody, program_of_anybody):
    csvs = (
        machine_readable.summary_csv(runs_of_anybody),
        machine_readable.evidence_csv(runs_of_anybody),
        program_data.flows_csv(program_of_anybody),
    )
    for text in csvs:
        cells = [cell for row in csv.reader(io.StringIO(text)) for cell in row]
        assert any(cell.startswith("'=") for cell in cells)
        assert not any(cell.startswith(("=", "+", "@")) for cell in cells)


def test_a_markdown_document_has_no_tag_and_no_link_of_a_name(runs_of_anybody):
    text = markdown.document(runs_of_anybody)
    assert "&lt;img src=x" in text
    assert not {"<", "]("} & set(re.findall(r"<|\]\(", text))
    assert not any(line.startswith("# x") for line in text.splitlines())


@pytest.fixture
def runs_of_anybody():
    """With what a saved result of somebody else's may have for a name."""
    found = recorded_evidence("6.1-e1000")
    disks = {
        kind: dataclasses.replace(disk, device=HOSTILE) for kind, disk in found.disks.items()
    }
    counts = [dataclasses.replace(c, function=HOSTILE) for c in found.runs[0].counts]
    run = dataclasses.replace(found.runs[0], counts=tuple(counts))
    kernel = {**found.kernel, "release": "=6.1"}
    runs_of_it = (run, *found.runs[1:])
    return runs.judge([dataclasses.replace(found, kernel=kernel, disks=disks, runs=runs_of_it)])


@pytest.fixture
def program_of_anybody():
    text = (HERE / "evidence" / "programs-6.1.json").read_text()
    found = Evidence.from_json(json.loads(text)["cp"])
    account = found.trace.account
    things = tuple(dataclasses.replace(thing, name=HOSTILE) for thing in account.things)
    account = dataclasses.replace(account, things=things)
    trace = dataclasses.replace(found.trace, account=account)
    return [program.answer(dataclasses.replace(found, trace=trace))]
