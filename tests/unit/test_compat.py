"""System calls of 32-bit programs, by the numbers that 64-bit ones have."""

import dataclasses
import json

import pytest

from tests.conftest import HERE, KERNELS, recorded_kernel
from zctrace.analysis import program
from zctrace.collect import compat as prepared
from zctrace.evidence.schema import Evidence
from zctrace.plan import parameters
from zctrace.probes import compat, operations
from zctrace.probes.syscalls import MOVING, TRANSFERS

SYSCALLS = {transfer.syscall: transfer.number for transfer in TRANSFERS} | {
    "close": 3, "stat": 4, "lseek": 8, "mmap": 9, "socket": 41, "mq_timedreceive": 243,
    "execve": 59,
}  # fmt: skip
NUMBERS = compat.numbers(SYSCALLS)


@pytest.mark.parametrize(
    ("number", "name"),
    [
        (3, "read"),
        (4, "write"),
        (6, "close"),
        (11, "execve"),
        (54, "ioctl"),
        (140, "lseek"),
        (145, "readv"),
        (180, "pread64"),
        (187, "sendfile"),
        (192, "mmap"),
        (195, "stat"),
        (239, "sendfile"),
        (313, "splice"),
        (316, "vmsplice"),
        (359, "socket"),
        (369, "sendto"),
        (377, "copy_file_range"),
        (379, "pwritev2"),
        (419, "mq_timedreceive"),
    ],
)
def test_a_call_is_counted_as_its_like(number, name):
    """Numbers of arch/x86/entry/syscalls/syscall_32.tbl."""
    assert NUMBERS[number] == SYSCALLS[name]


def test_every_transfer_has_a_32_bit_number_or_is_untold():
    counted = set(NUMBERS.values())
    for transfer in TRANSFERS:
        if operations.is_operation(transfer.syscall):
            continue
        untold = f"{transfer.syscall} (32-bit)" in compat.UNTOLD
        assert untold == (transfer.number not in counted), transfer


def test_both_tables_agree_on_new_calls():
    assert NUMBERS[424] == 424
    assert NUMBERS[426] == 426  # io_uring_enter


@pytest.mark.parametrize(
    ("number", "name"),
    [
        (117, "ipc (32-bit)"),
        (102, "socketcall (32-bit)"),
        (337, "recvmmsg (32-bit)"),
        (417, "recvmmsg_time64 (32-bit)"),
        (345, "sendmmsg (32-bit)"),
        (29, "pause (32-bit)"),
        (222, "call 222 (32-bit)"),
    ],
)
def test_what_has_no_like_has_a_name_of_its_own(number, name):
    assert NUMBERS[number] == compat.MARK | number
    assert compat.name(NUMBERS[number]) == name


def test_a_number_that_no_call_has():
    assert compat.name(compat.MARK | 4711) == "call 4711 (32-bit)"


@pytest.mark.parametrize(
    ("which", "name"),
    [(1, "socket"), (9, "sendto"), (10, "recvfrom"), (11, "sendto"), (12, "recvfrom"),
     (16, "sendmsg"), (17, "recvmsg")],
)  # fmt: skip
def test_what_socketcall_stands_for(which, name):
    """Numbers of include/uapi/linux/net.h."""
    assert NUMBERS[compat.MAX_NUMBER + which] == SYSCALLS[name]


@pytest.mark.parametrize(("which", "number"), [(0, 102), (19, 337), (20, 345)])
def test_what_socketcall_stands_for_and_is_untold(which, number):
    assert NUMBERS[compat.MAX_NUMBER + which] == compat.MARK | number


def test_the_meter_has_a_row_for_each():
    class Calls(dict):
        def __setitem__(self, key, value):
            super().__setitem__(key.value, value.value)

    table = Calls()
    prepared.prepare({"compat_calls": table}, SYSCALLS)
    assert table == NUMBERS
    assert sorted(table) == list(range(int(prepared.PARAMETERS["COMPAT_CALLS"])))


def test_a_call_of_the_x32_abi_is_untold():
    assert compat.name(compat.X32 | 517) == "call 517 (x32)"
    assert compat.untold(["read", "call 517 (x32)", "pause (32-bit)"]) == ["call 517 (x32)"]


@pytest.mark.parametrize("name", sorted(compat.UNTOLD))
def test_what_moves_untold_leaves_the_answer_open(name):
    evidence = Evidence.from_json(
        json.loads((HERE / "evidence" / "programs-6.1.json").read_text())["cp"]
    )
    assert program.answer(evidence).doubts == ()
    run = evidence.trace.run
    (some, *_) = [c for c in run.counts if (c.role, c.quantity) == ("program", "syscall-enter")]
    run = dataclasses.replace(
        run, counts=(*run.counts, dataclasses.replace(some, syscall=name))
    )
    evidence = dataclasses.replace(evidence, trace=dataclasses.replace(evidence.trace, run=run))
    (doubt,) = program.answer(evidence).doubts
    assert doubt == f"not among the bytes delivered and received: what {name} moved"
    # What is copied in it is payload, in whatever direction.
    assert name in MOVING


def test_a_kernel_that_does_not_tell_which_calls_are_32_bit():
    """Only where there can be such calls; the meter takes none for one."""
    facts = recorded_kernel("6.1")
    known = facts.members | dict.fromkeys(parameters.STATUS, 16)
    without = {k: v for k, v in known.items() if k != "thread_info.status"}

    def unseen(members, runs):
        return parameters.unseen_calls(
            dataclasses.replace(facts, members=members, runs_32_bit=runs)
        )

    assert unseen(known, True) == unseen(without, False) == ()
    (blind,) = unseen(without, True)
    assert blind.functions == ("system calls of 32-bit programs",)
    assert blind.reason.endswith("because thread_info.status is not known")

    def offset(members):
        of = parameters.meter_parameters((), (), dataclasses.replace(facts, members=members))
        return of["TASK_STATUS"]

    assert (offset(known), offset(without)) == ("32", "0")


@pytest.mark.parametrize("line", KERNELS)
def test_recorded_kernels_tell_which_calls_are_32_bit_and_who_is_a_unix_socket_s_peer(line):
    facts = recorded_kernel(line)
    assert facts.runs_32_bit
    of = parameters.meter_parameters((), (), facts)
    assert int(of["TASK_STATUS"]) > 0 < int(of["UNIX_PEER"])
