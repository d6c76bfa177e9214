"""What was found in a kernel's text is used again only where it is still true."""

import dataclasses
import os
import struct

import pytest

from tests.unit.test_call_sites import BASE, FILLER, JUMP, MODULE, NOP, RETURN, Text
from zctrace.kernel import callsites, remembered, text_facts
from zctrace.kernel import facts as kernel
from zctrace.kernel import symbols as call_sites
from zctrace.kernel import text as kernel_text
from zctrace.kernel.text import TextError
from zctrace.kernel.text_facts import Wanted
from zctrace.probes.model import Catalogue

COPY, CALLER, MOVED = 0x200, 0x100, 0x7000000
"""Where functions begin, and how far the kernel may have moved at the next boot."""
IN_MODULE, SIZE = 0x40, 0x1000
WANTED = Wanted(("copy",), ("copy",), {"copy": ()})
PROCESSOR = "processor\t: 0\nmodel name\t: made by hand\nflags\t\t: fpu erms\ncpu MHz\t: 17\n\n"


def note(kind, content, name=b"GNU\0"):
    padded = content + bytes(-len(content) % 4)
    return struct.pack("=III", len(name), len(content), kind) + name + padded


class Machine:
    """A kernel with one function that copies, called by itself and by modules."""

    def __init__(self, monkeypatch, folder):
        self._folder = folder
        self.memory = folder / "memory"
        self.memory.mkdir()
        self.searched = []
        for module, names in (
            (kernel_text, ("KALLSYMS",)),
            (call_sites, ("_MODULES",)),
            (remembered, ("NOTES", "CPUINFO", "CMDLINE", "KPROBES", "SYS_MODULES")),
        ):
            for name in names:
                monkeypatch.setattr(module, name, folder / name)
        for module in (text_facts, remembered):
            monkeypatch.setattr(module, "live_text", self._live_text)
        search = callsites.find_calls

        def find_calls(wanted, symbols, text, only=None):
            self.searched.append(only)
            return search(wanted, symbols, text, only)

        monkeypatch.setattr(callsites, "find_calls", find_calls)
        self.notes = note(1, b"Linux") + note(3, b"\x12\x34\x56")
        self.processor, self.options = PROCESSOR, "quiet"
        self.boot()

    def boot(self, moved=0, modules=("net",), size=SIZE):
        """Modules are where they were loaded, one behind the other."""
        self.base = BASE + moved
        self.starts = {m: MODULE + moved + n * 0x10000 for n, m in enumerate(modules)}
        self.text = Text((self.base, SIZE), *((start, SIZE) for start in self.starts.values()))
        self.text.close = lambda: None
        lines = [
            (self.base + at, name, "")
            for at, name in (
                (0, "_stext"),
                (CALLER, "caller"),
                (COPY, "copy"),
                (SIZE, "_etext"),
            )
        ]
        for at in (CALLER, COPY):
            self.text.write(self.base + at, NOP)
        self.text.write(self.base + COPY + 9, RETURN)
        self.text.branch(self.base + COPY + 10, self.base + CALLER, JUMP)
        self.text.branch(self.base + CALLER + 0x10, self.base + COPY)
        for module, start in self.starts.items():
            lines.append((start, f"{module}_send", module))
            self.text.write(start, NOP)
            self.text.branch(start + IN_MODULE, self.base + COPY)
            notes = self._folder / "SYS_MODULES" / module / "notes"
            notes.mkdir(parents=True, exist_ok=True)
            (notes / ".note.gnu.build-id").write_bytes(note(3, module.encode()))
        self._write("KALLSYMS", "".join(
            f"{address:016x} T {name}" + (f"\t[{module}]\n" if module else "\n")
            for address, name, module in lines
        ))  # fmt: skip
        self._write("_MODULES", "".join(
            f"{module} {size} 0 - Live {start:#x}\n" for module, start in self.starts.items()
        ))  # fmt: skip
        self._write("CPUINFO", self.processor)
        self._write("CMDLINE", self.options)
        self._write("KPROBES", "")
        (self._folder / "NOTES").write_bytes(self.notes)

    def keep(self):
        facts = text_facts.look(WANTED)
        remembered.keep(self.memory, WANTED, facts, {"kprobe": ("copy",)})
        return facts

    def recall(self):
        self.searched.clear()
        return remembered.recall(self.memory, WANTED)

    def file(self):
        (path,) = self.memory.iterdir()
        return path

    def hide_modules(self):
        (self._folder / "_MODULES").unlink()

    def probe(self, *, there=True):
        self._write("KPROBES", "ffffffff81000110  k  caller+0x10\n" if there else "")

    def _write(self, name, text):
        (self._folder / name).write_text(text)

    def _live_text(self):
        return self.text


