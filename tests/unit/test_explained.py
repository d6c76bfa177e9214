"""Bytes that moved are explained, or they are named as unexplained."""

import dataclasses
import json

import pytest

from tests.conftest import HERE
from tests.unit.altering import count
from zctrace import errors
from zctrace.analysis import limits, program, sentences
from zctrace.analysis.explained import explain
from zctrace.evidence.account import Account, Booking, Flow, FlowWay, Thing, ThingKind
from zctrace.evidence.schema import Evidence
from zctrace.probes.model import Direction, Quantity
from zctrace.probes.references import NOT_WATCHED, REFERENCES
from zctrace.probes.syscalls import MOVING

SIZE = 1 << 20
FILE = Thing(ThingKind.FILE, "/srv/file", type="ext4", beneath=("nvme",))
SOCKET = Thing(ThingKind.SOCKET, "tcp 127.0.0.1:1 → 127.0.0.1:2", type="tcp")
PIPE = Thing(ThingKind.PIPE, "pipe:[1]", type="")
MEMORY_FILE = Thing(ThingKind.FILE, "/proc/7/mem", type="proc")


def on(*beneath, type="ext4"):
    return Thing(ThingKind.FILE, "/mnt/file", type=type, beneath=beneath)


def moved(thing, syscall, way, size=SIZE, direct=False):
    return Flow(thing, 1, 3, syscall, FlowWay(way), 1, size, direct)


@pytest.fixture(scope="module", params=("6.1", "7.3"))
def recorded(request):
    text = (HERE / "evidence" / f"programs-{request.param}.json").read_text()
    return Evidence.from_json(json.loads(text)["cat"])


def traced(recorded, things, flows, bookings=(), counts=()):
    """A program that did nothing else; what the controls saw is as it was."""
    account = Account(tuple(things), tuple(flows), tuple(bookings))
    kept = tuple(c for c in recorded.trace.run.counts if not c.role.startswith("program"))
    run = dataclasses.replace(recorded.trace.run, counts=(*kept, *counts))
    trace = dataclasses.replace(recorded.trace, run=run, account=account)
    return dataclasses.replace(recorded, trace=trace)


def explained(recorded, *parts, **named):
    evidence = traced(recorded, *parts, **named)
    return explain(evidence, evidence.trace)


def answer(recorded, *parts, **named):
    return program.answer(traced(recorded, *parts, **named))


def copied(recorded, syscall, size, direction, quantity, calls=1):
    """Counts of a site that the recorded kernel has."""
    (site, *_) = [s for s in recorded.sites if s.quantity == quantity]
    seen = count("program", site.function, size, quantity=quantity, calls=calls)
    return dataclasses.replace(
        seen, mechanism=site.mechanism, direction=direction, syscall=syscall
    )


def test_pages_handed_from_a_disk_s_file_to_a_socket_are_explained(recorded):
    flows = (moved(0, "sendfile", "in"), moved(1, "sendfile", "out"))
    assert explained(recorded, (FILE, SOCKET), flows).unexplained == ()
    found = answer(recorded, (FILE, SOCKET), flows)
    assert (
        sentences.sentence(found) == f"zero-copy: the CPU copied none of the {SIZE} B delivered"
    )


@pytest.mark.parametrize(
    ("thing", "why"),
    [
        (on("loop"), NOT_WATCHED["loop"]),
        (on("nvme", "loop"), NOT_WATCHED["loop"]),
        (on(type="fuse"), NOT_WATCHED["fuse"]),
        (on("nvme", type="btrfs"), NOT_WATCHED["btrfs"]),
        (on(), "zctrace does not know how ext4 moves bytes"),
        (on("strange"), "zctrace does not know how ext4 moves bytes"),
        (
            Thing(ThingKind.FILE, "more", many=True, type="of many kinds"),
            "more of this kind than the table holds",
        ),
    ],
)
def test_what_may_copy_unseen_leaves_the_answer_open(recorded, thing, why):
    flows = (moved(0, "sendfile", "in"), moved(1, "sendfile", "out"))
    (part,) = explained(recorded, (thing, SOCKET), flows).unexplained
    assert (part.thing, part.syscall, part.way, part.bytes) == (0, "sendfile", "in", SIZE)
    assert part.why.endswith(why)
    found = answer(recorded, (thing, SOCKET), flows)
    assert sentences.sentence(found) == (
        f"unknown whether it is zero-copy: {SIZE} B through {thing.name}: {part.why}"
    )
    with pytest.raises(errors.LimitError, match=f"of {SIZE} B it is not known"):
        limits.require(found, 0.01)


