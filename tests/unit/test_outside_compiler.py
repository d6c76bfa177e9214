"""A guest has its programs compiled outside: what it asks, is answered, is refused."""

import base64
import dataclasses
import json
import os
import re
import threading
import time
import zlib
from pathlib import Path
from typing import ClassVar

import pytest

import zctrace.probes
from tests.conftest import KERNELS, recorded_kernel
from tests.live import verifier
from tests.unit.compiled import cannot_compile, meter
from zctrace.collect import compile_request, compiled, compiling
from zctrace.collect.meter import Meter
from zctrace.kernel import remembered
from zctrace.machine import outside_compiler
from zctrace.machine.outside_compiler import OutsideCompiler
from zctrace.plan.plan import plan

PROBES = Path(zctrace.probes.__file__).parent
KEY = "0123456789abcdef" * 4
OURS = compiling.source(PROBES, compiling.MeterOptions())
FULL = {"key": KEY, "sources": compiled.sources(PROBES), "text": OURS, "parameters": {}}
COMPILED = {"bcc": "0.1", "maps": [], "functions": {}}


class Work:
    """A compiler that answers at once, with nothing in it, or fails, or never ends."""

    begun = ()
    killed = 0
    status = 0
    functions: ClassVar = {}

    def __init__(self, *arguments, **options):
        type(self).begun += ((arguments, options),)
        self.process, self.pid = self, os.getpid()

    def poll(self):
        return self.status

    def content(self):
        if self.status:
            raise compiled.TraceError("what", "why", "hint")
        return {**COMPILED, "functions": self.functions}

    def kill(self):
        type(self).killed += 1


@pytest.fixture
def work(monkeypatch):
    kind = type("Work", (Work,), {"begun": ()})
    monkeypatch.setattr(compiled, "Compiling", kind)
    monkeypatch.setattr(outside_compiler, "_LIMITS", {})
    return kind


@pytest.fixture
def memory(tmp_path):
    folder = tmp_path / "observed"
    folder.mkdir()
    return folder


@pytest.fixture
def outside(memory):
    """Looks again and again, as ``qemu.run`` does while a guest works."""
    done = threading.Event()
    with OutsideCompiler(memory, {"ZCTRACE_RUN": "1"}) as compiler:

        def look():
            while not done.is_set():
                compiler.look()
                time.sleep(0.01)

        thread = threading.Thread(target=look)
        thread.start()
        yield compiler
        done.set()
        thread.join()


def wanted(text=OURS, parameters=None, key=KEY, sources=None):
    return compile_request.Wanted(
        key, sources or compiled.sources(PROBES), text, parameters or {"NUMBER": "1"}
    )


def asks(memory, **asked):
    """What a guest writes; a path."""
    asked = wanted(**asked)
    request = memory / f"wanted-{asked.key[:32]}.json"
    remembered.write(request, dataclasses.asdict(asked))
    return request


def looked(memory, times=2):
    """Look so often, as ``qemu.run`` does."""
    with OutsideCompiler(memory, {}) as compiler:
        for _ in range(times):
            compiler.look()


def refused(memory, key=KEY):
    return (memory / f"refused-{key[:32]}.json").exists()


def test_the_answer_is_what_the_guest_would_have_kept(memory, work, outside):
    assert compile_request.answered(memory, wanted())
    kept = compile_request.place(memory, KEY)
    assert remembered.read(kept) == {"key": KEY, **COMPILED}
    (((text, parameters, headers, python), options),) = work.begun
    assert (text, parameters, headers) == (OURS, {"NUMBER": "1"}, PROBES)
    assert python == "/usr/bin/python3"
    # The guardian finds it by this, should zctrace be killed.
    assert options["environment"]["ZCTRACE_RUN"] == "1"
    assert {path.name for path in memory.iterdir()} == {kept.name, "compiles"}


def test_where_nothing_can_answer_nothing_is_asked(memory):
    assert not compile_request.answered(memory, wanted())
    assert list(memory.iterdir()) == []


def test_the_same_is_asked_again(memory, work, outside):
    for many in (1, 2):
        assert compile_request.answered(memory, wanted())
        assert len(work.begun) == many


