"""Bytes that the CPU transforms: which calls count, what is said of them, nothing is added."""

import csv
import ctypes
import dataclasses
import io
import json
import os
import struct

import pytest
from rich.console import Console

from tests.conftest import HERE, KERNELS, or_skip, recorded_kernel
from tests.unit.altering import count
from tests.unit.compiled import C, cannot_compile
from zctrace.analysis import program, sentences
from zctrace.errors import FigureError
from zctrace.evidence.schema import Evidence
from zctrace.evidence.sites import Blind, Site
from zctrace.kernel import bpf_syscall
from zctrace.plan.plan import plan
from zctrace.probes.catalogue import CATALOGUE, PROGRAM_CATALOGUE
from zctrace.probes.model import Kind, Mechanism, Quantity
from zctrace.probes.transforms import TRANSFORM_SITES
from zctrace.reports import program as reports
from zctrace.reports import program_data
from zctrace.reports.text import paper
from zctrace.session.api import Window

# Which calls count: the meter's own code, run by the kernel of this machine.

DRIVER = """
BPF_ARRAY(given, u64, 4);
BPF_ARRAY(over, u64, 1);
static inline u64 argument_of(int number)
{
    u64 *value = given.lookup(&number);
    return value ? *value : 0;
}
static inline u64 thread_here(void) { return argument_of(1); }
static inline u32 role_of_work(void) { return 1; }
static inline void count_lost(u32 cause) {}
static inline void count_anywhere(void *ctx, u32 site, u32 direction, u64 bytes, u64 caller,
                  u32 owner)
{
    int first = 0;
    u64 *sum = over.lookup(&first);
    if (sum && direction == KERNEL_TO_DEVICE)
        *sum += bytes;
}
"""
TRIED = """
int tried(void *ctx)
{
    if (argument_of(2))
        return transform_ends(ctx, argument_of(0), argument_of(3));
    return is_outermost(argument_of(0), 7, ASKED, 0);
}
"""
ASKED = 1000
TASK, OTHER = 0xFFFFC90000013F00, 0xFFFFC9000001BF00
"""Places on the stacks of two threads."""
INTERRUPT = 0xFFFFC90000A04080
"""One on an interrupt's: 128 B deeper is a boundary of 16 KiB."""


class Calls:
    """Entries and returns, one after the other, as functions of the crypto API have them."""

    def __init__(self):
        if reason := cannot_compile():
            or_skip(reason)
        import bcc

        logic = C["transforms.c"].partition("/*\n * The place on the stack")[0]
        flags = {"ASKED": ASKED, "KERNEL_TO_DEVICE": 5, "MAX_THREADS": 16, "LOST_CALL": 0}
        self._bpf = bcc.BPF(
            text=(DRIVER + logic + TRIED).encode(),
            cflags=[f"-D{name}={value}" for name, value in flags.items()],
        )
        try:
            # BPF_PROG_TYPE_SOCKET_FILTER
            self._program = bpf_syscall.load(1, self._bpf.dump_func(b"tried"))
        except PermissionError as error:
            or_skip(f"loading a program needs root: {error}")

    def _run(self, *values):
        for number, value in enumerate(values):
            self._bpf[b"given"][ctypes.c_int(number)] = ctypes.c_ulonglong(value)
        packet = ctypes.create_string_buffer(64)
        attributes = ctypes.create_string_buffer(128)
        struct.pack_into(
            "=IIIIQ", attributes, 0, self._program, 0, 64, 0, ctypes.addressof(packet)
        )
        failed = bpf_syscall._libc.syscall(321, 10, attributes, len(attributes))
        assert not failed, os.strerror(ctypes.get_errno())
        return struct.unpack_from("=I", attributes, 4)[0]

    def enter(self, stack, thread=1):
        """Whether it is counted."""
        return bool(self._run(stack, thread, 0, 0))

    def leave(self, stack, thread=1, result=0):
        self._run(stack, thread, 1, result & 0xFFFFFFFF)

    @property
    def handed_over(self):
        return self._bpf[b"over"][ctypes.c_int(0)].value

    def close(self):
        os.close(self._program)
        self._bpf.cleanup()


@pytest.fixture
def calls():
    found = Calls()
    yield found
    found.close()


def test_what_is_called_deeper_on_the_stack_is_a_part(calls):
    """As gcm calls ctr, and as simd passes on to another by a jump, at the same place."""
    assert calls.enter(TASK)
    assert not calls.enter(TASK)
    assert not calls.enter(TASK - 200)
    calls.leave(TASK - 200)
    assert not calls.enter(TASK - 96)
    calls.leave(TASK - 96)
    calls.leave(TASK)
    assert calls.enter(TASK - 200)


