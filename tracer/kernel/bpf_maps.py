"""BPF maps, made, read and written by bpf(2) alone.

What is in a map has the names and the layout of the C that uses it, as in BCC's tables. Source:
bpf(2), include/uapi/linux/bpf.h. x86-64.
"""

from __future__ import annotations

import ctypes
import errno
import mmap
import os
import resource
import struct
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from zctrace.kernel import perf_events

_SYS_BPF = 321
_CREATE, _LOOKUP, _UPDATE, _DELETE, _NEXT_KEY = range(5)
_ATTRIBUTES_BYTES, _NAME_BYTES = 128, 16
_ARRAY, _PERCPU_HASH, _PERCPU_ARRAY, _LRU_PERCPU_HASH = 2, 5, 6, 10
"""enum bpf_map_type."""
_ARRAYS = (_ARRAY, _PERCPU_ARRAY)
_PER_CPU = (_PERCPU_HASH, _PERCPU_ARRAY, _LRU_PERCPU_HASH)
_MMAPABLE = 1 << 10
"""BPF_F_MMAPABLE: an array whose memory can be ours, too, each leaf in whole cells."""
_CELL_BYTES = 8
"""What a leaf of each processor begins at a multiple of."""
_NUMBERS: dict[str, Any] = {
    "_Bool": ctypes.c_bool,
    "char": ctypes.c_char,
    "unsigned char": ctypes.c_ubyte,
    "short": ctypes.c_short,
    "unsigned short": ctypes.c_ushort,
    "int": ctypes.c_int,
    "unsigned int": ctypes.c_uint,
    "long": ctypes.c_long,
    "unsigned long": ctypes.c_ulong,
    "long long": ctypes.c_longlong,
    "unsigned long long": ctypes.c_ulonglong,
    "__int128": ctypes.c_int64 * 2,
    "unsigned __int128": ctypes.c_uint64 * 2,
}
_UNION, _PACKED = "union", "struct_packed"
_AGGREGATES = ("struct", _UNION, _PACKED)

_libc = ctypes.CDLL(None, use_errno=True)


@dataclass(frozen=True)
class Description:
    """A map before it is made; sizes in bytes, for a leaf that of one processor.

    ``key`` and ``leaf`` are types, as :func:`ctype` takes them.
    """

    name: str
    kind: int
    key_size: int
    leaf_size: int
    entries: int
    flags: int
    key: Any
    leaf: Any


def ctype(described: Any) -> Any:
    """A type in BCC's words: the name of a number's in C, or a structure's name and members.

    Raises ``LookupError``, ``TypeError`` or ``ValueError`` where there is no such type.
    """
    if isinstance(described, str):
        return _NUMBERS[described]
    name, members, *kind = described
    anonymous: list[str] = []
    fields: list[Any] = []
    for member, of, *more in members:
        if not more:
            fields.append((member, ctype(of)))
        elif isinstance(more[0], list):
            fields.append((member, ctype(of) * more[0][0]))
        elif more[0] in _AGGREGATES:
            within = member or f"__anon{len(anonymous)}"
            anonymous += [] if member else [within]
            fields.append((within, ctype([member, of, *more])))
        else:
            fields.append((member, ctype(of), more[0]))
    content: dict[str, Any] = {"_anonymous_": anonymous}
    if kind == [_PACKED]:
        content["_pack_"] = 1
    base = ctypes.Union if kind == [_UNION] else ctypes.Structure
    return type(name, (base,), {**content, "_fields_": fields})