@pytest.fixture
def machine(monkeypatch, tmp_path):
    return Machine(monkeypatch, tmp_path)


def test_what_was_kept_is_what_a_search_finds(machine):
    found = machine.keep()
    assert [call.name for call in found.calls["copy"]] == ["caller+0x10", "net_send+0x40"]
    assert found.exits["copy"].returns == (9,)
    known = machine.recall()
    assert machine.searched == []
    assert known.complete
    assert (known.facts.calls, known.facts.exits) == (found.calls, found.exits)
    assert known.facts.symbols["copy"] == found.symbols["copy"]
    assert known.accepted == {"kprobe": ("copy",)}


def test_the_kernel_and_its_modules_may_have_moved(machine):
    machine.keep()
    machine.boot(MOVED, modules=("early", "net"))
    known = machine.recall()
    assert known.facts.calls == text_facts.look(WANTED).calls
    assert known.facts.symbols["copy"].address == BASE + MOVED + COPY
    net = next(call for call in known.facts.calls["copy"] if call.module == "net")
    assert net.address == MODULE + MOVED + 0x10000 + IN_MODULE


def test_only_a_new_module_is_searched(machine):
    machine.keep()
    machine.boot(modules=("net", "file"))
    known = machine.recall()
    assert machine.searched == [{"file"}]
    assert not known.complete
    assert known.facts.calls == text_facts.look(WANTED).calls
    remembered.keep(machine.memory, WANTED, known.facts, {})
    assert machine.recall().complete


def test_a_module_that_is_gone_for_a_while_is_not_forgotten(machine):
    machine.keep()
    machine.boot(modules=("file",))
    remembered.keep(machine.memory, WANTED, machine.recall().facts, {})
    machine.boot(modules=("net",))
    known = machine.recall()
    assert known.complete
    assert [call.name for call in known.facts.calls["copy"]] == ["caller+0x10", "net_send+0x40"]


@pytest.mark.parametrize("change", ["size", "build", "no build id"])
def test_another_module_of_that_name_is_searched(machine, change):
    machine.keep()
    machine.boot(size=SIZE * 2 if change == "size" else SIZE)
    build = remembered.SYS_MODULES / "net" / "notes" / ".note.gnu.build-id"
    if change == "build":
        build.write_bytes(note(3, b"other"))
    elif change == "no build id":
        build.unlink()
    machine.recall()
    assert machine.searched == [{"net"}]


@pytest.mark.parametrize("at", [CALLER + 0x10, COPY + 9, COPY + 10])
@pytest.mark.parametrize("code", [b"\xcc", FILLER])
def test_an_instruction_that_is_another_one_is_noticed(machine, at, code):
    """A call, a return, a jump to elsewhere; what a breakpoint leaves, or a patch."""
    machine.keep()
    machine.text.write(machine.base + at, code)
    assert machine.recall() is None


def test_a_call_of_something_else_is_noticed(machine):
    machine.keep()
    machine.text.branch(machine.base + CALLER + 0x10, machine.base + COPY + 4)
    assert machine.recall() is None


def test_a_call_that_became_a_jump_is_noticed(machine):
    machine.keep()
    machine.text.branch(machine.base + CALLER + 0x10, machine.base + COPY, JUMP)
    assert machine.recall() is None


def test_a_call_in_a_module_that_is_another_one_is_noticed(machine):
    machine.keep()
    machine.text.write(machine.starts["net"] + IN_MODULE, FILLER)
    assert machine.recall() is None


def test_whether_the_caller_can_be_probed_is_asked_anew(machine):
    machine.keep()
    machine.text.write(machine.base + CALLER, FILLER * 5)
    (call, _) = machine.recall().facts.calls["copy"]
    assert not call.traced


@pytest.mark.parametrize(
    ("what", "value"),
    [
        ("notes", note(3, b"\x12\x34\x57")),
        ("processor", PROCESSOR.replace("erms", "fsrm")),
        ("options", "quiet clearcpuid=erms"),
    ],
)
def test_another_kernel_processor_or_option_is_something_else(machine, what, value):
    machine.keep()
    setattr(machine, what, value)
    machine.boot()
    assert machine.recall() is None


