"""What the meter still keeps of threads that have not ended (probes/bpf/threads.c).

Counts are collected there before they go into the tables. Part of collecting.
"""

from __future__ import annotations

import ctypes
import os
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple

from zctrace.collect import cgroups, processes

_SLOTS, _MORE = 4096, 8192
PARAMETERS = {"THREAD_SLOTS": str(_SLOTS), "MORE_THREADS": str(_MORE)}
"""For the meter's ``-D``: of how many threads something is kept, of those that have a place by
their number, and of others that find theirs taken."""
ABOUT_TO_OPEN = 0xFFFFFFFF
"""The opener of a window that is not open yet, or no more (probes/bpf/window.c)."""
_FIRST_THREAD_KEY = 1 << 32
"""Keys of windows below it are processes' numbers."""
_BY_COLLECTOR = 1
"""Where it is counted how often the collector has changed windows."""


class Key(NamedTuple):
    """What the meter counts by."""

    role: int
    site: int
    direction: int
    syscall: int
    caller: int


class Kept:
    """All that is kept, read at once; nothing may be counted during the call."""

    def __init__(self, tables: Any) -> None:
        slots, more = tables["threads"], tables["more_threads"]
        self._threads = [
            *(slots[ctypes.c_int(slot.value)] for slot in tables["claims"]),
            *more.values(),
        ]

    def copies(self) -> list[tuple[int, Key, Any]]:
        """The process, and what was copied, with ``object``, ``calls`` and ``bytes``."""
        return [
            (thread.process, Key(c.role, c.site, c.direction, c.syscall, c.caller), c)
            for thread in self._threads
            for c in thread.copied
            if c.calls
        ]

    def calls(self) -> list[tuple[int, int, int, int]]:
        """Role, system call, how often entered, how often left."""
        return [
            (c.role, c.number, c.enters, c.exits)
            for thread in self._threads
            for c in thread.called
            if c.enters or c.exits
        ]

    def moves(self) -> list[tuple[int, Any]]:
        """The process, and what it moved: ``object``, ``descriptor``, ``way``, …"""
        return [
            (thread.process, moved)
            for thread in self._threads
            for moved in thread.moved
            if moved.calls
        ]

    def workers(self) -> list[Any]:
        """Threads that have copied or moved payload: ``id``, ``process``, ``name``, …"""
        return [
            thread
            for thread in self._threads
            if thread.payload_calls or any(moved.calls for moved in thread.moved)
        ]


def tallied(
    tables: Any, kept: Kept | None, enter: int, leave: int
) -> dict[Key, tuple[int, int]]:
    """Calls and bytes: from the table, and what is still ``kept`` of threads.

    ``enter`` and ``leave`` are the meter's numbers of the sites at both ends of a system call.
    """
    found: dict[Key, tuple[int, int]] = {}

    def add(key: Key, calls: int, size: int) -> None:
        before = found.get(key, (0, 0))
        found[key] = before[0] + calls, before[1] + size

    for key, cells in tables["tallies"].items():
        add(
            Key(key.role, key.site, key.direction, key.syscall, key.caller),
            sum(cell.calls for cell in cells),
            sum(cell.bytes for cell in cells),
        )
    if kept is None:
        return found
    for _, counted, copied in kept.copies():
        add(counted, copied.calls, copied.bytes)
    for role, number, enters, exits in kept.calls():
        for site, calls in ((enter, enters), (leave, exits)):
            if calls:
                add(Key(role, site, 0, number, 0), calls, 0)
    return found


def forget(tables: Any) -> None:
    """Keep nothing any more."""
    slots, taken = tables["threads"], tables["claims"]
    for slot in taken:
        slots[ctypes.c_int(slot.value)] = slots.Leaf()
    taken.clear()
    tables["more_threads"].clear()
    tables["how_many_more"][ctypes.c_int(0)] = ctypes.c_ulonglong(0)
    _forget_left(tables)


def left(tables: Any, cgroup: Path | None) -> int:
    """How often threads with a window were found, or moved, outside of ``cgroup``.

    Since the last time that this was asked.
    """
    strays: int = tables["strays"][ctypes.c_int(0)].value
    joined = list(tables["joined"].values())
    _forget_left(tables)
    if cgroup is None:
        return 0
    root = cgroups.hierarchy().resolve()
    inside = f"/{cgroup.resolve().relative_to(root)}/"
    number = cgroups.hierarchy_number()
    paths = (
        bytes(found.path).split(b"\0")[0].decode(errors="replace")
        for found in joined
        if found.hierarchy == number
    )
    return strays + sum(not f"{path}/".startswith(inside) for path in paths)


def _forget_left(tables: Any) -> None:
    tables["strays"][ctypes.c_int(0)] = ctypes.c_ulonglong(0)
    tables["joined"].clear()


def window_of(thread: int) -> int:
    """The key of the window of one thread alone."""
    return _FIRST_THREAD_KEY | thread


def number_of(key: int) -> int:
    """Of the thread or process that a window with that key belongs to."""
    return key & (_FIRST_THREAD_KEY - 1)


def is_open(windows: Any, key: int) -> bool:
    """Whether there is a window of that key, and it is open."""
    try:
        return bool(windows[windows.Key(key)].opener != ABOUT_TO_OPEN)
    except KeyError:
        return False


def not_open(windows: Any) -> set[int]:
    """Say of all windows that are open that they are not; returns their keys.

    A thread that knows of its window counts until it learns that windows have changed, so that
    a call and its copies end at the same time. Repeated, since a fork gives the child of an
    open window a window, too.
    """
    keys = set()
    while still := [row for row in windows.items() if row[1].opener != ABOUT_TO_OPEN]:
        for key, window in still:
            window.opener = ABOUT_TO_OPEN
            windows[key] = window
            keys.add(key.value)
    return keys


def outside(windows: Iterable[int], cgroup: Path | None) -> int:
    """Of processes with ``windows``, keys of the table, how many are not in ``cgroup``."""
    if cgroup is None:
        return 0
    # What is started is noted by its number, threads too (on_process_fork() in meter.c).
    open_ = {key for key in windows if key < _FIRST_THREAD_KEY} & processes.numbers()
    return sum(processes.alive(pid) for pid in open_ - set(cgroups.members(cgroup)))


def windows_changed(tables: Any) -> None:
    """Have every thread's window looked for anew."""
    generations, cell = tables["generations"], ctypes.c_int(_BY_COLLECTOR)
    generations[cell] = ctypes.c_ulonglong(generations[cell].value + 1)


def limit(tables: Any, cgroup: Path | None) -> None:
    """Only threads in ``cgroup`` may have windows; without one, all threads may.

    A cgroup of version 1 cannot be named: kernels before 6.1 accept it, and find no thread in
    it. Then every thread is looked up.
    """
    scope, first = tables["scope"], ctypes.c_int(0)
    with suppress(KeyError):  # there is none
        del scope[first]
    if cgroup is None or not (cgroup / "cgroup.controllers").exists():
        return
    folder = os.open(cgroup, os.O_RDONLY | os.O_DIRECTORY)
    try:
        scope[first] = folder
    finally:
        os.close(folder)