@pytest.mark.parametrize(
    "asked",
    [
        {"text": "int other;"},
        {"text": OURS + "int other;"},
        {"text": f'#line 1 "../../etc/passwd"\n{OURS}'},
        {"sources": "0" * 64},
        {"parameters": {"NUMBER -fplugin": "1"}},
        {"parameters": {"max": "1"}},
        {"parameters": {"NUMBER": '1,""); BPF_TABLE_PINNED("hash",u32,u64,a,8,"/tmp/a'}},
        {"parameters": {"NUMBER": "NUMBER NUMBER"}},
        {"parameters": {"NUMBER": "1;"}},
        {"parameters": {"NUMBER": "1\n2"}},
        {"parameters": {"NUMBER": "1" * 199 + ";"}},
        {"parameters": {"NUMBER": "1" * 201}},
        {"parameters": {"IS_TRACKED(role)": "1" * 199 + ";"}},
        {"parameters": {"SETTING(role)": "(role|role)"}},
        {"parameters": {"NUMBER": "SETTING(SETTING(1))"}},
        {"parameters": {"MAX_OWNERS": "0x7fffffff"}},
        {"parameters": {"MAX_OWNERS": str((1 << 16) + 1)}},
        {"text": OURS + OURS},
        {"parameters": {"NUMBER": ""}},
    ],
    ids=str,
)
def test_only_our_own_text_with_numbers_is_compiled(memory, work, asked):
    asks(memory, **asked)
    looked(memory)
    assert (refused(memory), work.begun) == (True, ())


def test_no_table_is_larger_than_ours():
    """Each of the macros that tables of ours have as their size is bounded."""
    tables = re.compile(r"^BPF_\w+\((.*?)\);", re.MULTILINE | re.DOTALL)
    sizes = {
        word
        for path in (PROBES / "bpf").iterdir()
        for arguments in tables.findall(path.read_text())
        for word in re.findall(r"\b[A-Z_]+\b", arguments)
        if not word.startswith("BPF_F_")
    }
    assert {"MAX_OWNERS", "MAX_FLOWS", "THREAD_SLOTS"} <= sizes
    assert {size for size in sizes if not outside_compiler.SIZES.fullmatch(size)} == set()


@pytest.mark.parametrize("line", KERNELS)
@pytest.mark.parametrize("mode", verifier.MODES)
def test_all_that_our_own_guests_ask_for_is_compiled(memory, work, line, mode):
    catalogue, options = verifier.MODES[mode]
    of_mode = Meter(plan(catalogue, recorded_kernel(line)), 1, **options)
    asks(
        memory,
        text=compiling.source(PROBES, of_mode._options),
        parameters=compiling.parameters(of_mode._plan, of_mode._options),
    )
    looked(memory)
    assert (refused(memory), len(work.begun)) == (False, 1)


@pytest.mark.parametrize(
    "content", [{}, {**FULL, "key": "../x"}, {**FULL, "key": 1}, {"key": KEY}], ids=str
)
def test_what_no_guest_of_ours_has_written_is_refused(memory, work, content):
    remembered.write(memory / f"wanted-{KEY[:32]}.json", content)
    looked(memory)
    assert (refused(memory), work.begun) == (True, ())


def test_links_are_not_followed(memory, work, tmp_path):
    (memory / "compiles").symlink_to(tmp_path / "elsewhere")
    looked(memory)
    elsewhere = tmp_path / "others"
    elsewhere.mkdir()
    with OutsideCompiler(memory, {}) as compiler:
        memory.rename(tmp_path / "away")
        memory.symlink_to(elsewhere)
        asks(elsewhere)
        compiler.look()
        compiler.look()
    assert work.begun == ()
    assert [path.name for path in elsewhere.iterdir()] == [f"wanted-{KEY[:32]}.json"]
    assert not (tmp_path / "elsewhere").exists()


def test_limits_that_cannot_be_set_do_not_leave_it_alone(memory, work, monkeypatch):
    def denied(*_):
        raise PermissionError

    monkeypatch.setattr(outside_compiler, "_LIMITS", {1: 1})
    monkeypatch.setattr(outside_compiler.resource, "prlimit", denied)
    asks(memory)
    looked(memory)
    assert compile_request.place(memory, KEY).exists()


def test_a_second_compiler_leaves_the_first_alone(memory, work):
    with OutsideCompiler(memory, {}) as first:
        looked(memory)
        asks(memory)
        first.look()
        first.look()
    assert len(work.begun) == 1


def test_what_is_not_waited_for_any_more_is_ended(memory, work):
    work.status = None
    request = asks(memory)
    with OutsideCompiler(memory, {}) as compiler:
        compiler.look()
        request.unlink()
        compiler.look()
        assert work.killed == 1
    assert work.killed == 1


