"""A part of a program: nothing that may belong to it is left out without a word."""

import dataclasses
import io
import json

import pytest
from rich.console import Console
from typer.testing import CliRunner

from tests.conftest import HERE
from tests.unit.altering import at_site
from zctrace import cli, errors
from zctrace.analysis import advice, limits, only, program, sentences
from zctrace.analysis.lines import Line
from zctrace.evidence.account import Booking, Flow, FlowWay, Only, Thing, ThingKind
from zctrace.evidence.schema import Evidence
from zctrace.probes.model import Direction
from zctrace.reports import program as reports
from zctrace.reports import program_data
from zctrace.reports.text import paper

SIZE = 16 << 20
ON, OFF = "nginx, sendfile on", "nginx, sendfile off"


@pytest.fixture(scope="module")
def recorded():
    values = json.loads((HERE / "evidence" / "programs-6.1.json").read_text())
    return {name: Evidence.from_json(one) for name, one in values.items()}


def asked(evidence, **part):
    subject = dataclasses.replace(evidence.request.subject, only=Only(**part))
    request = dataclasses.replace(evidence.request, subject=subject)
    return program.answer(dataclasses.replace(evidence, request=request))


def with_account(evidence, **more):
    account = evidence.trace.account
    account = dataclasses.replace(
        account, **{name: (*getattr(account, name), *rows) for name, rows in more.items()}
    )
    trace = dataclasses.replace(evidence.trace, account=account)
    return dataclasses.replace(evidence, trace=trace)


@pytest.mark.parametrize(
    ("part", "delivered", "copied"),
    [
        ({"ports": (8002,)}, SIZE + 243, {"u2k": SIZE + 243, "k2u": 125}),
        ({"files": ("/run/programs/ext4/payload",)}, 0, {"k2u": SIZE}),
        ({"files": ("payload",)}, 0, {"k2u": SIZE}),
        ({"files": ("/run/*",)}, 0, {"k2u": SIZE}),
        ({"calls": ("pread64",)}, 0, {"k2u": SIZE}),
        ({"calls": ("writev", "pread64")}, SIZE + 243, {"u2k": SIZE + 243, "k2u": SIZE}),
        ({"ports": (8002,), "calls": ("writev",)}, SIZE + 243, {"u2k": SIZE + 243}),
        ({"ports": (1,)}, 0, {}),
        ({"files": ("nothing",)}, 0, {}),
    ],
)
def test_a_part_has_its_own_figures(recorded, part, delivered, copied):
    found = asked(recorded[OFF], **part)
    assert sum(found.delivered.values()) == delivered
    assert {str(way): size for way, size in found.copied.items() if size} == copied
    assert found.doubts == ()


def test_a_descriptor(recorded):
    whole = program.answer(recorded[OFF])
    (socket,) = [line for line in whole.things if line.name.startswith("tcp")]
    (number,) = socket.descriptors
    found = asked(recorded[OFF], descriptors=(number,))
    assert [line.name for line in found.things if line.delivered] == [socket.name]


def test_the_report_says_what_part_it_is(recorded):
    found = asked(recorded[OFF], ports=(8002,), calls=("writev",))
    text = io.StringIO()
    paper.show(reports.report([found]), Console(file=text, width=200))
    assert "only port 8002, writev; " in text.getvalue()
    assert "pread64" not in text.getvalue()
    assert sentences.sentence(found).startswith("not zero-copy: 1.00 copies per byte delivered")


def test_copies_by_function_where_only_calls_are_named(recorded):
    assert [line.name for line in asked(recorded[OFF], calls=("pread64",)).sites] == [
        "_copy_to_iter ← copy_page_to_iter, pread64"
    ]
    assert asked(recorded[OFF], ports=(8002,)).sites == []


def test_what_was_copied_for_nothing_that_is_known_may_be_the_part_s(recorded):
    """In a softirq, or in a call whose descriptor was not seen."""
    stray = Booking(None, None, Direction.KERNEL_TO_KERNEL, 9, SIZE)
    evidence = with_account(recorded[ON], bookings=[stray])
    for part in ({"ports": (8001,)}, {"calls": ("sendfile",)}):
        found = asked(evidence, **part)
        assert found.unassigned == SIZE
        assert found.copies < 0.001
        with pytest.raises(errors.LimitError, match="could not be attributed"):
            limits.require(found, 0.01)
        assert sentences.sentence(found).startswith("as far as observed")


