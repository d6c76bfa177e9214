"""A row for each process: nothing that one of them copies is another's zero."""

import dataclasses
import io
import json

import pytest
from rich.console import Console

from tests.conftest import HERE
from tests.unit.altering import at_site
from zctrace.analysis import by_process, program, sentences
from zctrace.evidence.account import Account, Booking, Flow, FlowWay, Thing, ThingKind, Worker
from zctrace.evidence.schema import Evidence
from zctrace.probes.model import Direction
from zctrace.reports import program as reports
from zctrace.reports import program_data
from zctrace.reports.text import paper

MIB = 1 << 20
SERVER, CLIENT = 70, 80
U2K, K2U, K2K = Direction.USER_TO_KERNEL, Direction.KERNEL_TO_USER, Direction.KERNEL_TO_KERNEL
THINGS = (
    Thing(ThingKind.FILE, "/srv/big", type="ext4", beneath=("virtio_blk",)),
    Thing(ThingKind.SOCKET, "tcp :80", type="tcp", peer=2),
    Thing(ThingKind.SOCKET, "tcp :4711", type="tcp", peer=1),
)
SENT = (
    Flow(0, SERVER, 4, "sendfile", FlowWay.IN, 16, 16 * MIB),
    Flow(1, SERVER, 5, "sendfile", FlowWay.OUT, 16, 16 * MIB),
)
READ = Flow(2, CLIENT, 3, "recvfrom", FlowWay.IN, 64, 16 * MIB)
COPIED = Booking(2, "recvfrom", K2U, 64, 16 * MIB, CLIENT)
NAMES = (Worker(70, SERVER, "nginx", 0, 0), Worker(80, CLIENT, "curl", 64, 16 * MIB))


@pytest.fixture(scope="module")
def recorded():
    text = (HERE / "evidence" / "programs-6.1.json").read_text()
    return Evidence.from_json(json.loads(text)["cat"])


def answer(recorded, *bookings, flows=(*SENT, READ), lost=None, packets=0, things=THINGS):
    """With so many bytes copied as packets."""
    account = Account(things, tuple(flows), bookings, NAMES)
    run = dataclasses.replace(recorded.trace.run, **({"lost": lost} if lost else {}))
    if packets:
        count = at_site(recorded, "program", "skb_copy_bits", packets, syscall="x", caller=None)
        run = dataclasses.replace(run, counts=(*run.counts, count))
    trace = dataclasses.replace(recorded.trace, account=account, run=run)
    return program.answer(dataclasses.replace(recorded, trace=trace))


def rows(found):
    return {p.name: (p.delivered, p.received, p.copied_bytes, p.words) for p in
            by_process.of(found)}  # fmt: skip


def test_a_server_and_its_client_have_an_answer_each(recorded):
    found = answer(recorded, COPIED)
    assert rows(found) == {
        "nginx": (16 * MIB, 16 * MIB, 0, "zero-copy"),
        "curl": (0, 16 * MIB, 16 * MIB, "1.00 copies per byte received"),
    }
    said = sentences.sentence(found)
    assert said.startswith(
        "by process: nginx zero-copy; curl 1.00 copies per byte received. Together "
    )


def test_processes_that_do_the_same_have_one_answer(recorded):
    sent = Booking(1, "sendfile", U2K, 16, 16 * MIB, SERVER)
    found = answer(recorded, COPIED, sent)
    assert len(by_process.of(found)) == 2
    assert "by process" not in sentences.sentence(found)


UNKNOWN = "unknown whether it is zero-copy"


@pytest.mark.parametrize(
    ("booking", "packets", "words"),
    [
        # In a softirq, on top of anybody.
        (Booking(None, None, K2K, 9, 8 * MIB), 0, UNKNOWN),
        # On top of the client, in whatever call: it may be the server's packets,
        (Booking(2, "recvfrom", K2K, 9, 8 * MIB, CLIENT), 8 * MIB, UNKNOWN),
        (Booking(0, "write", K2K, 9, 8 * MIB, CLIENT), 8 * MIB, UNKNOWN),
        # but where hardly any packets were copied, it is the client's.
        (Booking(0, "write", K2K, 9, 8 * MIB, CLIENT), 0, "zero-copy"),
        (Booking(0, "write", K2K, 9, 8 * MIB, CLIENT), 1000, "zero-copy"),
        (Booking(2, "recvfrom", K2U, 9, 8 * MIB, CLIENT), 0, "zero-copy"),
        (Booking(1, "sendfile", K2K, 9, 8 * MIB, SERVER), 0, "0.50 copies per byte delivered"),
        # Too little to matter.
        (Booking(None, None, K2K, 1, 919), 0, "zero-copy"),
    ],
)
def test_what_another_thread_may_have_copied_for_it_leaves_it_open(
    recorded, booking, packets, words
):
    assert rows(answer(recorded, booking, packets=packets))["nginx"][3] == words


