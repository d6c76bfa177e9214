"""How programs are linked, and the lines of their code."""

import struct
import subprocess

import pytest

from tests.unit.programs_in_c import maker
from zctrace.collect import elf_files
from zctrace.collect.elf_files import Lines, Linked, linked

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


@pytest.fixture(scope="module")
def compiled(tmp_path_factory):
    """A program, made with these options."""
    return maker(tmp_path_factory.mktemp("programs"), PROGRAM)


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


def test_how_programs_are_linked(compiled):
    assert linked(compiled("-O0")) == Linked(LOADER, go=False)
    assert linked(compiled("-static")) == Linked("", go=False)
    with pytest.raises(FileNotFoundError):
        linked("/nonexistent")


def header(size, entries=0, number=0, sections=b""):
    """An ELF file's, with section headers behind it."""
    ident = b"\x7fELF\2\1\1".ljust(16, b"\0")
    fields = struct.pack(
        "<HHIQQQIHHHHHH", 2, 62, 1, 0, 0, 64, 0, 64, 56, 0, size, number, entries
    )
    return ident + fields + sections


def section(size, kind=1):
    return struct.pack("<IIQQQQIIQQ", 0, kind, 0, 0, 64, size, 0, 0, 0, 0)


@pytest.mark.parametrize(
    "data",
    [
        header(0, sections=section(1 << 40)),
        header(64, sections=section(1 << 40)),
        header(64, number=2, sections=section(0) + section(1 << 40, kind=2)),
        header(40, number=1, sections=section(0)),
    ],
    ids=["no size", "as many as can be", "a large table", "of 32 bits"],
)
def test_a_file_that_would_keep_us_for_hours(tmp_path, data):
    """The kernel executes it: it does not look at section headers."""
    path = tmp_path / "hostile"
    path.write_bytes(data.ljust(4096, b"\0"))
    with pytest.raises(ValueError, match="section"):
        linked(str(path))
    assert Lines(str(path)).of(0x1000) is None


def test_more_debugging_information_than_is_read(compiled, monkeypatch):
    path = compiled("-O0", "-gdwarf-5", "-gz")
    assert Lines(path)._units
    monkeypatch.setattr(elf_files, "_MOST_BYTES", 100)
    assert Lines(path)._units == []


@pytest.mark.parametrize("name", [".gopclntab", ".data.rel.ro.gopclntab", ".go.buildinfo"])
def test_go_is_known_by_its_sections(compiled, tmp_path, name):
    """Position-independent programs of older ones have no table of functions by that name."""
    path = str(tmp_path / "go")
    (tmp_path / "of_go").write_text("go")
    subprocess.run(
        ["objcopy", "--add-section", f"{name}={tmp_path}/of_go", compiled("-O0"), path],
        check=True,
    )
    assert linked(path) == Linked(LOADER, go=True)
    subprocess.run(
        ["objcopy", "--add-section", f"{name}={tmp_path}/of_go", compiled("-static"), path],
        check=True,
    )
    assert linked(path) == Linked("", go=True, c=True)
    subprocess.run(["strip", path], check=True)
    assert linked(path) == Linked("", go=True, c=False)