def test_what_moved_through_more_sockets_than_there_is_room_for(recorded):
    many = Thing(ThingKind.SOCKET, "more tcp sockets", many=True, type="tcp")
    number = len(recorded[ON].trace.account.things)
    flow = Flow(number, 0, None, "sendfile", FlowWay.OUT, 1, SIZE)
    found = asked(with_account(recorded[ON], things=[many], flows=[flow]), ports=(8001,))
    (doubt,) = found.doubts
    assert f"{SIZE} B went through files or sockets whose names or ports" in doubt


def test_what_is_unexplained_elsewhere_does_not_matter(recorded):
    things = tuple(
        dataclasses.replace(thing, type="strange") if thing.kind == ThingKind.SOCKET else thing
        for thing in recorded[ON].trace.account.things
    )
    account = dataclasses.replace(recorded[ON].trace.account, things=things)
    trace = dataclasses.replace(recorded[ON].trace, account=account)
    evidence = dataclasses.replace(recorded[ON], trace=trace)
    assert asked(evidence, ports=(8001,)).unexplained_bytes >= SIZE
    assert asked(evidence, files=("payload",)).unexplained_bytes == 0


def test_a_failed_self_test_withholds_a_part_as_well(recorded):
    counts = tuple(c for c in recorded[OFF].trace.run.counts if c.function != "_copy_from_iter")
    run = dataclasses.replace(recorded[OFF].trace.run, counts=counts)
    trace = dataclasses.replace(recorded[OFF].trace, run=run)
    found = asked(dataclasses.replace(recorded[OFF], trace=trace), ports=(8002,))
    assert found.copied is None
    assert found.failed


def test_advice_is_of_the_part(recorded):
    assert [one.rule for one in advice.of(program.answer(recorded[OFF]))] == ["sendfile"]
    assert advice.of(asked(recorded[OFF], calls=("writev",))) == []


def test_a_part_is_saved_and_shown_again(recorded, tmp_path):
    found = asked(recorded[OFF], ports=(8002,))
    text = program_data.result_json([found])
    again = program.answer(Evidence.from_json(json.loads(text)["evidence"][0]))
    assert (again.copied, again.notes) == (found.copied, found.notes)
    # All that was counted is there.
    assert len(again.evidence.trace.account.flows) > len(again.trace.account.flows)


@pytest.mark.parametrize(
    ("name", "ports", "has"),
    [
        ("tcp 127.0.0.1:80 → 192.0.2.7:4711", (80,), True),
        ("tcp 127.0.0.1:80 → 192.0.2.7:4711", (4711,), True),
        ("tcp 127.0.0.1:8080 → 192.0.2.7:4711", (80,), False),
        ("udp [::1]:80 → [::]:0", (80,), True),
        ("tcp [2001:db8::80]:1 → [::]:0", (80,), False),
        ("unix stream socket:[80]", (80,), False),
    ],
)
def test_a_port_of_a_socket(name, ports, has):
    assert only._has_port(Thing(ThingKind.SOCKET, name), ports) is has


@pytest.mark.parametrize(
    ("option", "value"),
    [("--syscall", "opne"), ("--syscall", "open"), ("--fd", "-1"), ("--fd", "x"),
     ("--port", "0"), ("--file", "")],
)  # fmt: skip
def test_what_can_be_no_part_is_refused(option, value):
    result = CliRunner().invoke(cli.app, ["trace", option, value, "--", "true"])
    assert result.exit_code == 2
    assert option in result.output


THINGS = (
    Thing(ThingKind.FILE, "/srv/source", type="ext4", beneath=("virtio_blk",)),
    Thing(ThingKind.FILE, "/srv/target", type="ext4", beneath=("virtio_blk",)),
    Thing(ThingKind.SOCKET, "tcp 127.0.0.1:80 → 127.0.0.1:4711", type="tcp"),
    Thing(ThingKind.SOCKET, "tcp 127.0.0.1:81 → 127.0.0.1:4712", type="tcp"),
)
K2K, K2U, U2K = (
    Direction.KERNEL_TO_KERNEL, Direction.KERNEL_TO_USER, Direction.USER_TO_KERNEL,
)  # fmt: skip
IN, OUT = FlowWay.IN, FlowWay.OUT


