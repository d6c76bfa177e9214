"""What is said of a traced program, from recorded evidence."""

import csv
import dataclasses
import io
import json

import pytest
from rich.console import Console
from typer.testing import CliRunner

from tests.conftest import HERE, recorded_evidence
from tests.unit.altering import at_site
from zctrace import cli, errors, output_files
from zctrace.analysis import border, limits, program, runs, sentences
from zctrace.evidence.account import Account, Booking, Flow, FlowWay, Look, Thing, ThingKind
from zctrace.evidence.schema import UNWATCHED, Evidence
from zctrace.probes.model import Direction
from zctrace.reports import machine_readable, program_data
from zctrace.reports import program as reports
from zctrace.reports.text import live, paper

SIZE = 16 << 20


@pytest.fixture(scope="module", params=("6.1", "7.3"))
def recorded(request):
    text = (HERE / "evidence" / f"programs-{request.param}.json").read_text()
    return {name: Evidence.from_json(values) for name, values in json.loads(text).items()}


@pytest.fixture(scope="module")
def answers(recorded):
    return {name: program.answer(evidence) for name, evidence in recorded.items()}


def altered(evidence, **values):
    """With other values in its trace; ``counts``, ``lost`` and ``hits`` are the run's."""
    of_run = {k: values.pop(k) for k in ("counts", "lost", "hits") if k in values}
    run = dataclasses.replace(evidence.trace.run, **of_run)
    return dataclasses.replace(
        evidence, trace=dataclasses.replace(evidence.trace, run=run, **values)
    )


def rendered(found, width=80):
    text = io.StringIO()
    paper.show(reports.report([found]), Console(file=text, width=width))
    return text.getvalue()


@pytest.mark.parametrize(
    ("name", "beginning"),
    [
        ("cp", "not zero-copy: 1.00 copies per byte delivered: 1.00 by copy_file_range"),
        ("cp --reflink", "zero-copy for "),
        ("cat", "not zero-copy: 1.00 copies per byte delivered: 1.00 by read(2)"),
        (
            "shell",
            "not zero-copy: 3.00 copies per byte received: 2.00 by read(2), 1.00",
        ),
        ("nginx, sendfile on", "zero-copy for 99.9 % of the bytes delivered; "),
        ("nginx, sendfile off", "not zero-copy: 2.00 copies per byte delivered: 1.00 by"),
    ],
)
def test_the_verdict(answers, name, beginning):
    assert sentences.sentence(answers[name]).startswith(beginning)


def test_the_answer_adds_up(answers):
    """By call, by thing, by thread and by site it is the same bytes."""
    for name, found in answers.items():
        total = found.copied_bytes
        assert sum(line.copied_bytes for line in found.calls) == total, name
        assert sum(line.copied_bytes for line in found.things) == total, name
        assert sum(line.copied_bytes for line in found.sites) == total, name
        # A thread's has also what was copied for other ends.
        assert sum(line.copied_bytes for line in found.threads) >= total, name


def test_a_pipe_inside_the_program_is_no_delivery(answers):
    found = answers["shell"]
    (pipe,) = [line for line in found.things if line.name.startswith("pipe:")]
    assert pipe.delivered == pipe.received == SIZE
    assert found.delivered == {"device": 9}
    assert "pipe" not in found.received


def test_a_pipe_out_of_the_program_is_one(recorded):
    evidence = recorded["shell"]
    account = evidence.trace.account
    (number,) = [n for n, thing in enumerate(account.things) if thing.kind == "pipe"]
    flows = tuple(flow for flow in account.flows if (flow.thing, flow.way) != (number, "in"))
    account = dataclasses.replace(account, flows=flows)
    found = program.answer(altered(evidence, account=account))
    assert found.delivered["pipe"] == SIZE


def test_without_its_probe_nothing_is_said(recorded):
    """A dead probe cannot make a program zero-copy."""
    evidence = recorded["nginx, sendfile off"]
    counts = tuple(c for c in evidence.trace.run.counts if c.function != "_copy_from_iter")
    found = program.answer(altered(evidence, counts=counts))
    assert found.copied is found.copied_bytes is found.copies is None
    assert sentences.sentence(found) == "not measured: a self-test failed"
    text = rendered(found)
    assert text.startswith("SELF-TEST FAILED")
    assert "u→k" not in text


def returned(evidence, role, more):
    """With so many bytes more in each count of what a function returned."""
    counts = tuple(
        dataclasses.replace(c, bytes=c.bytes + more)
        if (c.role, c.mechanism) == (role, "breakpoint@return") and c.bytes
        else c
        for c in evidence.trace.run.counts
    )
    return program.answer(altered(evidence, counts=counts))


