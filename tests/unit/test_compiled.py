"""What BCC has compiled is kept, and made again without it."""

import ctypes
import importlib.util
import json
import os
import stat
import subprocess
import sys
import threading
from contextlib import ExitStack
from types import SimpleNamespace

import pytest

from tests.conftest import or_skip, recorded_kernel
from tests.unit.compiled import PARAMETERS, PROBES, TEXT, cannot_compile, made
from zctrace import errors
from zctrace.collect import compiled
from zctrace.collect.meter import Meter
from zctrace.kernel import bpf_syscall, remembered
from zctrace.plan.plan import plan
from zctrace.probes.catalogue import PROGRAM_CATALOGUE


@pytest.fixture(autouse=True)
def _able():
    if reason := cannot_compile():
        or_skip(reason)


@pytest.fixture
def make(tmp_path):
    """What a text becomes; all of it is given back."""
    with ExitStack() as stack:
        yield lambda *texts, memory=tmp_path, **parameters: made(
            stack, *texts, memory=memory, **parameters
        )


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
    begin = subprocess.Popen

    def without(command, **options):
        return begin(["/usr/bin/python3", "-S", *command[1:]], **options)

    monkeypatch.setattr(compiled.subprocess, "Popen", without)


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
        rows = programs["rows"]
        assert [(k.value, row.calls) for k, row in rows.items()] == [(5, 7)]
        assert [key.value for key in rows] == [5]
        assert [row.calls for row in rows.values()] == [7]
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
    ended = SimpleNamespace(wait=lambda: -9)
    monkeypatch.setattr(compiled.subprocess, "Popen", lambda *_, **options: ended)
    with pytest.raises(errors.TraceError) as caught:
        make()
    assert "status -9" in caught.value.why


def test_a_table_that_the_kernel_refuses_is_an_error(make):
    with pytest.raises(errors.TraceError) as caught:
        compiled.programs(TEXT, PARAMETERS, PROBES, {1009: 0}, None)
    assert caught.value.why.startswith("[Errno"), caught.value.why
    assert "many" in caught.value.why


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


@pytest.mark.usefixtures("no_bcc")
def test_names_in_programs_are_refused_before_anything_is_traced():
    with pytest.raises(errors.MissingError, match="BCC's Python module") as caught:
        Meter(plan(PROGRAM_CATALOGUE, recorded_kernel("6.1")), 1, keep_stacks=True).load(PROBES)
    assert "looks up functions in programs" in caught.value.why
