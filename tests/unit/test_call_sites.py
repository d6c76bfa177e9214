"""Who calls what, on text and symbols made by hand."""

import struct

import pytest

from zctrace.kernel import callsites, symbols
from zctrace.kernel.callsites import find_calls
from zctrace.kernel.symbols import SymbolTable
from zctrace.kernel.text import TextError
from zctrace.probes.model import Call, plain

BASE = 0xFFFFFFFF81000000
MODULE = 0xFFFFFFFFC0000000
CALL, JUMP, PROBE = b"\xe8", b"\xe9", b"\xcc"
NOP = b"\x0f\x1f\x44\x00\x00"
FILLER, RETURN = b"\x90", b"\xc3"


class Text:
    """Kernel memory, written to before it is read; what nobody wrote is filler."""

    def __init__(self, *stretches):
        self._parts = {start: bytearray(FILLER * size) for start, size in stretches}

    def write(self, address, code):
        for start, part in self._parts.items():
            if start <= address < start + len(part):
                part[address - start : address - start + len(code)] = code

    def branch(self, at, to, kind=CALL):
        self.write(at, kind + struct.pack("<i", to - at - 5))

    def read(self, symbol):
        for start, part in self._parts.items():
            if start <= symbol.address < start + len(part):
                at = symbol.address - start
                return bytes(part[at : at + symbol.size])
        raise TextError(f"{symbol.address:#x} is in no segment")


class Kernel:
    """A kernel of functions that begin where they are said to begin, and can be traced."""

    def __init__(self, monkeypatch, tmp_path, functions, *, modules=(), size=0x1000):
        self.functions = {"_stext": 0, **functions}
        self.text = Text((BASE, size), *((MODULE + n * 0x10000, 0x1000) for n in range(2)))
        lines = [(BASE + at, name, "") for name, at in self.functions.items()]
        lines.append((BASE + size, "_etext", ""))
        lines.sort(key=lambda line: line[0])
        loaded = []
        for number, (module, own) in enumerate(modules):
            start = MODULE + number * 0x10000
            loaded.append(f"{module} 4096 0 - Live {start:#x}")
            lines += [(start + at, name, module) for name, at in own.items()]
        for address, name, _ in lines:
            if name != "_etext":
                self.text.write(address, NOP)
        (tmp_path / "modules").write_text("".join(f"{line}\n" for line in loaded))
        monkeypatch.setattr(symbols, "_MODULES", tmp_path / "modules")
        self.symbols = SymbolTable(
            "".join(
                f"{address:016x} {'T' if name in ('_stext', '_etext') else 't'} {name}"
                + (f"\t[{module}]\n" if module else "\n")
                for address, name, module in lines
            ).encode()
        )

    def at(self, name, offset=0):
        return BASE + self.functions[name] + offset

    def call(self, caller, offset, target, *, into=0, kind=CALL):
        self.text.branch(self.at(caller, offset), self.at(target, into), kind)

    def find(self, *names, **limited):
        wanted = dict.fromkeys(names, ()) | limited
        return find_calls(wanted, self.symbols, self.text)


@pytest.fixture
def kernel(monkeypatch, tmp_path):
    def make(*args, **options):
        return Kernel(monkeypatch, tmp_path, *args, **options)

    return make


PLAIN = {"before": 0x100, "copy": 0x200, "after": 0x300, "far": 0x800}


def places(calls):
    return [call.name for call in calls]


def test_a_call_and_a_jump(kernel):
    k = kernel(PLAIN)
    k.call("before", 0x10, "copy")
    k.call("far", 0x20, "copy", kind=JUMP)
    k.call("far", 0x40, "after")
    assert k.find("copy") == {
        "copy": (
            Call(k.at("before", 0x10), "before", 0x10),
            Call(k.at("far", 0x20), "far", 0x20, jump=True),
        )
    }
    assert k.find("copy")["copy"][0].name == "before+0x10"


