"""In which programs copies in their own memory are seen: no zero where they are not."""

import os
import shutil
import subprocess
import sys
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace

import pytest

from tests.unit.programs_in_c import maker
from zctrace.collect import elf_files, own_memory, user_functions
from zctrace.collect.elf_files import Linked
from zctrace.collect.own_memory import Executed, OwnMemory
from zctrace.evidence.account import FILE, Thing
from zctrace.probes.user_functions import GO, LINKED_IN, PROGRAM_COPIES

LOADER = "/lib64/ld-linux-x86-64.so.2"
OURS = PROGRAM_COPIES[0]
_LIBRARY, _GO_SLOT = 0, PROGRAM_COPIES.index(GO)
PROGRAM = """
#include <unistd.h>
int main(void) { char line; write(1, "x", 1); return read(0, &line, 1); }
"""


@pytest.fixture(scope="module")
def compiled(tmp_path_factory):
    """A program, made with these options, that waits for a line."""
    return maker(tmp_path_factory.mktemp("programs"), PROGRAM)


@pytest.fixture
def library():
    """What is watched of our C library."""
    (place, *_) = user_functions.places_in(OURS, "", None, [])
    return OURS.function, place.path


def ran(path, *passed, more=0):
    """The program, as the meter knows it when it was executed."""
    return Executed(path, Path(path).stat().st_size + more, frozenset(passed))


@contextmanager
def running(*command):
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        process.stdout.read(1)
        try:
            yield process.pid
        finally:
            process.kill()


def test_programs_with_our_library(compiled, library):
    memory = OwnMemory([library])
    assert memory.why_not(ran(compiled("-O0"), _LIBRARY)) is None
    assert memory.why_not(ran(os.path.realpath(sys.executable), _LIBRARY)) is None


def test_a_function_that_was_not_called_may_be_another_one(compiled, library):
    """In a folder of its own as root, with another library; or by GLIBC_TUNABLES."""
    assert OwnMemory([library]).why_not(ran(compiled("-O0"))) == own_memory._NOT_CALLED


def test_another_loader_is_another_library(compiled, library, tmp_path):
    other = tmp_path / "loader"
    shutil.copy(LOADER, other)
    dynamic = compiled(f"-Wl,--dynamic-linker={other}")
    found = OwnMemory([library]).why_not(ran(dynamic, _LIBRARY))
    assert found == own_memory._ANOTHER_LIBRARY


def test_programs_that_are_linked_statically(compiled, library):
    static = compiled("-static")
    assert OwnMemory([library]).why_not(ran(static)) == own_memory._STATIC
    own = LINKED_IN.function, static
    assert OwnMemory([library, own]).why_not(ran(static)) is None


@pytest.mark.parametrize("interpreter", ["", LOADER])
def test_go_has_functions_of_its_own(compiled, library, monkeypatch, interpreter):
    program = compiled("-O0")
    linked = Linked(interpreter, go=True)
    real = elf_files.linked
    monkeypatch.setattr(
        elf_files, "linked", lambda path: linked if path == program else real(path)
    )
    assert OwnMemory([library]).why_not(ran(program, _LIBRARY)) == own_memory._GO
    memory = OwnMemory([library, (GO.function, program)])
    assert memory.why_not(ran(program, _GO_SLOT)) is None


def test_go_with_code_of_c_in_it(compiled, library, monkeypatch):
    """Of C's functions in it there is nothing known; or of those that are there."""
    program = compiled("-O0")
    monkeypatch.setattr(elf_files, "linked", lambda path: Linked("", go=True, c=True))
    memory = OwnMemory([library, (GO.function, program)])
    assert memory.why_not(ran(program, _GO_SLOT)) == own_memory._STATIC


@pytest.mark.parametrize(
    "place", ["lib/server", "lib/client", "jre/lib/amd64/server", "lib/runtime/lib/server"]
)
def test_a_jvm_has_a_library_of_its_own(compiled, library, tmp_path, place):
    program, jvm = tmp_path / "bin/java", tmp_path / place / "libjvm.so"
    for path in (program, jvm):
        path.parent.mkdir(parents=True)
        shutil.copy(compiled("-O0"), path)
    java = ran(str(program), _LIBRARY)
    assert OwnMemory([library]).why_not(java) == own_memory._OF_JVM
    assert OwnMemory([library, ("_Copy_x", str(jvm))]).why_not(java) is None


def test_what_is_no_program_is_not_understood(tmp_path, library):
    (tmp_path / "it").write_text("#!/bin/sh\n")
    assert OwnMemory([library]).why_not(ran(str(tmp_path / "it"))) == own_memory._NO_PROGRAM


def test_without_pyelftools_nothing_is_known(compiled, library, monkeypatch):
    for name in [name for name in sys.modules if name.startswith("elftools")]:
        monkeypatch.setitem(sys.modules, name, None)
    monkeypatch.setitem(sys.modules, "elftools.elf.elffile", None)
    found = OwnMemory([library]).why_not(ran(compiled("-O0"), _LIBRARY))
    assert found.startswith("how it is linked is not known: apt-get install")


def test_programs_that_were_started(compiled, library, tmp_path):
    """By the path and the size that the kernel has: in a container it is another file."""
    dynamic, static = compiled("-O0"), compiled("-static")
    memory = OwnMemory([library])
    found = memory.unseen(
        [
            ran(dynamic, _LIBRARY),
            ran(static),
            ran(static, _LIBRARY),
            ran(dynamic, _LIBRARY, more=1),
            Executed(f"{tmp_path}/gone", 1, frozenset({_LIBRARY})),
            Executed("", 1, frozenset()),
        ],
        [],
    )
    assert found == (
        f"program-static: {own_memory._STATIC}",
        "program-O0: its file is not found",
        "gone: its file is not found",
        "a program: its file is not found",
    )


