"""Whatever a kernel shows of itself and of processes: it is understood, or refused in words."""

import contextlib
import ctypes
import mmap
import os
import subprocess

import pytest
from hypothesis import given
from hypothesis import strategies as some

from tests.unit.test_any_saved import FEW
from tests.unit.test_btf import ENUM, INT, STRUCT, UNION, Blob
from tests.unit.test_call_sites import BASE, Kernel
from zctrace.collect import captures, cgroups, life, mounts, process_maps, processes
from zctrace.kernel import btf, facts, remembered, symbols, text, text_facts
from zctrace.kernel.text import Symbol, TextError

NAMES = some.one_of(
    some.binary(min_size=1, max_size=15),
    some.sampled_from([
        b") S 1 (", b"a\nUid:\t7\t7", b"\xff\xfe", b"\x0b\x0c\x1c\r\x85", b"  ",
        b"\xe2\x80\xa8",
        "für".encode()[:2], b"(", b" - ", b"a,b", b"\\012",
    ]),
).map(lambda name: name.replace(b"\0", b"").replace(b"/", b"") or b"x")  # fmt: skip
PR_SET_NAME = 15


def called(name):
    """This process by that name, as the kernel tells it from now on."""
    ctypes.CDLL(None).prctl(PR_SET_NAME, name, 0, 0, 0)


@pytest.fixture
def own_name():
    with open("/proc/self/comm", "rb") as file:
        name = file.read().rstrip(b"\n")
    yield
    called(name)


@FEW
@given(NAMES)
def test_a_process_may_be_called_anything(own_name, name):
    us = os.getpid()
    called(name)
    assert processes.alive(us)
    assert us in processes.family((os.getppid(),))
    assert cgroups.rights(us)["uid"] == os.geteuid()
    assert life._touched(life.Path(f"/proc/{us}/task/{us}")) > 0


def test_a_process_that_is_gone_is_nobody_and_no_error():
    process = subprocess.Popen(["true"])
    process.wait()
    gone = process.pid
    assert not processes.alive(gone)
    assert processes.family((gone,)) == {gone}
    assert cgroups.common_cgroup((gone,)) is None
    for read in (process_maps.mappings, cgroups.rights):
        with pytest.raises(OSError, match=r"No such (file|process)"):
            read(gone)


@FEW
@given(NAMES)
def test_a_mapped_file_may_be_called_anything(tmp_path, name):
    path = tmp_path / os.fsdecode(b"." + name)
    with path.open("wb+") as file:
        file.truncate(1)
        with mmap.mmap(file.fileno(), 1, prot=mmap.PROT_READ | mmap.PROT_EXEC):
            found = {mapping.path for mapping in process_maps.mappings("self")}
    path.unlink()
    # The only byte that the kernel writes otherwise.
    assert str(path).replace("\n", "\\012") in found


def escaped(name, also=b""):
    return b"".join(
        b"\\%03o" % byte if byte in b" \t\n\\" + also else bytes([byte]) for byte in name
    )


@FEW
@given(NAMES, NAMES, some.lists(NAMES, min_size=1, max_size=3))
def test_a_mount_may_be_called_anything(point, source, options):
    words = (escaped(point), escaped(source), b",".join(escaped(o, b",") for o in options))
    line = b"36 35 98:3 / /mnt/%b rw shared:2 - ext3 %b %b" % words
    (mount,) = mounts.parse([line])
    assert os.fsencode(mount.point) == b"/mnt/" + point or point in (b".", b"..")
    assert os.fsencode(mount.source) == source
    assert mount.options == tuple(map(os.fsdecode, options))


@FEW
@given(NAMES.map(lambda name: name.replace(b"\n", b"")), some.booleans())
def test_a_cgroup_may_be_called_anything(name, unified):
    line = b"0::/%b\n" % name if unified else b"11:cpu,perf_event:/%b\n" % name
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(cgroups.Path, "read_bytes", lambda _: b"1:name=systemd:/\n" + line)
        found = list(cgroups._memberships("self"))
        assert cgroups.hierarchy_number() == (0 if unified else 11)
    controllers = [] if unified else ["cpu", "perf_event"]
    assert found[1:] == [(0 if unified else 11, controllers, f"/{os.fsdecode(name)}")]


