"""Offsets of structure members, from the running kernel's own type information.

Source: Documentation/bpf/btf.rst. A full parse of 100 000 types in Python takes
seconds in an emulated guest, so the one type that is asked for is searched for by its
name's number in the string table; C-speed, and checked on the way.
"""

from __future__ import annotations

import struct
from pathlib import Path

VMLINUX = Path("/sys/kernel/btf/vmlinux")
_MAGIC = 0xEB9F
_KIND_STRUCT, _KIND_UNION, _KIND_ENUM = 4, 5, 6
_FIXED_EXTRA = {1: 4, 3: 12, 14: 4, 17: 4}
"""Bytes behind the header of INT, ARRAY, VAR and DECL_TAG."""
_EXTRA_PER_ITEM = {_KIND_STRUCT: 12, _KIND_UNION: 12, _KIND_ENUM: 8, 13: 8, 15: 12, 19: 12}
"""Bytes per item of STRUCT, UNION, ENUM, FUNC_PROTO, DATASEC and ENUM64."""


class BtfError(Exception):
    """The type information is missing, malformed, or ambiguous."""


class Btf:
    """One BTF blob; raises :class:`BtfError` if it is none."""

    def __init__(self, data: bytes) -> None:
        try:
            magic, _, _, header, types, types_size, strings, strings_size = struct.unpack_from(
                "<HBBIIIII", data
            )
        except struct.error as error:
            raise BtfError("too short for a BTF header") from error
        if magic != _MAGIC:
            raise BtfError(f"magic {magic:#x} instead of {_MAGIC:#x}")
        self._types = data[header + types : header + types + types_size]
        self._strings = data[header + strings : header + strings + strings_size]
        self._positions = [0]
        """Where types stand, by number less one, as far as somebody has walked."""

    def offset(self, structure: str, member: str) -> int:
        """Byte offset of ``member`` in ``structure``, unnamed unions looked into."""
        candidates = set(self._offsets(self._found(structure, _KIND_STRUCT), member))
        if len(candidates) != 1:
            raise BtfError(f"{len(candidates)} offsets for {structure}.{member}")
        return candidates.pop()

    def enumerators(self, name: str) -> dict[str, int]:
        """Names and values of ``enum name``."""
        for at, count, _ in self._found(name, _KIND_ENUM):
            items = self._types[at + 12 : at + 12 + 8 * count]
            return {self._name(n): value for n, value in struct.iter_unpack("<Ii", items)}
        raise BtfError(f"no enum {name}")

    def _found(self, name: str, kind: int) -> list[tuple[int, int, bool]]:
        """Where types of that name and kind stand: position, items, whether bit fields."""
        number = self._strings.find(b"\0" + name.encode() + b"\0") + 1
        if not number:
            raise BtfError(f"nothing is called {name}")
        wanted, at, found = struct.pack("<I", number), -1, []
        while (at := self._types.find(wanted, at + 1)) >= 0:
            if at % 4 or at + 12 > len(self._types):
                continue
            (info,) = struct.unpack_from("<I", self._types, at + 4)
            count, bitfields = info & 0xFFFF, bool(info >> 31)
            end = at + 12 + count * _EXTRA_PER_ITEM[kind]
            if info >> 24 & 0x1F == kind and count and end <= len(self._types):
                found.append((at, count, bitfields))
        return found

    def _offsets(self, found: list[tuple[int, int, bool]], member: str) -> list[int]:
        offsets = []
        for at, count, bitfields in found:
            items = self._types[at + 12 : at + 12 + 12 * count]
            for name, kind, bits in struct.iter_unpack("<III", items):
                if name >= len(self._strings):
                    break  # these bytes only looked like a structure
                bit = bits & 0xFFFFFF if bitfields else bits
                if self._name(name) == member and bit % 8 == 0:
                    offsets.append(bit // 8)
                elif not name and (inner := self._aggregate(kind)):
                    offsets += [bit // 8 + o for o in self._offsets([inner], member)]
        return offsets

    def _aggregate(self, number: int) -> tuple[int, int, bool] | None:
        """Type ``number``, if it is a structure or a union. Types have no index: walked to."""
        positions = self._positions
        for _ in range(number - len(positions)):
            at = positions[-1]
            (info,) = struct.unpack_from("<I", self._types, at + 4)
            kind, count = info >> 24 & 0x1F, info & 0xFFFF
            extra = _FIXED_EXTRA.get(kind, 0) + count * _EXTRA_PER_ITEM.get(kind, 0)
            positions.append(at + 12 + extra)
        at = positions[number - 1]
        (info,) = struct.unpack_from("<I", self._types, at + 4)
        if info >> 24 & 0x1F not in (_KIND_STRUCT, _KIND_UNION):
            return None
        return at, info & 0xFFFF, bool(info >> 31)

    def _name(self, number: int) -> str:
        return self._strings[number : self._strings.index(b"\0", number)].decode()


def vmlinux() -> Btf:
    """The running kernel's; raises :class:`BtfError` where it has none."""
    try:
        return Btf(VMLINUX.read_bytes())
    except OSError as error:
        raise BtfError(f"{VMLINUX}: {error.strerror}") from error
