"""Structure offsets and enumerators, from type information made by hand."""

import errno
import re
import struct

import pytest

from zctrace.kernel import bpf_syscall, btf
from zctrace.kernel.btf import Btf, BtfError

INT, POINTER, ARRAY, STRUCT, UNION, ENUM, FUNCTION, PROTOTYPE = 1, 2, 3, 4, 5, 6, 12, 13
TAG, ENUM64 = 17, 19


class Blob:
    """Type information; types are numbered from 1 in the order in which they are added."""

    def __init__(self):
        self._strings, self._types, self._count = b"\0", b"", 0

    def add(self, kind, name="", count=0, rest=b"", *, bitfields=False, size=4):
        """``size`` may be the number of a type: they share one place."""
        info = kind << 24 | count | bitfields << 31
        self._types += struct.pack("<III", self._string(name), info, size) + rest
        self._count += 1
        return self._count

    def aggregate(self, kind, name, members, *, bitfields=False):
        """``members`` are triples of name, number of type and offset in bits."""
        rest = b"".join(struct.pack("<III", self._string(n), t, bits) for n, t, bits in members)
        return self.add(kind, name, len(members), rest, bitfields=bitfields)

    def structure(self, name, *members, **options):
        """``members`` are pairs of name and offset in bits."""
        triples = [(member, 1, bits) for member, bits in members]
        return self.aggregate(STRUCT, name, triples, **options)

    def enumeration(self, name, **values):
        rest = b"".join(struct.pack("<Ii", self._string(n), v) for n, v in values.items())
        return self.add(ENUM, name, len(values), rest)

    def types(self):
        return Btf(self.data())

    def data(self):
        types, strings = self._types, self._strings
        lengths = (0, len(types), len(types), len(strings))
        return struct.pack("<HBBIIIII", 0xEB9F, 1, 0, 24, *lengths) + types + strings

    def _string(self, text):
        if not text:
            return 0
        at = self._strings.find(b"\0" + text.encode() + b"\0") + 1
        if not at:
            at = len(self._strings)
            self._strings += text.encode() + b"\0"
        return at


@pytest.fixture
def blob():
    blob = Blob()
    blob.add(INT, "int", rest=struct.pack("<I", 32))
    return blob


def test_offset_in_bytes(blob):
    blob.structure("other", ("len", 0))
    blob.structure("sk_buff", ("len", 896), ("data_len", 928))
    assert blob.types().offset("sk_buff", "data_len") == 116


def test_offset_with_bitfield_encoding(blob):
    blob.structure("sk_buff", ("len", 32 << 24 | 64), bitfields=True)
    assert blob.types().offset("sk_buff", "len") == 8


def test_unknown_names(blob):
    blob.structure("sk_buff", ("len", 0))
    types = blob.types()
    with pytest.raises(BtfError, match=r"0 offsets for nonsense\.len"):
        types.offset("nonsense", "len")
    with pytest.raises(BtfError, match="0 offsets"):
        types.offset("sk_buff", "nonsense")
    with pytest.raises(BtfError, match="no enum sk_buff"):
        types.enumerators("sk_buff")
    with pytest.raises(BtfError, match="no enum nonsense"):
        types.enumerators("nonsense")


def test_ambiguity_is_an_error(blob):
    blob.structure("s", ("m", 0))
    blob.structure("s", ("m", 64))
    with pytest.raises(BtfError, match="2 offsets"):
        blob.types().offset("s", "m")


def test_two_of_one_name_that_agree_are_no_ambiguity(blob):
    blob.structure("s", ("m", 64))
    blob.structure("s", ("first", 0), ("m", 64))
    assert blob.types().offset("s", "m") == 8


def test_what_was_asked_for_once_is_there_the_next_time(blob):
    """Types are hidden while others of their name are looked for."""
    blob.structure("s", ("m", 64), ("n", 128))
    blob.enumeration("e", FIRST=1)
    types = blob.types()
    assert [types.offset("s", name) for name in "mnm"] == [8, 16, 8]
    assert types.enumerators("e") == types.enumerators("e") == {"FIRST": 1}


def test_a_union_of_that_name_is_another_type(blob):
    blob.aggregate(UNION, "s", [("m", 1, 64)])
    blob.structure("s", ("m", 32))
    assert blob.types().offset("s", "m") == 4


