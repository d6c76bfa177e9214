"""The reports' data, not their boxes."""

import csv
import dataclasses
import functools
import io
import json

import pytest
from rich.console import Console

from tests.conftest import recorded_evidence
from tests.unit.altering import added, broken, count, run_of, with_counts
from zctrace.analysis import columns
from zctrace.analysis import runs as summary
from zctrace.evidence.schema import Evidence
from zctrace.reports import machine_readable
from zctrace.reports.text import runs as terminal
from zctrace.reports.wording import NO_CLAIM
from zctrace.workloads.catalogue import STRATEGIES
from zctrace.workloads.marker import role_name


def rendered(evidences, width=80, **options):
    text = io.StringIO()
    console = Console(file=text, width=width, **options)
    terminal.render(summary.judge(evidences), console)
    return text.getvalue()


@functools.cache
def rendered_recording(line):
    """Put on the terminal once for all tests that look at it."""
    return rendered([recorded_evidence(line)])


@pytest.fixture
def report(line):
    """Of what was recorded, as it is."""
    return rendered_recording(line)


def test_csv_equals_the_figures(evidence):
    judged = summary.judge([evidence])
    rows = list(csv.DictReader(io.StringIO(machine_readable.summary_csv(judged))))
    assert len(rows) == len(judged)
    for row, j in zip(rows, judged, strict=True):
        assert list(row) == list(columns.COLUMNS)
        for column, value in j.figures.items():
            if value is None:
                assert row[column] == "", column
            elif isinstance(value, float):
                assert float(row[column]) == value
            else:
                assert row[column] == str(value), column


def test_csv_never_says_zero_for_unknown(evidence):
    rows = list(
        csv.DictReader(
            io.StringIO(machine_readable.summary_csv(summary.judge([broken(evidence)])))
        )
    )
    for row in rows:
        assert row["cpu_copies"] == ""
        assert row["cpu_copied_bytes"] == ""
        assert row["verdict_copies"] == "not measured"
        assert "_copy_to_iter" in row["coverage"]


def test_json_reads_back(evidence):
    result = json.loads(machine_readable.result_json(summary.judge([evidence])))
    assert [Evidence.from_json(e) for e in result["evidence"]] == [evidence]
    assert len(result["summary"]) == len(evidence.runs)
    assert all(c["passed"] for row in result["summary"] for c in row["control_results"])


def test_evidence_csv_has_every_role(evidence):
    rows = list(
        csv.DictReader(io.StringIO(machine_readable.evidence_csv(summary.judge([evidence]))))
    )
    assert {"sender", "sink", "neighbour", "control_before", "control_idle"} <= {
        row["role"] for row in rows
    }


def test_the_table_says_whose_kernel_it_is(evidence, report):
    assert evidence.kernel["release"] in report
    assert "the host's own kernel was not measured" in report


@pytest.mark.parametrize("width", [80, 100, 200])
def test_eighty_columns(evidence, width):
    lines = rendered([evidence], width).splitlines()
    assert max(map(len, lines)) <= 80
    assert not any("…" in line for line in lines)


def test_two_results_of_one_kernel_stand_apart(evidence):
    other = dataclasses.replace(evidence, machine={**evidence.machine, "kind": "host"})
    text = rendered([evidence, other])
    assert text.count(f"Linux {evidence.kernel['release']}, ") == 2
    assert "the host's own kernel\n" in text


CLAIMS, BYTES, CALLS = range(3)


def rows_of(text, table):
    """The words of each row of one of the three tables."""
    lines = text.splitlines()
    rules = [n for n, line in enumerate(lines) if line.lstrip().startswith("──")]
    assert len(rules) == 3
    rows = []
    for line in lines[rules[table] + 1 :]:
        if not line.strip():
            break
        rows.append(line.split())
    return rows


def named(evidence, release):
    """The same on another kernel."""
    return dataclasses.replace(evidence, kernel={**evidence.kernel, "release": release})


def line_of(evidence):
    return ".".join(evidence.kernel["release"].split(".")[:2])


def textbook(evidence):
    runs = tuple(run_of(evidence, s.name) for s in STRATEGIES[:4])
    return dataclasses.replace(evidence, runs=runs)


def repeated(evidence, times=2):
    runs = tuple(
        dataclasses.replace(run, run_index=index)
        for run in evidence.runs
        for index in range(times)
    )
    return dataclasses.replace(evidence, runs=runs)


def copied_page(evidence, strategy, run_index=None):
    """With a page more that was copied inside the kernel."""
    page = count("sender", "copy_page", 4096, quantity="copy-page", direction="k2k")
    if run_index is None:
        return added(evidence, strategy, page)
    runs = tuple(
        dataclasses.replace(run, counts=(*run.counts, page))
        if (run.strategy, run.run_index) == (strategy, run_index)
        else run
        for run in evidence.runs
    )
    return dataclasses.replace(evidence, runs=runs)


