"""A guest has its programs compiled outside: what it asks, is answered, is refused."""

import base64
import json
import threading
import time
import zlib
from pathlib import Path
from typing import ClassVar

import pytest

import zctrace.probes
from tests.unit.compiled import cannot_compile
from zctrace.collect import compile_request, compiled, compiling
from zctrace.kernel import remembered
from zctrace.machine import outside_compiler
from zctrace.machine.outside_compiler import OutsideCompiler

PROBES = Path(zctrace.probes.__file__).parent
KEY = "0123456789abcdef" * 4
OURS = compiling.source(PROBES, compiling.MeterOptions())
COMPILED = {"bcc": "0.1", "maps": [], "functions": {}}


class Work:
    """A compiler that answers at once, with nothing in it, or fails, or never ends."""

    begun = ()
    status = 0
    functions: ClassVar = {}

    def __init__(self, *arguments, **options):
        type(self).begun += ((arguments, options),)
        self.process = self
        self.killed = False

    def poll(self):
        return self.status

    def content(self):
        if self.status:
            raise compiled.TraceError("what", "why", "hint")
        return {**COMPILED, "functions": self.functions}

    def kill(self):
        self.killed = True


@pytest.fixture
def work(monkeypatch):
    kind = type("Work", (Work,), {"begun": ()})
    monkeypatch.setattr(compiled, "Compiling", kind)
    return kind


@pytest.fixture
def memory(tmp_path):
    folder = tmp_path / "observed"
    folder.mkdir()
    return folder


@pytest.fixture
def outside(memory):
    """Looks all the time, as whoever waits for a guest does."""
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


def ask(memory, text=OURS, parameters=None):
    """What a guest does; whether it has an answer."""
    kept = compile_request.place(memory, KEY)
    return compile_request.answered(kept, KEY, text, parameters or {"MAX": "1"}), kept


def test_the_answer_is_what_the_guest_would_have_kept(memory, work, outside):
    answered, kept = ask(memory)
    assert answered
    assert remembered.read(kept) == {"key": KEY, **COMPILED}
    (((text, parameters, headers, python), options),) = work.begun
    assert (text, parameters, headers) == (OURS, {"MAX": "1"}, PROBES)
    assert python == "/usr/bin/python3"
    # The guardian finds it by this, should zctrace be killed.
    assert options["environment"]["ZCTRACE_RUN"] == "1"


def test_where_nobody_looks_nothing_is_asked(memory):
    assert ask(memory) == (False, compile_request.place(memory, KEY))
    assert list(memory.iterdir()) == []


@pytest.mark.parametrize(
    ("text", "parameters"),
    [
        ("int other;", {"MAX": "1"}),
        (OURS + "int other;", {"MAX": "1"}),
        (f'#line 1 "../../etc/passwd"\n{OURS}', {"MAX": "1"}),
        (OURS, {"MAX -fplugin": "1"}),
        (OURS, {"max": "1"}),
    ],
)
def test_only_our_own_text_is_compiled(memory, work, outside, text, parameters):
    answered, _ = ask(memory, text, parameters)
    assert (answered, work.begun) == (False, ())


def test_what_no_guest_of_ours_has_written_is_refused(memory, work, outside):
    request = memory / f"wanted-{KEY[:32]}.json"
    for content in ({}, {"key": "../x", "text": OURS, "parameters": {}}, {"key": 1}):
        refused = memory / f"refused-{KEY[:32]}.json"
        remembered.write(request, content)
        with OutsideCompiler(memory, {}) as another:
            another.look()
        assert refused.exists(), content
        refused.unlink()
        assert work.begun == ()


def test_where_it_does_not_compile_the_guest_tries_itself(memory, work, outside):
    work.status = 1
    answered, kept = ask(memory)
    assert not answered
    assert not kept.exists()
    assert len(work.begun) == 1


def test_what_is_compiled_for_an_old_kernel_is_not_given_away(memory, work, outside):
    """As BCC compiles where it does not find that the kernel has bpf_probe_read_kernel."""
    old = compiled.INSTRUCTION.pack(0x85, 0, 0, 4)
    text = base64.b64encode(zlib.compress(old)).decode()
    work.functions = {"on_breakpoint": text}
    assert not ask(memory)[0]


def test_a_damaged_answer_of_before_is_no_answer(memory, work, outside):
    kept = compile_request.place(memory, KEY)
    kept.write_text("damaged")
    answered, _ = ask(memory)
    assert answered
    assert remembered.read(kept) == {"key": KEY, **COMPILED}


def test_a_guest_that_asks_all_the_time_is_not_heard_for_ever(memory, work):
    with OutsideCompiler(memory, {}) as compiler:
        for number in range(200):
            key = f"{number:064x}"[::-1]
            remembered.write(
                memory / f"wanted-{key[:32]}.json",
                {"key": key, "text": OURS, "parameters": {}},
            )
        for _ in range(1000):
            compiler.look()
    assert len(work.begun) == outside_compiler._MOST


def test_a_compiler_at_work_ends_with_the_run(memory, work):
    work.status = None
    remembered.write(
        memory / f"wanted-{KEY[:32]}.json", {"key": KEY, "text": OURS, "parameters": {}}
    )
    with OutsideCompiler(memory, {}) as compiler:
        compiler.look()
        compiler.look()
        (_, _, begun) = compiler._at_work
        assert not begun.killed
    assert begun.killed


def test_where_nothing_is_remembered_there_is_no_folder(tmp_path):
    with OutsideCompiler(tmp_path / "nowhere", {}) as compiler:
        compiler.look()
    assert list(tmp_path.iterdir()) == []


def test_programs_come_from_outside(memory, work, outside, monkeypatch):
    """As a guest has them: nothing is compiled by itself."""
    monkeypatch.setattr(compiled, "_compile", lambda *_: pytest.fail("it compiled by itself"))
    monkeypatch.setattr(compiled, "_installed", lambda: "0.1")
    programs = compiled.programs(OURS, {"MAX": "1"}, PROBES, {}, memory)
    assert programs.bcc_version == "0.1"
    programs.close()
    (found,) = memory.glob("programs-*.json")
    assert json.loads(found.read_text().partition("\n")[2])["bcc"] == "0.1"


def test_the_real_compiler(memory):
    """By this machine's BCC, through a request, if it has one."""
    if reason := cannot_compile():
        pytest.skip(reason)
    from tests.unit.compiled import meter

    of_mode = meter("6.1", "run")
    text = compiling.source(PROBES, of_mode._options)
    parameters = compiling.parameters(of_mode._plan, of_mode._options)
    remembered.write(
        memory / f"wanted-{KEY[:32]}.json",
        {"key": KEY, "text": text, "parameters": parameters},
    )
    kept = compile_request.place(memory, KEY)
    with OutsideCompiler(memory, {}) as compiler:
        while not (kept.exists() or list(memory.glob("refused-*"))):
            compiler.look()
            time.sleep(0.05)
    assert "on_breakpoint" in remembered.read(kept)["functions"]