def test_members_of_what_has_no_name_are_the_structure_s(blob):
    """Behind types of every size, to which there is no index."""
    blob.add(ARRAY, rest=struct.pack("<III", 1, 1, 7))
    blob.add(POINTER, size=1)
    blob.add(PROTOTYPE, count=2, rest=bytes(16), size=1)
    blob.add(TAG, "tag", rest=struct.pack("<i", -1), size=1)
    blob.add(ENUM64, "wide", 1, bytes(12))
    blob.enumeration("iter_type", ITER_UBUF=0, ITER_IOVEC=1)
    inner = blob.aggregate(STRUCT, "", [("head", 1, 32), ("end", 1, 64)])
    outer = blob.aggregate(UNION, "", [("cb", 1, 0), ("", inner, 0)])
    blob.aggregate(STRUCT, "sk_buff", [("len", 1, 0), ("", outer, 128), ("mac", 1, 512)])
    types = blob.types()
    assert types.offset("sk_buff", "cb") == 16
    assert types.offset("sk_buff", "head") == 16 + 4
    assert types.offset("sk_buff", "end") == 16 + 8
    assert types.offset("sk_buff", "mac") == 64


def test_a_member_with_a_name_keeps_its_own_to_itself(blob):
    inner = blob.aggregate(STRUCT, "", [("len", 1, 32)])
    blob.aggregate(STRUCT, "sk_buff", [("part", inner, 64)])
    with pytest.raises(BtfError, match="0 offsets"):
        blob.types().offset("sk_buff", "len")


def test_a_bit_field_without_a_name_has_no_members(blob):
    blob.aggregate(STRUCT, "s", [("", 1, 0), ("m", 1, 32)])
    assert blob.types().offset("s", "m") == 4


def test_enumerators(blob):
    blob.enumeration("other", ITER_UBUF=7)
    blob.enumeration("iter_type", ITER_UBUF=0, ITER_IOVEC=1, ITER_NONE=-1)
    blob.structure("iter_type_of", ("m", 0))
    assert blob.types().enumerators("iter_type") == {
        "ITER_UBUF": 0,
        "ITER_IOVEC": 1,
        "ITER_NONE": -1,
    }


def test_a_structure_of_that_name_is_no_enumeration(blob):
    blob.structure("iter_type", ("m", 0))
    blob.enumeration("iter_type", ITER_UBUF=3)
    assert blob.types().enumerators("iter_type") == {"ITER_UBUF": 3}


@pytest.mark.parametrize("data", [b"", b"\0" * 24, b"\x9f\xeb"])
def test_garbage(data):
    with pytest.raises(BtfError):
        Btf(data)


def test_functions_have_numbers(blob):
    prototype = blob.add(PROTOTYPE, size=1)
    blob.structure("copy", ("m", 0))
    number = blob.add(FUNCTION, "copy", size=prototype)
    assert blob.types().function("copy") == number
    assert blob.types().function("nonsense") == -errno.ENOENT


@pytest.fixture
def running(monkeypatch, tmp_path):
    """The running kernel's type information, for tests to write."""
    monkeypatch.setattr(btf, "VMLINUX", tmp_path / "vmlinux")
    btf.vmlinux.cache_clear()
    yield btf.VMLINUX
    btf.vmlinux.cache_clear()


def test_a_kernel_without_type_information_is_the_reason(running):
    reason = f"{running}: No such file or directory"
    with pytest.raises(BtfError, match=re.escape(reason)):
        btf.vmlinux()
    with pytest.raises(OSError, match=re.escape(reason)) as refused:
        bpf_syscall._type_number("copy")
    assert refused.value.errno == errno.ENOSYS


def test_a_function_that_the_kernel_does_not_describe_has_no_number(running, blob):
    running.write_bytes(blob.data())
    with pytest.raises(FileNotFoundError):
        bpf_syscall._type_number("copy")


def test_without_libbpf_that_is_the_reason(monkeypatch, blob):
    monkeypatch.setattr(btf, "_LIBBPF", ("libnonsense.so.1",))
    btf._library.cache_clear()
    with pytest.raises(BtfError, match="there is no libnonsense"):
        blob.types()
    btf._library.cache_clear()


@pytest.mark.skipif(not btf.VMLINUX.exists(), reason="this kernel describes no types")
def test_this_machine_s_kernel_is_read():
    """Of its types, some that programs outside the kernel depend on."""
    types = btf.vmlinux()
    assert [types.offset("list_head", name) for name in ("next", "prev")] == [0, 8]
    assert types.offset("bpf_insn", "imm") == 4
    assert types.enumerators("bpf_map_type")["BPF_MAP_TYPE_LRU_HASH"] == 9
