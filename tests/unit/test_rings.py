"""Operations of io_uring and of io_submit(2): their numbers, and what sees them."""

import dataclasses

import pytest

from tests.conftest import KERNELS, recorded_kernel
from zctrace.collect import readings
from zctrace.plan.plan import plan
from zctrace.probes import operations
from zctrace.probes.catalogue import CATALOGUE, PROGRAM_CATALOGUE
from zctrace.probes.model import Mechanism, Quantity
from zctrace.probes.syscall_numbers import SYSCALLS
from zctrace.probes.syscalls import MAX_NUMBER, RINGS, TRANSFERS

OPERATIONS = [t for t in TRANSFERS if operations.is_operation(t.syscall)]


def test_no_operation_has_the_number_of_a_system_call():
    assert max(SYSCALLS.values()) < operations.IO_URING_FIRST
    assert operations.IO_URING_FIRST + len(operations.IO_URING) < operations.IO_URING_END
    assert operations.AIO_FIRST + max(operations.AIO) < MAX_NUMBER


@pytest.mark.parametrize("transfer", OPERATIONS, ids=lambda t: t.syscall)
def test_a_number_has_its_name_back(transfer):
    assert operations.name(transfer.number) == transfer.syscall
    assert readings.syscall_name(transfer.number) == transfer.syscall


def test_some_numbers_as_the_kernel_has_them():
    """include/uapi/linux/io_uring.h, include/uapi/linux/aio_abi.h."""
    for name, number in (("READ", 22), ("SEND_ZC", 47), ("URING_CMD128", 64)):
        assert operations.number(f"IORING_OP_{name}") == operations.IO_URING_FIRST + number
    assert operations.number("IOCB_CMD_PWRITEV") == operations.AIO_FIRST + 8


def test_an_operation_that_is_newer_is_not_passed_over():
    name = operations.name(operations.IO_URING_END - 1)
    assert operations.is_operation(name)
    assert operations.untold([name, "IORING_OP_NOP"]) == [name]


def test_what_is_no_operation():
    assert not operations.is_operation("read")
    assert not operations.is_operation(None)


@pytest.mark.parametrize("line", KERNELS)
def test_every_kernel_lets_them_be_seen(line):
    made = plan(PROGRAM_CATALOGUE, recorded_kernel(line))
    seen = {h.hook.quantity: h.mechanism for h in made.hooks}
    events = {event.site.quantity for event in made.events}
    for ring in RINGS.values():
        assert ring.seen_by <= seen.keys() | events
    # A probe at a return has room for few calls at a time, and operations wait.
    for quantity in (operations.RING_DONE, operations.AIO_READ_DONE, operations.AIO_WRITE_DONE):
        assert seen[quantity] is Mechanism.FENTRY
    names = [hook.hook.quantity for hook in made.hooks]
    assert names.index(operations.RING_DONE) < names.index(operations.RING_BEGUN)


@pytest.mark.parametrize("line", KERNELS)
def test_strategies_do_without(line):
    made = plan(CATALOGUE, recorded_kernel(line))
    assert Quantity.RING_COMPLETED not in {event.site.quantity for event in made.events}


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        (
            "5.10",
            {"REQUEST_FD": 0, "COMPLETED_REQUEST": 0, "FIXED_FILES": 144, "FIXED_BY_NODE": 0},
        ),
        (
            "6.1",
            {"REQUEST_FD": 84, "COMPLETED_REQUEST": 16, "FIXED_FILES": 136, "FIXED_BY_NODE": 0},
        ),
        (
            "7.3",
            {"REQUEST_FD": 92, "COMPLETED_REQUEST": 16, "FIXED_FILES": 152, "FIXED_BY_NODE": 1},
        ),
    ],
)
def test_where_kernels_have_what(line, expected):
    """As pahole has it; on 5.10 there is neither a descriptor nor a request."""
    parameters = dict(plan(PROGRAM_CATALOGUE, recorded_kernel(line)).parameters)
    assert {name: int(parameters[name]) for name in expected} == expected


def test_a_kernel_whose_own_threads_perform_operations_leaves_the_answer_open():
    facts = recorded_kernel("6.1")
    functions = {n: f for n, f in facts.functions.items() if n != "create_io_thread"}
    assert len(functions) == len(facts.functions) - 1
    made = plan(PROGRAM_CATALOGUE, dataclasses.replace(facts, functions=functions))
    seen = {h.hook.quantity for h in made.hooks} | {e.site.quantity for e in made.events}
    assert not RINGS["io_uring_enter"].seen_by <= seen
    assert RINGS["io_submit"].seen_by <= seen


def test_a_kernel_that_does_not_say_where_requests_are():
    facts = recorded_kernel("6.1")
    members = {n: o for n, o in facts.members.items() if n != "io_kiocb.opcode"}
    made = plan(PROGRAM_CATALOGUE, dataclasses.replace(facts, members=members))
    assert operations.RING_BEGUN not in {h.hook.quantity for h in made.hooks}
