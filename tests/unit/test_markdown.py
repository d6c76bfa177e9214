"""The report as Markdown, on recorded evidence."""

import dataclasses
import json

import pytest

from tests.conftest import HERE, recorded_evidence
from zctrace import errors
from zctrace.analysis import program, runs
from zctrace.commands import check
from zctrace.evidence.schema import Evidence
from zctrace.reports import markdown
from zctrace.reports.blocks import Column, Listing, Row, Table, Text, Tone


def tables(text):
    """Every table as rows of cells, its head first."""
    found, rows = [], []
    for line in [*text.splitlines(), ""]:
        if line.startswith("|"):
            rows.append([cell.strip() for cell in line.strip("|").split(" | ")])
        elif rows:
            found.append([rows[0], *rows[2:]])
            rows = []
    return found


def cells(text, heading, number, strategy):
    """Of one strategy, from the tables after a heading; by column, the first of a name."""
    head, *rows = tables(text.split(f"## {heading}")[1].split("\n## ")[0])[number]
    (row,) = [row for row in rows if row[0] == f"`{strategy}`"]
    assert len(row) == len(head)
    return dict(reversed(list(zip(head, row, strict=True))))


@pytest.fixture(scope="module")
def judged():
    return runs.judge(
        [recorded_evidence(name) for name in ("6.1", "6.1-e1000", "7.3", "7.3-e1000")]
    )


@pytest.fixture(scope="module")
def text(judged):
    return markdown.document(judged)


WITH, WITHOUT = "Over e1000, with scatter/gather", "Over e1000, without scatter/gather"


@pytest.mark.parametrize(
    ("heading", "strategy", "copies", "verdict"),
    [
        ("Over loopback", "splice", "0", "holds"),
        (WITH, "sendfile", "0", "holds"),
        (WITHOUT, "sendfile", "1", "holds"),
        (WITHOUT, "read-write", "3", "**refuted**"),
    ],
)
def test_measured_beside_claimed(text, heading, strategy, copies, verdict):
    row = cells(text, heading, 0, strategy)
    assert (row["kernel"], row["CPU copies"], row["verdict"]) == ("6.1, 7.3", copies, verdict)


def test_bytes(text):
    row = cells(text, WITHOUT, 1, "sendfile")
    assert (row["u→k"], row["k→k"], row["disk→cache"]) == ("0", "1048576", "1048576")
    assert row["system calls"] == "1 sendfile"
    assert cells(text, "Over loopback", 1, "sendfile")["cache→NIC"] == "no device"


def test_kernels_that_differ_have_rows_of_their_own():
    one, other = recorded_evidence("6.1"), recorded_evidence("7.3")
    run = next(run for run in other.runs if run.strategy == "sendfile")
    call = next(c for c in run.counts if (c.role, c.quantity) == ("sender", "syscall-enter"))
    twice = dataclasses.replace(call, calls=2)
    counts = tuple(twice if count is call else count for count in run.counts)
    other = dataclasses.replace(other, runs=(dataclasses.replace(run, counts=counts),))
    text = markdown.document(runs.judge([one, other]))
    rows = [row for row in tables(text)[0] if row[0] == "`sendfile`"]
    assert [row[1] for row in rows] == ["6.1", "7.3"]


def test_every_verdict_has_its_sentence(text, judged):
    for j in judged:
        for verdict in (j.copies, j.switches, j.dma):
            if verdict.word.value in ("holds", "refuted", "not measured"):
                assert verdict.sentence.removeprefix("not available: ") in text


def test_what_was_not_measured_is_no_zero():
    evidence = recorded_evidence("6.1")
    run = next(run for run in evidence.runs if run.strategy == "sendfile")
    lost = dataclasses.replace(run, lost={**run.lost, "window": 1})
    text = markdown.document(runs.judge([dataclasses.replace(evidence, runs=(lost,))]))
    assert "**SELF-TEST FAILED" in text
    row = cells(text, "Over loopback", 0, "sendfile")
    assert (row["CPU copies"], row["switches"], row["DMA copies"]) == ("–", "–", "–")
    assert cells(text, "Over loopback", 1, "sendfile")["u→k"] == "–"


def test_blocks_show_what_they_say():
    """Names of functions and files are no emphasis, links or tags."""
    text = markdown.of_blocks(
        "A title",
        [
            Text("__skb__ *x* [a](b) <b> `c`", Tone.ANSWER),
            Text("- no list", indent=0),
            Text("belongs to it", indent=2),
            Listing("on this _stack_:", ["write_[k]", "<b>```"]),
            Table(
                (Column("name"), Column("bytes"), Column("", number=False)),
                [Row(("a|b_c", 7, "x")), Row(("hidden", 8, "y"), shown=False)],
                "1 more_",
            ),
        ],
    )
    assert text.splitlines() == [
        "# A title",
        "",
        r"**\_\_skb\_\_ \*x\* \[a]\(b) &lt;b> \`c\`**",
        "",
        r"\- no list",
        "",
        "* belongs to it",
        "",
        r"on this \_stack\_:",
        "",
        "```text",
        "write_[k]",
        "<b>'''",
        "```",
        "",
        "| name | bytes |  |",
        "| :-- | --: | :-- |",
        r"| a\|b\_c | 7 | x |",
        "",
        r"1 more\_",
    ]


@pytest.fixture(scope="module")
def programs():
    path = HERE / "evidence" / "programs-6.1.json"
    values = json.loads(path.read_text())
    return {name: program.answer(Evidence.from_json(v)) for name, v in values.items()}


def test_a_trace_as_markdown(programs):
    text = markdown.of_programs([programs["nginx, sendfile off"]])
    assert "\n**Not zero-copy: 2.00 copies per byte delivered" in text
    assert "| pread64 | 512 | 16777216 |" in text


@pytest.mark.parametrize("name", ["nginx, sendfile off", "nginx, sendfile on"])
def test_a_check_for_the_summary_of_a_step(programs, name, monkeypatch, tmp_path):
    monkeypatch.setenv("GITHUB_STEP_SUMMARY", str(tmp_path / "summary"))
    (tmp_path / "summary").write_text("before\n")
    copies = name.endswith("off")
    try:
        check._require(programs[name], 0.01)
    except errors.LimitError:
        assert copies
    else:
        assert not copies
    lines = (tmp_path / "summary").read_text().splitlines()
    assert lines[0] == "before"
    start = "### ❌ 2 copies per byte delivered; 0.01 are" if copies else "### ✅ Zero-copy for"
    assert lines[1].startswith(start)
    assert any("sendfile(2) instead of" in line for line in lines) == copies


def test_a_summary_that_cannot_be_written_hides_no_failure(programs, monkeypatch, tmp_path):
    monkeypatch.setenv("GITHUB_STEP_SUMMARY", str(tmp_path / "no" / "summary"))
    with pytest.raises(errors.LimitError):
        check._require(programs["nginx, sendfile off"], 0.01)
    with pytest.raises(errors.OutputError, match="could not be written"):
        check._require(programs["nginx, sendfile on"], 0.01)