@pytest.mark.parametrize(
    ("role", "more"), [("program", 1), ("control_before", 1), ("neighbour", -1)]
)
def test_mechanisms_that_differ_are_not_believed(recorded, role, more):
    found = returned(recorded["nginx, sendfile off"], role, more)
    assert found.copied is None
    assert any("two breakpoints agree" in c.name for c in found.checked if not c.passed)


def test_copies_that_nobody_saw_return_are_told(recorded):
    """They may have failed halfway: the kernel says so by returning less."""
    found = returned(recorded["nginx, sendfile off"], "program", -1)
    assert found.copied is not None
    (doubt,) = found.doubts
    many = doubt.split(" B more")[0].rpartition(" ")[2]
    assert doubt == (
        f"the copy routine was asked for {many} B more than its callers report as copied: "
        "some copies failed halfway, or were missed"
    )
    assert 1 <= int(many) <= 5


def test_what_was_lost_makes_lower_bounds(recorded):
    evidence = recorded["nginx, sendfile off"]
    lost = {**evidence.trace.run.lost, "on_call-skipped": 3}
    found = program.answer(altered(evidence, lost=lost))
    assert "not zero-copy: at least 2.00" in sentences.sentence(found)
    assert any("3 events were lost" in doubt for doubt in found.doubts)
    with pytest.raises(errors.LimitError, match="some copies may be missing"):
        limits.require(found, 3.0)


def test_zero_copy_with_a_doubt_says_so(recorded):
    evidence = recorded["nginx, sendfile on"]
    found = program.answer(altered(evidence, lost={"call": 1}))
    assert sentences.sentence(found).startswith("as far as observed, zero-copy")


def test_a_full_table_is_told_and_no_doubt(recorded):
    evidence = recorded["cp"]
    account = dataclasses.replace(evidence.trace.account, overflow=4711)
    found = program.answer(altered(evidence, account=account))
    assert [note.partition(",")[0] for note in found.notes] == ["4711 B"]
    assert "  4711 B, moved or copied, are in rows of many" in rendered(found)
    assert found.doubts == program.answer(evidence).doubts == ()


def test_pipes_without_room_are_a_doubt(recorded):
    """Which of them lead out, and so how much was delivered, is not known."""
    things = (Thing(ThingKind.PIPE, "more pipes", many=True),)
    flows = (
        Flow(0, 0, None, "write", FlowWay.OUT, 9, 90),
        Flow(0, 0, None, "read", FlowWay.IN, 9, 70),
    )
    account = Account(things, flows, (), (), 160)
    found = program.answer(altered(recorded["cat"], account=account))
    (doubt,) = found.doubts
    assert doubt.startswith("160 B went through more pipes than there is room for")


def test_nobody_s_bytes_are_shown_and_bounded(recorded):
    evidence = recorded["nginx, sendfile on"]
    (some, *_) = [c for c in evidence.trace.run.counts if c.quantity == "copy-from-iter"]
    where = {"syscall": None, "caller": some.caller}
    stray = at_site(evidence, "outside:program", "skb_copy_bits", SIZE, **where)
    counts = (*evidence.trace.run.counts, stray)
    found = program.answer(altered(evidence, counts=counts))
    before = program.answer(evidence)
    assert found.unassigned == before.unassigned + SIZE
    assert found.copied_bytes == before.copied_bytes
    assert found.most_copies > 0.99
    assert sentences.sentence(found).startswith("as far as observed, zero-copy")
    assert f"A further {found.unassigned} B were copied" in rendered(found).replace("\n  ", " ")
    with pytest.raises(errors.LimitError, match="could not be attributed"):
        limits.require(found, 0.01)


def small(flows, bookings, recorded):
    things = (Thing(ThingKind.FILE, "/a"), Thing(ThingKind.SOCKET, "tcp"))
    account = Account(things, tuple(flows), tuple(bookings), (), 0)
    return program.answer(altered(recorded["cat"], account=account))


def test_what_is_only_received_is_the_basis_then(recorded):
    found = small([Flow(0, 1, 3, "read", FlowWay.IN, 1, 1000)], [], recorded)
    assert found.basis == ("received", 1000)


def test_calls_that_had_begun_before(recorded):
    """Between what they moved bytes nobody has seen; how many, they say."""
    found = small([Flow(None, 1, None, "write", FlowWay.OUT, 1, 1000)], [], recorded)
    assert found.delivered == {"unknown": 1000}
    (line,) = found.things
    assert (line.name, line.delivered) == (border.UNKNOWN.name, 1000)


def test_softirqs_and_unknown_things_are_different_rows(recorded):
    bookings = [
        Booking(None, None, Direction.KERNEL_TO_KERNEL, 1, 70),
        Booking(None, "write", Direction.USER_TO_KERNEL, 1, 30),
    ]
    found = small([Flow(1, 1, 3, "write", FlowWay.OUT, 1, 1000)], bookings, recorded)
    assert sorted(line.copied_bytes for line in found.things) == [0, 30, 70]


