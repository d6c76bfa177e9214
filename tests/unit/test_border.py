"""What a traced program delivers and receives, and what only moves inside it."""

import dataclasses
import json

import pytest
from rich.console import Console

from tests.conftest import HERE
from zctrace.analysis import border, program, sentences
from zctrace.analysis.lines import Line
from zctrace.evidence import json_form
from zctrace.evidence.account import Account, Booking, Flow, FlowWay, Look, Thing, ThingKind
from zctrace.evidence.schema import Evidence
from zctrace.probes.model import Direction
from zctrace.reports import program as reports
from zctrace.reports import program_data
from zctrace.reports.text import live, paper

FILE, SOCKET, PIPE = ThingKind.FILE, ThingKind.SOCKET, ThingKind.PIPE
MIB = 1 << 20


def account(things, *flows):
    """Of flows (thing, way, bytes)."""
    return Account(
        tuple(things),
        tuple(
            Flow(number, 1, 3, {"in": "read", "out": "write"}[way], FlowWay(way), 1, size)
            for number, way, size in flows
        ),
    )


def pair(kind=SOCKET):
    """Two ends of a connection, and a file."""
    return Thing(kind, "a", peer=1), Thing(kind, "b", peer=0), Thing(FILE, "/file")


@pytest.fixture(scope="module")
def answered():
    """The answer on an account, with ``copied`` bytes of it by write(2)."""
    text = (HERE / "evidence" / "programs-6.1.json").read_text()
    recorded = Evidence.from_json(json.loads(text)["cat"])
    row = next(c for c in recorded.trace.run.counts if c.quantity == "copy-to-iter")
    routine = next(
        c
        for c in recorded.trace.run.counts
        if c.quantity == "user-copy-routine" and c.caller.startswith(f"{row.function}+")
    )
    payload = {
        *("copy-to-iter", "copy-from-iter", "copy-from-iter-atomic", "skb-copy-bits"),
        "user-copy-routine",
    }

    def answer(account, copied):
        counts = [
            c
            for c in recorded.trace.run.counts
            if c.role != "program" or c.quantity not in payload or not c.bytes
        ]
        counts += [
            dataclasses.replace(one, role="program", syscall="write", bytes=copied)
            for one in (row, routine)
        ]
        booking = Booking(None, "write", Direction.USER_TO_KERNEL, 1, copied)
        account = dataclasses.replace(account, bookings=(booking,) if copied else ())
        run = dataclasses.replace(recorded.trace.run, counts=tuple(counts))
        trace = dataclasses.replace(recorded.trace, run=run, account=account)
        return dataclasses.replace(
            program.answer(dataclasses.replace(recorded, trace=trace)),
            copied={Direction.USER_TO_KERNEL: copied},
        )

    return answer


def test_a_connection_with_both_sockets_in_the_program_is_inside():
    found = border.of(account(pair(), (0, "out", 5 * MIB), (1, "in", 4 * MIB), (2, "in", MIB)))
    assert (found.delivered, found.received) == ({}, {FILE: MIB})
    assert found.inside == {SOCKET: 5 * MIB}


def test_a_connection_to_an_outsider_is_not_inside():
    """Nor is one whose other socket was seen, but moved nothing for the program."""
    asked = account([Thing(SOCKET, "client")], (0, "out", 100), (0, "in", MIB))
    for things in ([Thing(SOCKET, "client")], pair()):
        found = border.of(dataclasses.replace(asked, things=tuple(things)))
        assert (found.delivered, found.received) == ({SOCKET: 100}, {SOCKET: MIB})
        assert found.inside == {}


def test_a_server_and_its_client_are_related_to_the_file(answered):
    """The server sends a file from the page cache, the client throws it away: one copy."""
    moved = account(
        pair(), (2, "in", MIB), (0, "out", MIB), (1, "in", MIB), (1, "out", 80), (0, "in", 80)
    )
    found = answered(moved, MIB)
    assert found.basis == ("received", MIB)
    assert found.copies == 1


def test_a_pipe_into_a_counter_is_related_to_what_was_read(answered):
    things = (Thing(FILE, "/file"), Thing(PIPE, "pipe"), Thing(ThingKind.DEVICE, "tty"))
    moved = account(
        things, (0, "in", 16 * MIB), (1, "out", 16 * MIB), (1, "in", 16 * MIB), (2, "out", 9)
    )
    found = answered(moved, 48 * MIB)
    assert (found.delivered, found.received) == ({"device": 9}, {FILE: 16 * MIB})
    assert sentences.sentence(found).startswith("not zero-copy: 3.00 copies per byte received")