def seen(memory, pid):
    """Why copies in that process are not seen, as its report has it."""
    memory.look_at([pid])
    (found,) = memory.unseen([], []) or ("",)
    return found.partition(": ")[2]


def test_processes_that_run_already(compiled, library):
    with running(compiled("-O0")) as pid:
        assert seen(OwnMemory([library]), pid) == ""
        assert seen(OwnMemory([("f", compiled("-static"))]), pid) == own_memory._ANOTHER_LIBRARY
    with running(compiled("-static")) as pid:
        assert seen(OwnMemory([library]), pid) == own_memory._STATIC
        own = LINKED_IN.function, compiled("-static")
        assert seen(OwnMemory([library, own]), pid) == ""
    # A number that nobody has, and one of the kernel's own.
    memory = OwnMemory([library])
    memory.look_at([pid, 2, 4194999])
    memory.look_for_jvms([pid, 2, 4194999])
    assert memory.unseen([], []) == ()


@pytest.mark.parametrize("option", ["-O0", "-static"])
def test_a_file_that_was_deleted_is_still_what_runs(compiled, library, tmp_path, option):
    """As after an upgrade: what its name stands for now is not what the process has."""
    program = tmp_path / "server"
    shutil.copy(compiled(option), program)
    with running(str(program)) as pid:
        program.unlink()
        (file,) = user_functions.programs_of([pid])
        assert file == f"/proc/{pid}/exe"
        expected = own_memory._STATIC if option == "-static" else ""
        assert seen(OwnMemory([library]), pid) == expected
        assert seen(OwnMemory([library, (LINKED_IN.function, file)]), pid) == ""


def test_a_library_that_was_replaced(compiled, library, tmp_path):
    ours = tmp_path / Path(library[1]).name
    shutil.copy(library[1], ours)
    command = ["env", f"LD_LIBRARY_PATH={tmp_path}", compiled("-O0")]
    with running(*command) as pid:
        ours.unlink()
        assert seen(OwnMemory([library]), pid) == own_memory._ANOTHER_LIBRARY


def test_tunables_may_choose_another_function(compiled, library):
    command = ["env", "GLIBC_TUNABLES=glibc.cpu.x86_rep_movsb_threshold=4096", compiled("-O0")]
    with running(*command) as pid:
        assert seen(OwnMemory([library]), pid) == own_memory._OTHER_FUNCTIONS


def test_a_jvm_by_any_launcher(compiled, library, monkeypatch):
    with running(compiled("-O0")) as pid:
        real = own_memory._mapped
        files = lambda pid: real(pid) | {(0, 1): "/opt/x/libjvm.so (deleted)"}  # noqa: E731
        monkeypatch.setattr(own_memory, "_mapped", files)
        assert seen(OwnMemory([library]), pid) == own_memory._OF_JVM
        memory = OwnMemory([library])
        memory.look_for_jvms([pid])
        assert memory.unseen([], [])[0].endswith(own_memory._OF_JVM)


def test_a_jvm_whose_library_was_read(compiled, library, tmp_path):
    """By a launcher of its own, in less time than it takes to look."""
    jvm = tmp_path / "libjvm.so"
    shutil.copy(compiled("-O0"), jvm)
    read = [Thing(FILE, str(jvm)), Thing(FILE, "/lib/libc.so.6")]
    expected = ("libjvm.so: it is a JVM's, and is not watched",)
    assert OwnMemory([library]).unseen([], read) == expected
    assert OwnMemory([library, ("_Copy_x", str(jvm))]).unseen([], read) == ()
    assert OwnMemory([library]).unseen([], [Thing(FILE, "/gone/libjvm.so")]) == expected


def test_where_nothing_is_watched_nothing_is_unseen(compiled):
    """As in every trace without --user-copies."""
    read = [Thing(FILE, "/usr/lib/jvm/lib/server/libjvm.so")]
    assert OwnMemory().unseen([ran(compiled("-static"))], read) == ()


def test_go_does_not_prove_what_tunables_choose(compiled, library, monkeypatch):
    program, real = compiled("-O0"), elf_files.linked
    linked = Linked(LOADER, go=True)
    monkeypatch.setattr(
        elf_files, "linked", lambda path: linked if path == program else real(path)
    )
    watched = [library, (GO.function, program)]
    assert OwnMemory(watched).why_not(ran(program, _GO_SLOT)) is None
    memory = OwnMemory(watched, chosen=True)
    assert memory.why_not(ran(program, _GO_SLOT)) == own_memory._NOT_CALLED
    assert memory.why_not(ran(program, _GO_SLOT, _LIBRARY)) is None


def test_a_process_that_ends_while_probes_are_set(library):
    memory = OwnMemory([library, (GO.function, "/proc/4194999/root/usr/bin/runc")])
    assert "runtime.memmove in runc" in memory.functions


def test_resolvers_are_no_copies():
    """glibc chooses a function by the processor once, in a function with a name of its own."""
    (own,) = [copy for copy in PROGRAM_COPIES if copy.pattern]
    names = [
        "__memcpy_avx_unaligned_erms",
        "__mempcpy_ifunc",
        "__memmove_chk_erms",
        "__memmove_ssse3",
    ]
    find = SimpleNamespace(
        functions=lambda path: [(number, name) for number, name in enumerate(names)],
        offset_of=lambda path, name: names.index(name),
    )
    found = user_functions.places_in(own, "it", find, [])
    assert [place.offset for place in found] == [0, 3]