def test_measured_stands_beside_claimed(evidence):
    text = rendered([textbook(evidence)])
    assert ["splice", "0", "0", "holds", "64", "2", "refuted"] in rows_of(text, CLAIMS)
    assert "2 switches claimed, 64 measured" in " ".join(text.split())


def test_repetitions_have_numbers(evidence):
    names = [row[:2] for row in rows_of(rendered([repeated(textbook(evidence))]), CLAIMS)]
    assert names[:4] == [
        ["read-write", "#0"],
        ["read-write", "#1"],
        ["mmap-write", "#0"],
        ["mmap-write", "#1"],
    ]


def test_where_nothing_is_claimed_the_cells_are_empty(evidence, report):
    assert ["copy-file-range", "1", "2"] in rows_of(report, CLAIMS)
    assert " no claim " not in report.replace(NO_CLAIM, "")
    assert NO_CLAIM in report
    assert NO_CLAIM not in rendered([textbook(evidence)])


def test_several_kernels_share_the_tables():
    evidences = [recorded_evidence(line) for line in ("6.1", "7.3")]
    text = rendered(evidences)
    names = [run.strategy for run in evidences[0].runs]
    for table in (CLAIMS, BYTES, CALLS):
        beside = [row[:2] for row in rows_of(text, table)]
        assert beside == [[name, line] for name in names for line in ("6.1", "7.3")]
    for evidence in evidences:
        assert text.count(f"Linux {evidence.kernel['release']}, in a virtual machine") == 1
        assert f"Coverage, Linux {evidence.kernel['release']}." in text


def test_one_kernel_is_not_named_in_the_tables(evidence, report):
    assert {row[0] for row in rows_of(report, CLAIMS)} == {r.strategy for r in evidence.runs}
    assert not any(row[1].count(".") for row in rows_of(report, BYTES))


def marked(text, table):
    return [row for row in rows_of(text, table) if terminal.DIFFERENT in row]


def test_what_differs_between_kernels_is_marked(evidence):
    other = named(copied_page(evidence, "sendfile"), "9.9.1-test")
    text = rendered([evidence, other])
    own = line_of(evidence)
    assert marked(text, CLAIMS) == [
        ["sendfile", own, "≠", "0", "0", "holds", "2", "2", "holds"],
        ["sendfile", "9.9", "≠", "0.004", "0", "refuted", "2", "2", "holds"],
    ]
    assert [row[:6] for row in marked(text, BYTES)] == [
        ["sendfile", own, "0", "0", "≠", "0"],
        ["sendfile", "9.9", "0", "0", "≠", "4096"],
    ]
    assert marked(text, CALLS) == []


def test_other_switches_are_marked(evidence):
    def twice(c):
        mine = c.role == "sender" and c.quantity.startswith("syscall-")
        return dataclasses.replace(c, calls=2 * c.calls) if mine else c

    other = named(with_counts(evidence, "splice", twice), "9.9.1-test")
    text = rendered([evidence, other])
    assert marked(text, CLAIMS) == [
        ["splice", line_of(evidence), "0", "0", "holds", "≠", "64", "2", "refuted"],
        ["splice", "9.9", "0", "0", "holds", "≠", "128", "2", "refuted"],
    ]
    assert marked(text, BYTES) == []


def test_what_is_the_same_is_not_marked(evidence):
    assert terminal.DIFFERENT not in rendered([evidence, named(evidence, "9.9.1-test")])


@pytest.mark.parametrize("width", [1, 2, 3])
def test_a_terminal_of_one_column_gets_words_whole(evidence, width):
    words = rendered([evidence], width=width).split()
    assert {str(MIBS[0]), "read-write"} <= {word.strip("(") for word in words}


def test_payloads_of_different_sizes_differ_in_nothing(evidence):
    here = every_strategy(evidence, MIBS[:2])
    text = rendered([here, named(here, "9.9.1-test")], width=200)
    assert terminal.DIFFERENT not in text
    assert "2 payloads from 1048576 to 67108864 B" in " ".join(text.split())


def test_on_one_kernel_nothing_differs(evidence):
    other = copied_page(repeated(evidence), "sendfile", run_index=1)
    assert terminal.DIFFERENT not in rendered([other])


def test_what_was_not_measured_differs_from_nothing(evidence):
    text = rendered([evidence, named(broken(evidence), "9.9.1-test")])
    assert terminal.DIFFERENT not in text
    assert ["sendfile", "9.9", "–", "0", "–", "2", "2", "holds"] in rows_of(text, CLAIMS)