@pytest.mark.parametrize(
    ("kind", "behind", "jump"),
    [
        (CALL, b"\x85\xc0", False),
        (CALL, RETURN, False),
        (CALL, PROBE + b"\xc0", False),
        (JUMP, PROBE * 4, True),
        (JUMP, b"\x90\x90", True),
        (JUMP, b"\x66\x66\x2e\x0f\x1f", True),
    ],
)
def test_a_branch_with_somebody_else_s_probe_on_it(kernel, kind, behind, jump):
    """A breakpoint instruction is in the place of its first byte, and may be behind it, too."""
    k = kernel(PLAIN)
    k.call("before", 0x10, "copy", kind=kind)
    k.text.write(k.at("before", 0x10), PROBE)
    k.text.write(k.at("before", 0x15), behind)
    expected = Call(k.at("before", 0x10), "before", 0x10, jump=jump)
    assert k.find("copy")["copy"] == (expected,)


def test_a_call_into_the_middle_is_none(kernel):
    k = kernel(PLAIN)
    for into in (-17, -1, 1):
        k.call("before", 0x20 + into, "copy", into=into)
    assert k.find("copy") == {"copy": ()}


def test_what_only_looks_like_a_branch_hides_nothing(kernel):
    k = kernel(PLAIN)
    k.text.write(k.at("before", 0x0F), CALL)
    k.call("before", 0x10, "copy")
    assert places(k.find("copy")["copy"]) == ["before+0x10"]


@pytest.mark.parametrize("counted", [False, True])
def test_padding_that_looks_like_a_probed_call_into_padding_is_none(kernel, counted):
    """Unless calls go there on this kernel: then it may be one, with a probe on it."""
    k = kernel({**PLAIN, "__pfx_copy": 0x200 - 16})
    k.call("before", 0x10, "copy", into=-1)
    k.text.write(k.at("before", 0x10), PROBE)
    k.call("before", 0x20, "copy", into=-1 if counted else 0)
    expected = ["before+0x10", "before+0x20"] if counted else ["before+0x20"]
    assert sorted(places(k.find("copy")["copy"])) == expected


@pytest.mark.parametrize("into", [-16, -5])
def test_a_call_into_the_padding_is_the_function_s(kernel, into):
    """Where calls are counted by depth they go there."""
    k = kernel({**PLAIN, "__pfx_copy": 0x200 - 16})
    k.call("before", 0x10, "copy", into=into)
    assert places(k.find("copy")["copy"]) == ["before+0x10"]


@pytest.mark.parametrize("count", ["6548c13d785634ff05", "6548c13c257856342205"])
def test_a_function_in_assembly_has_no_symbol_before_it(kernel, count):
    """Where calls of it are counted by depth, what counts them is there."""
    code = bytes.fromhex(count)
    k = kernel(PLAIN)
    k.text.write(k.at("copy", -len(code)), code)
    k.call("before", 0x10, "copy", into=-len(code))
    assert places(k.find("copy")["copy"]) == ["before+0x10"]


def test_what_ends_just_before_a_function_is_another_one(kernel):
    k = kernel({**PLAIN, "free": 0x200 - 16})
    k.call("before", 0x10, "free")
    k.call("before", 0x20, "copy")
    assert places(k.find("copy")["copy"]) == ["before+0x20"]


def test_no_padding_ends_before_the_call_into_it(kernel):
    k = kernel({**PLAIN, "__pfx_copy": 0x200 - 16})
    k.call("before", 0x10, "copy", into=-17)
    assert k.find("copy") == {"copy": ()}


def test_calls_of_each_are_its_own(kernel):
    k = kernel({**PLAIN, "copy_page": 0x400})
    k.call("before", 0x10, "copy")
    k.call("before", 0x20, "copy_page")
    found = k.find("copy", "copy_page", "absent")
    assert {name: places(calls) for name, calls in found.items()} == {
        "copy": ["before+0x10"],
        "copy_page": ["before+0x20"],
    }


