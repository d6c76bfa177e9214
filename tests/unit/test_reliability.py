"""What ``make test-reliability`` makes of its tries, and of its table."""

import json
from types import SimpleNamespace

import pytest

from tests.kernel_lines import document
from tests.kernel_lines.judge import Word
from tests.reliability import __main__ as campaign
from tests.reliability import judge
from tests.reliability.judge import Beside
from tests.reliability.record import read, tried
from zctrace.probes.model import Quantity

FILE, BYTES = "/run/source", 1003


def line(name, received=0, **copied):
    return SimpleNamespace(name=name, received=received, copied=copied)


def row(**columns):
    return SimpleNamespace(**{"thing": 0, "bytes": BYTES, **columns})


def answer(**altered):
    account = SimpleNamespace(
        things=[SimpleNamespace(kind="pipe")],
        flows=[row(way="in"), row(way="out")],
        bookings=[row(direction="u2k"), row(direction="k2u"), row(direction="k2k", bytes=9)],
    )
    made = SimpleNamespace(
        role="program", quantity=Quantity.SYSCALL_ENTER, syscall="exit_group", calls=3
    )
    exact = {
        "things": [line(FILE, BYTES, k2u=BYTES)],
        "trace": SimpleNamespace(account=account, run=SimpleNamespace(counts=[made])),
        **dict.fromkeys(("failed", "doubts", "unexplained"), ()),
        "unassigned": 0,
    }
    return SimpleNamespace(**exact | altered)


@pytest.mark.parametrize(
    "right",
    [
        {"things": {FILE: {"k2u": BYTES}}},
        {"kinds": {"pipe": BYTES}},
        {"calls": {"exit_group": 3}},
        {"at most": {FILE: BYTES, "/not/opened": 1}},
        {"some": [FILE]},
    ],
    ids=lambda right: next(iter(right)),
)
def test_what_was_expected_is_exact(right):
    assert judge.of_trace(answer(), right).word is Word.EXACT


@pytest.mark.parametrize(
    "other",
    [
        {"things": {FILE: {"k2u": BYTES - 1}}},
        {"things": {FILE: {"k2u": BYTES, "u2k": 1}}},
        {"things": {"/another": {"k2u": BYTES}}},
        {"kinds": {"pipe": BYTES + 1}},
        {"kinds": {"socket": BYTES}},
        {"calls": {"exit_group": 2}},
        {"calls": {"execve": 1}},
        {"at most": {FILE: BYTES - 1}},
        {"some": ["/another"]},
    ],
    ids=str,
)
def test_anything_else_without_a_doubt_is_wrong(other):
    assert judge.of_trace(answer(), other).word is Word.WRONG


@pytest.mark.parametrize("of", ["at most", "some"])
@pytest.mark.parametrize("copied", [{}, {"k2u": BYTES - 1}, {"k2u": BYTES, "u2k": 1}], ids=str)
def test_what_was_received_and_not_copied_is_wrong(of, copied):
    expected = {of: {FILE: BYTES}}
    found = answer(things=[line(FILE, BYTES, **copied)])
    assert judge.of_trace(found, expected).word is Word.WRONG


def test_a_copy_of_a_call_that_was_under_way_at_the_end_is_right():
    found = answer(things=[line(FILE, BYTES, k2u=BYTES + judge.PIECE)])
    assert judge.of_trace(found, {"some": [FILE]}).word is Word.EXACT
    found = answer(things=[line(FILE, BYTES, k2u=BYTES + judge.PIECE + 1)])
    assert judge.of_trace(found, {"some": [FILE]}).word is Word.WRONG


def test_with_a_doubt_it_is_open():
    found = answer(doubts=("a probe was missed",), things=[])
    assert judge.of_trace(found, {"some": [FILE]}).word is Word.OPEN


@pytest.mark.parametrize(
    ("given", "outcome"),
    [
        ({"status": judge.KILLED}, Beside.NONE),
        ({"status": judge.KILLED, "result": {"broken": True}}, Word.WRONG),
        ({"status": 7, "stderr": "zctrace: no such thing\n    why: x\n"}, Word.REFUSED),
        ({"status": 1, "stderr": "Traceback (most recent call last):\nKeyError\n"}, Word.WRONG),
        ({"status": 0}, Word.WRONG),
    ],
)
def test_a_try_without_figures(given, outcome):
    found = judge.outcome(tried(**given))
    assert getattr(found, "word", found) == outcome


def test_a_result_is_read_whole_or_is_broken(tmp_path):
    file = tmp_path / "result"
    assert read(file) is None
    file.write_text('{"evidence": [{"tr')
    assert read(file) == {"broken": True}
    file.write_text(json.dumps({"evidence": [{"trace": {}}], "summary": []}))
    assert read(file) == {"summary": []}
    file.write_text(json.dumps({"evidence": [{"trace": {"run": 1}}], "summary": []}))
    assert read(file) == {"evidence": {"trace": {"run": 1}}}


def test_a_message_is_found_behind_its_traceback():
    raised = "Traceback …\nzctrace.errors.UsageError: -p 1: gone\n    why: it ended\n"
    assert judge.message(raised) == "zctrace: -p 1: gone\n    why: it ended\n"
    assert judge.message("Traceback …\nKeyError: 1") == "Traceback …\nKeyError: 1"


def test_a_row_has_every_try_once_and_what_is_left_beside():
    tries = [
        tried(judge.KILLED, left={"mounts": [[], ["/x"]]}),
        tried(judge.KILLED),
        tried(7, "zctrace: refused"),
    ]
    made = campaign.row(tries, {"phases": 2}, "6.1.0")
    assert sum(int(made[word]) for word in (*campaign.COUNTED, campaign.BAD[0])) == 3
    assert made["tried"] == "3"
    assert (made["killed"], made["refused"], made["left behind"]) == ("2", "1", "1")
    assert "1 × refused: refused" in made[campaign.SEEN]
    assert "phases: 2" in made[campaign.SEEN]


def test_rows_stay_in_their_order_and_are_replaced_one_by_one(tmp_path, monkeypatch):
    page = tmp_path / "page"
    page.write_text(f"{campaign.BEGIN}\n{campaign.END}\n")
    monkeypatch.setattr(campaign, "PAGE", page)
    titles = [title for title, _ in campaign.ITEMS.values()]
    for title, tries in ((titles[1], "1"), (titles[0], "2"), (titles[1], "3")):
        campaign.write(title, dict.fromkeys(campaign.COLUMNS[1:], tries))
    rows = document.rows_of(page.read_text(), campaign.COLUMNS)
    assert [(title, made["tried"]) for title, made in rows.items()] == [
        (titles[0], "2"),
        (titles[1], "3"),
    ]


def test_the_page_has_a_place_for_the_table():
    text = campaign.PAGE.read_text()
    assert text.count(campaign.BEGIN) == text.count(campaign.END) == 1