def test_what_another_process_copied_explains_nothing_of_its_own(recorded):
    """One copies from file to file, the other moves what nothing explains, by the same call."""
    fuse = dataclasses.replace(THINGS[0], type="fuse")
    things = (THINGS[0], fuse, *THINGS[1:])
    flows = (
        Flow(1, SERVER, 4, "sendfile", FlowWay.IN, 16, 17 * MIB),
        Flow(2, SERVER, 5, "sendfile", FlowWay.OUT, 16, 17 * MIB),
        Flow(0, CLIENT, 4, "sendfile", FlowWay.IN, 16, 16 * MIB),
        Flow(0, CLIENT, 5, "sendfile", FlowWay.OUT, 16, 16 * MIB),
    )
    copied = Booking(0, "sendfile", K2K, 16, 16 * MIB, CLIENT)
    found = answer(recorded, copied, flows=flows, things=things)
    assert rows(found)["nginx"][3] == UNKNOWN


def test_its_own_pipe_is_not_delivered(recorded):
    """Bytes that go round inside it do not make its copies few."""
    pipe = Thing(ThingKind.PIPE, "pipe:[7]", type="")
    flows = (
        Flow(3, SERVER, 7, "splice", FlowWay.OUT, 99, 1000 * MIB),
        Flow(3, SERVER, 6, "splice", FlowWay.IN, 99, 1000 * MIB),
        Flow(1, SERVER, 5, "write", FlowWay.OUT, 15, 16 * MIB),
    )
    copied = Booking(1, "write", U2K, 15, 16 * MIB, SERVER)
    found = answer(recorded, copied, flows=flows, things=(*THINGS, pipe))
    assert rows(found)["nginx"] == (16 * MIB, 0, 16 * MIB, "1.00 copies per byte delivered")


def test_where_copies_may_be_missing_no_process_is_zero_copy(recorded):
    lost = {**recorded.trace.run.lost, "tally": 3}
    found = answer(recorded, COPIED, lost=lost)
    assert found.doubts
    assert rows(found)["nginx"][3] == "unknown whether it is zero-copy"
    assert rows(found)["curl"][3] == "at least 1.00 copies per byte received"
    assert "by process" not in sentences.sentence(found)


def test_what_moved_without_an_explanation_is_its_mover_s(recorded):
    strange = dataclasses.replace(THINGS[1], type="strange")
    found = answer(recorded, COPIED)
    account = dataclasses.replace(found.trace.account, things=(THINGS[0], strange, THINGS[2]))
    trace = dataclasses.replace(found.trace, account=account)
    found = program.answer(dataclasses.replace(found.evidence, trace=trace))
    assert found.unexplained_bytes
    assert rows(found)["nginx"][3] == "unknown whether it is zero-copy"
    assert rows(found)["curl"][3] == "1.00 copies per byte received"


def test_little_is_no_ratio(recorded):
    flows = (*SENT, dataclasses.replace(READ, bytes=1000))
    found = answer(recorded, dataclasses.replace(COPIED, bytes=1000), flows=flows)
    assert rows(found)["curl"][3] == "moved only 1000 B"
    assert "by process" not in sentences.sentence(found)


def test_saved_before_it_was_recorded_who_copied(recorded):
    """Then a process's copies are not known, and none is said to have made none."""
    found = answer(recorded, dataclasses.replace(COPIED, process=None))
    assert by_process.of(found) == []


def test_a_table_where_there_are_several(recorded):
    text = io.StringIO()
    paper.show(reports.report([answer(recorded, COPIED)]), Console(file=text, width=80))
    (line,) = [line for line in text.getvalue().splitlines() if " nginx 70 " in line]
    assert line.split() == ["nginx", "70", *[str(16 * MIB)] * 2, "0", "zero-copy"]


def test_json_and_csv_have_who_copied(recorded):
    found = answer(recorded, COPIED)
    (summary,) = json.loads(program_data.result_json([found]))["summary"]
    curl = summary["processes"][1]
    assert (curl["process"], curl["name"], curl["copies"]) == (CLIENT, "curl", 1)
    assert (curl["copied_bytes"], curl["basis"]) == ({"k2u": 16 * MIB}, "received")
    assert f"copied,k2u,64,{16 * MIB}" in program_data.flows_csv([found])
    again = Evidence.from_json(json.loads(json.dumps(found.evidence.to_json())))
    assert again.trace.account == found.trace.account