@FEW
@given(NAMES, some.booleans())
def test_who_captures_may_be_called_anything_and_close_files_meanwhile(
    tmp_path_factory, name, gone
):
    folder = tmp_path_factory.mktemp("proc") / "17"
    for inside in ("fd", "ns", "net"):
        (folder / inside).mkdir(parents=True)
    (folder / "ns/net").symlink_to("net:[1]")
    (folder / "net/packet").write_text("sk ...\nffff 3 3 0003 1 1 0 0 4711\n")
    if gone:
        (folder / "fd/1").write_text("no link any more")
    (folder / "fd/2").symlink_to("socket:[4711]")
    (folder / "comm").write_bytes(name + b"\n")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(captures, "_PROCESSES", folder.parent)
        (found,) = captures._capturing()
    assert (found.process, found.name) == (17, name.decode(errors="replace").strip())


@FEW
@given(NAMES, some.sampled_from([b"flags\t\t: fpu erms fsrm\n\n", b"fla", b""]))
def test_a_processor_may_be_called_anything(tmp_path_factory, name, rest):
    path = tmp_path_factory.mktemp("proc") / "cpuinfo"
    path.write_bytes(b"processor\t: 0\nmodel name\t: " + name + b"\n" + rest)
    wanted = text_facts.Wanted((), (), {})
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(remembered, "CPUINFO", path)
        patch.setattr(remembered, "CMDLINE", path)
        flags = facts._processor()[1]
        with contextlib.suppress(AttributeError):  # a kernel without a build id
            remembered._name(remembered._key(wanted) or {})
    assert flags == (frozenset({"erms", "fsrm"}) if len(rest) > 3 else frozenset())


LINES = (
    b"ffffffff81000000 T _stext", b"ffffffff81000100 t copy", b"ffffffff81000200 t caller",
    b"ffffffff81001000 T _etext", b"ffffffffc0000000 t copy\t[module]", b"zzz", b"",
    b"ffffffff81000100 t copy.\xff", b"0000000000000000 A fixed", b"1 t copy", b"t copy",
    b"ffffffffffffffff t caller", b"ffffffff81000180 t copy.cold",
)  # fmt: skip


class Filler:
    """Memory with the same everywhere, and nothing below the kernel."""

    def read(self, symbol):
        if symbol.address < BASE:
            raise TextError("nothing is there")
        return bytes(min(symbol.size, 1 << 20))

    def close(self):
        pass


@FEW
@given(some.lists(some.sampled_from(LINES), max_size=8), some.integers(0, 60), some.data())
def test_a_list_of_symbols_that_is_damaged_is_understood_or_refused(
    tmp_path_factory, lines, cut, data
):
    kallsyms = b"".join(line + b"\n" for line in (*LINES[:4], *lines))
    kallsyms = kallsyms[: len(kallsyms) - cut]
    loaded = data.draw(
        some.sampled_from([b"", b"module 4096 0 - Live 0xffffffffc0000000\n", b"mod", b"\xff"])
    )
    path = tmp_path_factory.mktemp("proc") / "modules"
    path.write_bytes(loaded)
    wanted = text_facts.Wanted(
        ("copy",), ("copy",), {"copy": (), "_stext": ("caller",)}, ("caller",)
    )
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(symbols, "_MODULES", path)
        with contextlib.suppress(TextError):
            found = text.find_symbols(["copy"], kallsyms)
            assert all(symbol.size >= 0 for symbol in found.values())
        with contextlib.suppress(TextError):
            text_facts.find_calls(wanted, kallsyms, Filler())


