"""How programs are linked, lines of their code, and whether copies in their memory are seen."""

import shutil
import subprocess
import sys
from types import SimpleNamespace

import pytest

from tests.conftest import or_skip
from zctrace.collect import elf_files, user_functions
from zctrace.collect.elf_files import Lines, Linked, linked
from zctrace.collect.subjects import Within
from zctrace.probes.user_functions import PROGRAM_COPIES

PROGRAM = """
int twice(int number)
{
    return number + number;
}

int main(int count, char **words)
{
    return twice(count) - twice(1);
}
"""
LOADER = "/lib64/ld-linux-x86-64.so.2"
LIBRARY = "it has another C library than zctrace's own"
STATIC = "it is linked statically, and no function of its own is watched"
GO = "it is Go's, and no runtime.memmove of its own is watched"


@pytest.fixture(scope="module")
def compiled(tmp_path_factory):
    """A program, made with these options."""
    compiler = shutil.which("gcc")
    if not compiler:
        or_skip("gcc is not installed")
    folder = tmp_path_factory.mktemp("programs")
    (folder / "it.c").write_text(PROGRAM)

    def make(*options):
        path = folder / "".join(("program", *options)).replace("/", "_")
        if not path.exists():
            subprocess.run([compiler, *options, "-o", path, folder / "it.c"], check=True)
        return str(path)

    return make


@pytest.fixture
def ours():
    """The file of our C library, which has probes."""
    return user_functions.places_in(PROGRAM_COPIES[0], "", None, [])[0].path


@pytest.mark.parametrize("version", ["-gdwarf-4", "-gdwarf-5"])
def test_lines(compiled, version):
    path = compiled("-O0", version)
    lines = Lines(path)
    symbols = subprocess.run(["nm", path], stdout=subprocess.PIPE, text=True, check=True)
    begins = {
        words[2]: int(words[0], 16)
        for words in map(str.split, symbols.stdout.splitlines())
        if len(words) == 3
    }
    assert lines.of(begins["twice"]) == "it.c:3"
    assert lines.of(begins["main"]) == "it.c:8"
    assert lines.of(begins["_start"]) is None
    assert lines.of(0) is lines.of(1 << 63) is None


def test_a_place_in_a_file_and_its_address(compiled):
    path = compiled("-O0", "-gdwarf-5")
    lines = Lines(path)
    headers = subprocess.run(
        ["readelf", "-lW", path], stdout=subprocess.PIPE, text=True, check=True
    )
    loaded = [line.split() for line in headers.stdout.splitlines() if " LOAD " in line]
    for _, offset, address, _, size, *_ in loaded:
        assert lines.address(int(offset, 16)) == int(address, 16)
        assert lines.address(int(offset, 16) + int(size, 16) - 1) is not None
    assert lines.address(1 << 40) is None


def test_a_file_without_lines(compiled):
    lines = Lines(compiled("-s"))
    assert lines.of(0x1139) is None
    assert lines.address(0) is not None


