"""What would help, by the evidence: and nothing where that does not carry it."""

import dataclasses
import io
import json

import pytest
from rich.console import Console

from tests.conftest import HERE
from zctrace import errors
from zctrace.analysis import advice, limits, program
from zctrace.analysis.passing import WAYS
from zctrace.evidence.account import Account, Booking, Flow, FlowWay, Thing, ThingKind, Worker
from zctrace.evidence.schema import Evidence
from zctrace.probes.model import Direction, Mechanism, Quantity
from zctrace.probes.syscalls import NAMES
from zctrace.reports import program as reports
from zctrace.reports import program_data
from zctrace.reports.text import paper
from zctrace.workloads.marker import RoleName

MIB = 1 << 20
IN, OUT = FlowWay.IN, FlowWay.OUT
FILE = Thing(ThingKind.FILE, "/srv/big", type="ext4", beneath=("virtio_blk",))
ON_XFS = dataclasses.replace(FILE, type="xfs")
TCP = Thing(ThingKind.SOCKET, "tcp 127.0.0.1:80", type="tcp")
PIPE = Thing(ThingKind.PIPE, "pipe:[7]", type="")
STRANGE = Thing(ThingKind.FILE, "/mnt/it", type="vfat", beneath=("loop",))
PROC = Thing(ThingKind.FILE, "/proc/it", type="proc")


@pytest.fixture(scope="module")
def recorded():
    text = (HERE / "evidence" / "programs-6.1.json").read_text()
    return Evidence.from_json(json.loads(text)["cat"])


def moving(recorded, *rows, name="it", process=77):
    """Each row is a thing, a call, the way, calls, bytes, and whether these are copied."""
    things, flows, bookings = [], [], []
    for number, (thing, call, way, calls, size, copied) in enumerate(rows):
        things.append(thing)
        flows.append(Flow(number, process, 3 + number, call, way, calls, size))
        direction = {IN: Direction.KERNEL_TO_USER, OUT: Direction.USER_TO_KERNEL}[way]
        if thing.kind == ThingKind.FILE and call == "copy_file_range":
            direction = Direction.KERNEL_TO_KERNEL
        if copied:
            bookings.append(Booking(number, call, direction, calls, size))
    account = Account(
        tuple(things), tuple(flows), tuple(bookings), (Worker(process, process, name, 1, 1),)
    )
    trace = dataclasses.replace(recorded.trace, account=account)
    return program.answer(dataclasses.replace(recorded, trace=trace))


def relayed(recorded, source, destination, size=16 * MIB, out=None, calls=256):
    return moving(
        recorded,
        (source, "read", IN, calls, size, True),
        (destination, "write", OUT, calls, size if out is None else out, True),
    )


@pytest.mark.parametrize(
    ("source", "destination", "rule", "copies"),
    [
        (FILE, TCP, "sendfile", 2),
        (FILE, PIPE, "splice", 2),
        (FILE, FILE, "copy-file-range", 1),
        (ON_XFS, ON_XFS, "reflink", 2),
        (FILE, ON_XFS, "copy-file-range", 1),
        (TCP, TCP, "splice", 2),
        (TCP, FILE, "splice", 1),
        (PIPE, TCP, "splice", 2),
        (PIPE, FILE, "splice", 1),
    ],
)
def test_what_is_read_and_written_could_be_passed_on(
    recorded, source, destination, rule, copies
):
    (one,) = advice.of(relayed(recorded, source, destination))
    assert (one.rule, one.saves_bytes) == (rule, copies * 16 * MIB)
    assert f"would save {copies}.00 copies per byte delivered, if it does not" in one.words
    assert "instead of read(2) and write(2)" in one.words