@pytest.mark.parametrize(
    ("what", "value"),
    [
        ("processor", PROCESSOR.replace("17", "18")),
        # Xen's notes have addresses in them.
        ("notes", note(1, b"elsewhere", b"Xen\0") + note(3, b"\x12\x34\x56")),
    ],
)
def test_what_changes_nothing_is_no_matter(machine, what, value):
    machine.keep()
    setattr(machine, what, value)
    machine.boot()
    assert machine.recall()


def test_other_functions_are_another_question(machine):
    machine.keep()
    for change in ({"calls": {"copy": (), "caller": ()}}, {"callers": ("caller",)}):
        more = dataclasses.replace(WANTED, **change)
        assert remembered.recall(machine.memory, more) is None


def test_another_program_may_look_at_other_things(machine, monkeypatch, tmp_path):
    machine.keep()
    (tmp_path / "source").write_text("changed")
    monkeypatch.setattr(remembered, "_SOURCES", (tmp_path / "source",))
    assert machine.recall() is None


def test_a_kernel_without_a_build_id_is_not_remembered(machine):
    machine.notes = note(1, b"Linux")
    machine.boot()
    machine.keep()
    assert list(machine.memory.iterdir()) == []


def test_what_is_half_known_is_not_kept(machine):
    facts = dataclasses.replace(text_facts.look(WANTED), trouble="locked")
    remembered.keep(machine.memory, WANTED, facts, {})
    assert list(machine.memory.iterdir()) == []


@pytest.mark.parametrize("modules", [("net",), ("early", "net")])
def test_a_function_of_a_module_s_that_is_called_there_is_remembered(machine, modules):
    """It moves with the module, not with the kernel."""
    own, call = 0x80, IN_MODULE + 0x10

    def boot(**options):
        machine.boot(**options)
        start = machine.starts["net"]
        kallsyms = kernel_text.KALLSYMS
        kallsyms.write_text(kallsyms.read_text() + f"{start + own:016x} t copy\t[net]\n")
        machine.text.branch(start + call, start + own)
        return start

    boot()
    machine.keep()
    start = boot(moved=MOVED, modules=modules)
    known = machine.recall()
    assert known.facts.calls == text_facts.look(WANTED).calls
    assert start + call in {found.address for found in known.facts.calls["copy"]}
    machine.text.branch(start + call, start + own + 1)
    assert machine.recall() is None


def test_which_callers_exist_is_remembered(machine, monkeypatch):
    monkeypatch.setitem(
        globals(), "WANTED", dataclasses.replace(WANTED, callers=("caller", "net_send", "gone"))
    )
    machine.keep()
    there = {"": {"caller"}, "net": {"net_send"}}
    assert machine.recall().facts.callers == there
    machine.boot(modules=("net", "file"))
    assert machine.recall().facts.callers == there
    machine.boot(modules=())
    assert machine.recall().facts.callers == {"": {"caller"}}


def test_hidden_addresses_are_not_remembered_ones(machine):
    machine.keep()
    kallsyms = kernel_text.KALLSYMS
    kallsyms.write_text(
        "".join(f"{'0' * 16}{line[16:]}\n" for line in kallsyms.read_text().splitlines())
    )
    assert machine.recall() is None


def test_locked_text_is_not_remembered(machine, monkeypatch):
    machine.keep()

    def locked():
        raise TextError("/proc/kcore: Operation not permitted")

    monkeypatch.setattr(remembered, "live_text", locked)
    assert machine.recall() is None


def rewrite(path, change):
    digest, _, body = path.read_bytes().partition(b"\n")
    path.write_bytes(change(digest, body))


@pytest.mark.parametrize(
    "change",
    [
        lambda digest, body: b"",
        lambda digest, body: digest + b"\n" + body[:-1],
        lambda digest, body: digest + b"\n" + body.replace(b"caller", b"called"),
        lambda digest, body: body,
        lambda digest, body: os.urandom(len(body)),
    ],
)
def test_a_damaged_file_is_none(machine, change):
    machine.keep()
    rewrite(machine.file(), change)
    assert machine.recall() is None