def test_several_functions_may_have_one_name(kernel):
    k = kernel(PLAIN, modules=[("one", {"copy": 0x100, "reader": 0x200})])
    k.call("before", 0x10, "copy")
    k.text.branch(MODULE + 0x210, MODULE + 0x100)
    assert k.find("copy")["copy"] == (
        Call(k.at("before", 0x10), "before", 0x10),
        Call(MODULE + 0x210, "reader", 0x10, module="one"),
    )


@pytest.mark.parametrize("made", ["copy.isra.0", "copy.part.0", "copy.constprop.0.isra.0"])
def test_what_the_compiler_made_of_a_function_has_its_name(kernel, made):
    k = kernel({"before": 0x100, made: 0x200, f"__pfx_{made}": 0x1F0, "after": 0x300})
    k.call("before", 0x10, made)
    k.call("before", 0x20, made, into=-16)
    assert places(k.find("copy")["copy"]) == ["before+0x10", "before+0x20"]


@pytest.mark.parametrize("cold", ["copy.cold", "copy.isra.0.cold", "copy.cold.5"])
def test_a_part_that_was_moved_away_is_no_function(kernel, cold):
    k = kernel({**PLAIN, cold: 0x900})
    k.call("before", 0x10, "copy")
    k.call("far", 0x20, cold)
    k.call("copy", 0x30, cold, kind=JUMP)
    assert places(k.find("copy")["copy"]) == ["before+0x10"]


def test_of_callers_that_are_named_all_parts_are_searched(kernel):
    functions = {"asks.part.0": 0x400, "asks.cold": 0x500, "also": 0x600, "asked": 0x700}
    k = kernel({**PLAIN, "between": 0x480, "behind": 0x580, **functions})
    for name in ("before", "asks.part.0", "asks.cold", "also", "asked"):
        k.call(name, 0x10, "copy")
    k.call("asks.part.0", 0x20, "after")
    found = k.find("after", copy=("asks", "also", "absent"))
    assert places(found["copy"]) == ["asks.part.0+0x10", "asks.cold+0x10", "also+0x10"]
    assert places(found["after"]) == ["asks.part.0+0x20"]


def test_named_callers_may_follow_each_other(kernel):
    k = kernel({**PLAIN, "one": 0x400, "other": 0x480, "third": 0x500})
    for name in ("one", "other", "third"):
        k.call(name, 0x10, "copy")
    found = k.find(copy=("one", "other", "third"))
    assert places(found["copy"]) == ["one+0x10", "other+0x10", "third+0x10"]


def test_a_named_caller_may_have_another_name_too(kernel):
    k = kernel({**PLAIN, "asks": 0x400, "asks_alias": 0x400})
    k.call("asks", 0x10, "copy")
    assert places(k.find(copy=("asks",))["copy"]) == ["asks+0x10"]


def test_each_target_has_callers_of_its_own(kernel):
    k = kernel({**PLAIN, "give": 0x400})
    for offset, target in ((0x10, "copy"), (0x20, "give")):
        k.call("before", offset, target)
        k.call("far", offset, target)
    found = k.find(copy=("before",), give=("far",))
    assert places(found["copy"]) == ["before+0x10"]
    assert places(found["give"]) == ["far+0x20"]


def test_modules_are_searched(kernel):
    modules = [("one", {"read": 0x80, "write": 0x100}), ("two", {"read": 0x40})]
    k = kernel(PLAIN, modules=modules)
    k.text.branch(MODULE + 0x90, k.at("copy"))
    k.text.branch(MODULE + 0x120, k.at("copy"), JUMP)
    k.text.branch(MODULE + 0x10050, k.at("copy"))
    assert k.find("copy")["copy"] == (
        Call(MODULE + 0x90, "read", 0x10, module="one"),
        Call(MODULE + 0x120, "write", 0x20, module="one", jump=True),
        Call(MODULE + 0x10050, "read", 0x10, module="two"),
    )


