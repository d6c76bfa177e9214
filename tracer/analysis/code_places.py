"""Where in a program's code the calls are that copied: of each stack, one function or line."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence

from zctrace.analysis.lines import Line
from zctrace.analysis.program import Answer
from zctrace.evidence.account import NO_CALL, Stack

_OF_A_FILE = re.compile(r" \[([^\]]+)\]$|^([^ ]+)\+0x[0-9a-f]+$")
"""How names of code in a program or library end, or places that have no name."""
_LIBRARIES = re.compile(r"^(lib(c|pthread|java|nio|net|jvm|jli|uv)|ld(-[a-z].*)?)[-.]")
"""Those that make the call for somebody else."""
_PASSING_ON = re.compile(r"^(Interpreter|StubRoutines|Stub:|Builtin:|BytecodeHandler:|\[)")
"""Code made at run time that is no function of anybody's; or that has no name."""
_OF_A_RUNTIME = re.compile(
    r"[ ~*^]node:|(^| )(java|jdk|sun)\.[a-z]"
    r"|^(syscall|internal|runtime|os|io|net|bufio|bytes)[./]|^go:"
)
"""Functions of the libraries of Node.js, Java and Go."""


def of(found: Answer) -> Sequence[Line]:
    """By place and system call, the most bytes first; none where no stacks were kept."""
    lines: dict[tuple[str, str], Line] = {}
    for stack in found.stacks:
        if not stack.user:
            continue
        key = place(stack), stack.syscall or NO_CALL
        line = lines.setdefault(key, Line(f"{key[0]}, {key[1]}"))
        line.calls += stack.calls
        line.copied[stack.direction] += stack.bytes
    return sorted(lines.values(), key=lambda line: line.weight, reverse=True)


def place(stack: Stack) -> str:
    """The innermost function that is the program's own, as far as its name says.

    First of all code that a runtime has made and named; then a function of a program's or
    library's file, without those that only pass calls on.
    """
    return next(_candidates(stack.user), stack.user[0] if stack.user else "")


def _candidates(frames: Sequence[str]) -> Iterator[str]:
    made = [f for f in frames if not _OF_A_FILE.search(f) and not _PASSING_ON.search(f)]
    yield from (frame for frame in made if not _OF_A_RUNTIME.search(frame))
    in_files = [f for f in frames if (m := _OF_A_FILE.search(f)) and not _is_library(m)]
    yield from (frame for frame in in_files if not _OF_A_RUNTIME.search(frame))
    yield from made
    yield from in_files


def _is_library(match: re.Match[str]) -> bool:
    return bool(_LIBRARIES.search(match[1] or match[2]))
