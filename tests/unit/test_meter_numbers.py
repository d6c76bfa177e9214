"""What the meter's C and Python say to each other means the same to both."""

import ctypes
import os
import re
import struct

import pytest

from tests.conftest import or_skip
from tests.live import verifier
from tests.unit.compiled import MODES, C, cannot_compile, meter
from zctrace.collect import settings
from zctrace.kernel import bpf_syscall
from zctrace.plan.places import REGISTER_NUMBERS, Amount
from zctrace.probes.model import DIRECTION_NUMBERS, Direction
from zctrace.probes.syscalls import TRANSFERS
from zctrace.workloads import marker

pytestmark = pytest.mark.filterwarnings("ignore:not a bytes object:DeprecationWarning")
"""BCC wants names in bytes, and takes others."""


@pytest.fixture
def of_run():
    return meter("6.1", "run")


@pytest.fixture
def of_trace():
    return meter("6.1", "trace")


@pytest.mark.parametrize("mode", MODES)
def test_what_is_passed_to_the_compiler_is_not_defined_in_the_text_as_well(mode):
    defined = {name for text in C.values() for name in re.findall(r"(?m)^#define (\w+)", text)}
    passed = {name.partition("(")[0] for name in parameters_of(meter("6.1", mode))}
    assert defined & passed == set()


NUMBERS = re.compile(r"MARKER|SCOPE|LOST|RETURNED|AMOUNT|REGISTER|WAY|TOLD|SETTING_|.*_TO_")


def test_every_number_is_used(of_trace):
    """Of the marker's operations, causes of loss and the like: none is passed over."""
    text = "".join(C.values())
    names = [name for name in parameters_of(of_trace) if NUMBERS.match(name)]
    assert len(names) > 40
    used = set(re.findall(r"\w+", re.sub(r"/\*.*?\*/", "", text, flags=re.DOTALL)))
    used |= {f"REGISTER_{name}" for name in re.findall(r"CHECK_REGISTER\((\w+)", text)}
    # What is left when it is none of the others.
    assert set(names) - used == {"SCOPE_ALONE", "RETURNED_COPIED", "AMOUNT_REGISTER"}


def test_every_setting_is_used():
    text = "".join(C.values())
    assert {name for name in settings.NAMES if not re.search(rf"\b{name}\b", text)} == set()


@pytest.mark.parametrize("mode", MODES)
def test_nothing_that_is_compiled_in_differs_between_two_runs(mode):
    from zctrace.collect import meter as attach

    first = meter("6.1", mode)
    options = verifier.MODES[mode][1]
    if "user_copies_from" in options:
        options = {**options, "user_copies_from": 4096}
    other = attach.Meter(first._plan, 2, **options)
    assert parameters_of(other) == parameters_of(first)


def parameters_of(meter):
    from zctrace.collect import compiling

    return compiling.parameters(meter._plan, meter._options)


def run_once(descriptor):
    """What a program returns; it is closed."""
    packet = ctypes.create_string_buffer(64)
    attributes = ctypes.create_string_buffer(128)
    struct.pack_into("=IIIIQ", attributes, 0, descriptor, 0, 64, 0, ctypes.addressof(packet))
    try:
        failed = bpf_syscall._libc.syscall(
            321, 10, attributes, len(attributes)
        )  # BPF_PROG_TEST_RUN
        assert not failed, os.strerror(ctypes.get_errno())
    finally:
        os.close(descriptor)
    return struct.unpack_from("=I", attributes, 4)[0]


def run(text, cflags, **values):
    """What a function of the meter returns, called with ``values`` as settings."""
    if reason := cannot_compile():
        or_skip(reason)
    import bcc

    flags = [f"-D{name}={value}" for name, value in cflags.items()]
    with bcc.BPF(text=text.encode(), cflags=flags) as program:
        instructions = settings.put_in(program.dump_func(b"tried"), values)
    try:
        descriptor = bpf_syscall.load(1, instructions)  # BPF_PROG_TYPE_SOCKET_FILTER
    except PermissionError as error:
        or_skip(f"loading a program needs root: {error}")
    return run_once(descriptor)


