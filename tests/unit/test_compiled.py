"""What BCC has compiled is kept, and made again without it."""

import ctypes
import importlib.util
import json
import os
import re
import stat
import subprocess
import sys
import threading
from types import SimpleNamespace

import pytest

from tests.conftest import or_skip
from tests.unit.compiled import MODES, PROBES, C, cannot_compile, meter
from zctrace import errors
from zctrace.collect import compiled, compiling
from zctrace.kernel import bpf_maps, bpf_syscall, remembered

TEXT = """
struct row { u64 calls; u32 site; char name[16]; union { u32 small; u64 large; }; };
BPF_HASH(rows, u32, struct row, 16);
BPF_TABLE("percpu_array", int, u64, many, SOME);
BPF_PERCPU_ARRAY(narrow, u32, 2);
BPF_F_TABLE("array", int, u64, mapped, 1000, BPF_F_MMAPABLE);
BPF_F_TABLE("array", int, u32, mapped_narrow, 1000, BPF_F_MMAPABLE);
int tried(void *ctx)
{
	int first = 0;
	u32 key = VALUE;
	struct row row = { .calls = 7 };
	u64 *cell = many.lookup(&first);
	rows.update(&key, &row);
	if (cell)
		*cell += 3;
	return VALUE;
}
"""
PARAMETERS = {"SOME": "1009", "VALUE": "5"}


@pytest.fixture(autouse=True)
def _able():
    if reason := cannot_compile():
        or_skip(reason)


@pytest.fixture
def make(tmp_path):
    """What a text becomes; all of it is given back."""
    opened = []

    def programs(text=TEXT, memory=tmp_path, **parameters):
        made = compiled.programs(text, PARAMETERS | parameters, PROBES, {1009: 3}, memory)
        opened.append(made)
        return made

    yield programs
    for made in opened:
        made.close()


@pytest.fixture
def compilations(monkeypatch):
    """How often BCC was asked."""
    asked = []
    ask = compiled._compile

    def counted(*arguments):
        asked.append(arguments)
        return ask(*arguments)

    monkeypatch.setattr(compiled, "_compile", counted)
    return asked


@pytest.fixture
def no_bcc(monkeypatch):
    """A machine that has none; what it has compiled so far is there."""
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    # With -S it finds no packages.
    monkeypatch.setattr(sys, "executable", "/nowhere/python3")
    run = subprocess.run

    def without(command, **options):
        return run(["/usr/bin/python3", "-S", *command[1:]], **options)

    monkeypatch.setattr(compiled.subprocess, "run", without)


def entry(folder):
    (path,) = folder.iterdir()
    return path


def run(programs):
    """Once, in the kernel; what it returns."""
    from tests.unit.test_meter_numbers import run_once

    return run_once(bpf_syscall.load(1, programs.instructions("tried")))


def test_what_was_compiled_once_is_not_compiled_again(make, compilations):
    first, second = make(), make()
    assert len(compilations) == 1
    assert first.bcc_version == second.bcc_version != ""
    assert list(first) == list(second) == ["tried"]
    for programs in (first, second):
        assert run(programs) == 5
        assert [(k.value, row.calls) for k, row in programs["rows"].items()] == [(5, 7)]
        assert sum(programs["many"][0]) == 3


def test_another_text_and_other_parameters_are_compiled(make, compilations, tmp_path):
    make(), make(VALUE="6"), make(TEXT.replace("+= 3", "+= 4"))
    assert len(compilations) == 3
    assert len(list(tmp_path.iterdir())) == 3


def test_another_kernel_s_are_compiled_anew(make, compilations, monkeypatch):
    make()
    monkeypatch.setattr(os, "uname", lambda: ("Linux", "host", "6.1.0-x", "#1", "x86_64"))
    make()
    assert len(compilations) == 2


def test_those_of_another_bcc_are_compiled_anew(make, compilations, monkeypatch):
    make()
    assert compiled._installed() == make().bcc_version
    monkeypatch.setattr(compiled, "_installed", lambda: "0.99.0")
    make()
    assert len(compilations) == 2


def test_numbers_of_a_run_are_not_compiled(make, tmp_path):
    make()
    again = compiled.programs(TEXT, PARAMETERS, PROBES, {1009: 77}, tmp_path)
    try:
        assert len(again["many"]) == 77
        assert again["many"][ctypes.c_int(76)][0] == 0
        with pytest.raises(KeyError):
            again["many"][ctypes.c_int(77)]
        assert len(list(tmp_path.iterdir())) == 1
    finally:
        again.close()


def changed(path, change):
    content = remembered.read(path)
    change(content)
    remembered.write(path, content)


