"""What ``make test-kernels`` makes of results, and of its table."""

from types import SimpleNamespace

import pytest

from tests.kernel_lines import document, judge, workload
from tests.kernel_lines.judge import RUN, Finding, Word

REASON = document.REASON


def row(strategy, **altered):
    columns = ("u2k_bytes", "k2u_bytes", "k2k_bytes")
    return {
        "strategy": strategy,
        **dict(zip(columns, RUN[strategy], strict=True)),
        "control_results": [{"name": "a control", "passed": True}],
        "coverage": "complete",
        **altered,
    }


FAILED = [{"name": "a control", "passed": False}]


@pytest.mark.parametrize(
    ("altered", "word"),
    [
        ({}, Word.EXACT),
        ({"k2u_bytes": 1}, Word.WRONG),
        ({"k2u_bytes": None}, Word.WRONG),
        ({"k2u_bytes": None, "coverage": "copies are not seen"}, Word.OPEN),
        ({"k2u_bytes": 1, "control_results": FAILED}, Word.OPEN),
    ],
)
def test_a_run_is_what_its_worst_row_is(altered, word):
    rows = [row(name) for name in RUN if name != "splice"]
    assert judge.of_run([*rows, row("splice", **altered)]).word is word


def test_a_run_without_a_strategy_is_wrong():
    assert judge.of_run([row("splice")]).word is Word.WRONG


def line(name, **copied):
    return SimpleNamespace(name=name, copied=copied)


def answer(**altered):
    exact = {
        "calls": [
            line("sendfile", k2k=52),
            line("sendto", k2k=workload.ZEROCOPY // 2),
            line("recvfrom", k2u=workload.SENT + workload.ZEROCOPY, k2k=9),
        ],
        "things": [
            line(f"/dev/shm/{workload.SOURCE}", u2k=workload.MADE, k2u=workload.COPIED),
            line(f"/dev/shm/{workload.COPY}", u2k=workload.COPIED),
        ],
        "copied": {"k2k": workload.ZEROCOPY + 300},
        **dict.fromkeys(("failed", "doubts", "unexplained"), ()),
        "unassigned": 0,
    }
    return SimpleNamespace(**exact | altered)


@pytest.mark.parametrize(
    ("altered", "word"),
    [
        ({}, Word.EXACT),
        ({"things": []}, Word.WRONG),
        ({"calls": [line("sendfile", u2k=workload.SENT)]}, Word.WRONG),
        ({"copied": {"k2k": workload.ZEROCOPY - 1}}, Word.WRONG),
        ({"copied": {"k2k": 2 * workload.ZEROCOPY}}, Word.WRONG),
        ({"calls": [], "doubts": ("a doubt",)}, Word.OPEN),
        ({"things": [], "unassigned": 1}, Word.OPEN),
        ({"failed": [SimpleNamespace(name="a control")]}, Word.OPEN),
    ],
)
def test_a_trace_without_the_right_figures_is_wrong_or_says_so(altered, word):
    assert judge.of_trace(answer(**altered)).word is word


def test_a_message_is_what_and_why():
    said = "zctrace: it did not boot\n    why: no 9p\n    try: another\n"
    assert judge.of_message(said) == Finding(Word.REFUSED, "it did not boot: no 9p")


@pytest.mark.parametrize(
    "said",
    [
        "",
        "Traceback (most recent call last):\nKeyError: 'x'\n",
        "Killed\n",
        "zctrace: KeyError: 'x'\n    why: a fault in zctrace, or a kernel\n",
    ],
)
def test_what_is_no_message_is_wrong(said):
    assert judge.of_message(said).word is Word.WRONG


def test_the_table_is_read_back_as_it_was_written():
    first = dict.fromkeys(document.COLUMNS[1:], "–")
    rows = {"6.1": first, "6.1, nokaslr": first | {REASON: "a | b\nc"}}
    expected = rows | {"6.1, nokaslr": first | {REASON: "a / b c"}}
    assert document.rows_of(document.table(rows)) == expected


def test_the_document_has_a_table():
    assert set(next(iter(document.read().values()))) == set(document.COLUMNS[1:])


def test_a_long_reason_stands_by_its_beginning(tmp_path, monkeypatch):
    path = tmp_path / "reach.md"
    path.write_text(f"{document.BEGIN}\n{document.END}\n")
    monkeypatch.setattr(document, "PATH", path)
    columns = dict.fromkeys(document.COLUMNS[1:], "open")
    document.write({"6.1": {**columns, REASON: "blind: one " + "and another " * 100}})
    (written,) = document.read().values()
    assert written[REASON].startswith("blind: one and another")
    assert written[REASON].endswith(" …")
    assert len(written[REASON]) <= 200
