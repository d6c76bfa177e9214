"""Copies in a traced program's own memory: what is said of them."""

import dataclasses
import io
import json

import pytest
from rich.console import Console

from tests.conftest import HERE
from zctrace import errors
from zctrace.analysis import limits, program, sentences
from zctrace.commands import choices
from zctrace.evidence.account import Stack
from zctrace.evidence.schema import Evidence
from zctrace.evidence.sites import Site
from zctrace.probes.model import Direction, Kind, Mechanism, Quantity
from zctrace.reports import program as reports
from zctrace.reports import program_data
from zctrace.reports.text import paper

MIB = 1 << 20
WITHIN = Direction.USER_TO_USER
SITE = Site(
    quantity=Quantity.USER_MEMORY, function="memmove", kind=Kind.COPY, direction=WITHIN,
    mechanism=Mechanism.UPROBE, paths=frozenset(), why="",
)  # fmt: skip


@pytest.fixture(scope="module")
def recorded():
    text = (HERE / "evidence" / "programs-6.1.json").read_text()
    return Evidence.from_json(json.loads(text)["cat"])


def within(recorded, size, watched=("memmove in libc.so.6",), least=4096, unwatched=()):
    """The same with so many bytes copied in the program's own memory."""
    (some, *_) = [c for c in recorded.trace.run.counts if c.role == "program"]
    count = dataclasses.replace(
        some, quantity=Quantity.USER_MEMORY, function="memmove", mechanism=Mechanism.UPROBE,
        direction=WITHIN, syscall=None, caller=None, calls=9, bytes=size,
    )  # fmt: skip
    run = recorded.trace.run
    counts = (*run.counts, count) if size else run.counts
    run = dataclasses.replace(run, counts=counts, user_copies_from=least)
    stack = Stack(1, "it", "memmove", None, WITHIN, (), ("memmove [libc.so.6]",), 9, size)
    account = dataclasses.replace(recorded.trace.account, stacks=(stack,) if size else ())
    trace = dataclasses.replace(
        recorded.trace, run=run, watched=watched, unwatched=unwatched, account=account
    )
    return program.answer(
        dataclasses.replace(recorded, sites=(*recorded.sites, SITE), trace=trace)
    )


def rendered(found):
    text = io.StringIO()
    paper.show(reports.report([found]), Console(file=text, width=80))
    return " ".join(text.getvalue().split())


def test_they_are_in_no_other_figure(recorded):
    plain, found = program.answer(recorded), within(recorded, 16 * MIB)
    assert found.failed == plain.failed == []
    assert (found.copied, found.beside) == (plain.copied, plain.beside)
    assert found.copies == plain.copies
    assert found.within_bytes == 16 * MIB
    assert found.stacks == plain.stacks


def test_the_sentence_and_the_report_say_so(recorded):
    found = within(recorded, 16 * MIB)
    assert sentences.sentence(found).endswith(
        ". In addition, 16777216 B (1.00 copies per byte) were copied in its own memory, "
        "by memmove"
    )
    text = rendered(found)
    assert "copied in the program's own memory, 4096 B or more at a time" in text
    assert "Watched: memmove in libc.so.6. Not seen: copies that a compiler has put" in text
    (summary,) = json.loads(program_data.result_json([found]))["summary"]
    assert summary["own_memory_bytes"] == 16 * MIB


def test_none_is_said_as_well(recorded):
    found = within(recorded, 0)
    assert "own memory" not in sentences.sentence(found)
    assert "Copied in the program's own memory, 4096 B or more at a time: 0 B" in rendered(
        found
    )
    (summary,) = json.loads(program_data.result_json([found]))["summary"]
    assert summary["own_memory_bytes"] == 0


def test_where_nothing_was_watched_nothing_is_said(recorded):
    found = program.answer(recorded)
    assert "own memory" not in rendered(found)
    (summary,) = json.loads(program_data.result_json([found]))["summary"]
    assert summary["own_memory_bytes"] is None


def test_where_no_function_was_found_the_answer_is_open(recorded):
    assert any("no function was found" in doubt for doubt in within(recorded, 0, ()).doubts)


def test_where_a_program_was_started_that_is_not_watched_it_is_open(recorded):
    """As one that is linked statically, which a shell starts: no zero is said of it."""
    found = within(recorded, 0, unwatched=("busybox: it is linked statically",))
    doubt = "not watched: the own memory of busybox: it is linked statically"
    assert doubt in found.doubts
    text = rendered(found)
    assert doubt in text
    assert "at a time: unknown" in text


def test_a_limit_is_for_both(recorded):
    limits.require(within(recorded, 0), 1.5)
    with pytest.raises(errors.LimitError, match="and 1 in its own memory"):
        limits.require(within(recorded, 16 * MIB), 1.5)


@pytest.mark.parametrize(("text", "size"), [("1K", 1024), ("64K", 65536), (None, None)])
def test_sizes_that_can_be_asked_for(text, size):
    assert choices.choose_own_copies(text) == size


@pytest.mark.parametrize("text", ["1", "1023", "65K", "many"])
def test_sizes_that_cannot(text):
    with pytest.raises(errors.UsageError):
        choices.choose_own_copies(text)
