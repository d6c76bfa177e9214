"""Copies in the own memory of traced programs: in which programs they are seen.

Probes are on functions in files: our C library, a program, a JVM. A program that has another
C library, or functions of its own, passes none of them. Then the answer has to be open. Part of
collecting.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from contextlib import suppress
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

from zctrace import packages
from zctrace.collect import elf_files, processes, user_functions
from zctrace.collect.attaching_users import UserFunctions
from zctrace.collect.calibration import of_own_copy
from zctrace.collect.flows import Things
from zctrace.collect.mounts import mounts
from zctrace.collect.process_maps import mappings
from zctrace.collect.subjects import there
from zctrace.collect.user_functions import TUNABLES, Identity, identity
from zctrace.evidence.account import Thing
from zctrace.evidence.schema import Subject
from zctrace.probes.user_functions import GO, LINKED_IN, PROGRAM_COPIES

_OURS, _OF_GO = 0, PROGRAM_COPIES.index(GO)
"""Slots: of what our C library has, and of Go's."""
_OURSELVES = "/proc/self/exe"
_JVM = "libjvm.so"
_ANOTHER_LIBRARY = "it has another C library than zctrace's own"
_NOT_CALLED = (
    "it called no function that is watched: it may have another C library, or use another "
    "function of it (GLIBC_TUNABLES)"
)
_OTHER_FUNCTIONS = "GLIBC_TUNABLES in its environment may choose another function"
_STATIC = "it is linked statically, and no function of its own is watched"
_GO = "it is Go's, and no runtime.memmove of its own is watched"
_OF_JVM = "it is a JVM, and its library is not watched"
_NOT_FOUND = "its file is not found"
_NO_PROGRAM = "its file cannot be understood"


class Executed(NamedTuple):
    """A program that a traced process has become: its file, as far as that is known.

    ``passed`` are the slots of the functions with probes that it has called.
    """

    path: str
    size: int
    passed: frozenset[int]


def executed(tables: Any) -> list[Executed]:
    """Those of processes that have ended, and that have not; one for several that are the same.

    Only of a meter that watches programs' own memory.
    """
    things = Things(tables["objects"], mounts())
    found = set()
    for program in (*tables["executed"].keys(), *tables["programs"].values()):
        number = things.number(program.file)
        path = "" if number is None else things.all[number].name
        passed = {slot for slot, _ in enumerate(PROGRAM_COPIES) if program.passed >> slot & 1}
        found.add(Executed(path, program.size, frozenset(passed)))
    return sorted(found, key=lambda one: (one.path, one.size, sorted(one.passed)))