def test_sockets_that_there_was_no_room_for_are_explained_by_their_protocol(recorded):
    more = Thing(ThingKind.SOCKET, "more tcp sockets", many=True, type="tcp")
    flows = (moved(0, "sendfile", "in"), moved(1, "sendfile", "out"))
    assert explained(recorded, (FILE, more), flows).unexplained == ()
    other = dataclasses.replace(more, type="sctp")
    assert [p.bytes for p in explained(recorded, (FILE, other), flows).unexplained] == [SIZE]


@pytest.mark.parametrize(
    ("syscall", "direction", "left"),
    [
        ("read", Direction.KERNEL_TO_USER, SIZE // 4),
        ("pread64", Direction.KERNEL_TO_USER, SIZE),
        ("read", Direction.USER_TO_KERNEL, SIZE),
        ("read", None, SIZE),
    ],
)
def test_copies_of_a_file_whose_bytes_are_in_a_row_of_many(recorded, syscall, direction, left):
    """There was room for its copies, and none for what it moved: no more is explained."""
    many = Thing(ThingKind.FILE, "more files", many=True, type="of many kinds")
    flows = (moved(0, "read", "in"), moved(1, syscall, "in", SIZE // 2))
    booked = (Booking(1, syscall, direction, 2, SIZE // 2 + SIZE * 3 // 4),)
    found = explained(recorded, (many, on("loop")), flows, booked)
    assert {part.thing: part.bytes for part in found.unexplained}.get(0, 0) == left


def test_the_share_that_is_not_known_is_said(recorded):
    flows = (
        *(moved(0, "sendfile", "in", SIZE * 3), moved(2, "sendfile", "out", SIZE * 3)),
        *(moved(1, "sendfile", "in"), moved(2, "sendfile", "out")),
    )
    found = answer(recorded, (FILE, on("loop"), SOCKET), flows)
    assert sentences.sentence(found).startswith(
        f"zero-copy for 75 % of the bytes delivered; unknown for 25 %: {SIZE} B"
    )


def test_what_was_counted_needs_no_other_explanation(recorded):
    flows, thing = (moved(0, "read", "in"),), on("loop")
    booked = (Booking(0, "read", Direction.KERNEL_TO_USER, 1, SIZE),)
    assert explained(recorded, (thing,), flows, booked).unexplained == ()
    one_less = (dataclasses.replace(booked[0], bytes=SIZE - 1),)
    (part,) = explained(recorded, (thing,), flows, one_less).unexplained
    assert part.bytes == 1
    inside = (dataclasses.replace(booked[0], direction=Direction.KERNEL_TO_KERNEL),)
    assert explained(recorded, (thing,), flows, inside).unexplained == ()
    other_way = (dataclasses.replace(booked[0], direction=Direction.USER_TO_KERNEL),)
    (part,) = explained(recorded, (thing,), flows, other_way).unexplained
    assert part.bytes == SIZE


@pytest.mark.parametrize("direct", [True, False])
def test_only_direct_reads_hand_the_program_s_pages_to_the_disk(recorded, direct):
    flows = (moved(0, "pread64", "in", direct=direct),)
    parts = explained(recorded, (FILE,), flows).unexplained
    assert [part.bytes for part in parts] == ([] if direct else [SIZE])


def test_copies_between_kernel_buffers_explain_both_ends_of_a_call(recorded):
    """As where a file of /proc is sent: the kernel prints it into pages of its own."""
    flows = (moved(0, "sendfile", "in"), moved(1, "sendfile", "out"))
    seen = copied(recorded, "sendfile", SIZE, Direction.KERNEL_TO_KERNEL, Quantity.COPY_TO_ITER)
    things = MEMORY_FILE, SOCKET
    assert explained(recorded, things, flows, counts=(seen,)).unexplained == ()
    of_packets = dataclasses.replace(seen, quantity=Quantity.SKB_COPY_BITS)
    (part,) = explained(recorded, things, flows, counts=(of_packets,)).unexplained
    assert part.bytes == SIZE, "copies of packets come later on the way"


def test_plain_user_copies_are_payload_where_nothing_else_explains_the_bytes(recorded):
    flows = (moved(0, "pread64", "in"),)
    routine = Quantity.USER_COPY_ROUTINE
    seen = copied(recorded, "pread64", SIZE, Direction.KERNEL_TO_USER, routine)
    parts = (MEMORY_FILE,), flows
    found = answer(recorded, *parts, counts=(seen,))
    assert found.explanation.unexplained == ()
    assert found.explanation.plain == (
        Booking(0, "pread64", Direction.KERNEL_TO_USER, 0, SIZE),
    )
    half = dataclasses.replace(seen, bytes=SIZE // 2)
    for large, left in ((True, SIZE // 2), (False, SIZE)):
        found = explained(recorded, *parts, counts=(dataclasses.replace(half, large=large),))
        assert [part.bytes for part in found.unexplained] == [left]
    counted = (Booking(0, "pread64", Direction.KERNEL_TO_USER, 1, SIZE),)
    beside = copied(recorded, "pread64", SIZE, Direction.KERNEL_TO_USER, Quantity.COPY_TO_ITER)
    found = explained(recorded, *parts, counted, counts=(seen, beside))
    assert found.plain == found.other == (), "the routine sees what the iterators copy, too"


def test_where_the_answer_has_plain_copies_every_sum_has_them(recorded):
    flows = (moved(0, "pread64", "in"),)
    routine = Quantity.USER_COPY_ROUTINE
    seen = copied(recorded, "pread64", SIZE, Direction.KERNEL_TO_USER, routine)
    found = answer(recorded, (MEMORY_FILE,), flows, counts=(seen,))
    if found.copied is None:
        pytest.fail(f"controls failed: {found.failed}")
    assert found.copied == {Direction.KERNEL_TO_USER: SIZE}
    for lines in (found.calls, found.things, found.sites, found.threads):
        assert sum(line.copied_bytes for line in lines) == SIZE
    assert found.copies == 1


def test_large_user_copies_of_calls_that_move_nothing_are_payload(recorded):
    """Pages that userfaultfd fills; not the structures that calls take and give."""
    to_kernel, routine = Direction.USER_TO_KERNEL, Quantity.USER_COPY_ROUTINE
    pages = dataclasses.replace(copied(recorded, "ioctl", SIZE, to_kernel, routine), large=True)
    structures = copied(recorded, "ioctl", 4711, to_kernel, routine)
    found = explained(recorded, (), (), counts=(pages, structures))
    assert found.plain == (Booking(None, "ioctl", to_kernel, 0, SIZE),)
    assert found.other == (("ioctl", 4711),)
    found = answer(recorded, (), (), counts=(pages, structures))
    assert found.beside == {program.STRUCTURES: 4711}
    program_s = dataclasses.replace(pages, syscall="execve")
    assert explained(recorded, (), (), counts=(program_s,)).plain == ()


def test_many_pages_copied_on_write_are_said(recorded):
    flows = (moved(0, "sendfile", "in"), moved(1, "sendfile", "out"))
    quantity = Quantity.COPY_PAGE
    pages = copied(recorded, None, SIZE // 4, Direction.KERNEL_TO_KERNEL, quantity)
    found = answer(recorded, (FILE, SOCKET), flows, counts=(pages,))
    if found.copied is None:
        pytest.fail(f"controls failed: {found.failed}")
    assert sentences.sentence(found) == (
        f"zero-copy: the CPU copied none of the {SIZE} B delivered. In addition, {SIZE // 4} B "
        "of pages were copied on write"
    )


def test_a_call_that_cannot_but_copy_has_copied(recorded):
    """Whether or not a probe sees it, as on processors where user copies are inlined."""
    queue = Thing(ThingKind.FILE, "/queue", type="mqueue")
    flows = (moved(0, "mq_timedreceive", "in"), moved(0, "mq_timedsend", "out"))
    found = explained(recorded, (queue,), flows)
    assert found.unexplained == ()
    assert {(b.syscall, b.direction, b.bytes) for b in found.plain} == {
        ("mq_timedreceive", Direction.KERNEL_TO_USER, SIZE),
        ("mq_timedsend", Direction.USER_TO_KERNEL, SIZE),
    }


def test_what_was_recorded_before_things_had_types_is_left_as_it_was(recorded):
    old = Thing(ThingKind.DEVICE, "/dev/loop0")
    found = explained(recorded, (old,), (moved(0, "read", "in"),))
    assert (found.unexplained, found.plain) == ((), ())


def test_every_row_is_of_calls_that_are_followed():
    for row in REFERENCES:
        assert row.calls <= MOVING, row
        assert row.why
        assert row.shown