@pytest.mark.parametrize(
    ("came_in", "went_out", "basis"),
    [
        (MIB, MIB, ("delivered", MIB)),
        (MIB + MIB // 128, MIB, ("delivered", MIB)),
        (MIB + MIB // 2, MIB, ("delivered", MIB)),
        (MIB + MIB // 2 + 1, MIB, ("received", MIB + MIB // 2 + 1)),
        # Where there is little, nothing is passed on.
        (2000, 1400, ("received", 2000)),
        (MIB, 100, ("received", MIB)),
        (100, MIB, ("delivered", MIB)),
        (0, 0, ("delivered", 0)),
    ],
)
def test_the_basis_is_the_larger_of_in_and_out(came_in, went_out, basis):
    things = (Thing(FILE, "/from"), Thing(FILE, "/to"))
    assert border.of(account(things, (0, "in", came_in), (1, "out", went_out))).basis == basis


LOADING = 5 * MIB
"""What a program reads for itself, in addition to what it passes on."""


def passing_on(out, from_memory):
    """A program that delivers so much, some of it from its memory."""
    things = (Thing(FILE, "/from"), Thing(SOCKET, "tcp"))
    moved = account(things, (0, "in", 16 * MIB + LOADING))
    by = [("write", from_memory), ("sendfile", out - from_memory)]
    flows = [Flow(1, 1, 3, name, FlowWay.OUT, 1, size) for name, size in by if size]
    return dataclasses.replace(moved, flows=(*moved.flows, *flows))


@pytest.mark.parametrize(
    ("from_memory", "kept"),
    [(0, 16 * MIB + LOADING), (16 * MIB, LOADING), (10 * MIB, 6 * MIB + LOADING)],
)
def test_what_was_not_delivered_was_kept(from_memory, kept):
    """No more can have been delivered than was from the program's memory."""
    found = border.of(passing_on(16 * MIB, from_memory))
    assert found.basis == ("delivered", 16 * MIB)
    assert found.kept(16 * MIB + LOADING) == kept
    assert found.kept(0) == 0


def test_nothing_is_left_out_where_as_much_is_delivered():
    things = (Thing(FILE, "/from"), Thing(SOCKET, "tcp"))
    found = border.of(account(things, (0, "in", MIB), (1, "out", MIB)))
    assert found.kept(2 * MIB) == 0
    much = border.of(account(things, (0, "in", 2 * MIB), (1, "out", MIB)))
    assert (much.basis, much.kept(2 * MIB)) == (("received", 2 * MIB), 0)


def test_what_moved_inside_is_the_basis_where_hardly_anything_else_did(answered):
    flows = (0, "out", MIB), (1, "in", MIB), (2, "in", 2400)
    found = answered(account(pair(), *flows), 2 * MIB)
    assert found.basis == ("moved inside", MIB)
    assert sentences.sentence(found) == (
        "not zero-copy: 2.00 copies per byte moved inside: 2.00 by write(2)"
    )
    much = account(pair(), *flows[:2], (2, "in", border.LITTLE))
    assert border.of(much).basis == ("received", border.LITTLE)


def test_little_is_no_verdict(answered):
    """The dynamic loader reads the heads of libraries, and copies them."""
    read = account([Thing(FILE, "/lib")], (0, "in", 2400))
    assert sentences.sentence(answered(read, 2400)) == (
        "it moved only 2400 B: 2400 B were copied: 2400 by write(2)"
    )
    assert sentences.sentence(answered(read, 0)) == (
        "it moved only 2400 B, and the CPU copied none of them"
    )
    enough = account([Thing(FILE, "/lib")], (0, "in", border.LITTLE))
    assert sentences.sentence(answered(enough, border.LITTLE)).startswith("not zero-copy: 1.00")


def test_sockets_without_room_are_a_doubt_where_connections_are_inside():
    many = Thing(SOCKET, "more sockets", many=True)
    flows = (0, "out", MIB), (1, "in", MIB), (3, "out", 90), (3, "in", 70)
    (doubt,) = border.doubts(account([*pair(), many], *flows))
    assert doubt.startswith("160 B went through more sockets than there is room for")
    # A server with many clients: of no connection has it both sockets.
    assert not list(border.doubts(account([*pair(), many], *flows[:1], *flows[2:])))


def test_evidence_without_peers_is_read_as_before():
    thing = {"kind": "socket", "name": "unix stream socket:[5]", "many": False}
    assert json_form.read(Thing, thing) == Thing(SOCKET, "unix stream socket:[5]")
    assert json_form.read(Thing, json_form.write(pair()[0])) == pair()[0]


def test_what_moved_the_most_is_shown_though_it_was_not_copied():
    """Beside many things that were copied: a table shows eight."""
    small = [Line(f"/small/{n}", 1, 100 - n) for n in range(20)]
    lines = [*small, Line("/sent", 1, 64 * MIB)]
    (table,) = reports._lines(lines, "file")
    shown = [row.cells[0] for row in table.rows if row.shown]
    assert shown == [*(f"/small/{n}" for n in range(7)), "/sent"]
    assert [row.cells[0] for row in table.rows] == [line.name for line in lines]
    assert table.more.startswith("13 more, ")


def test_what_moved_inside_is_shown(answered):
    console = Console(width=80, record=True)
    found = answered(account(pair(), (0, "out", MIB), (1, "in", MIB)), 2 * MIB)
    paper.show(reports.report([found]), console)
    text = console.export_text()
    assert f"moved inside {MIB} B: sockets {MIB}" in text
    assert "2 per byte moved inside" in text
    (summary,) = json.loads(program_data.result_json([found]))["summary"]
    assert (summary["basis"], summary["inside_bytes"]) == ("moved inside", {"socket": MIB})


def test_a_line_of_the_running_view_is_related_to_the_larger():
    look = Look({"read": 16 * MIB}, {"write": 9}, {"read": 16 * MIB}, 0)
    assert " 1.00 " in live.Lines().next(1.0, look)[-1]
