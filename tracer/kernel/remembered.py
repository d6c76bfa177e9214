"""What was found in a kernel's text, kept for the next time that this kernel runs.

Searching the text takes seconds where the processor is emulated. What is found depends on the
kernel's build, on what it patches in itself at boot (for the processor and the command line)
and on its modules. Its place in memory does not matter: addresses are kept as distances.
A file is for all of that but the modules, which may come and go: each has its part.

A wrong fact would be a copy that is not counted. So a file that another user could have
written, or that is damaged, is not used. Each call and each return is checked before it is
used. If one differs, the kernel is searched as if nothing were known.
"""

from __future__ import annotations

import hashlib
import json
import os
import stat
import struct
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from zctrace.kernel import callsites, text_facts
from zctrace.kernel import symbols as call_sites
from zctrace.kernel import text as kernel_text
from zctrace.kernel.live_text import live_text
from zctrace.kernel.symbols import Module
from zctrace.kernel.text import Exits, Symbol, Text, TextError
from zctrace.kernel.text_facts import TextFacts, Wanted
from zctrace.probes.model import Call

NOTES, CPUINFO, CMDLINE = (
    Path("/sys/kernel/notes"),
    Path("/proc/cpuinfo"),
    Path("/proc/cmdline"),
)
SYS_MODULES = Path("/sys/module")
KPROBES = Path("/sys/kernel/debug/kprobes/list")
_BUILD_ID = "notes/.note.gnu.build-id"
_GNU, _GNU_BUILD_ID = b"GNU\0", 3
_PROCESSOR = (
    *("vendor_id", "cpu family", "model", "model name", "stepping", "microcode"),
    *("flags", "bugs"),
)
_MOST_BYTES = 1 << 20
_MALFORMED = (LookupError, TypeError, ValueError, AttributeError)
_OTHERS_MAY_WRITE = stat.S_IWGRP | stat.S_IWOTH
_SEARCHING = (text_facts, callsites, call_sites, kernel_text)
_SOURCES = (__file__, *(str(module.__file__) for module in _SEARCHING))

Accepted = dict[str, tuple[str, ...]]
"""Functions where the kernel took a probe, by the kind of probe."""


class _DoubtError(Exception):
    """Something is not what it was."""


@dataclass(frozen=True)
class Remembered:
    """``complete`` is whether nothing had to be searched, as for modules that are new."""

    facts: TextFacts
    accepted: Accepted
    complete: bool


def recall(folder: Path, wanted: Wanted) -> Remembered | None:
    """What is known of the running kernel and still true; ``None`` if anything is doubtful."""
    key = _key(wanted)
    known = _known(folder, key) if key else None
    if not known:
        return None
    try:
        text = live_text()
    except TextError:
        return None
    try:
        return _verified(known, wanted, text)
    except (_DoubtError, TextError, OSError, *_MALFORMED):
        return None
    finally:
        text.close()


def keep(folder: Path, wanted: Wanted, facts: TextFacts, accepted: Accepted) -> None:
    """For the next time; not if anything is amiss."""
    key, start = _key(wanted), kernel_text.text_start()
    if not key or not start or facts.trouble:
        return
    try:
        text = live_text()
    except TextError:
        return
    try:
        content = _content(wanted, facts, start, text)
    except (_DoubtError, TextError, OSError):
        return
    finally:
        text.close()
    if before := _known(folder, key):
        content["modules"] = before["modules"] | content["modules"]
    write(folder / _name(key), {"key": key, "accepted": accepted, **content})


def is_untouched() -> bool:
    """Whether no probe is in the kernel's text: a probe hides the instruction below it.

    What is found while there is one must not be kept: a call may be missing.
    """
    try:
        return not KPROBES.read_bytes().strip()
    except OSError:
        return False


def _content(wanted: Wanted, facts: TextFacts, start: int, text: Text) -> dict[str, Any]:
    loaded = call_sites.modules()
    starts = {"": start} | {module.name: module.start for module in loaded}
    spans = {module.name: range(module.start, module.start + module.size) for module in loaded}
    parts: dict[str, list[Any]] = {name: [] for name in starts}
    for name, calls in facts.calls.items():
        for call in calls:
            branch = callsites.branch_at(text, call.address)
            if not branch or call.module not in starts:
                raise _DoubtError(call.name)
            target = branch[1]
            # A module calls functions of its own, or the kernel's.
            within = bool(call.module) and target in spans[call.module]
            to = target - (starts[call.module] if within else start)
            entry = (name, call.address - starts[call.module], to, within)
            parts[call.module].append((*entry, call.caller, call.offset, call.jump))
    return {
        "functions": {
            name: (symbol.address - start, symbol.size)
            for name, symbol in facts.symbols.items()
            if name in wanted.functions
        },
        "exits": {
            name: (exits.returns, exits.jumps, [code.hex() for code in exits.code])
            for name, exits in facts.exits.items()
        },
        "called": list(facts.calls),
        "calls": parts[""],
        "callers": sorted(facts.callers.get("", ())),
        "modules": {
            module.name: (
                identity,
                parts[module.name],
                sorted(facts.callers.get(module.name, ())),
            )
            for module in loaded
            if (identity := _identity(module))
        },
    }


