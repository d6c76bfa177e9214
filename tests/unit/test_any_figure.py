"""Whatever the figures, names and widths: each number stands in the reports whole."""

import csv
import dataclasses
import functools
import io
import json
import re
from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as some

from tests.conftest import recorded_evidence
from tests.unit.altering import only
from tests.unit.test_any_saved import FEW, RECORDED
from zctrace.analysis import columns, program
from zctrace.analysis import runs as judging
from zctrace.analysis.comparison import programs
from zctrace.analysis.comparison.model import (
    COPIED,
    Basis,
    Change,
    Comparison,
    Item,
    Part,
    Result,
)
from zctrace.analysis.lines import Line
from zctrace.evidence.account import Look
from zctrace.evidence.schema import Evidence
from zctrace.printable import printable
from zctrace.probes.model import Direction
from zctrace.reports import (
    comparison,
    comparison_data,
    machine_readable,
    markdown,
    program_data,
)
from zctrace.reports import program as program_report
from zctrace.reports.html import page
from zctrace.reports.text import live, paper, runs
from zctrace.reports.text.layout import new_table, print_table, say, size
from zctrace.reports.text.terminal import Terminal

WIDTHS = some.integers(20, 200)
NUMBERS = some.one_of(some.integers(0, 2**63), some.sampled_from([2**63, 10**8, 10**8 - 1]))
NAMES = some.one_of(
    some.text(max_size=40),
    some.text(alphabet="界世a ́\u200d\u202e\r\x07\t[]/", max_size=300),
    some.sampled_from(["x" * 300, "界" * 300, "é" * 150, "a b " * 75, "[/red]", "/" * 79]),
)  # fmt: skip


def printed(width, show):
    """What ``show`` prints on a terminal so wide."""
    terminal = Terminal()
    terminal.file, terminal.width = io.StringIO(), width
    show(terminal)
    return terminal.file.getvalue()


def squeezed(text):
    return "".join(text.split())


@FEW
@given(WIDTHS, some.lists(some.one_of(NAMES, NUMBERS.map(lambda n: f" {n} B,")), max_size=6))
def test_a_paragraph_loses_nothing(width, parts):
    text = "".join(map(str, parts))
    shown = printed(width, lambda terminal: say(terminal, text, indent=2))
    assert squeezed(shown) == squeezed(printable(text))
    for line in shown.splitlines():
        assert len(line) < width or len(line.split()) == 1
    words = shown.replace(",", " ").split()
    for part in parts:
        if part.startswith(" ") and part.endswith(" B,"):
            assert part.split()[0] in words


@FEW
@given(WIDTHS, some.lists(some.tuples(NAMES, NUMBERS, NUMBERS), min_size=1, max_size=4))
def test_a_table_loses_nothing(width, rows):
    table = new_table("name", "bytes", "calls")
    for name, *numbers in rows:
        table.add_row(name, *map(str, numbers))
    shown = printed(width, lambda terminal: print_table(table, terminal))
    cells = "namebytescalls" + "".join(printable(name) + f"{a}{b}" for name, a, b in rows)
    assert Counter(squeezed(shown).replace("─", "")) == Counter(squeezed(cells))
    words = shown.split()
    for number in (number for row in rows for number in row[1:]):
        assert str(number) in words


LINES = some.lists(
    some.builds(
        Line, NAMES, NUMBERS, NUMBERS, NUMBERS,
        some.dictionaries(some.sampled_from([*program.DIRECTIONS, None]), NUMBERS),
        some.sets(some.integers(0, 2**31), max_size=3),
    ),
    max_size=7,
).map(lambda lines: [*lines, Line("read", 1, 2, 3, {Direction.KERNEL_TO_USER: 4})])  # fmt: skip


@functools.cache
def answer():
    return program.answer(Evidence.from_json(RECORDED["programs-6.1"]["evidence"][0]))