def test_a_module_s_text_ends_where_the_next_one_s_begins(kernel, tmp_path):
    """Its size may be that of data elsewhere, too."""
    k = kernel(PLAIN, modules=(("first", {"one": 0}), ("second", {"two": 0})))
    k.text = Text((BASE, 0x1000), (MODULE, 0x20000))
    listed = tmp_path / "modules"
    first, second = listed.read_text().splitlines()
    k.text.branch(MODULE + 0x10000 + 0x40, k.at("copy"))
    for lines in ((first, second), (second, first)):
        listed.write_text("\n".join(lines).replace("4096", str(0x20000)) + "\n")
        (call,) = k.find("copy")["copy"]
        assert (call.module, call.name) == ("second", "two+0x40")


def test_a_module_may_go_away(kernel, tmp_path):
    k = kernel(PLAIN)
    (tmp_path / "modules").write_text("gone 4096 0 - Live 0xffffffffd0000000\n")
    k.call("before", 0x10, "copy")
    assert places(k.find("copy")["copy"]) == ["before+0x10"]


@pytest.mark.parametrize(
    ("entry", "traced"),
    [
        (NOP, True),
        (b"\x66\x66\x66\x66\x90", True),
        (b"\xe8\x11\x22\x33\x44", True),
        (b"\xf3\x0f\x1e\xfa" + NOP, True),
        (b"\x66\x0f\x1f\x00" + NOP, True),
        (b"\x0f\x1f\x40\xd6" + NOP, True),
        (b"\x55\x48\x89\xe5\x53", False),
        (b"\xf3\x0f\x1e\xfa\x55\x48\x89\xe5", False),
        (b"\x90" + NOP, False),
    ],
)
def test_who_can_be_traced_begins_with_room_for_a_call(kernel, entry, traced):
    k = kernel(PLAIN)
    k.text.write(k.at("before"), entry)
    k.call("before", 0x10, "copy")
    (call,) = k.find("copy")["copy"]
    assert call.traced == traced


def test_a_call_across_two_blocks_is_found_once(kernel, monkeypatch):
    monkeypatch.setattr(callsites, "_BLOCK", 0x100)
    k = kernel(PLAIN)
    offsets = [0x800 + 0x100 - back for back in range(4, -1, -1)]
    for at in offsets:
        k.text.write(BASE + 0x8F0, FILLER * 0x20)
        k.text.branch(BASE + at, k.at("copy"))
        assert [call.address for call in k.find("copy")["copy"]] == [BASE + at]


def test_the_last_instruction_counts(kernel):
    k = kernel(PLAIN)
    k.text.branch(BASE + 0x1000 - 5, k.at("copy"))
    assert places(k.find("copy")["copy"]) == ["far+0x7fb"]


@pytest.mark.parametrize("distance", [0x5B0000, 0x5D5D00, 0x7F0000, 0x120000])
def test_a_distance_may_have_any_bytes(kernel, distance):
    """Some of them mean something in a regular expression."""
    k = kernel({"before": 0x40, "copy": 0x40 + 0x10 + 5 + distance}, size=0x800000)
    k.call("before", 0x10, "copy")
    k.call("copy", 0x20, "before")
    assert places(k.find("copy")["copy"]) == ["before+0x10"]
    assert places(k.find("before")["before"]) == ["copy+0x20"]


@pytest.mark.parametrize("count", [1, 2, 3, 40])
def test_the_function_around_an_address(kernel, count):
    k = kernel({f"f{n}": 0x10 + 0x20 * n for n in range(count)})
    for n in range(count):
        for offset in (0, 1, 0x1F):
            address = k.at(f"f{n}", offset)
            assert k.symbols.function_at(address) == (f"f{n}", k.at(f"f{n}"))
            assert k.symbols.locate(address) == f"f{n}+{offset:#x}"


