"""Who was on the stack when bytes were copied: the meter's stacks, with names.

Reads what probes/bpf/flows.c keeps with STACKS. Part of collecting: names are looked up where
the programs' files are.
"""

from __future__ import annotations

import bisect
import copy
import ctypes
import functools
import struct
from collections.abc import Callable, Iterable
from contextlib import suppress
from pathlib import Path
from typing import Any

from zctrace.collect.elf_files import Lines
from zctrace.collect.perf_maps import PerfMap
from zctrace.collect.process_maps import as_seen_by, mappings
from zctrace.evidence.account import Stack
from zctrace.probes.model import Direction

TABLES = ("stacks",)
"""Those that are cleared between one program and the next."""
_MAX_STACKS = 8192
PARAMETERS = {"STACKS": "1", "MAX_STACKS": str(_MAX_STACKS)}
"""For the meter's ``-D``."""
UNKNOWN = "[unknown]"
"""A place in no file: code that was made at run time and that its runtime has not named.
BCC has the same name for a place in a file that has no symbol for it."""
NOT_KEPT, NONE = "[stack not kept]", "[no stack]"
_EEXIST, _ENOMEM = -17, -12
_EMPTY, _IN_FILE = 0, 1
"""enum bpf_stack_build_id_status (include/uapi/linux/bpf.h): BPF_STACK_BUILD_ID_*."""
_ELF = b"\x7fELF"
_MOST_OFFSET = 1 << 63
"""An address in no mapping: the kernel takes the next one, which begins behind it."""
_TYPE_AT, _EXECUTABLE = 16, 2
"""Where an ELF file has its type; ET_EXEC (elf(5))."""
_NAME_LENGTH = 15
"""Of a thread's name: TASK_COMM_LEN without the last."""
_LAST = "\U0010ffff"


class Programs:
    """Files that code in user memory may be from, collected while they are there."""

    def __init__(self) -> None:
        self._paths: dict[str, None] = {}

    def note(self, pids: Iterable[int]) -> None:
        """Everything that these processes have mapped to be executed."""
        for pid in pids:
            with suppress(OSError):
                for path in dict.fromkeys(mapping.path for mapping in mappings(pid)):
                    # As that process sees it, which may be in a container.
                    seen = as_seen_by(pid, path)
                    self._paths[seen if Path(seen).exists() else path] = None

    def paths(self, others: Iterable[str]) -> list[str]:
        """All of these that are programs or libraries, and those of ``others`` that are."""
        return [path for path in (*self._paths, *others) if _is_elf(path)]