DAMAGE = {
    "cut short": lambda path: os.truncate(path, path.stat().st_size // 2),
    "empty": lambda path: os.truncate(path, 0),
    "another hash": lambda path: path.write_bytes(b"0" + path.read_bytes()[1:]),
    "another byte": lambda path: path.write_bytes(path.read_bytes().replace(b"rows", b"rowz")),
    "writable": lambda path: path.chmod(0o666),
    "foreign": lambda path: os.chown(path, 12345, 12345),
    "of another key": lambda path: changed(path, lambda c: c.update(key="0" * 64)),
    "no program": lambda path: changed(path, lambda c: c["functions"].update(tried="QUJD")),
    "no base64": lambda path: changed(path, lambda c: c["functions"].update(tried="?")),
    "no maps": lambda path: changed(path, lambda c: c.pop("maps")),
    "no such type": lambda path: changed(path, lambda c: c["maps"][0].update(key="quux")),
    "another size": lambda path: changed(path, lambda c: c["maps"][0].update(leaf="int")),
    "a size of no map": lambda path: changed(
        path, lambda c: c["maps"][0].update(entries=1 << 40)
    ),
    "one map less": lambda path: changed(path, lambda c: c["maps"].pop()),
    "no such kind": lambda path: changed(path, lambda c: c["maps"][0].update(kind=4095)),
}


@pytest.mark.parametrize("damage", DAMAGE)
def test_a_damaged_entry_is_compiled_anew(make, compilations, tmp_path, damage):
    make()
    DAMAGE[damage](entry(tmp_path))
    assert run(make()) == 5
    assert len(compilations) == 2
    assert run(make()) == 5
    assert len(compilations) == 2, "it was not mended"


def test_a_link_is_not_followed(make, compilations, tmp_path):
    make()
    path = entry(tmp_path)
    path.rename(tmp_path / "elsewhere")
    path.symlink_to(tmp_path / "elsewhere")
    make()
    assert len(compilations) == 2
    assert stat.S_ISREG(path.lstat().st_mode)


def test_several_writers_leave_a_whole_entry(make, compilations, tmp_path):
    threads = [threading.Thread(target=make) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(compilations) == 3
    assert entry(tmp_path)
    assert run(make()) == 5
    assert len(compilations) == 3


def test_without_a_place_to_keep_it_everything_works(make, compilations, tmp_path):
    assert run(make(memory=None)) == 5
    assert run(make(memory=tmp_path / "missing")) == 5
    assert len(compilations) == 2


@pytest.mark.usefixtures("no_bcc")
def test_without_bcc_the_error_names_the_package(make):
    with pytest.raises(errors.MissingError) as caught:
        make()
    assert "No module named 'bcc'" in caught.value.what
    assert caught.value.hint == "apt-get install python3-bpfcc"


def test_without_bcc_what_is_kept_works(make, request):
    make()
    request.getfixturevalue("no_bcc")
    assert run(make()) == 5


def test_what_does_not_compile_is_an_error(make, tmp_path, capfd):
    with pytest.raises(errors.TraceError, match="BCC could not compile the meter"):
        make("int tried(void *ctx) { return NOWHERE; }")
    assert "NOWHERE" in capfd.readouterr().err
    assert not list(tmp_path.iterdir())


def test_a_compiler_that_ends_early_is_an_error(make, monkeypatch):
    ended = SimpleNamespace(returncode=-9)
    monkeypatch.setattr(compiled.subprocess, "run", lambda *_, **options: ended)
    with pytest.raises(errors.TraceError) as caught:
        make()
    assert "status -9" in caught.value.why


def test_a_table_that_the_kernel_refuses_is_an_error(make):
    with pytest.raises(errors.TraceError) as caught:
        compiled.programs(TEXT, PARAMETERS, PROBES, {1009: 0}, None)
    assert caught.value.why.startswith("[Errno"), caught.value.why
    assert "many" in caught.value.why


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
        if name in ("kernel_stacks", "user_stacks"):
            continue  # which only programs write
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
        table[key] = leaf
        assert bytes(table[key]) == bytes(leaf), name
        assert {**before, bytes(key): None}.keys() == {bytes(key) for key in table}, name
        if table._is_array:
            table[key] = table.Leaf()
        else:
            del table[key]
            assert bytes(key) not in {bytes(key) for key in table}, name


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


def test_the_answer_is_json_that_names_maps_by_number(make, tmp_path):
    make()
    _, _, body = entry(tmp_path).read_bytes().partition(b"\n")
    content = json.loads(body)
    assert [about["name"] for about in content["maps"]].count("rows") == 1
    code = compiled._unpacked(content["functions"]["tried"])
    loads = [at for at in range(0, len(code), 8) if code[at] == 0x18 and code[at + 1] >> 4 == 1]
    numbers = {int.from_bytes(code[at + 4 : at + 8], "little") for at in loads}
    assert numbers <= set(range(len(content["maps"])))
    assert len(numbers) == 2