SOME_NUMBERS = {"PLACE_FROM": 0x7F0012345678, "PLACE_TO": 0xFFFF888012345678}


@pytest.mark.parametrize(
    ("source", "destination", "direction"),
    [
        ("PLACE_FROM", "PLACE_TO", Direction.USER_TO_KERNEL),
        ("PLACE_TO", "PLACE_FROM", Direction.KERNEL_TO_USER),
        ("PLACE_TO", "PLACE_TO", Direction.KERNEL_TO_KERNEL),
        ("PLACE_FROM", "PLACE_FROM", Direction.USER_TO_USER),
    ],
)
def test_the_direction_that_two_addresses_mean(of_run, source, destination, direction):
    text = C["settings.h"] + C["direction.h"]
    text += f"int tried(void *ctx) {{ return direction_between({source}, {destination}); }}"
    assert run(text, parameters_of(of_run), **SOME_NUMBERS) == DIRECTION_NUMBERS[direction]


def copies_alone():
    """Of copies.c, what needs no map."""
    text = C["copies.c"]
    return (
        f"{C['settings.h']}{C['registers.h']}{C['direction.h']}"
        "static inline u64 within(u64 skb, s32 offset, s32 length) { return 0; }\n"
        + text[: text.index("/*\n * A breakpoint:")]
        + re.search(r"(?s)struct entered \{.*?\};\n", text)[0]
    )


@pytest.mark.parametrize("name", [*REGISTER_NUMBERS, None])
def test_the_register_that_a_place_s_number_means(of_run, name):
    """Of the six that have arguments."""
    members = [name for name in REGISTER_NUMBERS if name != "ax"]
    values = {member: 100 + number for number, member in enumerate(members)}
    given = ", ".join(f".{member} = {value}" for member, value in values.items())
    text = (
        f"{copies_alone()}int tried(void *ctx) {{ struct entered some = {{{given}}}; "
        'asm volatile("" : : "r"(&some) : "memory"); return ARGUMENT(some, PLACE_FIRST); }'
    )
    number = REGISTER_NUMBERS[name] if name else 0
    assert run(text, parameters_of(of_run), PLACE_FIRST=number) == values.get(name, 0)


BIG = (7 << 32) + 4711


@pytest.mark.parametrize(
    ("amount", "second", "result"),
    [
        (Amount.REGISTER, 0, 1),
        (Amount.INT, 0, 0),
        (Amount.WHERE, 0x101, 0),
        (Amount.WHERE, 0x100, None),
    ],
)
def test_how_a_number_of_bytes_is_told(of_run, amount, second, result):
    """``result`` is whether the upper half counts, ``None`` where nothing is copied."""
    expected = 0 if result is None else 4711 + (7 << 32) * result
    text = copies_alone() + (
        "int tried(void *ctx) { u64 bytes = amount(PLACE_FROM, PLACE_TO, 0); "
        "return bytes == PLACE_START; }"
    )
    values = {"PLACE_AMOUNT": amount.value, "PLACE_FROM": BIG, "PLACE_TO": second}
    assert run(text, parameters_of(of_run), PLACE_MEMBER=0, PLACE_START=expected, **values) == 1


def test_rows_that_the_meter_writes_are_read_by_the_same_names(of_run):
    table = of_run._bpf["tallies"]
    key = table.Key(role=marker.Role.SENDER, site=of_run._plan.copies[0].number, syscall=0)
    key.direction, key.caller = DIRECTION_NUMBERS[Direction.KERNEL_TO_USER], 0
    cells = table.Leaf()
    cells[0].calls, cells[0].bytes = 3, 4711
    table[key] = cells
    (count,) = of_run.counts()
    of_run.reset()
    assert (count.calls, count.bytes, count.role) == (3, 4711, "sender")
    assert (count.direction, count.syscall) == ("k2u", "read")
    assert of_run.counts() == []