@FEW
@given(
    WIDTHS,
    LINES,
    LINES,
    some.dictionaries(some.sampled_from([*program.DIRECTIONS, None]), NUMBERS, min_size=1),
)
def test_a_traced_program_has_every_number(width, lines, sites, copied):
    found = dataclasses.replace(
        answer(), calls=lines, things=lines, sites=sites, threads=sites, copied=copied
    )
    shown = printed(
        width, lambda terminal: paper.show(program_report.report([found]), terminal)
    )
    words = Counter(re.split(r"[\s,;:]+", shown))
    wanted = Counter(str(n) for n in copied.values() if n) + Counter(
        [str(sum(copied.values()))]
    )
    for line in lines:
        if line.received or line.delivered or line.copied_bytes:
            figures = [line.received, line.delivered, *line.copied.values()]
            wanted += Counter([str(line.calls)] + 2 * [size(n) for n in figures])
    for line in (*sites, *(sites if len(sites) > 1 else ())):
        wanted += Counter([str(line.calls), str(line.copied_bytes)])
    assert not wanted - words


VALUES = some.one_of(some.none(), NUMBERS)


@some.composite
def results(draw):
    """Two results compared, of programs or of runs."""
    basis = draw(some.sampled_from([None, Basis("delivered", 7, 9), Basis("in", 0, 0, "no")]))
    part, figure = (Part.CALL, COPIED) if basis else (Part.RUN, "mode_switches")
    items = [
        Item(part, draw(NAMES), (Change(figure, draw(VALUES), draw(VALUES)),))
        for _ in range(draw(some.integers(1, 6)))
    ]
    one = Comparison("subject", "it changed", True, (1.0,), (), (), items, (), basis)
    return Result("it changed", (one,), (), ())


@FEW
@given(WIDTHS, results())
def test_a_comparison_has_every_number(width, result):
    (compared,) = result.comparisons
    changes = [
        item.figures[0]
        for item in compared.items
        if not compared.basis or programs.matters(item, compared.basis)
    ]
    words = Counter(
        printed(width, lambda to: paper.show(comparison.report(result), to)).split()
    )
    shown = Counter(
        "–" if value is None else str(value)
        for change in changes
        for value in (change.before, change.after)
    )
    assert not shown - words
    rows = [*csv.DictReader(io.StringIO(comparison_data.differences_csv(result), newline=""))]
    differing = [item.figures[0] for item in compared.items if item.differs]
    assert [(row["before"], row["after"]) for row in rows] == [
        tuple("" if value is None else str(value) for value in (c.before, c.after))
        for c in differing
    ]


@FEW
@given(some.lists(some.tuples(NUMBERS, NUMBERS, NUMBERS), min_size=2, max_size=3), NAMES)
def test_a_line_of_what_happens_has_every_number(looks, name):
    lines, sums = live.Lines(), [0, 0, 0]
    for seconds, parts in enumerate(looks):
        sums = [sofar + part for sofar, part in zip(sums, parts, strict=True)]
        look = Look({"read": sums[0]}, {"write": sums[1]}, {name: sums[2]}, 0)
        words = lines.next(float(seconds), look)[-1].split()
        assert words[2:5] == [size(part) for part in parts]
        if parts[2] and max(parts[:2]):
            assert words[5] != "0.00"


SHOWN = (
    *("cpu_copies", "mode_switches", "u2k_bytes", "k2u_bytes", "k2k_bytes", "dma_copies"),
    *("dma_in_bytes", "dma_out_bytes", "metadata_bytes", "other_user_bytes", "page_faults"),
    *("page_faults_kernel", "interrupts"),
    *("context_switches_voluntary", "context_switches_involuntary"),
)
"""Columns with a cell in the terminal's tables; the first ones also in Markdown's."""
IN_MARKDOWN = SHOWN[: SHOWN.index("metadata_bytes")]


@functools.cache
def judged():
    return only(recorded_evidence("7.3-e1000"), "read-write")


def with_figures(**figures):
    return [dataclasses.replace(judged(), figures={**judged().figures, **figures})]


@FEW
@given(WIDTHS, some.lists(NUMBERS, min_size=len(SHOWN), max_size=len(SHOWN), unique=True))
def test_a_run_has_every_number(width, numbers):
    altered = with_figures(**dict(zip(SHOWN, numbers, strict=True)))
    shown = printed(width, lambda terminal: runs.render(altered, terminal)).split()
    document = markdown.document(altered).split()
    for column, number in zip(SHOWN, numbers, strict=True):
        assert str(number) in shown, column
        assert str(number) in document or column not in IN_MARKDOWN, column