def test_of_several_names_the_first_is_used(kernel):
    k = kernel({"before": 0x100, "__x64_sys_read": 0x200, "__ia32_read": 0x200, "copy": 0x300})
    assert k.symbols.function_at(BASE + 0x210) == ("__x64_sys_read", BASE + 0x200)
    k.call("__ia32_read", 0x10, "copy")
    assert places(k.find("copy")["copy"]) == ["__x64_sys_read+0x10"]


def test_both_names_of_a_function_are_called(kernel):
    k = kernel({**PLAIN, "copy_alias": 0x200})
    k.call("before", 0x10, "copy")
    assert places(k.find("copy_alias")["copy_alias"]) == ["before+0x10"]


def test_where_an_address_is(kernel):
    k = kernel(PLAIN, modules=[("one", {"read": 0x80, "write": 0x100})])
    assert k.symbols.locate(k.at("copy", 0x21)) == "copy+0x21"
    assert k.symbols.locate(MODULE + 0x85) == "read+0x5"
    assert k.symbols.locate(MODULE + 0x100) == "write+0x0"
    assert k.symbols.locate(MODULE + 0x10) == "one+0x0"
    assert k.symbols.locate(MODULE + 0x1000) == hex(MODULE + 0x1000)
    assert k.symbols.locate(BASE + 0x1000) == hex(BASE + 0x1000)
    assert k.symbols.locate(0x1234) == "0x1234"


def test_stretches_end_where_the_next_function_begins(kernel):
    k = kernel({**PLAIN, "copy.cold": 0x900, "copied": 0x400})
    assert k.symbols.stretches(["copy"]) == [
        ("", BASE + 0x200, 0x100),
        ("", BASE + 0x900, 0x700),
    ]


def test_a_module_s_stretches_end_there_too(kernel):
    """Its functions are in no order in the list, and the last one ends with the module."""
    own = {"write": 0x300, "read": 0x80, "close": 0x200, "read.cold": 0x900}
    k = kernel(PLAIN, modules=[("one", own), ("two", {"open": 0x40})])
    assert k.symbols.stretches(["read", "open"]) == [
        ("one", MODULE + 0x80, 0x180),
        ("one", MODULE + 0x900, 0x700),
        ("two", MODULE + 0x10040, 0x1000 - 0x40),
    ]


def test_callers_that_are_named_may_be_a_module_s(kernel):
    k = kernel(
        PLAIN, modules=[("one", {"read": 0x80, "write": 0x100}), ("two", {"read": 0x40})]
    )
    for at in (0x90, 0x110, 0x10050):
        k.text.branch(MODULE + at, k.at("copy"))
    k.call("before", 0x10, "copy")
    assert k.find(copy=("read",))["copy"] == (
        Call(MODULE + 0x90, "read", 0x10, module="one"),
        Call(MODULE + 0x10050, "read", 0x10, module="two"),
    )


def test_a_function_of_a_module_s_may_be_called(kernel):
    k = kernel(PLAIN, modules=[("one", {"give": 0x80, "read": 0x100})])
    k.text.branch(MODULE + 0x110, MODULE + 0x80)
    assert places(k.find(give=("read",))["give"]) == ["read+0x10"]


def test_which_callers_exist_is_told_by_module(kernel):
    k = kernel({**PLAIN, "far.part.0": 0x900}, modules=[("one", {"read": 0x80, "far": 0x100})])
    assert k.symbols.existing(["read", "far", "absent"]) == {
        "": {"far"},
        "one": {"read", "far"},
    }


def test_hidden_addresses_are_an_error():
    hidden = b"0000000000000000 T _stext\n0000000000000000 T _etext\n"
    with pytest.raises(TextError, match="kptr_restrict"):
        SymbolTable(hidden)


def test_a_kernel_without_bounds_is_an_error():
    with pytest.raises(TextError, match="no symbol _etext"):
        SymbolTable(b"ffffffff81000000 T _stext\n")


@pytest.mark.parametrize("name", ["f", "f.part.0", "f.constprop.0.isra.0", "f.cold"])
def test_the_name_in_the_source(name):
    assert plain(name) == "f"