def test_repetitions_that_differ_are_no_other_kernel_s(evidence):
    here = copied_page(repeated(evidence), "sendfile", run_index=1)
    other = textbook(named(evidence, "9.9.1-test"))
    runs = tuple(run for run in other.runs if run.strategy != "sendfile")
    text = rendered([here, dataclasses.replace(other, runs=runs)])
    assert terminal.DIFFERENT not in text


def test_two_kernels_of_one_line_have_different_names(evidence):
    evidences = [named(evidence, release) for release in ("6.12.1-amd64", "6.12.2-amd64")]
    own = [row[1] for row in rows_of(rendered(evidences), CLAIMS) if row[0] == "sendfile"]
    assert len(set(own)) == 2


def test_sentences_name_the_kernels_that_they_are_true_of(evidence, report):
    other = named(copied_page(evidence, "sendfile"), "9.9.1-test")
    text = " ".join(rendered([evidence, other]).split())
    own = line_of(evidence)
    assert "refuted: sendfile, copies (9.9): 4096 B copied" in text
    assert "sendfile, copies inside the kernel (9.9): 4096 B: copy-on-write" in text
    assert f"refuted: splice, switches ({own}, 9.9): 2 switches claimed" in text
    assert "refuted: splice, switches: 2 switches" in " ".join(report.split())


def test_why_bytes_were_copied_inside_the_kernel_is_said(report):
    text = " ".join(report.split())
    assert (
        "copy-file-range, copies inside the kernel: 1048576 B: written into the page cache"
        in text
    )
    assert "sendfile, inside the kernel" not in text


def test_a_run_that_was_not_possible_says_why():
    text = rendered([recorded_evidence("5.10")])
    assert ["io-uring-zc", "–", "–", "–", "–"] in rows_of(text, CLAIMS)
    words = " ".join(text.split())
    assert words.count("not available: io-uring-zc: this kernel's io_uring has no") == 1
    assert "SELF-TEST FAILED" not in text


def test_the_report_says_who_was_watched_from_how_many_places(evidence, report):
    text = " ".join(report.split())
    at_calls = [s for s in evidence.sites if s.mechanism == "call sites"]
    for site in at_calls:
        assert f"{site.function} ({site.callers} caller" in text
        for caller in site.unreached:
            assert caller in text


def every_strategy(evidence, sizes=(1 << 20,), indices=(0,)):
    """As if each had done what read-write did."""

    def role(count, strategy):
        own = role_name(strategy.role)
        return dataclasses.replace(count, role=own) if count.role == "sender" else count

    done = run_of(evidence, "read-write")
    runs = tuple(
        dataclasses.replace(
            done,
            strategy=strategy.name,
            role=role_name(strategy.role),
            run_index=index,
            payload_bytes=size,
            received_bytes=size,
            counts=tuple(role(c, strategy) for c in done.counts),
        )
        for size in sizes
        for strategy in STRATEGIES
        for index in indices
    )
    return dataclasses.replace(evidence, runs=runs)


def with_a_copy_more(evidence):
    """Of every payload, inside the kernel."""

    def copy(run):
        where = {"quantity": "copy-page", "direction": "k2k"}
        return count(run.role, "copy_page", run.payload_bytes, **where)

    runs = (dataclasses.replace(r, counts=(*r.counts, copy(r))) for r in evidence.runs)
    return dataclasses.replace(evidence, runs=tuple(runs))


MIBS = tuple(n << 20 for n in (1, 64, 1024))


@pytest.mark.parametrize(
    ("kernels", "sizes", "indices"),
    [
        (1, MIBS[:1], (0,)),
        (1, MIBS[:1], (10, 11)),
        (1, MIBS[2:], (0,)),
        (2, MIBS[:1], (0,)),
    ],
)
def test_every_strategy_fits_into_eighty_columns(kernels, sizes, indices):
    """On several kernels with every mark that there may be."""
    text = every_table(kernels, sizes, indices)
    assert {row[0] for row in rows_of(text, CLAIMS)} == {s.name for s in STRATEGIES}
    assert max(map(len, text.splitlines())) <= 80
    assert "…" not in text
    assert (terminal.DIFFERENT in text) == (kernels > 1)


@pytest.mark.parametrize(
    ("kernels", "sizes", "indices"),
    [(2, MIBS[:1], (10, 11)), (1, MIBS, (0,)), (2, MIBS, (0,))],
)
def test_what_does_not_fit_is_not_cut(kernels, sizes, indices):
    text = every_table(kernels, sizes, indices)
    assert "…" not in text
    assert str(sizes[-1]) in text


def every_table(kernels, sizes, indices):
    here = every_strategy(recorded_evidence("6.1"), sizes, indices)
    return rendered([here, with_a_copy_more(named(here, "6.12.107-amd64"))][:kernels])


def test_failed_controls_come_first_and_mark_the_cells(evidence):
    text = rendered([broken(evidence)])
    assert text.startswith("SELF-TEST FAILED")
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