def moving(recorded, flows, bookings, packets=0, **part):
    """Of one process; each flow is a thing, a call, a way and bytes, so many as packets."""
    evidence = recorded[ON]
    account = dataclasses.replace(
        evidence.trace.account,
        things=THINGS,
        flows=tuple(Flow(n, 7, 3 + n, call, way, 1, size) for n, call, way, size in flows),
        bookings=tuple(
            Booking(n, call, direction, 1, size, 7) for n, call, direction, size in bookings
        ),
    )
    counts = tuple(c for c in evidence.trace.run.counts if c.role != "program")
    if packets:
        counts += (
            at_site(evidence, "program", "skb_copy_bits", packets, syscall="x", caller=None),
        )
    run = dataclasses.replace(evidence.trace.run, counts=counts)
    trace = dataclasses.replace(evidence.trace, account=account, run=run)
    return asked(dataclasses.replace(evidence, trace=trace), **part)


def test_what_came_in_and_stayed_is_copied_in_a_part(recorded):
    """Who wrote it elsewhere is not part of this part."""
    flows = [
        (2, "recvfrom", IN, 140 << 20), (1, "write", OUT, 140 << 20),
        (0, "sendfile", IN, 100 << 20), (2, "sendfile", OUT, 100 << 20),
    ]  # fmt: skip
    copied = [(2, "recvfrom", K2U, 140 << 20), (1, "write", U2K, 140 << 20)]
    for part in ({"ports": (80,)}, {"calls": ("recvfrom", "sendfile")}):
        found = moving(recorded, flows, copied, **part)
        assert found.copies > 0.5
        with pytest.raises(errors.LimitError):
            limits.require(found, 0.01)


@pytest.mark.parametrize("part", [{"files": ("source",)}, {"descriptors": (3,)}])
def test_what_was_copied_for_where_it_goes_may_be_the_source_s(recorded, part):
    flows = [(0, "copy_file_range", IN, SIZE), (1, "copy_file_range", OUT, SIZE)]
    found = moving(recorded, flows, [(1, "copy_file_range", K2K, SIZE)], **part)
    assert found.unassigned == SIZE
    with pytest.raises(errors.LimitError):
        limits.require(found, 0.01)


@pytest.mark.parametrize("part", [{"ports": (80,)}, {"calls": ("sendfile",)}])
def test_packets_that_were_copied_on_top_of_another_call(recorded, part):
    flows = [
        (0, "sendfile", IN, SIZE), (2, "sendfile", OUT, SIZE), (3, "write", OUT, SIZE),
    ]  # fmt: skip
    stray = [(3, "write", K2K, SIZE)]
    assert moving(recorded, flows, stray, packets=SIZE, **part).unassigned == SIZE
    # Where no packets were copied, it was not theirs.
    assert moving(recorded, flows, stray, **part).unassigned == 0


def test_copies_in_own_memory_may_be_the_part_s(recorded):
    evidence = recorded[ON]
    run = dataclasses.replace(evidence.trace.run, user_copies_from=65536)
    trace = dataclasses.replace(evidence.trace, run=run, watched=("memmove in libc.so.6",))
    found = asked(dataclasses.replace(evidence, trace=trace), ports=(8001,))
    line = Line("memmove", 1)
    line.copied[Direction.USER_TO_USER] = SIZE
    whole = dataclasses.replace(program.answer(evidence), within=[line])
    assert only.narrowed(whole, Only(ports=(8001,))).within_bytes == SIZE
    assert found.within_bytes == 0


def test_copies_in_a_row_of_many_may_be_the_part_s(recorded):
    many = Thing(ThingKind.SOCKET, "more tcp sockets", many=True, type="tcp")
    number = len(recorded[ON].trace.account.things)
    booking = Booking(number, "writev", U2K, 1, SIZE)
    found = asked(with_account(recorded[ON], things=[many], bookings=[booking]), ports=(8001,))
    assert found.unassigned == SIZE


@pytest.mark.parametrize(
    ("name", "kind", "part"),
    [
        ("udp 0.0.0.0:53 → 0.0.0.0:0", ThingKind.SOCKET, {"ports": (4711,)}),
        ("/…/deep/down/file", ThingKind.FILE, {"files": ("/srv/a/deep/down/file",)}),
    ],
)
def test_a_name_that_is_not_whole_leaves_it_open(recorded, name, kind, part):
    thing = Thing(kind, name, type="udp")
    number = len(recorded[ON].trace.account.things)
    flow = Flow(number, 145, 9, "sendto", OUT, 1, SIZE)
    found = asked(with_account(recorded[ON], things=[thing], flows=[flow]), **part)
    assert any(f"{SIZE} B went through" in doubt for doubt in found.doubts)