def test_where_it_does_not_compile_the_guest_tries_itself(memory, work, outside):
    work.status = 1
    assert not compile_request.answered(memory, wanted())
    assert not compile_request.place(memory, KEY).exists()
    assert len(work.begun) == 1


@pytest.mark.parametrize(("helper", "is_general"), [(4, False), (45, False), (113, True)])
def test_what_is_compiled_for_an_old_kernel_is_not_given_away(memory, work, helper, is_general):
    """As BCC compiles where it does not find that the kernel has bpf_probe_read_kernel."""
    call = compiled.INSTRUCTION.pack(0x85, 0, 0, helper)
    work.functions = {"on_breakpoint": base64.b64encode(zlib.compress(call)).decode()}
    asks(memory)
    looked(memory)
    assert len(work.begun) == 1
    assert compile_request.place(memory, KEY).exists() == is_general
    assert refused(memory) == (not is_general)


def test_a_full_disk_ends_the_service(memory, work, monkeypatch):
    """Not even a refusal can be written then, and the guest is not to wait for it."""
    asks(memory)
    with OutsideCompiler(memory, {}) as compiler:
        monkeypatch.setattr(remembered, "write", lambda *_: False)
        assert (memory / "compiles").exists()
        compiler.look()
        compiler.look()
        assert not (memory / "compiles").exists()
        compiler.look()
    assert len(work.begun) == 1


def test_a_compiler_that_takes_too_long_is_ended(memory, work, monkeypatch):
    work.status = None
    monkeypatch.setattr(outside_compiler, "LONGEST_SECONDS", 0.0)
    asks(memory)
    looked(memory)
    assert (refused(memory), work.killed) == (True, 1)


def test_a_damaged_answer_of_before_is_no_answer(memory, work, outside):
    kept = compile_request.place(memory, KEY)
    kept.write_text("damaged")
    assert compile_request.answered(memory, wanted())
    assert remembered.read(kept) == {"key": KEY, **COMPILED}


def test_a_guest_that_asks_all_the_time_is_refused(memory, work):
    many = outside_compiler._MOST
    with OutsideCompiler(memory, {}) as compiler:
        for number in range(2 * many):
            key = f"{number:064x}"[::-1]
            request = asks(memory, key=key)
            compiler.look()
            compiler.look()
            assert refused(memory, key) == (number >= many)
            request.unlink()
    assert len(work.begun) == many


def test_a_compiler_at_work_ends_with_the_run(memory, work):
    work.status = None
    asks(memory)
    with OutsideCompiler(memory, {}) as compiler:
        compiler.look()
        compiler.look()
        assert work.killed == 0
    assert (len(work.begun), work.killed) == (1, 1)


def test_where_nothing_is_remembered_there_is_no_folder(tmp_path):
    looked(tmp_path / "nowhere")
    assert list(tmp_path.iterdir()) == []


def test_programs_come_from_outside(memory, work, outside, monkeypatch):
    """As a guest has them: nothing is compiled by itself."""
    monkeypatch.setattr(compiled, "_compile", lambda *_: pytest.fail("it compiled by itself"))
    monkeypatch.setattr(compiled, "_installed", lambda: "0.1")
    programs = compiled.programs(OURS, {"NUMBER": "1"}, PROBES, {}, memory)
    assert programs.bcc_version == "0.1"
    programs.close()
    (found,) = memory.glob("programs-*.json")
    assert json.loads(found.read_text().partition("\n")[2])["bcc"] == "0.1"


def test_the_real_compiler(memory):
    """By this machine's BCC, through a request, if it has one."""
    if reason := cannot_compile():
        pytest.skip(reason)
    of_mode = meter("6.1", "run")
    asks(
        memory,
        text=compiling.source(PROBES, of_mode._options),
        parameters=compiling.parameters(of_mode._plan, of_mode._options),
    )
    kept = compile_request.place(memory, KEY)
    mark = {"ZCTRACE_RUN": "a-mark"}
    with OutsideCompiler(memory, mark) as compiler:
        compiler.look()
        process = Path(f"/proc/{compiler._at_work.compiling.process.pid}")
        marked = (process / "environ").read_bytes()
        limits = (process / "limits").read_text()
        while not kept.exists():
            assert not refused(memory)
            compiler.look()
            time.sleep(0.05)
    assert b"ZCTRACE_RUN=a-mark\0" in marked
    assert re.search(rf"Max address space +{1 << 30} ", limits)
    assert "on_breakpoint" in remembered.read(kept)["functions"]