class OwnMemory:
    """Where copies in programs' own memory are seen, and where not.

    ``watched`` are functions with probes, and their files. A call of one takes so many
    nanoseconds ``longer``. ``chosen`` is whether the environment may choose others.
    """

    def __init__(
        self,
        watched: Iterable[tuple[str, str]] = (),
        longer: float = 0.0,
        *,
        chosen: bool = False,
    ) -> None:
        several, self.longer, self._chosen = tuple(watched), longer, chosen
        names = (f"{function} in {Path(path).name}" for function, path in several)
        self.functions = tuple(dict.fromkeys(names))
        """For people."""
        self._probed: dict[Identity, set[str]] = {}
        for function, path in several:
            with suppress(OSError):  # of a process that has ended since
                self._probed.setdefault(identity(path), set()).add(function)
        self._unseen: dict[str, None] = {}
        self._linked = cache(elf_files.linked)

    def unseen(self, started: Iterable[Executed], read: Iterable[Thing]) -> tuple[str, ...]:
        """Processes and programs whose copies are not seen, each with the reason.

        Of what ran already, as far as it was looked at; of what was ``started``, all. What was
        ``read`` has libraries, too: the loader reads where they begin. Nothing where nothing is
        watched.
        """
        if not self.functions:
            return ()
        found = dict(self._unseen)
        for thing in read:
            if Path(thing.name).name.startswith(_JVM) and not self._is_probed(thing.name):
                found[f"{Path(thing.name).name}: it is a JVM's, and is not watched"] = None
        for one in started:
            if why := self.why_not(one):
                found[f"{Path(one.path).name or 'a program'}: {why}"] = None
        return tuple(found)

    def _is_probed(self, path: str) -> bool:
        with suppress(OSError):
            return identity(path) in self._probed
        return False

    def why_not(self, program: Executed) -> str | None:
        """Why copies in the memory of a program are not seen, if they are not."""
        try:
            # In a container there may be another file of that name.
            if Path(program.path).stat().st_size != program.size:
                return _NOT_FOUND
            if why := self._of_file(program.path):
                return why
            loader = self._linked(program.path).interpreter
            ours = self._linked(_OURSELVES).interpreter
            if loader and identity(loader) != identity(ours):
                return _ANOTHER_LIBRARY
        except OSError:
            return _NOT_FOUND
        # Go's may call nothing of the C library.
        proof = {_OURS} if self._chosen else {_OURS, _OF_GO}
        if loader and not program.passed & proof:
            return _NOT_CALLED
        jvms = set(map(identity, user_functions.libraries_beside(program.path)))
        return None if jvms <= self._probed.keys() else _OF_JVM

    def look_at(self, pids: Iterable[int]) -> None:
        """Processes that run already: what they have mapped is known.

        For when their windows are open: what they become from then on, the meter notes.
        """
        for pid in sorted(pids):
            # It is the kernel's, or is gone.
            with suppress(OSError):
                if why := self._why_not_in(pid):
                    self._unseen[f"{processes.named(pid)}: {why}"] = None

    def look_for_jvms(self, pids: Iterable[int]) -> None:
        """A JVM's library is mapped later than its program's beginning, and by any launcher."""
        for pid in sorted(pids):
            with suppress(OSError):
                if not self._jvms(_mapped(pid)) <= self._probed.keys():
                    self._unseen[f"{processes.named(pid)}: {_OF_JVM}"] = None

    def _why_not_in(self, pid: int) -> str | None:
        program = f"/proc/{pid}/exe"
        if why := self._of_file(program):
            return why
        mapped = _mapped(pid)
        if self._linked(program).interpreter:
            ours = PROGRAM_COPIES[_OURS].function
            if not any(ours in self._probed.get(file, ()) for file in mapped):
                return _ANOTHER_LIBRARY
            if TUNABLES in Path(f"/proc/{pid}/environ").read_bytes():
                return _OTHER_FUNCTIONS
        return None if self._jvms(mapped) <= self._probed.keys() else _OF_JVM

    def _of_file(self, path: str) -> str | None:
        """What the file says; raises ``OSError``."""
        own = self._probed.get(identity(path), set())
        try:
            linked = self._linked(path)
        except ImportError:
            return f"how it is linked is not known: {packages.remedy('elftools')}"
        except ValueError:
            return _NO_PROGRAM
        if linked.go and GO.function not in own:
            return _GO
        # What is Go's alone has no functions of a C library.
        needs = not linked.interpreter and (not linked.go or linked.c)
        return _STATIC if needs and LINKED_IN.function not in own else None

    @staticmethod
    def _jvms(mapped: Mapping[Identity, str]) -> set[Identity]:
        return {file for file, path in mapped.items() if Path(path).name.startswith(_JVM)}


def watch(
    functions: UserFunctions, subject: Subject, environment: Mapping[str, str]
) -> OwnMemory:
    """Put probes on what a subject is known to run."""
    if subject.command:
        program = user_functions.program_of(subject.command[0], subject.folder, environment)
        programs = [program] if program else []
    else:
        programs = user_functions.programs_of(there(subject))
    without = of_own_copy()
    watched = functions.watch_files(programs)
    longer = max(of_own_copy() - without, 0.0)
    chosen = bool(subject.command) and os.fsdecode(TUNABLES[:-1]) in environment
    return OwnMemory(watched, longer, chosen=chosen)


def _mapped(pid: int) -> dict[Identity, str]:
    """The files that a process has mapped to be executed, also those that are deleted."""
    found = {}
    for mapping in mappings(pid):
        with suppress(OSError):  # by now it is gone
            file = f"/proc/{pid}/map_files/{mapping.start:x}-{mapping.end:x}"
            found[identity(file)] = mapping.path
    return found
