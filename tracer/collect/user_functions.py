"""The functions that copy within a process's own memory, and where it has them.

Part of collecting: the standard library.
"""

from __future__ import annotations

import ctypes
import re
import shutil
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from zctrace.collect.process_maps import as_seen_by, mappings
from zctrace.errors import TraceError
from zctrace.plan.places import REGISTER_NUMBERS
from zctrace.probes.user_functions import UserCopy

TUNABLES = b"GLIBC_TUNABLES="
_PUSH = b"\x55"
Identity = tuple[int, int]
"""Of a file: the device's number, and the inode's."""
_JVMS = (
    *("lib/server", "lib/client", "lib/minimal", "lib/runtime/lib/server"),
    *("lib/*/server", "lib/*/client", "jre/lib/*/server", "jre/lib/*/client"),
)
"""Where a JVM has its library, from its own folder: of Java 9 and later, of an application with
a JVM of its own, and of Java 8."""
_MOST_INTERPRETERS, _FIRST_LINE_BYTES = 4, 256
"""As the kernel has it (BINPRM_BUF_SIZE, and the depth that it allows in fs/exec.c)."""
_IN_REGISTER = 3
"""The argument that is a number of units, where it is not on the stack."""


def settings(copy: UserCopy, number: int, slot: int, least: int) -> dict[str, int]:
    """What the meter has to know of a function (probes/bpf/user_memory.c).

    Its number, its ``slot`` among such functions, and from how many bytes on its copies count.
    """
    pushed = 8 if copy.pushes else 0
    # Behind the address to return to come the arguments that there are no registers for.
    on_stack = 0 if copy.argument == _IN_REGISTER else pushed + 8 + 8 * (copy.argument - 7)
    return {
        "PLACE_SITE": number,
        "PLACE_SLOT": slot,
        "PLACE_PUSHED": pushed,
        "PLACE_ON_STACK": on_stack,
        "PLACE_UNIT": copy.unit,
        "PLACE_FIRST": REGISTER_NUMBERS[copy.register],
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


def places_in(copy: UserCopy, path: str, names: Any, libraries: Iterable[str]) -> list[Place]:
    """All places of a function in a program's file, or in its ``libraries``, for any process.

    ``names`` are :mod:`zctrace.collect.names`. None where there is no such function.
    """
    if copy.chosen_at_start:
        return sorted(_chosen_here(copy), key=str)
    found: set[Place] = set()
    for file in libraries if copy.library else [path] if path else []:
        if not Path(file).name.startswith(copy.library):
            continue
        symbols = set(copy.names)
        if copy.pattern:
            symbols |= {n for _, n in names.functions(file) if re.fullmatch(copy.pattern, n)}
        offsets = {names.offset_of(file, name) for name in symbols} - {None}
        if copy.pushes:
            offsets = {_behind_push(copy, file, offset) for offset in offsets}
        found |= {Place(file, offset) for offset in offsets}
    return sorted(found, key=str)


def _chosen_here(copy: UserCopy) -> set[Place]:
    """Where our own C library has it: the same file is every program's that is linked to it."""
    addresses = {_address(name) for name in copy.names}
    return {
        Place(mapping.path, address - mapping.start + mapping.offset)
        for address in addresses
        for mapping in mappings("self")
        if mapping.start <= address < mapping.end
    }


def program_of(command: str, folder: str, environment: Mapping[str, str]) -> str:
    """The file that a command runs: itself, or what interprets it; empty if there is none."""
    found = command if "/" in command else shutil.which(command, path=environment.get("PATH"))
    for _ in range(_MOST_INTERPRETERS):
        if not found:
            return ""
        path = Path(folder, found)
        try:
            with path.open("rb") as file:
                first = file.readline(_FIRST_LINE_BYTES)
        except OSError:
            return ""
        if not first.startswith(b"#!"):
            return str(path.resolve())
        words = first[2:].decode(errors="replace").split()
        if words and Path(words[0]).name == "env" and words[1:]:
            found = shutil.which(words[1], path=environment.get("PATH"))
        else:
            found = words[0] if words else None
    return ""


def programs_of(pids: Iterable[int]) -> list[str]:
    """The files of processes, as we see them; none of one that is gone."""
    found: dict[Identity, str] = {}
    for pid in sorted(pids):
        # Also one that was deleted, or replaced, since it began.
        program = f"/proc/{pid}/exe"
        with suppress(OSError):
            found.setdefault(identity(program), _name_of(pid, program))
    return list(found.values())


def _name_of(pid: int, program: str) -> str:
    """A name that the file still has, if it has one."""
    with suppress(OSError):
        named = as_seen_by(pid, str(Path(program).readlink()))
        if identity(named) == identity(program):
            return named
    return program


def identity(path: str) -> Identity:
    """The same for every name of a file; raises ``OSError``."""
    status = Path(path).stat()
    return status.st_dev, status.st_ino


def libraries_beside(program: str) -> list[str]:
    """Those of a JVM that ``program`` starts; it loads them when it runs."""
    home = Path(program).parent.parent
    return [str(path) for place in _JVMS for path in home.glob(f"{place}/libjvm.so")]


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
    ours = _chosen_here(copy)
    files = {place.path for place in ours}
    if len(files) != 1 or build_id(*files) != build_id(seen):
        raise TraceError(
            f"which {copy.function} is used in {path} is not known",
            "it is another C library than zctrace's own",
            "the distribution's own C library",
        )
    if TUNABLES in Path(f"/proc/{process}/environ").read_bytes():
        raise TraceError(
            f"which {copy.function} is used in process {process} is not known",
            "GLIBC_TUNABLES in its environment may choose another",
            "without GLIBC_TUNABLES",
        )
    return {place.offset for place in ours}


def _address(name: str) -> int:
    """Of a function of the C library's; where the name stands for several, the chosen one."""
    function = getattr(ctypes.CDLL(None), name)
    address = ctypes.cast(function, ctypes.c_void_p).value
    assert address is not None
    return address