@pytest.mark.parametrize("out", [15 * MIB, 16 * MIB + 243, 16 * MIB + 16 * MIB // 100])
def test_a_little_more_or_less_is_the_same(recorded, out):
    assert len(advice.of(relayed(recorded, FILE, TCP, out=out))) == 1


@pytest.mark.parametrize("out", [8 * MIB, 17 * MIB, 40 * MIB])
def test_bytes_that_were_changed_cannot_be_passed_on(recorded, out):
    assert advice.of(relayed(recorded, FILE, TCP, out=out)) == []


@pytest.mark.parametrize(("calls", "many"), [(256, 1), (65, 1), (63, 0), (1000, 1), (1100, 0)])
def test_a_store_passes_nothing_on(recorded, calls, many):
    """It takes bytes in small pieces, and gives them out in large ones, or the other way."""
    found = moving(
        recorded,
        (TCP, "read", IN, 256, 16 * MIB, True),
        (TCP, "writev", OUT, calls, 16 * MIB, True),
    )
    assert len(advice.of(found)) == many


def mapped(recorded, faults, destination=TCP, call="sendto"):
    """So many page faults in the call that sends 16 MiB."""
    found = moving(recorded, (destination, call, OUT, 1, 16 * MIB, True))
    (sample, *_) = found.trace.run.counts
    count = dataclasses.replace(
        sample,
        role=RoleName.PROGRAM,
        quantity=Quantity.PAGE_FAULT_KERNEL,
        syscall=call,
        calls=faults,
        bytes=0,
    )
    run = dataclasses.replace(found.trace.run, counts=(*found.trace.run.counts, count))
    trace = dataclasses.replace(found.trace, run=run)
    return program.answer(dataclasses.replace(recorded, trace=trace))


@pytest.mark.parametrize(
    ("faults", "destination", "instead"),
    [
        (256, TCP, "sendfile(2) instead of mmap(2) and sendto(2)"),
        (4096, TCP, "sendfile(2) instead"),
        (256, PIPE, "splice(2) instead"),
        (200, TCP, None),
        (256, FILE, None),
    ],
)
def test_a_mapped_file_that_is_written_untouched(recorded, faults, destination, instead):
    given = advice.of(mapped(recorded, faults, destination))
    assert [one.rule for one in given] == ["mapped-file"] * bool(instead)
    for one in given:
        assert instead in one.words
        assert one.saves_bytes == 16 * MIB
        assert f"and {faults} page faults" in one.words


def test_faults_while_reading_say_nothing(recorded):
    found = moving(recorded, (FILE, "read", IN, 1, 16 * MIB, True))
    counts = mapped(recorded, 4096, call="read").trace.run.counts
    run = dataclasses.replace(found.trace.run, counts=counts)
    trace = dataclasses.replace(found.trace, run=run)
    assert advice.of(program.answer(dataclasses.replace(recorded, trace=trace))) == []


@pytest.mark.parametrize(
    ("vectors", "calls", "size", "call", "many"),
    [
        (40_000, 1000, 4_000_000, "writev", 1),
        (40_000, 1000, 40_000_000, "writev", 0),  # they are large
        (4000, 1000, 400_000, "writev", 0),  # four a call
        (200, 10, 2000, "writev", 0),  # a few
        (40_000, 1000, 4_000_000, "sendmsg", 0),  # other structures, too
    ],
)
def test_many_small_vectors(recorded, vectors, calls, size, call, many):
    found = moving(recorded, (TCP, call, OUT, calls, size, True))
    explanation = dataclasses.replace(found.explanation, other=((call, 16 * vectors),))
    given = [
        one
        for one in advice.of(dataclasses.replace(found, explanation=explanation))
        if one.rule == "fewer-vectors"
    ]
    assert len(given) == many
    for one in given:
        assert one.saves_structures == 16 * (vectors - calls)
        assert f"{calls} calls had {vectors} vectors of 100 B" in one.words


def test_few_bytes_are_no_reason(recorded):
    assert advice.of(relayed(recorded, FILE, TCP, size=8192)) == []


@pytest.mark.parametrize("source", [STRANGE, PROC])
def test_a_file_whose_pages_cannot_be_passed_on(recorded, source):
    assert advice.of(relayed(recorded, source, TCP)) == []


def test_what_is_read_by_two_processes_is_not_one_that_passes_on(recorded):
    found = relayed(recorded, FILE, TCP)
    account = found.trace.account
    flows = (account.flows[0], dataclasses.replace(account.flows[1], process=78))
    trace = dataclasses.replace(found.trace, account=dataclasses.replace(account, flows=flows))
    assert advice.of(program.answer(dataclasses.replace(recorded, trace=trace))) == []


def test_libraries_that_are_read_beside_do_not_hide_it(recorded):
    library = dataclasses.replace(FILE, name="/usr/lib/libc.so.6")
    found = moving(
        recorded,
        (FILE, "read", IN, 16, 4 * MIB, True),
        *((library, "read", IN, 9, 300_000, True) for _ in range(9)),
        (TCP, "sendto", OUT, 16, 4 * MIB, True),
    )
    (one,) = advice.of(found)
    assert one.saves_bytes == 8 * MIB
    assert "from /srv/big to" in one.words


def test_many_small_files_are_passed_on_too(recorded):
    small = [(FILE, "pread64", IN, 1, MIB // 4, True)] * 32
    (one,) = advice.of(moving(recorded, *small, (TCP, "writev", OUT, 32, 8 * MIB, True)))
    assert one.saves_bytes == 16 * MIB


@pytest.mark.parametrize("added", [29, 22])
def test_pieces_as_of_tls_records(recorded, added):
    records = 1024
    found = relayed(recorded, FILE, TCP, out=records * (16384 + added), calls=records)
    (one,) = advice.of(found)
    assert (one.rule, one.saves_bytes) == ("ktls-sendfile", 2 * 16 * MIB)
    assert "the CPU still encrypts" in one.words


def test_headers_are_not_taken_for_tls(recorded):
    found = relayed(recorded, FILE, TCP, out=16 * MIB + 29 * 1024, calls=32)
    assert [one.rule for one in advice.of(found)] == ["sendfile"]


def test_what_was_not_copied_is_not_saved(recorded):
    found = moving(
        recorded,
        (FILE, "read", IN, 16, 16 * MIB, False),
        (TCP, "write", OUT, 16, 16 * MIB, True),
    )
    assert [one.saves_bytes for one in advice.of(found)] == [16 * MIB]


def test_a_ring_splices_by_an_operation(recorded):
    found = moving(
        recorded,
        (FILE, "IORING_OP_READ", IN, 16, 16 * MIB, True),
        (TCP, "IORING_OP_SEND", OUT, 16, 16 * MIB, True),
    )
    (one,) = advice.of(found)
    assert one.words.startswith("IORING_OP_SPLICE through a pipe instead of IORING_OP_READ and")


def test_a_pipe_that_each_call_fills(recorded):
    found = moving(
        recorded,
        (FILE, "splice", IN, 256, 16 * MIB, False),
        (PIPE, "splice", OUT, 256, 16 * MIB, False),
        (TCP, "splice", OUT, 256, 16 * MIB, False),
    )
    (one,) = advice.of(found)
    assert (one.rule, one.saves_bytes, one.saves_calls) == ("larger-pipe", 0, 240)
    found = moving(recorded, (PIPE, "splice", OUT, 16, 16 * MIB, False))
    assert advice.of(found) == []


@pytest.mark.parametrize(
    ("calls", "size", "saved"),
    [
        (4096, 16 * MIB, 4096 - 64),
        (256, MIB, 252),
        (255, MIB, None),
        (1024, 16 * MIB, None),
    ],
)
def test_a_file_in_small_pieces(recorded, calls, size, saved):
    found = moving(recorded, (STRANGE, "read", IN, calls, size, True))
    given = [(one.rule, one.saves_calls, one.saves_bytes) for one in advice.of(found)]
    assert given == ([] if saved is None else [("larger-pieces", saved, 0)])


def test_many_small_files_have_no_larger_pieces(recorded):
    small = [(STRANGE, "read", IN, 2, 4096, True)] * 500
    assert advice.of(moving(recorded, *small)) == []
    assert advice.of(moving(recorded, (TCP, "read", IN, 4096, 16 * MIB, True))) == []


def test_o_direct_that_is_buffered(recorded):
    found = relayed(recorded, STRANGE, PIPE)
    account = found.trace.account
    flows = (dataclasses.replace(account.flows[0], direct=True), *account.flows[1:])
    trace = dataclasses.replace(found.trace, account=dataclasses.replace(account, flows=flows))
    (one,) = advice.of(program.answer(dataclasses.replace(recorded, trace=trace)))
    assert (one.rule, one.saves_bytes) == ("direct-io", 0)
    assert "/mnt/it (vfat)" in one.words


def zero_copy_sends(recorded, size, caller="__netif_receive_skb_core+0x12"):
    found = moving(recorded, (TCP, "sendmsg", OUT, 16, 16 * MIB, False))
    (some, *_) = [c for c in recorded.trace.run.counts if c.role == "program"]
    count = dataclasses.replace(
        some, quantity=Quantity.SKB_COPY_UBUFS, function="skb_copy_ubufs", syscall="sendmsg",
        direction=Direction.KERNEL_TO_KERNEL, caller=caller, bytes=size,
        mechanism=Mechanism.FENTRY,
    )  # fmt: skip
    run = dataclasses.replace(found.trace.run, counts=(*found.trace.run.counts, count))
    trace = dataclasses.replace(found.trace, run=run)
    answered = program.answer(dataclasses.replace(recorded, trace=trace))
    assert answered.copied is not None
    return answered


def test_zero_copy_sends_to_the_same_host(recorded):
    assert advice.of(zero_copy_sends(recorded, MIB)) == []
    assert advice.of(zero_copy_sends(recorded, 16 * MIB, "dev_queue_xmit_nit+0x1")) == []
    (one,) = advice.of(zero_copy_sends(recorded, 16 * MIB))
    assert (one.rule, one.saves_bytes) == ("zero-copy-send", 0)


def test_it_stands_in_the_report_and_in_json(recorded):
    found = relayed(recorded, FILE, TCP)
    text = io.StringIO()
    paper.show(reports.report([found]), Console(file=text, width=80))
    assert "What would help:\n  Sendfile(2) instead" not in text.getvalue()
    assert "What would help:\n  sendfile(2) instead of read(2)" in text.getvalue()
    (summary,) = json.loads(program_data.result_json([found]))["summary"]
    (one,) = summary["advice"]
    assert (one["rule"], one["saves_bytes"]) == ("sendfile", 32 * MIB)


def test_a_limit_that_is_not_kept_says_what_would_help(recorded):
    with pytest.raises(errors.LimitError) as raised:
        limits.require(relayed(recorded, FILE, TCP), 0.01)
    assert raised.value.hint.startswith("sendfile(2) instead of")


def test_no_advice_on_figures_that_are_withheld(recorded):
    assert advice.of(dataclasses.replace(relayed(recorded, FILE, TCP), copied=None)) == []


def test_ways_are_of_calls_that_there_are():
    assert len({(way.source, way.destination) for way in WAYS}) == len(WAYS)
    for way in WAYS:
        assert way.call.partition("(")[0] in NAMES