def test_other_threads_and_interrupts_calls_are_their_own(calls):
    assert calls.enter(TASK)
    assert calls.enter(OTHER, 2)
    assert calls.enter(INTERRUPT)  # on top of the first thread
    assert not calls.enter(INTERRUPT - 0x200)
    assert not calls.enter(TASK - 200)
    calls.leave(INTERRUPT)
    assert calls.enter(INTERRUPT - 0x200)
    assert not calls.enter(TASK - 300)
    calls.leave(TASK)
    assert not calls.enter(OTHER - 100, 2)


def test_a_return_that_was_missed_hides_no_call_from_higher_up(calls):
    assert calls.enter(TASK - 500)
    assert calls.enter(TASK)
    assert not calls.enter(TASK - 500)


@pytest.mark.parametrize(("result", "over"), [(0, 0), (-74, 0), (-115, 1), (-16, 1)])
def test_what_an_asynchronous_cipher_takes_is_handed_over(calls, result, over):
    """-EBADMSG: it was read all the same. -EINPROGRESS and -EBUSY: somebody else does it."""
    assert calls.enter(TASK)
    calls.leave(TASK, result=result)
    assert calls.handed_over == over * ASKED


# What is planned.


@pytest.mark.parametrize("line", KERNELS)
def test_every_cipher_is_watched_in_a_program_and_none_in_a_strategy(line):
    kernel = recorded_kernel(line)
    planned = plan(PROGRAM_CATALOGUE, kernel)
    watched = {c.site.function: c for c in planned.copies if c.kind is Kind.TRANSFORM}
    there = {s.function: s for s in TRANSFORM_SITES if s.function in kernel.functions}
    ciphers = {s.function for s in TRANSFORM_SITES if s.quantity is not Quantity.CHECKSUM}
    assert ciphers | {"crypto_shash_finup"} <= watched.keys() == there.keys()
    assert {copy.mechanism for copy in watched.values()} == {Mechanism.FENTRY}
    assert all(dict(copy.place)["PLACE_NESTS"] for copy in watched.values())
    returns = {a.hook.function: a for a in planned.hooks if a.hook.function in there}
    assert {name: a.mechanism for name, a in returns.items()} == dict.fromkeys(
        there, Mechanism.FENTRY
    )
    assert [blind for blind in planned.blind if blind.kind is Kind.TRANSFORM] == []
    of_run = plan(CATALOGUE, kernel)
    assert [copy for copy in of_run.copies if copy.kind is Kind.TRANSFORM] == []


@pytest.mark.parametrize(
    ("missing", "quantity"),
    [("crypto_aead_encrypt", "encryption"), ("crypto_skcipher_decrypt", "decryption")],
)
def test_one_that_cannot_be_watched_is_blind_by_itself(missing, quantity):
    kernel = recorded_kernel("6.1")
    functions = {name: f for name, f in kernel.functions.items() if name != missing}
    planned = plan(PROGRAM_CATALOGUE, dataclasses.replace(kernel, functions=functions))
    (blind,) = (b for b in planned.blind if b.kind is Kind.TRANSFORM)
    assert (blind.quantity, blind.functions) == (quantity, (missing,))


# What is said.

SENT = 16 << 20
"""Delivered by nginx in what is recorded."""


def evidence(*counts, blind=(), sites=TRANSFORM_SITES):
    text = (HERE / "evidence" / "programs-6.1.json").read_text()
    found = Evidence.from_json(json.loads(text)["nginx, sendfile on"])
    others = tuple(site for site in found.sites if site.kind is not Kind.TRANSFORM)
    run = dataclasses.replace(found.trace.run, counts=(*found.trace.run.counts, *counts))
    return dataclasses.replace(
        found,
        sites=(*others, *(_attached(site) for site in sites)),
        blind=tuple(blind),
        trace=dataclasses.replace(found.trace, run=run),
    )


def _attached(site):
    return Site(
        quantity=site.quantity,
        function=site.function,
        kind=site.kind,
        direction=site.direction,
        mechanism=Mechanism.FENTRY,
        paths=site.paths,
        why=site.why,
    )


def seen(size, role="program", **values):
    values = {
        "quantity": "encryption",
        "mechanism": "fentry",
        "direction": "k2k",
        "syscall": "sendfile",
        "caller": "tls_push_record+0x1c2",
        **values,
    }
    return count(role, values.pop("function", "crypto_aead_encrypt"), size, **values)