def test_io_uring_is_a_doubt_where_nothing_sees_its_operations(recorded):
    evidence = dataclasses.replace(recorded["cat"], hooks=())
    (some, *_) = [
        c
        for c in evidence.trace.run.counts
        if (c.role, c.quantity) == ("program", "syscall-enter")
    ]
    counts = (*evidence.trace.run.counts, dataclasses.replace(some, syscall="io_uring_enter"))
    found = program.answer(altered(evidence, counts=counts))
    assert any("io_uring" in doubt for doubt in found.doubts)


@pytest.mark.parametrize("call", ["write", "sendfile"])
def test_what_a_program_reads_for_itself_is_not_on_the_way(recorded, call):
    """It reads 16 MiB, and delivers 12: from its memory, or not."""
    evidence = recorded["cat"]
    things = (*evidence.trace.account.things, Thing(ThingKind.SOCKET, "tcp", type="tcp"))
    flows = [f for f in evidence.trace.account.flows if f.way is FlowWay.IN]
    flows.append(Flow(len(things) - 1, 1, 3, call, FlowWay.OUT, 12, 12 << 20))
    account = dataclasses.replace(evidence.trace.account, things=things, flows=tuple(flows))
    found = program.answer(altered(evidence, account=account))
    said = sentences.sentence(found)
    assert found.basis == ("delivered", 12 << 20)
    if call == "sendfile":
        assert found.copies < 0.01
        assert found.kept == found.copied[Direction.KERNEL_TO_USER]
        assert said.startswith("zero-copy for ")
        assert f"{found.kept} B were copied on the way in" in said
    else:
        assert 1 <= found.copies < 1.01
        assert found.kept == found.copied[Direction.KERNEL_TO_USER] - (12 << 20)
        assert said.startswith(
            "not zero-copy: 1.00 copies per byte delivered: 1.00 by read(2);"
        )
        assert said.endswith(
            f"another {found.kept} B were copied on the way in and not delivered"
        )
    assert f"(without {found.kept} B that came in" in " ".join(rendered(found).split())
    (summary,) = json.loads(program_data.result_json([found]))["summary"]
    assert summary["kept_bytes"] == found.kept


def test_an_operation_is_no_system_call_in_words(recorded):
    flows = [Flow(1, 1, 3, "IORING_OP_SEND", FlowWay.OUT, 4, 1000000)]
    bookings = [Booking(1, "IORING_OP_SEND", Direction.USER_TO_KERNEL, 4, 1000000)]
    found = small(flows, bookings, recorded)
    assert sentences.called("IORING_OP_SEND") == "IORING_OP_SEND"
    assert sentences.called("IOCB_CMD_PREAD") == "IOCB_CMD_PREAD"
    text = rendered(found)
    assert "system call or operation" in text
    assert "IORING_OP_SEND(2)" not in text


def test_operations_that_do_not_say_what_they_moved_are_a_doubt(recorded):
    evidence = recorded["cat"]
    (some, *_) = [c for c in evidence.trace.run.counts if c.role == "program"]
    of = {"quantity": "ring-completed", "calls": 3, "bytes": 0}
    for name, doubtful in (("IORING_OP_NOP", False), ("IORING_OP_URING_CMD", True)):
        count = dataclasses.replace(some, syscall=name, **of)
        found = program.answer(altered(evidence, counts=(*evidence.trace.run.counts, count)))
        assert any(name in doubt for doubt in found.doubts) == doubtful


def test_what_a_client_did_is_shown(recorded):
    evidence = recorded["cat"]
    subject = dataclasses.replace(evidence.request.subject, client="curl it")
    evidence = dataclasses.replace(
        evidence, request=dataclasses.replace(evidence.request, subject=subject)
    )
    for status, words in ((7, "exited with status 7"), (None, "was ended")):
        found = program.answer(altered(evidence, ended="served", client_status=status))
        text = rendered(found)
        assert f"client, not traced: curl it: {words}" in text
        assert "until its client exited" in text


def test_the_limit(answers):
    limits.require(answers["nginx, sendfile on"], 0.01)
    with pytest.raises(errors.LimitError, match="copies per byte delivered"):
        limits.require(answers["nginx, sendfile off"], 0.01)


def test_the_report_fits(answers):
    for name, found in answers.items():
        lines = rendered(found).splitlines()
        assert max(map(len, lines)) <= 80, name
        assert lines[0].lower().startswith(sentences.sentence(found)[:20].lower())


def test_long_names_keep_their_ends(recorded):
    evidence = recorded["cp"]
    things = tuple(
        dataclasses.replace(thing, name="/very/long" * 9 + "/end")
        for thing in evidence.trace.account.things
    )
    account = dataclasses.replace(evidence.trace.account, things=things)
    text = rendered(program.answer(altered(evidence, account=account)))
    assert "/end" in text
    assert max(map(len, text.splitlines())) <= 80


