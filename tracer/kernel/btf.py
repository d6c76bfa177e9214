"""Offsets of structure members, from the running kernel's own type information.

Read by libbpf, which BCC is built on. Source: Documentation/bpf/btf.rst, libbpf's btf.h.
"""

from __future__ import annotations

import ctypes
import functools
import weakref
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

from zctrace import packages

VMLINUX = Path("/sys/kernel/btf/vmlinux")
_LIBBPF = ("libbpf.so.1", "libbpf.so.0")
_STRUCT, _UNION, _ENUM, _FUNC = 4, 5, 6, 12
_KIND, _KIND_SHIFT, _BIT_FIELDS_SHIFT, _COUNT = 0x1F, 24, 31, 0xFFFF
_BIT_OFFSET = 0xFFFFFF
_MAX_ERRNO = 4095
_MOST_MEMBERS = 1 << 17
"""More than a structure has, with all inside it."""


class BtfError(Exception):
    """The type information is missing, malformed, or ambiguous."""


class _Type(ctypes.Structure):
    """struct btf_type; behind it are the members of a structure or the values of an enum."""

    _fields_ = (
        ("name", ctypes.c_uint32),
        ("info", ctypes.c_uint32),
        ("size", ctypes.c_uint32),
    )

    @property
    def kind(self) -> int:
        return int(self.info) >> _KIND_SHIFT & _KIND

    def items(self, item: type[Any]) -> Any:
        behind = ctypes.addressof(self) + ctypes.sizeof(self)
        return (item * (self.info & _COUNT)).from_address(behind)


class _Member(ctypes.Structure):
    _fields_ = (
        ("name", ctypes.c_uint32),
        ("type", ctypes.c_uint32),
        ("offset", ctypes.c_uint32),
    )


class _Enumerator(ctypes.Structure):
    _fields_ = (("name", ctypes.c_uint32), ("value", ctypes.c_int32))


class Btf:
    """One BTF blob; raises :class:`BtfError` if it is none, or if there is no libbpf."""

    def __init__(self, data: bytes) -> None:
        self._libbpf = _library()
        types = self._libbpf.btf__new(data, len(data))
        # Since version 1.0 there is no pointer if it fails, before there was an error in it.
        if not types or types >= 2**64 - _MAX_ERRNO:
            raise BtfError("libbpf cannot read the type information")
        self._types = types
        weakref.finalize(self, self._libbpf.btf__free, types)

    def offset(self, structure: str, member: str) -> int:
        """Byte offset of ``member`` in ``structure``, unnamed unions looked into."""
        found = self._named(structure, _STRUCT)
        wanted = member.encode()
        candidates = {offset for type_ in found for offset in self._offsets(type_, wanted)}
        if len(candidates) != 1:
            raise BtfError(f"{len(candidates)} offsets for {structure}.{member}")
        return candidates.pop()

    def enumerators(self, name: str) -> dict[str, int]:
        """Names and values of ``enum name``."""
        for found in self._named(name, _ENUM):
            items = found.items(_Enumerator)
            names = (self._name(item.name).decode(errors="replace") for item in items)
            return dict(zip(names, (item.value for item in items), strict=True))
        raise BtfError(f"no enum {name}")

    def function(self, name: str) -> int:
        """The number of a function's type, or negative: an error number."""
        return self._find(name, _FUNC)

    def _find(self, name: str, kind: int) -> int:
        number: int = self._libbpf.btf__find_by_name_kind(self._types, name.encode(), kind)
        return number

    def _named(self, name: str, kind: int) -> list[_Type]:
        """All types of that name and kind.

        libbpf finds the first. To find the next one, its kind is removed for a while: the
        memory is ours, as ``btf__new`` copies.
        """
        found = []
        try:
            while (number := self._find(name, kind)) > 0:
                found.append(self._type(number))
                found[-1].info ^= kind << _KIND_SHIFT
        finally:
            for type_ in found:
                type_.info ^= kind << _KIND_SHIFT
        return found

    def _type(self, number: int) -> _Type:
        address = self._libbpf.btf__type_by_id(self._types, number)
        if not address:
            raise BtfError(f"there is no type {number}")
        return _Type.from_address(address)

    def _offsets(self, type_: _Type, wanted: bytes) -> Iterator[int]:
        inside, looked = [(type_, 0)], 0
        while inside:
            outer, begin = inside.pop()
            mask = _BIT_OFFSET if outer.info >> _BIT_FIELDS_SHIFT else ~0
            for member in outer.items(_Member):
                looked += 1
                if looked > _MOST_MEMBERS:
                    raise BtfError("a structure that is part of itself")
                bits = member.offset & mask
                if not member.name:
                    inner = self._type(member.type)
                    if inner.kind in (_STRUCT, _UNION):
                        inside.append((inner, begin + bits // 8))
                elif bits % 8 == 0 and self._name(member.name) == wanted:
                    yield begin + bits // 8

    def _name(self, number: int) -> bytes:
        name: bytes | None = self._libbpf.btf__name_by_offset(self._types, number)
        return name or b""


@functools.cache
def vmlinux() -> Btf:
    """The running kernel's; raises :class:`BtfError` where it has none."""
    try:
        data = VMLINUX.read_bytes()
    except OSError as error:
        raise BtfError(f"{VMLINUX}: {error.strerror}") from error
    return Btf(data)


@functools.cache
def _library() -> Any:
    blob, number, text = ctypes.c_void_p, ctypes.c_uint32, ctypes.c_char_p
    prototypes = {
        "btf__new": (blob, text, number),
        "btf__free": (None, blob),
        "btf__find_by_name_kind": (ctypes.c_int32, blob, text, number),
        "btf__type_by_id": (ctypes.c_void_p, blob, number),
        "btf__name_by_offset": (text, blob, number),
    }
    for name in _LIBBPF:
        with suppress(OSError, AttributeError):
            libbpf = ctypes.CDLL(name)
            for function, (result, *arguments) in prototypes.items():
                getattr(libbpf, function).restype = result
                getattr(libbpf, function).argtypes = arguments
            return libbpf
    raise BtfError(f"there is no {_LIBBPF[0]} ({packages.remedy('libbpf')})")