class Table:
    """A map that is made here, and its rows: ``table[key]``, by BCC's names.

    ``Key`` and ``Leaf`` are the types of both; a map with a leaf for each processor has an
    array of them, in the order of the processors that are possible. Deleting and reading raise
    ``KeyError`` where there is no such row, everything raises ``OSError``. Rows may come and go
    while they are read: one that is gone is left out.
    """

    def __init__(self, description: Description, entries: int | None = None) -> None:
        """With as many ``entries`` as described, or these.

        Also raises as :func:`ctype` does, where the description is not that of a map.
        """
        self._entries = description.entries if entries is None else entries
        self._is_array = description.kind in _ARRAYS
        self._is_mapped = bool(description.flags & _MMAPABLE)
        self.Key, self.Leaf = ctype(description.key), ctype(description.leaf)
        sizes = ctypes.sizeof(self.Key), ctypes.sizeof(self.Leaf)
        if sizes != (description.key_size, description.leaf_size):
            raise ValueError(f"{description.name}: rows of {sizes} bytes")
        if description.kind in _PER_CPU:
            self.Leaf = _whole_cells(self.Leaf) * len(perf_events.possible_cpus())
        self.map_fd = _create(description, self._entries)

    def close(self) -> None:
        os.close(self.map_fd)

    def __getitem__(self, key: Any) -> Any:
        leaf = self.Leaf()
        self._of_row(_LOOKUP, key, leaf)
        return leaf

    def __setitem__(self, key: Any, leaf: Any) -> None:
        self._of_row(_UPDATE, key, self.Leaf(leaf) if isinstance(leaf, int) else leaf)

    def __delitem__(self, key: Any) -> None:
        self._of_row(_DELETE, key, None)

    def __iter__(self) -> Iterator[Any]:
        """All keys, each once."""
        if self._is_array:
            yield from map(self.Key, range(self._entries))
            return
        # Where a row is gone the kernel begins again with the first.
        seen: dict[bytes, None] = {}
        key = None
        while (key := self._behind(key)) is not None:
            if bytes(key) not in seen:
                seen[bytes(key)] = None
                yield key

    def __len__(self) -> int:
        return sum(1 for _ in self)

    def items(self) -> list[tuple[Any, Any]]:
        found = []
        for key in self:
            with suppress(KeyError):
                found.append((key, self[key]))
        return found

    def keys(self) -> list[Any]:
        return list(self)

    def values(self) -> list[Any]:
        return [leaf for _, leaf in self.items()]

    def clear(self) -> None:
        """Take every row out; of an array, all leaves become 0."""
        if self._is_mapped:
            size = ctypes.sizeof(self.Leaf)
            whole = self._entries * (size + -size % _CELL_BYTES)
            with mmap.mmap(self.map_fd, whole + -whole % mmap.PAGESIZE) as memory:
                memory[:whole] = bytes(whole)
            return
        nothing = self.Leaf()
        for key in list(self):
            if self._is_array:
                self[key] = nothing
            else:
                with suppress(KeyError):
                    del self[key]

    def _behind(self, key: Any) -> Any:
        """The next key, or the first; ``None`` at the end."""
        found = self.Key()
        address = 0 if key is None else ctypes.addressof(key)
        error = self._call(_NEXT_KEY, address, ctypes.addressof(found))
        if error == errno.ENOENT:
            return None
        if error:
            raise OSError(error, os.strerror(error))
        return found

    def _of_row(self, command: int, key: Any, leaf: Any) -> None:
        key = self.Key(key) if isinstance(key, int) else key
        # The kernel reads and writes as many bytes as it knows, whatever there is.
        if ctypes.sizeof(key) != ctypes.sizeof(self.Key):
            raise TypeError(f"a key of {ctypes.sizeof(key)} bytes")
        if leaf is not None and ctypes.sizeof(leaf) != ctypes.sizeof(self.Leaf):
            raise TypeError(f"a leaf of {ctypes.sizeof(leaf)} bytes")
        place = 0 if leaf is None else ctypes.addressof(leaf)
        error = self._call(command, ctypes.addressof(key), place)
        if error == errno.ENOENT:
            raise KeyError(bytes(key).hex())
        if error:
            raise OSError(error, os.strerror(error))

    def _call(self, command: int, key: int, value: int) -> int:
        attributes = struct.pack("=IIQQQ", self.map_fd, 0, key, value, 0)
        failed = _libc.syscall(_SYS_BPF, command, attributes, len(attributes))
        return ctypes.get_errno() if failed else 0


def _whole_cells(leaf: Any) -> Any:
    """A leaf that takes as much room as that of a processor does."""
    rest = -ctypes.sizeof(leaf) % _CELL_BYTES
    if not rest:
        return leaf
    if hasattr(leaf, "_fields_"):
        return type(leaf.__name__, (leaf,), {"_fields_": [("_rest", ctypes.c_byte * rest)]})
    return ctypes.c_ulonglong


def _create(description: Description, entries: int) -> int:
    """The descriptor of a new map; raises ``OSError``."""
    attributes = ctypes.create_string_buffer(_ATTRIBUTES_BYTES)
    struct.pack_into(
        f"=IIIIIII{_NAME_BYTES}s",
        attributes,
        0,
        *(description.kind, description.key_size, description.leaf_size),
        *(entries, description.flags, 0, 0),
        description.name.encode()[: _NAME_BYTES - 1],
    )
    number = _new(attributes)
    if number < 0 and ctypes.get_errno() == errno.EPERM:
        # Before Linux 5.11 maps, and programs, are charged to what a user may lock in memory.
        unlimited = (resource.RLIM_INFINITY, resource.RLIM_INFINITY)
        with suppress(ValueError, OSError):
            resource.setrlimit(resource.RLIMIT_MEMLOCK, unlimited)
        number = _new(attributes)
    if number < 0:
        error = ctypes.get_errno()
        raise OSError(error, f"{description.name}: {os.strerror(error)}")
    return number


def _new(attributes: Any) -> int:
    number: int = _libc.syscall(_SYS_BPF, _CREATE, attributes, _ATTRIBUTES_BYTES)
    return number