def _verified(known: dict[str, Any], wanted: Wanted, text: Text) -> Remembered:
    start = kernel_text.text_start()
    if not start:
        raise _DoubtError("addresses are hidden")
    symbols = {
        name: Symbol(start + at, size) for name, (at, size) in known["functions"].items()
    }
    exits = {
        name: _exits(text, symbols[name].address, *parts)
        for name, parts in known["exits"].items()
    }
    calls: dict[str, list[Call]] = {name: [] for name in known["called"]}
    for name, call in _calls(text, start, start, "", known["calls"]):
        calls[name].append(call)
    callers = {"": frozenset(known["callers"])}
    unknown = set()
    for module in call_sites.modules():
        identity, entries, there = known["modules"].get(module.name, (None, (), ()))
        if not identity or identity != _identity(module):
            unknown.add(module.name)
            continue
        for name, call in _calls(text, start, module.start, module.name, entries):
            calls[name].append(call)
        callers[module.name] = frozenset(there)
    if unknown:
        kallsyms = kernel_text.KALLSYMS.read_bytes()
        more, others = text_facts.find_calls(wanted, kallsyms, text, unknown)
        callers |= others
        for name, found in more.items():
            calls.setdefault(name, []).extend(found)
    ordered = {
        name: tuple(sorted(found, key=lambda call: call.address))
        for name, found in calls.items()
    }
    accepted = {kind: tuple(names) for kind, names in known["accepted"].items()}
    return Remembered(
        TextFacts(symbols, exits, ordered, callers=callers),
        accepted,
        complete=not unknown,
    )


def _calls(
    text: Text, start: int, base: int, module: str, entries: Iterable[Any]
) -> Iterator[tuple[str, Call]]:
    for name, at, to, within, caller, offset, jump in entries:
        address = base + at
        if callsites.branch_at(text, address) != (jump, (base if within else start) + to):
            raise _DoubtError(f"{caller}+{offset:#x}")
        traced = callsites.is_traceable(text, address - offset)
        yield name, Call(address, caller, offset, module, jump, traced)


def _exits(
    text: Text, address: int, returns: list[int], jumps: list[int], code: list[str]
) -> Exits:
    instructions = tuple(map(bytes.fromhex, code))
    for offset, instruction in zip((*returns, *jumps), instructions, strict=True):
        if text.read(Symbol(address + offset, len(instruction))) != instruction:
            raise _DoubtError(hex(address + offset))
    return Exits(tuple(returns), tuple(jumps), instructions)


def _key(wanted: Wanted) -> dict[str, Any] | None:
    """What the answer depends on, but for modules; ``None`` for a kernel without a build id."""
    try:
        build = _build_id(NOTES.read_bytes())
        processor = os.fsdecode(CPUINFO.read_bytes()).partition("\n\n")[0].splitlines()
        options = os.fsdecode(CMDLINE.read_bytes()).split()
        sources = b"".join(Path(source).read_bytes() for source in _SOURCES)
    except OSError:
        return None
    if not build:
        return None
    return {
        "kernel": [build, *os.uname()[2:]],
        "processor": [line for line in processor if _names_one_of(line, _PROCESSOR)],
        "options": options,
        "wanted": [
            *(list(wanted.functions), list(wanted.exits), _lists(wanted.calls)),
            list(wanted.callers),
        ],
        "program": hashlib.sha256(sources).hexdigest(),
    }


def _names_one_of(line: str, names: Iterable[str]) -> bool:
    return line.partition(":")[0].strip() in names


def _lists(calls: dict[str, tuple[str, ...]]) -> dict[str, list[str]]:
    return {name: list(callers) for name, callers in calls.items()}


def _build_id(notes: bytes) -> str:
    """Of ELF notes, the one that the linker makes of all that it linked; empty without."""
    at = 0
    while at + 12 <= len(notes):
        name, size, kind = struct.unpack_from("=III", notes, at)
        content = at + 12 + (name + 3 & ~3)
        if kind == _GNU_BUILD_ID and notes[at + 12 : at + 12 + name] == _GNU:
            return notes[content : content + size].hex()
        at = content + (size + 3 & ~3)
    return ""


def _identity(module: Module) -> list[Any] | None:
    try:
        build = _build_id((SYS_MODULES / module.name / _BUILD_ID).read_bytes())
    except OSError:
        return None
    return [module.size, build] if build else None


def _known(folder: Path, key: dict[str, Any]) -> dict[str, Any] | None:
    content = read(folder / _name(key))
    return content if content and content.get("key") == key else None


def _name(key: dict[str, Any]) -> str:
    digest = hashlib.sha256(json.dumps(key, sort_keys=True).encode()).hexdigest()
    return f"{digest[:32]}.json"


def read(path: Path) -> dict[str, Any] | None:
    """What :func:`write` wrote; ``None`` if it is damaged, or others may have written it."""
    with suppress(OSError, ValueError, RecursionError):
        # Not to wait for a pipe, nor to follow a link, that a guest has put there.
        flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
        with open(os.open(path, flags), "rb") as file:
            about = os.fstat(file.fileno())
            if (
                stat.S_ISREG(about.st_mode)
                and about.st_uid == os.geteuid()
                and not about.st_mode & _OTHERS_MAY_WRITE
                and about.st_size <= _MOST_BYTES
            ):
                digest, _, body = file.read(_MOST_BYTES).partition(b"\n")
                if digest == hashlib.sha256(body).hexdigest().encode():
                    content = json.loads(body)
                    return content if isinstance(content, dict) else None
    return None


def write(path: Path, content: dict[str, Any]) -> bool:
    """Whole or not at all; whether it was. Without it, the next time takes longer."""
    body = json.dumps(content).encode()
    digest = hashlib.sha256(body).hexdigest().encode()
    if len(digest) + 1 + len(body) > _MOST_BYTES:
        return False
    with suppress(OSError):
        number, partial = tempfile.mkstemp(dir=path.parent, prefix=".partial-")
        try:
            with open(number, "wb") as file:
                file.write(digest + b"\n" + body)
            Path(partial).replace(path)
            return True
        except OSError:
            Path(partial).unlink()
            raise
    return False