def answered(*counts, **values):
    return program.answer(evidence(*counts, **values))


def test_it_is_no_copy_and_in_no_other_figure():
    before, found = answered(), answered(seen(SENT), seen(5, role="outside:program"))
    for figure in ("copied", "beside", "unassigned", "copies", "most_copies", "delivered"):
        assert getattr(found, figure) == getattr(before, figure), figure
    assert [vars(line) for line in found.sites] == [vars(line) for line in before.sites]
    assert found.reasons == before.reasons
    assert (found.transformed.bytes, found.transformed.unassigned) == (SENT, 5)
    assert (before.transformed.bytes, before.transformed.unassigned) == (0, 0)


def test_the_sentence_says_how_many_times_and_by_whom():
    plain = sentences.sentence(answered())
    assert plain.startswith("zero-copy for 99.9 % of the bytes delivered")
    by = "encrypted by the CPU (crypto_aead_encrypt, for tls_push_record)"
    assert sentences.sentence(answered(seen(SENT))) == f"{plain}; but 1.00 × {by}"
    values = {"quantity": "decryption", "function": "crypto_aead_decrypt", "caller": None}
    both = sentences.sentence(answered(seen(SENT), seen(SENT // 4, **values)))
    assert both.endswith(f"1.00 × {by}, 0.25 × decrypted by the CPU (crypto_aead_decrypt)")
    little = answered(seen(SENT // 1000, quantity="checksum", function="crypto_shash_update"))
    assert sentences.sentence(little) == plain
    key = seen(32, function="crypto_skcipher_encrypt", caller="crypto_gcm_setkey+0x61")
    assert sentences.sentence(answered(seen(SENT), key)) == f"{plain}; but 1.00 × {by}"
    others = answered(seen(SENT // 2, role="outside:program"))
    assert sentences.sentence(others) == (
        f"{plain}; but possibly 0.50 × transformed by kernel threads or other programs"
    )


def test_what_a_device_takes_is_not_the_cpu_s():
    found = answered(seen(SENT), seen(SENT, direction="k2d"))
    assert (found.transformed.bytes, found.transformed.handed_over) == (0, SENT)
    assert sentences.sentence(found).endswith(
        f"; but {SENT} B were passed to an asynchronous cipher"
    )


BLIND = Blind(
    Quantity.ENCRYPTION, ("crypto_aead_encrypt",), "no such", frozenset(), Kind.TRANSFORM
)


def test_unknown_is_not_zero():
    found = answered(blind=[BLIND])
    assert found.transformed.bytes is None
    assert sentences.sentence(found).endswith(
        "; but encryption by the CPU could not be measured"
    )
    assert "More bytes may have been transformed" in rendered(found)
    older = answered(sites=())
    assert older.transformed.bytes is None
    assert sentences.sentence(older) == sentences.sentence(answered())


def rendered(found):
    text = io.StringIO()
    paper.show(reports.report([found]), Console(file=text, width=80))
    return text.getvalue()


def test_every_report_has_it():
    found = answered(seen(SENT), seen(7, role="outside:program"))
    text = rendered(found)
    assert "crypto_aead_encrypt ← tls_push_record, sendfile" in text
    assert "A further 7 B were transformed" in " ".join(text.split())
    (summary,) = json.loads(program_data.result_json([found]))["summary"]
    assert summary["transformed_bytes"] == SENT
    assert summary["transformed"][0]["caller"] == "tls_push_record"
    rows = list(csv.DictReader(io.StringIO(program_data.flows_csv([found]))))
    (row,) = (row for row in rows if row["way"] == "encryption")
    assert (row["bytes"], row["function"], row["caller"], row["syscall"]) == (
        *(str(SENT), "crypto_aead_encrypt"),
        *("tls_push_record", "sendfile"),
    )


def window(found):
    """One that was closed, with what was found in it."""
    closed = Window("", "process", 0)
    closed._answer = found
    return closed


@pytest.mark.parametrize(
    ("counts", "blind", "says"),
    [
        ((seen(SENT), seen(7, role="outside:program")), (), "perhaps more"),
        ((seen(SENT), seen(7, direction="k2d")), (), "perhaps more"),
        ((), (BLIND,), "not measured"),
    ],
)
def test_a_window_s_figure_is_exact_or_an_error(counts, blind, says):
    assert window(answered(seen(SENT))).transformed_bytes == SENT
    with pytest.raises(FigureError, match=says):
        _ = window(answered(*counts, blind=blind)).transformed_bytes
