"""Offsets of structure members, from the running kernel's own type information.

Source: Documentation/bpf/btf.rst. A full parse of 100 000 types in Python takes
seconds in an emulated guest, so the one structure that is asked for is searched for by
its name's number in the string table; C-speed, and checked on the way.
"""

from __future__ import annotations

import struct
from pathlib import Path

VMLINUX = Path("/sys/kernel/btf/vmlinux")
_MAGIC = 0xEB9F
_KIND_STRUCT = 4


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

    def offset(self, structure: str, member: str) -> int:
        """Byte offset of a direct ``member`` of ``structure``."""
        candidates = {
            bits // 8
            for name, bits in self._members(structure)
            if name == member and bits % 8 == 0
        }
        if len(candidates) != 1:
            raise BtfError(f"{len(candidates)} offsets for {structure}.{member}")
        return candidates.pop()

    def _members(self, structure: str) -> list[tuple[str, int]]:
        number = self._strings.find(b"\0" + structure.encode() + b"\0") + 1
        if not number:
            raise BtfError(f"no structure {structure}")
        wanted, at, found = struct.pack("<I", number), -1, []
        while (at := self._types.find(wanted, at + 1)) >= 0:
            if at % 4 or at + 12 > len(self._types):
                continue
            info, _ = struct.unpack_from("<II", self._types, at + 4)
            count, kind, bitfields = info & 0xFFFF, info >> 24 & 0x1F, info >> 31
            end = at + 12 + 12 * count
            if kind != _KIND_STRUCT or not count or end > len(self._types):
                continue
            for name, _, bits in struct.iter_unpack("<III", self._types[at + 12 : end]):
                if name >= len(self._strings):
                    break  # these bytes only looked like a structure
                found.append((self._name(name), bits & 0xFFFFFF if bitfields else bits))
        return found

    def _name(self, number: int) -> str:
        return self._strings[number : self._strings.index(b"\0", number)].decode()


def vmlinux() -> Btf:
    """The running kernel's; raises :class:`BtfError` where it has none."""
    try:
        return Btf(VMLINUX.read_bytes())
    except OSError as error:
        raise BtfError(f"{VMLINUX}: {error.strerror}") from error