def fields(structure):
    """Names, without what is there to fill up."""
    names = [name for name, *_ in structure._fields_]
    return {name for name in names if not name.startswith(("pad", "__pad"))}


WRITTEN = {
    "windows": ("role", "scope", "opener"),
    "call_sites": (
        *("site", "caller", "size", "length", "iterator", "direction", "returned"),
        *("pages_to_pipe", "int_length", "payload"),
    ),
    "transfer_calls": ("source", "destination", "told", "by_mode"),
}


def test_what_the_collector_writes_are_members_there(of_run, of_trace):
    """ctypes takes a misspelt one without a word."""
    for name, members in WRITTEN.items():
        table = (of_trace if name == "transfer_calls" else of_run)._bpf[name]
        assert set(members) <= fields(table.Leaf), name


def test_every_system_call_that_moves_bytes_is_told_to_the_meter(of_trace):
    rows = of_trace._bpf["transfer_calls"]
    for transfer in TRANSFERS:
        row = rows[ctypes.c_int(transfer.number)]
        assert (row.source, row.destination) == (transfer.source, transfer.destination)
        assert (row.told, row.by_mode) == (transfer.told.value, transfer.by_mode)


def test_a_call_s_place_is_told_to_the_meter_whole(of_run):
    from zctrace.collect.attaching import CallSites

    attachment = next(call for call in of_run._plan.calls if call.target.iterator)
    call, target = attachment.calls[0], attachment.target
    CallSites(of_run._loader, of_run._bpf, ())._describe(attachment, call, 5)
    table = of_run._bpf["call_sites"]
    row = table[table.Key(call.address + 1)]
    table.clear()
    of_run._bpf["return_sites"].clear()
    registers = (0, *(REGISTER_NUMBERS[name] for name in ("di", "si", "dx", "cx", "r8", "r9")))
    assert (row.site, row.caller, row.size) == (attachment.number, 5, target.size)
    assert (row.length, row.iterator) == (registers[target.length], registers[target.iterator])
    assert row.direction == DIRECTION_NUMBERS[target.direction]
    assert (row.returned, row.pages_to_pipe) == (target.returned.value, target.pages_to_pipe)
    assert (row.int_length, row.payload) == (target.int_length, target.purpose == "payload")


def test_a_window_is_opened_for_a_process(of_run):
    of_run.open_window(4711, marker.Role.SENDER, marker.Scope.PROCESS)
    ((key, window),) = of_run._bpf["windows"].items()
    of_run.close_windows()
    assert (key.value, window.role, window.scope) == (4711, 1, 2)
    assert (window.origin, window.opener, window.awaits_exec) == (0, 0, 0)


def test_a_window_that_is_about_to_open_is_not_open(of_trace):
    of_trace.about_to_open((4711,), marker.Role.PROGRAM, marker.Scope.PROCESS)
    ((key, window),) = of_trace._bpf["windows"].items()
    assert (key.value, window.role, window.scope) == (4711, marker.Role.PROGRAM, 2)
    (number,) = re.findall(r"(?m)^#define ABOUT_TO_OPEN (\w+)", C["window.c"])
    assert window.opener == int(number, 16)
    of_trace.open_window(4711, marker.Role.PROGRAM, marker.Scope.PROCESS)
    ((_, window),) = of_trace._bpf["windows"].items()
    of_trace.close_windows()
    assert window.opener == 0


def test_losses_have_the_names_that_the_controls_know(of_run, of_trace):
    assert set(of_trace.lost()) - set(of_run.lost()) == {"flow", "completion"}
    table = of_trace._bpf["lost"]
    for number, cause in enumerate(of_trace.lost()):
        assert parameters_of(of_trace)[f"LOST_{cause.upper()}"] == str(number)
        table[ctypes.c_int(number)] = ctypes.c_ulonglong(1000 + number)
    assert list(of_trace.lost().values()) == [1000 + n for n in range(len(of_trace.lost()))]
    table.clear()
