"""Symbols and returns, on text made by hand."""

import os
from pathlib import Path

import pytest

from zctrace.kernel import live_text, text_facts
from zctrace.kernel.text import Exits, LiveText, Symbol, TextError, find_exits, find_symbols

KALLSYMS = b"""\
ffffffff81000000 T _text
ffffffff81000100 T copy
ffffffff81000100 T copy_alias
ffffffff81000180 t copy.cold
ffffffff81000190 T next
ffffffff81000200 T __x86_return_thunk
ffffffff81000210 T end
ffffffffc0000000 t copy\t[module]
"""


def test_size_ends_at_the_next_address():
    symbols = find_symbols(["copy", "absent"], KALLSYMS)
    assert symbols["copy"] == Symbol(0xFFFFFFFF81000100, 0x80)
    assert symbols["copy.cold"].size == 0x10
    assert "absent" not in symbols
    assert "__x86_return_thunk" in symbols


def test_hidden_addresses_are_an_error():
    with pytest.raises(TextError, match="kptr_restrict"):
        find_symbols(["copy"], b"0000000000000000 T copy\n0000000000000000 T next\n")


class Text:
    def __init__(self, code):
        self._code = code

    def read(self, symbol):
        return self._code[symbol.address]


def exits(code, *, cold=b"", thunk=None):
    pytest.importorskip("capstone")
    symbols = {"f": Symbol(0x1000, len(code))}
    texts = {0x1000: code}
    if cold:
        symbols["f.cold"] = Symbol(0x3000, len(cold))
        texts[0x3000] = cold
    if thunk:
        symbols["__x86_return_thunk"] = Symbol(thunk, 16)
    return find_exits("f", symbols, Text(texts))


def jump(at, to):
    return b"\xe9" + (to - at - 5).to_bytes(4, "little", signed=True)


def test_one_return():
    assert exits(b"\x90\x90\xc3") == Exits((2,), ())


def test_padding_after_the_return_is_no_exit():
    assert exits(b"\xc3\xcc\xcc\xcc") == Exits((0,), ())


def test_a_c3_inside_an_instruction_is_no_return():
    assert exits(b"\xb8\xc3\xc3\xc3\xc3\xc3") == Exits((5,), ())


def test_a_jump_to_the_thunk_is_a_return():
    assert exits(b"\x90" + jump(0x1001, 0x2000), thunk=0x2000) == Exits((1,), ())


def test_a_jump_elsewhere_is_an_exit():
    assert exits(jump(0x1000, 0x5000) + b"\xc3") == Exits((5,), (0,))


def test_a_jump_through_a_register_is_an_exit():
    assert exits(b"\xff\xe0\xc3") == Exits((2,), (0,))


def test_the_cold_half_belongs_to_the_function():
    code = jump(0x1000, 0x3000) + b"\xc3"
    assert exits(code, cold=jump(0x3000, 0x1005)) == Exits((5,), ())


def test_a_return_in_the_cold_half_counts():
    code = jump(0x1000, 0x3000) + b"\xc3"
    assert exits(code, cold=b"\xc3").returns == (5, 0x2000)


def test_garbage_is_an_error():
    with pytest.raises(TextError, match="cannot disassemble"):
        exits(b"\x90\x0f\xff\xff\xff\x06")


NOTHING_WANTED = text_facts.Wanted((), (), {})


def test_the_search_is_in_a_process_of_its_own(monkeypatch):
    monkeypatch.setattr(
        text_facts, "_look", lambda wanted: text_facts.TextFacts({}, {}, {}, str(os.getpid()))
    )
    process = int(text_facts.look(NOTHING_WANTED).trouble)
    assert process != os.getpid()
    assert not Path(f"/proc/{process}").exists(), "nobody has waited for it"


@pytest.mark.parametrize("end", ["os.kill(os.getpid(), 9)", "{}['nothing']"])
def test_a_search_that_ends_early_finds_nothing_and_says_so(monkeypatch, capfd, end):
    monkeypatch.setattr(text_facts, "_look", lambda wanted: eval(end))
    facts = text_facts.look(NOTHING_WANTED)
    assert facts == text_facts.TextFacts(
        {}, {}, {}, "the search of the kernel's text ended early"
    )
    assert ("KeyError: 'nothing'" in capfd.readouterr().err) == ("nothing" in end)


@pytest.mark.parametrize("content", [b"", b"\x7fELF", bytes(64)])
def test_a_hidden_image_of_the_memory_is_an_error_with_its_reason(tmp_path, content):
    """Containers mount something empty over it."""
    path = tmp_path / "kcore"
    path.write_bytes(content)
    with pytest.raises(TextError, match="does not show the kernel's memory"):
        LiveText(path)


def test_a_kernel_without_kcore_is_read_by_a_program(monkeypatch):
    """Where that may not be either, it is told why /proc/kcore did not show it."""

    def hidden():
        raise TextError("/proc/kcore: hidden")

    def refused():
        raise PermissionError

    monkeypatch.setattr(live_text, "LiveText", hidden)
    monkeypatch.setattr(live_text, "ProbedText", lambda: "the program")
    assert live_text.live_text() == "the program"
    monkeypatch.setattr(live_text, "ProbedText", refused)
    with pytest.raises(TextError, match="/proc/kcore: hidden"):
        live_text.live_text()