NUMERIC = [
    column
    for column in columns.COLUMNS
    if column not in columns.TEXTS | {"payload_bytes", "run_index", "chunk_bytes"}
    and not column.startswith("claimed_")  # nothing is claimed: that cell is empty
]


def of_page(found, element):
    """The texts of all elements of a kind."""
    inside = re.findall(rf"<{element}\b[^>]*>(.*?)</{element}>", page.page(found), re.S)
    return re.sub("<[^>]*>", " ", " ".join(inside))


FORMS = {
    "terminal": lambda found: printed(80, lambda terminal: runs.render(found, terminal)),
    "markdown": markdown.document,
    "cells of the page": lambda found: of_page(found, "td"),
    "drawings of the page": lambda found: of_page(found, "(?:desc|text)"),
}


@pytest.mark.parametrize("form", FORMS)
def test_what_was_not_measured_is_no_number_for_people(form):
    numbers = {column: 7 * 10**12 + place for place, column in enumerate(NUMERIC)}
    measured = Counter(re.split(r"[\s|*,;]+", FORMS[form](with_figures(**numbers))))
    unknown = Counter(
        re.split(r"[\s|*,;]+", FORMS[form](with_figures(**dict.fromkeys(NUMERIC))))
    )
    shown = sum(measured[str(number)] for number in numbers.values())
    assert shown >= len(IN_MARKDOWN)
    assert not {str(number) for number in numbers.values()} & unknown.keys()
    if form.startswith("drawings"):
        assert unknown["measured"] > measured["measured"]
    else:
        assert unknown["–"] - measured["–"] >= shown
    for zero in ("0", "0.0", "0.00", "None", "nan"):
        assert unknown[zero] <= measured[zero]


def test_what_was_not_measured_is_nothing_for_programs():
    unknown = with_figures(**dict.fromkeys(NUMERIC))
    (row,) = csv.DictReader(io.StringIO(machine_readable.summary_csv(unknown)))
    (values,) = json.loads(machine_readable.result_json(unknown))["summary"]
    assert {row[column] for column in NUMERIC} == {""}
    assert {values[column] for column in NUMERIC} == {None}


def test_what_a_program_did_and_nobody_watched_is_no_number():
    """Events without a tracepoint, and all that is copied where controls failed."""
    evidence = dataclasses.replace(
        answer().evidence,
        events=(),
    )
    failed = dataclasses.replace(answer(), evidence=evidence, copied=None)
    shown = printed(80, lambda terminal: paper.show(program_report.report([failed]), terminal))
    for what in ("system calls", "in user mode", "in the kernel;", "voluntary", "involuntary"):
        assert f"– {what}" in " ".join(shown.split()), what
    assert "by the CPU: user→kernel" not in shown
    (summary,) = json.loads(program_data.result_json([failed]))["summary"]
    assert [summary[name] for name in ("copies", "copied_bytes")] == [None, None]
    rows = csv.DictReader(io.StringIO(program_data.flows_csv([failed])))
    assert "copied" not in {row["way"] for row in rows}


@pytest.mark.parametrize("form", [machine_readable.summary_csv, machine_readable.evidence_csv])
def test_a_line_ends_where_the_row_does_in_every_csv(form):
    """A carriage return in a name is quoted, or readers take it for the end of a row."""
    evidence = recorded_evidence("6.1")
    strange = dataclasses.replace(
        evidence, kernel={**evidence.kernel, "release": '6.1\rwith, and "quoted"'}
    )
    plain, other = (form(judging.judge([one])) for one in (evidence, strange))
    rows = [list(csv.reader(io.StringIO(text, newline=""))) for text in (plain, other)]
    assert len(rows[0]) == len(rows[1]) > 3
    at = rows[1][0].index("kernel")
    assert {row[at] for row in rows[1][1:]} == {'6.1\rwith, and "quoted"'}
    assert [row[:at] + row[at + 1 :] for row in rows[0]] == [
        row[:at] + row[at + 1 :] for row in rows[1]
    ]
