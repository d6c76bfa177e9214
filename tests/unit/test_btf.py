"""Structure offsets, from type information made by hand."""

import struct

import pytest

from tracer.btf import Btf, BtfError


def blob(structures, *, bitfields=False):
    """BTF with the given structures: name → [(member, bit offset)]."""
    strings = b"\0"
    offsets = {}

    def string(text):
        nonlocal strings
        if text not in offsets:
            offsets[text] = len(strings)
            strings += text.encode() + b"\0"
        return offsets[text]

    types = struct.pack("<IIII", string("int"), 1 << 24, 4, 32)
    for name, members in structures:
        info = 4 << 24 | len(members) | (bitfields << 31)
        types += struct.pack("<III", string(name), info, 64)
        for member, bits in members:
            types += struct.pack("<III", string(member), 1, bits)
    header = struct.pack("<HBBIIIII", 0xEB9F, 1, 0, 24, 0, len(types), len(types), len(strings))
    return header + types + strings


def test_offset_in_bytes():
    types = Btf(blob([("other", [("len", 0)]), ("sk_buff", [("len", 896), ("data_len", 928)])]))
    assert types.offset("sk_buff", "data_len") == 116


def test_offset_with_bitfield_encoding():
    types = Btf(blob([("sk_buff", [("len", 32 << 24 | 64)])], bitfields=True))
    assert types.offset("sk_buff", "len") == 8


def test_unknown_names():
    types = Btf(blob([("sk_buff", [("len", 0)])]))
    with pytest.raises(BtfError, match="no structure"):
        types.offset("nonsense", "len")
    with pytest.raises(BtfError, match="0 offsets"):
        types.offset("sk_buff", "nonsense")


def test_ambiguity_is_an_error():
    types = Btf(blob([("s", [("m", 0)]), ("s", [("m", 64)])]))
    with pytest.raises(BtfError, match="2 offsets"):
        types.offset("s", "m")


@pytest.mark.parametrize("data", [b"", b"\0" * 24, b"\x9f\xeb"])
def test_garbage(data):
    with pytest.raises(BtfError):
        Btf(data)