@FEW
@given(
    some.binary(max_size=200),
    some.lists(
        some.tuples(some.integers(0, 0xFF0), some.sampled_from([b"\xe8", b"\xe9", b"\xcc"])),
        max_size=4,
    ),
)
def test_calls_are_inside_of_the_text_whatever_that_is(tmp_path_factory, code, branches):
    with pytest.MonkeyPatch.context() as patch:
        folder = tmp_path_factory.mktemp("kernel")
        kernel = Kernel(patch, folder, {"copy": 0x100, "caller": 0x200, "last": 0xF00})
        kernel.text.write(BASE + 0xF80 - len(code) // 2, code)
        for at, kind in branches:
            kernel.text.branch(BASE + at, BASE + 0x100, kind)
        calls = kernel.find("copy")["copy"]
    end = BASE + 0x1000
    for call in calls:
        assert BASE <= call.address <= end - 5
        assert call.address - call.offset == BASE + kernel.functions[call.caller]
        target = kernel.text.read(Symbol(call.address, 5))
        assert (
            call.address + 5 + int.from_bytes(target[1:], "little", signed=True) == BASE + 0x100
        )


EXITS = some.sampled_from([b"\xc3", b"\xf3\xc3", b"\xf2\xc3", b"\x3e\xff\xe0", b"\xf2\xff\xe0"])


@FEW
@given(some.binary(max_size=60), some.integers(0, 3), EXITS)
def test_exits_are_instructions_of_the_function_whatever_its_text_is(code, missing, last):
    pytest.importorskip("capstone")
    here = {"f": Symbol(BASE, len(code) + missing)}

    class Text:
        def read(self, symbol):
            return code[: symbol.size]

    with contextlib.suppress(TextError):
        found = text.find_exits("f", here, Text())
        for offset, instruction in zip((*found.returns, *found.jumps), found.code, strict=True):
            assert instruction
            assert code[offset : offset + len(instruction)] == instruction
    code = bytes(5 * [0x90]) + last
    found = text.find_exits("f", {"f": Symbol(BASE, len(code))}, Text())
    assert found.code == (last,)


@FEW
@given(
    some.binary(min_size=64, max_size=300), some.integers(0, 2**64 - 1), some.integers(0, 2**63)
)
def test_memory_that_cannot_be_read_is_refused(tmp_path_factory, content, address, size):
    path = tmp_path_factory.mktemp("proc") / "kcore"
    header = bytearray(content[:64].ljust(64, b"\0"))
    header[32:40] = (64).to_bytes(8, "little")
    header[54:58] = b"\x38\0\x01\0"
    segment = b"\1\0\0\0" + content[4:8] + content[8:56].ljust(48, b"\xff")
    path.write_bytes(bytes(header) + segment)
    try:
        memory = text.LiveText(path)
    except TextError:
        return
    starts = [start for start, *_ in memory._segments] or [address]
    for at in (address, *starts):
        with contextlib.suppress(TextError):
            assert len(memory.read(Symbol(at, size))) <= path.stat().st_size
    memory.close()


@some.composite
def types(draw):
    """Types that may be part of each other, or of themselves, or of none that there is."""
    blob = Blob()
    blob.add(INT, "int", rest=b"\x20\0\0\0")
    for _ in range(draw(some.integers(1, 6))):
        members = draw(some.lists(
            some.tuples(
                some.sampled_from(["", "", "m", "n"]),
                some.integers(0, 8),
                some.integers(0, 2**32 - 1),
            ),
            max_size=4,
        ))  # fmt: skip
        kind = draw(some.sampled_from([STRUCT, STRUCT, UNION, ENUM]))
        name = draw(some.sampled_from(["", "s", "e"]))
        if kind == ENUM:
            blob.enumeration(name, **{f"v{n}": n for n in range(len(members))})
        else:
            blob.aggregate(kind, name, members, bitfields=draw(some.booleans()))
    data = bytearray(blob.data())
    for _ in range(draw(some.integers(0, 2))):
        data[draw(some.integers(0, len(data) - 1))] = draw(some.integers(0, 255))
    return bytes(data[: draw(some.sampled_from([len(data), len(data) - 1, len(data) // 2]))])


@FEW
@given(some.one_of(types(), some.binary(max_size=60)))
def test_types_that_make_no_sense_are_refused(data):
    with contextlib.suppress(btf.BtfError):
        found = btf.Btf(data)
        for member in ("m", "n", ""):
            with contextlib.suppress(btf.BtfError):
                assert found.offset("s", member) >= 0
        with contextlib.suppress(btf.BtfError):
            assert all(type(value) is int for value in found.enumerators("e").values())
        assert type(found.function("s")) is int


def test_a_structure_that_is_part_of_itself_is_refused():
    """Also where it is so twice, which would be looked into without end."""
    blob = Blob()
    blob.add(INT, "int", rest=b"\x20\0\0\0")
    blob.aggregate(STRUCT, "s", [("", 2, 0), ("", 2, 64), ("m", 1, 0)])
    with pytest.raises(btf.BtfError, match="part of itself"):
        blob.types().offset("s", "m")


def test_a_kernel_without_modules_has_none_and_one_that_hides_them_is_refused(
    tmp_path, monkeypatch
):
    monkeypatch.setattr(symbols, "_MODULES", tmp_path / "modules")
    monkeypatch.setattr(symbols, "_OF_MODULES", tmp_path / "modules_disabled")
    assert symbols.modules() == []
    (tmp_path / "modules_disabled").touch()
    with pytest.raises(TextError, match="is not there"):
        symbols.modules()