def cut(data):
    return data[: len(data) // 2]


def torn(data):
    """The same with other bytes in all that is not the header."""
    return data[:64] + bytes(byte ^ 0x5A for byte in data[64:])


def shuffled(data):
    """The same, with what stands of lines exchanged for other bytes."""
    return data.replace(b"it.c", b"\xff\xff\xff\xff").replace(b"\x01\x01\xfb", b"\xff\xff\xff")


@pytest.mark.parametrize("how", [cut, torn, shuffled, lambda data: b"\x7fELF", lambda _: b""])
def test_a_damaged_file_is_no_fault(compiled, tmp_path, how):
    path = tmp_path / "damaged"
    with open(compiled("-O0", "-gdwarf-5"), "rb") as file:
        path.write_bytes(how(file.read()))
    lines = Lines(str(path))
    for address in range(0x1000, 0x1300, 0x10):
        lines.of(address)
    try:
        linked(str(path))
    except ValueError:
        assert how is not shuffled


def test_a_large_file_is_not_read(compiled, monkeypatch):
    path = compiled("-O0", "-gdwarf-5")
    monkeypatch.setattr(elf_files, "_MOST_BYTES", 1000)
    assert Lines(path)._units == Lines(path)._segments == []
    assert Lines("/nonexistent").of(0) is None


def test_how_programs_are_linked(compiled):
    assert linked(compiled("-O0")) == Linked(LOADER, go=False)
    assert linked(compiled("-static")) == Linked("", go=False)
    with pytest.raises(FileNotFoundError):
        linked("/nonexistent")


def test_whose_copies_are_seen(compiled, ours):
    dynamic, static = compiled("-O0"), compiled("-static")
    assert user_functions.unseen_of(dynamic, [ours]) is None
    assert user_functions.unseen_of(sys.executable, [ours]) is None
    assert user_functions.unseen_of(static, [ours]) == STATIC
    # One of whose own functions there are probes.
    assert user_functions.unseen_of(static, [ours, static]) is None


def test_another_loader_is_another_library(compiled, ours, tmp_path):
    """As in a container with another C library, or with another copy of the same one."""
    other = tmp_path / "loader"
    shutil.copy(LOADER, other)
    found = user_functions.unseen_of(compiled("-O0"), [ours], lambda loader: str(other))
    assert found == LIBRARY
    dynamic = compiled(f"-Wl,--dynamic-linker={other}")
    assert user_functions.unseen_of(dynamic, [ours]) == LIBRARY


@pytest.mark.parametrize("interpreter", ["", LOADER])
def test_go_has_functions_of_its_own(compiled, ours, monkeypatch, interpreter):
    monkeypatch.setattr(elf_files, "linked", lambda path: Linked(interpreter, go=True))
    program = compiled("-O0")
    assert user_functions.unseen_of(program, [ours]) == GO
    assert user_functions.unseen_of(program, [ours, program]) is None


def test_a_jvm_has_a_library_of_its_own(compiled, ours, tmp_path):
    program, library = tmp_path / "bin/java", tmp_path / "lib/server/libjvm.so"
    for path in (program, library):
        path.parent.mkdir(parents=True)
        shutil.copy(compiled("-O0"), path)
    found = user_functions.unseen_of(str(program), [ours])
    assert found == "it is a JVM, and its library is not watched"
    assert user_functions.unseen_of(str(program), [ours, str(library)]) is None


def test_what_is_no_program_is_not_understood(tmp_path, ours):
    (tmp_path / "it").write_text("#!/bin/sh\n")
    found = user_functions.unseen_of(str(tmp_path / "it"), [ours])
    assert found == "its file cannot be understood"


def test_without_pyelftools_nothing_is_known(compiled, ours, monkeypatch):
    for name in [name for name in sys.modules if name.startswith("elftools")]:
        monkeypatch.setitem(sys.modules, name, None)
    monkeypatch.setitem(sys.modules, "elftools.elf.elffile", None)
    found = user_functions.unseen_of(compiled("-O0"), [ours])
    assert found.startswith("how it is linked is not known: apt-get install")
    assert Lines(compiled("-O0", "-gdwarf-5")).of(0x1139) is None


def test_programs_that_were_started(compiled, ours, tmp_path):
    """By the path and the size that the kernel has: in a container it is another file."""
    dynamic, static = compiled("-O0"), compiled("-static")

    def size(path):
        with open(path, "rb") as file:
            return len(file.read())

    within = Within(files=(ours,), unseen=("it 7: reason",))
    found = within.unseen_of(
        [
            (dynamic, size(dynamic)),
            (static, size(static)),
            (static, size(static)),
            (dynamic, size(dynamic) + 1),
            (f"{tmp_path}/gone", 1),
            ("", 1),
        ]
    )
    assert found == (
        "it 7: reason",
        f"program-static: {STATIC}",
        "program-O0: its file is not found",
        "gone: its file is not found",
        "a program: its file is not found",
    )


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
