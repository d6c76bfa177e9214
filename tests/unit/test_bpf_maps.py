"""Tables made by bpf(2) have the layout that BCC gives them, and keep what is written."""

import ctypes
import os
import re
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.conftest import or_skip
from tests.unit.compiled import MODES, PROBES, C, cannot_compile, made, meter
from zctrace.collect import compiled, compiling
from zctrace.kernel import bpf_maps


@pytest.fixture(autouse=True)
def _able():
    if reason := cannot_compile():
        or_skip(reason)


@pytest.fixture
def make():
    """What a text becomes; all of it is given back."""
    with ExitStack() as stack:
        yield lambda *texts: made(stack, *texts)


def decoded_by_bcc(described):
    import bcc

    return bcc.BPF._decode_table_type(described)


def shape(kind):
    """Everything that tells where a type has what."""
    if issubclass(kind, ctypes.Array):
        return shape(kind._type_), kind._length_
    if not hasattr(kind, "_fields_"):
        return kind
    fields = [(name, getattr(kind, name).offset, *bits) for name, _, *bits in kind._fields_]
    within = [shape(of) for _, of, *_ in kind._fields_]
    return kind.__name__, kind.__base__, ctypes.sizeof(kind), fields, within


@pytest.mark.parametrize("mode", MODES)
def test_rows_have_the_layout_that_bcc_gives_them(mode):
    of_mode = meter("6.1", mode)
    parameters = compiling.parameters(of_mode._plan, of_mode._options)
    text = compiling.source(PROBES, of_mode._options)
    maps = compiled._compile(text, parameters, PROBES)["maps"]
    assert {"windows", "tallies", "lost"} <= {about["name"] for about in maps}
    for about in maps:
        for described in (about["key"], about["leaf"]):
            assert shape(bpf_maps.ctype(described)) == shape(decoded_by_bcc(described))


@pytest.mark.parametrize("mode", MODES)
def test_every_row_that_is_written_is_read(mode):
    """Of every table, with other bytes in each byte of it."""
    of_mode = meter("6.1", mode)
    for name, table in of_mode._bpf._tables.items():
        if name in ("kernel_stacks", "user_stacks", "scope"):
            continue  # which only programs write, or nobody reads
        key = (
            table.Key()
            if table._is_array
            else table.Key.from_buffer_copy(
                bytes(1 + n % 251 for n in range(ctypes.sizeof(table.Key)))
            )
        )
        size = ctypes.sizeof(table.Leaf)
        leaf = table.Leaf.from_buffer_copy(bytes(1 + n % 253 for n in range(size)))
        before = dict.fromkeys(bytes(key) for key in table)
        was = table[key] if table._is_array else None
        table[key] = leaf
        assert bytes(table[key]) == bytes(leaf), name
        assert {**before, bytes(key): None}.keys() == {bytes(key) for key in table}, name
        if table._is_array:
            table[key] = was  # the meter is other tests', too
        else:
            del table[key]
            assert bytes(key) not in {bytes(key) for key in table}, name


def test_a_cgroup_is_put_into_a_table_of_them(make):
    """Nobody can read it; with none there, deleting it says so."""
    scope = make("BPF_CGROUP_ARRAY(scope, 1); int tried(void *ctx) { return 5; }")["scope"]
    mounted = [line.split()[1:3] for line in Path("/proc/mounts").read_text().splitlines()]
    roots = [point for point, kind in mounted if kind == "cgroup2"]
    if not roots:
        or_skip("this machine has no cgroup v2")
    folder = os.open(roots[0], os.O_RDONLY | os.O_DIRECTORY)
    try:
        scope[ctypes.c_int(0)] = ctypes.c_int(folder)
    finally:
        os.close(folder)
    del scope[ctypes.c_int(0)]
    with pytest.raises(KeyError):
        del scope[ctypes.c_int(0)]


def test_numbers_that_depend_on_the_run_are_only_room():
    """In the C they are sizes of tables and nothing else, and no other table's size."""
    of_trace = meter("6.1", "trace --stacks")
    own = compiling.entries(of_trace._plan)
    for name in ("MAX_SITES", "MAX_CALL_SITES"):
        code = re.sub(r"/\*.*?\*/", "", "".join(C.values()), flags=re.DOTALL)
        uses = [line for line in code.splitlines() if re.search(rf"\b{name}\b", line)]
        assert uses
        assert all(re.match(r"BPF_[A-Z_]+\(", line) for line in uses), uses
    parameters = compiling.parameters(of_trace._plan, of_trace._options)
    others = {n: v for n, v in parameters.items() if not n.endswith("_SITES")}
    assert not {str(number) for number in own} & set(others.values())
    sizes = {
        name: len(table) for name, table in of_trace._bpf._tables.items() if table._is_array
    }
    assert sizes["hits"] == sizes["purposes"] == min(own.values())


def test_a_row_that_vanishes_meanwhile_is_left_out(make):
    rows = make()["rows"]
    for number in range(3):
        rows[number] = rows.Leaf(calls=number)
    keys = iter(list(rows))
    first = next(keys)
    table_iter = type(rows).__iter__

    class Racing(type(rows)):
        def __iter__(self):
            for key in table_iter(self):
                if key.value == first.value:
                    del self[ctypes.c_uint(key.value)]
                yield key

    rows.__class__ = Racing
    assert first.value not in {key.value for key, _ in rows.items()}
    assert len(rows.items()) == 2
    rows.clear()
    rows.__class__ = Racing.__base__
    assert len(rows) == 0


def test_narrow_leaves_of_processors_are_told_apart(make):
    narrow = make()["narrow"]
    leaf = narrow.Leaf()
    for number in range(len(leaf)):
        leaf[number] = 1000 + number
    narrow[1] = leaf
    assert list(narrow[1]) == [1000 + number for number in range(len(leaf))]
    assert list(narrow[0]) == [0] * len(leaf)


@pytest.mark.parametrize("name", ["mapped", "mapped_narrow"])
def test_what_is_mapped_is_cleared_as_a_whole(make, name):
    mapped = make()[name]
    for number in (0, 1, 999):
        mapped[number] = 7
    assert sum(leaf.value for _, leaf in mapped.items()) == 21
    mapped.clear()
    assert [leaf.value for _, leaf in mapped.items()] == [0] * 1000


def test_a_key_or_leaf_of_another_size_is_refused(make):
    rows = make()["rows"]
    with pytest.raises(TypeError):
        rows[ctypes.c_ulonglong(1)]
    with pytest.raises(TypeError):
        rows[1] = ctypes.c_uint(1)


def test_deleting_what_is_not_there_is_a_key_error(make):
    rows = make()["rows"]
    with pytest.raises(KeyError):
        del rows[4711]
    with pytest.raises(KeyError):
        rows[4711]