def read(
    bpf: Any,
    programs: Iterable[str],
    names: Any,
    function: Callable[[int], str],
    locate: Callable[[int], str],
    syscall_name: Callable[[int], str | None],
    direction: Callable[[int], Direction | None],
) -> tuple[Stack, ...]:
    """Everything since the tables were cleared.

    ``function`` names a site, ``locate`` the place of an address in kernel text;
    ``names`` are :mod:`zctrace.collect.names`, or what has the same functions.
    """
    files, paths = {}, tuple(programs)
    for path in paths:
        names.add_file(path)
        files[names.build_id(path)] = path
    known: dict[tuple[bytes, int, int], str] = {}
    places: dict[int, str] = {}

    of_process = functools.cache(PerfMap)
    lines = functools.cache(Lines)
    fixed = _Fixed(paths, names, lines)

    def named(entry: Any, process: int, thread: str, back: int) -> str:
        if entry.status != _IN_FILE:
            address = int(entry.ip)
            made = of_process(process).name(address)
            return made or fixed.name(address, thread, back) or UNKNOWN
        key = bytes(entry.build_id), int(entry.offset), back
        if key[1] >= _MOST_OFFSET:
            return UNKNOWN
        if key not in known:
            # Behind a call that does not return begins another function.
            at = copy.copy(entry)
            at.offset = max(key[1] - back, 0)
            known[key] = in_file(names.name(at), files.get(key[0].hex()), *key[1:])
        return known[key]

    def in_file(name: str, path: str | None, offset: int, back: int) -> str:
        if not path:
            return name
        address = lines(path).address(offset)
        if name == UNKNOWN:
            found = None if address is None else fixed.function(path, address - back)
            name = found or f"{Path(path).name}+{offset:#x}"
        return _with_line(name, None if address is None else lines(path).of(address - back))

    def place(address: int) -> str:
        if address not in places:
            places[address] = locate(address).partition("+")[0]
        return places[address]

    def kernel_frames(number: int, copier: str) -> tuple[str, ...]:
        if number < 0:
            return (_missing(number),)
        addresses = bpf["kernel_stacks"][ctypes.c_int(number)].ip
        frames = tuple(place(address) for address in addresses if address)
        # Where a function calls the program, that comes first, and how it was called.
        return frames[frames.index(copier) :] if copier in frames else frames

    def user_frames(number: int, process: int, thread: str, called: bool) -> tuple[str, ...]:
        if number < 0:
            return (_missing(number),)
        trace = bpf["user_stacks"][ctypes.c_int(number)].trace
        entries = [entry for entry in trace if entry.status != _EMPTY]
        # Of a call, system calls included, there is the address behind it.
        return tuple(
            named(entry, process, thread, 1 if at or called else 0)
            for at, entry in enumerate(entries)
        )

    return tuple(
        Stack(
            process=key.process,
            name=_text(key.name),
            function=function(key.site),
            syscall=syscall_name(key.syscall),
            direction=direction(key.direction),
            kernel=kernel_frames(key.kernel, function(key.site)),
            user=user_frames(
                key.user, key.process, _text(key.name), syscall_name(key.syscall) is not None
            )
            if key.process
            else (),
            calls=cell.calls,
            bytes=cell.bytes,
        )
        for key, cell in bpf["stacks"].items()
    )


class _Fixed:
    """Programs at fixed addresses, whose functions BCC does not find by build ID and offset.

    Those of Go have no build ID where the kernel looks for it: their note is in no segment of
    notes.
    """

    def __init__(self, paths: Iterable[str], names: Any, lines: Callable[[str], Lines]) -> None:
        self._lines = lines
        self._paths = {Path(path).name[:_NAME_LENGTH]: path for path in paths}
        self._functions = functools.cache(
            lambda path: sorted(names.functions(path)) if _is_fixed(path) else []
        )

    def name(self, address: int, thread: str, back: int = 0) -> str | None:
        """The function at an address, and its file, of the program that gave a thread its name.

        The line is that so many bytes ``back``. ``None`` if there is no function.
        """
        path = self._paths.get(thread)
        name = self.function(path, address - back) if path else None
        if path is None or name is None:
            return None
        return _with_line(name, self._lines(path).of(address - back))

    def function(self, path: str, address: int) -> str | None:
        """The function at an address of a program, and its file; ``None`` if there is none."""
        functions = self._functions(path)
        at = bisect.bisect(functions, (address, _LAST)) - 1
        if at < 0 or at == len(functions) - 1:
            return None
        return f"{functions[at][1]} [{Path(path).name}]"


def _with_line(name: str, line: str | None) -> str:
    """``main [srv]`` as ``main (srv.go:17) [srv]``."""
    function, bracket, file = name.rpartition(" [")
    return f"{function} ({line}){bracket}{file}" if line and function else name


def _is_fixed(path: str) -> bool:
    with suppress(OSError, struct.error), open(path, "rb") as file:
        return struct.unpack_from("=H", file.read(_TYPE_AT + 2), _TYPE_AT) == (_EXECUTABLE,)
    return False


def _text(name: Any) -> str:
    return bytes(name).split(b"\0")[0].decode(errors="replace")


def _missing(error: int) -> str:
    """Why there is no stack; the number is a negative error's."""
    return NOT_KEPT if error in (_EEXIST, _ENOMEM) else NONE


def _is_elf(path: str) -> bool:
    with suppress(OSError), open(path, "rb") as file:
        return file.read(len(_ELF)) == _ELF
    return False
