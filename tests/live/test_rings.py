"""Programs that use io_uring and io_submit(2), traced on real kernels: what these move."""

import pytest

from tests.conftest import KERNELS
from tests.live import ring_workload as work
from tests.live.suites import SIZE
from zctrace.analysis import sentences

pytestmark = pytest.mark.live


@pytest.fixture(scope="module", params=KERNELS)
def traced(request, live, traced_on):
    return request.param, traced_on(request.param, ("rings",)).answers


def moved(found, name, end=""):
    """Calls, bytes in, bytes out, of an operation, for things whose name ends so."""
    account = found.trace.account
    flows = [
        flow
        for flow in account.flows
        if flow.syscall == name
        and (
            not end
            or (flow.thing is not None and account.things[flow.thing].name.endswith(end))
        )
    ]
    return tuple(sum(f.bytes for f in flows if f.way == way) for way in ("in", "out"))


def copied(found, name, end=""):
    account = found.trace.account
    total = {}
    for booking in account.bookings:
        of = None if booking.thing is None else account.things[booking.thing].name
        if booking.syscall == name and (of or "").endswith(end) and booking.bytes:
            total[booking.direction] = total.get(booking.direction, 0) + booking.bytes
    return total


def test_reading_and_sending_by_a_ring_copies_twice(traced):
    _, answers = traced
    found = answers["rings"]
    assert found.failed == []
    assert moved(found, "IORING_OP_READ", "/payload") == (work.READ + work.DIRECT, 0)
    # With O_DIRECT the disk has filled the program's own pages.
    assert copied(found, "IORING_OP_READ", "/payload") == {"k2u": work.READ}
    assert moved(found, "IORING_OP_SEND") == (0, work.READ)
    assert copied(found, "IORING_OP_SEND") == {"u2k": work.READ}


def test_registered_files_and_buffers_and_threads_of_the_kernel_s(traced):
    _, answers = traced
    found = answers["rings"]
    assert moved(found, "IORING_OP_READ_FIXED", "/payload") == (work.ASYNC, 0)
    assert copied(found, "IORING_OP_READ_FIXED", "/payload") == {"k2k": work.ASYNC}


def test_a_thread_of_the_kernel_s_that_polls(traced):
    _, answers = traced
    found = answers["rings"]
    assert moved(found, "IORING_OP_READ", "/other") == (work.POLLED, 0)
    assert copied(found, "IORING_OP_READ", "/other") == {"k2u": work.POLLED}


def test_two_operations_with_one_number(traced):
    """On 5.10 a completion has no more than that number: the answer is open."""
    line, answers = traced
    found = answers["rings"]
    assert found.trace.run.lost["completion"] == (2 if line == "5.10" else 0)
    assert bool(found.doubts) == (line == "5.10")
    assert copied(found, "IORING_OP_RECV", "") in (
        {"k2u": sum(work.TWINS)},
        {"k2u": sum(work.TWINS) + work.SHOTS * work.DATAGRAM},
    )


def test_splicing_by_a_ring_copies_nothing(traced):
    _, answers = traced
    found = answers["rings"]
    assert moved(found, "IORING_OP_SPLICE", "/payload") == (work.SPLICED, 0)
    assert moved(found, "IORING_OP_SPLICE") == (2 * work.SPLICED, 2 * work.SPLICED)
    assert copied(found, "IORING_OP_SPLICE") == {}


def test_a_zero_copy_send_is_copied_over_loopback(traced):
    line, answers = traced
    found = answers["rings"]
    if line == "5.10":
        assert moved(found, "IORING_OP_SEND_ZC") == (0, 0)
        return
    assert moved(found, "IORING_OP_SEND_ZC") == (0, work.ZERO_COPY)
    assert copied(found, "IORING_OP_SEND_ZC") == {"k2k": work.ZERO_COPY}


@pytest.mark.parametrize("name", ["IORING_OP_RECV", "IORING_OP_RECVMSG"])
def test_an_operation_with_several_shots(traced, name):
    """Of messages, what the kernel puts in front of each is not counted."""
    line, answers = traced
    found = answers["rings"]
    if line == "5.10":
        return
    size = work.SHOTS * work.DATAGRAM
    if name == "IORING_OP_RECV":
        size += sum(work.TWINS)
    assert moved(found, name) == (size, 0)
    assert copied(found, name) == {"k2u": size}


def test_nothing_about_rings_is_unexplained(traced):
    _, answers = traced
    for name in ("rings", "aio", "fio, io_uring", "fio, libaio"):
        assert [part for part in answers[name].unexplained if "OP_" in str(part.syscall)] == []


def test_operations_without_a_completion_leave_the_answer_open(traced):
    line, answers = traced
    found = answers["silent ring"]
    # Linux 5.10 does not know the flag, and refuses the operation.
    silent = line != "5.10"
    assert found.trace.run.lost["completion"] == silent * work.SILENT // work.PIECE
    assert bool(found.doubts) == silent


def test_asynchronous_io(traced):
    _, answers = traced
    found = answers["aio"]
    assert found.doubts == ()
    assert moved(found, "IOCB_CMD_PREAD", "/payload") == (work.AIO_READ + work.AIO_DIRECT, 0)
    assert copied(found, "IOCB_CMD_PREAD", "/payload") == {"k2u": work.AIO_READ}
    assert moved(found, "IOCB_CMD_PWRITE", "/written") == (0, work.AIO_WRITTEN)
    assert copied(found, "IOCB_CMD_PWRITE", "/written") == {"u2k": work.AIO_WRITTEN}


def test_fio(traced):
    _, answers = traced
    found = answers["fio, io_uring"]
    assert found.doubts == ()
    assert moved(found, "IORING_OP_READ_FIXED", "/payload") == (SIZE, 0)
    assert copied(found, "IORING_OP_READ_FIXED", "/payload") == {"k2k": SIZE}
    assert sentences.sentence(found).startswith("not zero-copy: 1.0")
    found = answers["fio, libaio"]
    assert found.doubts == ()
    assert moved(found, "IOCB_CMD_PREAD", "/payload") == (SIZE, 0)
    assert copied(found, "IOCB_CMD_PREAD", "/payload") == {}
    assert sentences.sentence(found).startswith("zero-copy for 9")