@pytest.mark.parametrize(
    "content", [[], {"key": 1}, {"calls": 3}, {"functions": {"copy": "x"}}, {"exits": []}]
)
def test_a_whole_file_of_another_content_is_none(machine, content):
    machine.keep()
    path = machine.file()
    if isinstance(content, dict):
        content = remembered.read(path) | content
    remembered.write(path, content)
    assert machine.recall() is None


@pytest.mark.parametrize("mode", [0o620, 0o602, 0o666])
def test_a_file_that_others_can_write_is_none(machine, mode):
    machine.keep()
    machine.file().chmod(mode)
    assert machine.recall() is None


def test_somebody_else_s_file_is_none(machine, monkeypatch):
    machine.keep()
    owner = os.geteuid()
    monkeypatch.setattr(os, "geteuid", lambda: owner + 1)
    assert machine.recall() is None


def test_a_link_or_a_pipe_in_the_file_s_place_is_none(machine, tmp_path):
    machine.keep()
    path = machine.file()
    path.rename(tmp_path / "elsewhere")
    path.symlink_to(tmp_path / "elsewhere")
    assert machine.recall() is None
    path.unlink()
    os.mkfifo(path, 0o600)
    assert machine.recall() is None


def test_too_large_a_file_is_neither_written_nor_read(machine, monkeypatch):
    machine.keep()
    monkeypatch.setattr(remembered, "_MOST_BYTES", machine.file().stat().st_size - 1)
    assert machine.recall() is None
    machine.file().unlink()
    machine.keep()
    assert list(machine.memory.iterdir()) == []


def test_probes_in_the_text_are_noticed(machine):
    assert remembered.is_untouched()
    machine.probe()
    assert not remembered.is_untouched()
    remembered.KPROBES.unlink()
    assert not remembered.is_untouched()


@pytest.fixture
def observe(machine, monkeypatch):
    """What is observed of a kernel, with what was remembered of it or without."""
    monkeypatch.setattr(text_facts, "wanted_by", lambda catalogue: WANTED)
    nothing = Catalogue((), (), (), ())
    return lambda *memory: kernel.observe(nothing, *memory)


def test_a_kernel_is_searched_once(machine, observe):
    anew = observe()
    assert observe(machine.memory) == anew
    machine.searched.clear()
    assert observe(machine.memory) == anew
    assert machine.searched == []


def test_a_doubtful_file_is_replaced(machine, observe):
    first = observe(machine.memory)
    machine.text.branch(machine.base + CALLER + 0x10, machine.base + COPY + 4)
    second = observe(machine.memory)
    assert [call.name for call in second.calls["copy"]] == ["net_send+0x40"]
    assert second != first
    assert machine.recall().facts.calls == second.calls


@pytest.mark.parametrize(("before", "after"), [(True, True), (False, True), (True, False)])
def test_what_is_found_while_somebody_probes_is_not_kept(
    machine, observe, monkeypatch, before, after
):
    """Whether they began before or after we did, and if they have ended meanwhile."""
    look = text_facts.look

    def looked(wanted):
        found = look(wanted)
        machine.probe(there=after)
        return found

    monkeypatch.setattr(text_facts, "look", looked)
    machine.probe(there=before)
    assert observe(machine.memory) == observe()
    assert list(machine.memory.iterdir()) == []


class Asked:
    """A kernel that takes probes on all functions but some."""

    def __init__(self, *refused):
        self.refused, self.functions = refused, []

    def __call__(self, function):
        self.functions.append(function)
        return "no" if function in self.refused else None


def test_of_functions_that_took_a_probe_one_is_asked_again():
    ask = Asked("b")
    assert kernel._refusals({"a", "b", "c", "d"}, ask, ("a", "c")) == {
        "a": None, "b": "no", "c": None, "d": None,
    }  # fmt: skip
    assert ask.functions == ["a", "b", "d"]


def test_if_the_kernel_takes_none_any_more_all_are_asked():
    ask = Asked(*"abc")
    assert kernel._refusals({"a", "b", "c"}, ask, ("a", "b")) == dict.fromkeys("abc", "no")


def test_a_list_of_modules_that_is_not_there_is_the_reason(machine, capfd, monkeypatch):
    machine.hide_modules()
    monkeypatch.setattr(call_sites, "_OF_MODULES", kernel_text.Path("/proc/self"))
    facts = text_facts.look(WANTED)
    assert "_MODULES is not there" in facts.trouble
    assert facts.calls == {}
    assert capfd.readouterr().err == ""
