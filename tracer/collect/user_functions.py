"""The functions that copy within a process's own memory, and where it has them.

Part of collecting: the standard library.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from zctrace.collect.process_maps import as_seen_by, mappings
from zctrace.errors import TraceError
from zctrace.probes.user_functions import UserCopy

_TUNABLES = b"GLIBC_TUNABLES="
_PUSH = b"\x55"
_IN_REGISTER = 3
"""The argument that is a number of units, where it is not on the stack."""


def settings(copy: UserCopy, number: int, least: int) -> dict[str, int]:
    """What the meter has to know of a function (probes/bpf/user_memory.c): its number, and from
    how many bytes on its copies count."""
    pushed = 8 if copy.pushes else 0
    # Behind the address to return to come the arguments that there are no registers for.
    on_stack = 0 if copy.argument == _IN_REGISTER else pushed + 8 + 8 * (copy.argument - 7)
    return {
        "PLACE_SITE": number,
        "PLACE_PUSHED": pushed,
        "PLACE_ON_STACK": on_stack,
        "PLACE_UNIT": copy.unit,
        "USER_COPIES_FROM": least,
    }


@dataclass(frozen=True)
class Place:
    """An instruction, as a place in a file that anybody may have mapped."""

    path: str
    offset: int


def places(
    copy: UserCopy,
    process: int,
    build_id: Callable[[str], str],
    offset_of: Callable[[str, str], int | None],
) -> list[Place]:
    """All places of a function in a process; none where it has not mapped the library.

    ``build_id`` is that of a file; ``offset_of`` is where in a file a symbol's code is.
    Raises :class:`TraceError` where the library is there and the function is not found.
    """
    paths = {
        mapping.path
        for mapping in mappings(process)
        if Path(mapping.path).name.startswith(copy.library)
    }
    found: list[Place] = []
    for path in sorted(paths):
        seen = as_seen_by(process, path)
        if copy.chosen_at_start:
            offsets = _chosen(copy, process, path, seen, build_id)
        else:
            offsets = {o for n in copy.names if (o := offset_of(seen, n)) is not None}
        if not offsets:
            raise TraceError(
                f"{copy.function} is not to be found in {path}",
                "it has no symbols for what is not exported",
                "the library's package with debugging symbols",
            )
        if copy.pushes:
            offsets = {_behind_push(copy, seen, offset) for offset in offsets}
        found += [Place(seen, offset) for offset in sorted(offsets)]
    return found


def _behind_push(copy: UserCopy, path: str, offset: int) -> int:
    """Where the instruction behind the function's first one is."""
    with open(path, "rb") as file:
        file.seek(offset)
        first = file.read(len(_PUSH))
    if first != _PUSH:
        raise TraceError(
            f"{copy.function} in {path} begins in another way than is known",
            f"with {first.hex()}, not with push %rbp",
            "another version of it",
        )
    return offset + len(_PUSH)


def _chosen(
    copy: UserCopy, process: int, path: str, seen: str, build_id: Callable[[str], str]
) -> set[int]:
    """Where the functions are that the loader has chosen: the same in us, on one processor.

    Raises :class:`TraceError` where that need not be.
    """
    ours = {name: _address(name) for name in copy.names}
    own = [m for m in mappings("self") if any(m.start <= at < m.end for at in ours.values())]
    if len({mapping.path for mapping in own}) != 1 or build_id(own[0].path) != build_id(seen):
        raise TraceError(
            f"which {copy.function} is used in {path} is not known",
            "it is another C library than zctrace's own",
            "the distribution's own C library",
        )
    if _TUNABLES in Path(f"/proc/{process}/environ").read_bytes():
        raise TraceError(
            f"which {copy.function} is used in process {process} is not known",
            "GLIBC_TUNABLES in its environment may choose another",
            "without GLIBC_TUNABLES",
        )
    return {
        at - mapping.start + mapping.offset
        for at in ours.values()
        for mapping in own
        if mapping.start <= at < mapping.end
    }


def _address(name: str) -> int:
    """Of a function of the C library's; where the name stands for several, the chosen one."""
    function = getattr(ctypes.CDLL(None), name)
    address = ctypes.cast(function, ctypes.c_void_p).value
    assert address is not None
    return address