def test_the_csv_has_everything(answers):
    found = answers["nginx, sendfile off"]
    rows = list(csv.DictReader(io.StringIO(program_data.flows_csv([found]))))
    assert list(rows[0]) == program_data.COLUMNS
    out = sum(int(row["bytes"]) for row in rows if row["way"] == "out")
    copied = sum(int(row["bytes"]) for row in rows if row["way"] == "copied")
    assert (out, copied) == (sum(found.delivered.values()), found.copied_bytes)


def test_saved_results_are_shown_again(answers, tmp_path):
    found = answers["nginx, sendfile off"]
    path = tmp_path / "result"
    path.write_text(program_data.result_json([found]))
    result = CliRunner().invoke(cli.app, ["report", str(path)])
    assert result.exit_code == 0
    assert sentences.sentence(found)[4:40] in result.stdout
    path.write_text(machine_readable.result_json(runs.judge([recorded_evidence("6.1")])))
    refused = CliRunner().invoke(
        cli.app, ["report", str(path), "--folded", str(tmp_path / "x")]
    )
    assert isinstance(refused.exception, errors.UsageError)


@pytest.mark.parametrize(
    ("arguments", "what"),
    [
        (["trace"], "nothing to trace"),
        (["trace", "-p", "1", "--", "ls"], "a command and -p together"),
        (["trace", "-p", "999999999"], "-p 999999999: there is no such process"),
        (["trace", "--cgroup", "/no/such"], "--cgroup /no/such: there is no such cgroup"),
    ],
)
def test_wrong_arguments(arguments, what):
    error = CliRunner().invoke(cli.app, arguments).exception
    assert isinstance(error, errors.UsageError)
    assert error.what == what


def test_a_processor_that_went_off_leaves_the_answer_open(recorded):
    evidence = recorded["cp --reflink"]
    lost = {**evidence.trace.run.lost, UNWATCHED: 1}
    (doubt,) = program.answer(altered(evidence, lost=lost)).doubts
    assert doubt.startswith("a CPU went offline or online")


def test_a_breakpoint_that_was_not_armed_all_the_time_leaves_the_answer_open(recorded):
    evidence = recorded["cp --reflink"]
    name, hits = next((n, h) for n, h in evidence.trace.run.hits.items() if h.perf is not None)
    hits = {**evidence.trace.run.hits, name: dataclasses.replace(hits, multiplexed=True)}
    (doubt,) = program.answer(altered(evidence, hits=hits)).doubts
    assert doubt.startswith(f"the breakpoint on {name} was not armed all the time")


@pytest.mark.parametrize(
    ("copied", "said"),
    [
        ({"u2k": 45, "k2u": 3560}, "45 B were copied on the way out, 3560 B on the way in"),
        ({"k2u": 7}, "7 B were copied on the way in"),
        ({"k2k": 9}, "9 B were copied inside the kernel"),
        ({"u2k": 1, "k2k": 9}, "1 B were copied on the way out, 9 B inside the kernel"),
        ({None: 5}, "5 B were copied in an unknown direction"),
    ],
)
def test_the_answer_says_where_few_bytes_were_copied(answers, copied, said):
    found = answers["nginx, sendfile on"]
    ways = {Direction(way) if way else None: size for way, size in copied.items()}
    found = dataclasses.replace(found, copied=ways)
    assert f"; {said}, most by " in sentences.sentence(found)


def test_an_answer_of_many_small_copies_ends_with_its_figure(answers):
    """No call has a share that is worth a name."""
    found = answers["nginx, sendfile on"]
    small = {Direction.USER_TO_KERNEL: 1000}
    calls = [dataclasses.replace(line, copied=small) for line in found.calls]
    copied = {Direction.USER_TO_KERNEL: 2 * sum(found.delivered.values()) // 100}
    found = dataclasses.replace(found, calls=calls, copied=copied)
    assert sentences.sentence(found) == "not zero-copy: 0.02 copies per byte delivered"


def test_a_line_for_each_look_and_one_for_the_end(answers, tmp_path):
    path = tmp_path / "lines"
    with output_files.lines(path) as put:
        put(live.as_json(1.23456, Look({"read": 7}, {}, {"read": 7}, 0)))
        # It is there at once.
        (first,) = map(json.loads, path.read_text().splitlines())
        put(program_data.summary_line(answers["cp"]))
    assert first == {
        "seconds": 1.235, "received": {"read": 7}, "delivered": {}, "copied": {"read": 7},
        "overflow": 0,
    }  # fmt: skip
    _, last = map(json.loads, path.read_text().splitlines())
    assert last["summary"]["copies"] == answers["cp"].copies
