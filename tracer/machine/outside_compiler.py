"""Have BCC compile on this machine what a guest asks for: it takes seconds, there a minute.

A guest may run anything. Only our own text is compiled, with macros of the guest's that are
numbers or compare some. What comes of it goes to that guest, and later to guests of the same
kernel.
"""

from __future__ import annotations

import os
import re
import resource
import subprocess
import time
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple

import zctrace.probes
from zctrace import trust
from zctrace.collect import compile_request, compiled, compiling
from zctrace.collect.compile_request import LONGEST_SECONDS, Wanted
from zctrace.errors import ZctraceError
from zctrace.kernel import remembered
from zctrace.machine.initramfs import PYTHON

_PROBES = Path(zctrace.probes.__file__).parent
_NUMBER = r"(?:0x[0-9a-f]++|[0-9]++)(?:ULL|U)?+"
_CONSTANT = re.compile(rf"{_NUMBER}|SETTING\({_NUMBER}\)")
_CONDITION = re.compile(rf"(?:role|kind|{_NUMBER}|[()=|?: ])++")
_NAME = re.compile(r"[A-Z][A-Z0-9_]*+")
_CONDITIONS = {
    *("IS_TRACKED(role)", "PEER_OF(role)"),
    *("IS_USER_ITER(kind)", "IS_DISCARD_ITER(kind)", "IS_PIPE_ITER(kind)"),
}
"""Macros with an argument."""
SIZES = re.compile(
    r"MAX_\w++|RUNNING_FIGURES|MORE_THREADS|THREAD_SLOTS|COMPAT_CALLS|LOST_CAUSES"
)
"""How many entries tables have: BCC has this machine's kernel make them, for a moment."""
MOST_ENTRIES = 1 << 16
_LONGEST_VALUE = 200
_CALL = 0x85
"""BPF_JMP | BPF_CALL."""
_OF_OLD_KERNELS = {4, 45}
"""bpf_probe_read and bpf_probe_read_str. BCC has them called instead of those that we name
where this machine's own kernel does not have these, or does not show its symbols."""
_MOST = 64
"""Requests of a guest; a run has one or two."""
_LIMITS = {
    resource.RLIMIT_AS: 1 << 30,
    resource.RLIMIT_CPU: int(LONGEST_SECONDS),
    resource.RLIMIT_FSIZE: 16 << 20,
}
"""Of the compiler: many times of what it takes."""
_MALFORMED = (LookupError, TypeError, ValueError, AttributeError)


class _Work(NamedTuple):
    """A request that is being compiled, until ``deadline``."""

    request: Path
    key: str
    compiling: compiled.Compiling
    deadline: float


class OutsideCompiler:
    """Answers what a guest asks for in the folder ``memory``; a context manager, and no thread.

    To be entered before the guest runs: it stays with this folder, whatever a guest puts in
    its place. ``environment`` marks the compiler as the run's, so that it ends with it.
    """

    def __init__(self, memory: Path, environment: Mapping[str, str]) -> None:
        self._folder = memory
        self._environment = {"PATH": trust.SYSTEM_PATH, "LANG": "C.UTF-8", **environment}
        self._descriptor: int | None = None
        self._seen: set[tuple[str, int, int]] = set()
        self._many = 0
        self._at_work: _Work | None = None

    def __enter__(self) -> OutsideCompiler:
        flags = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
        with suppress(OSError):
            descriptor = os.open(self._folder, flags)
            try:
                self._folder = Path(f"/proc/self/fd/{descriptor}")
                compile_request.invite(self._folder)
            except OSError:
                os.close(descriptor)
            else:
                self._descriptor = descriptor
        return self

    def __exit__(self, *_: object) -> None:
        if self._at_work:
            self._at_work.compiling.kill()
        self._end()

    def look(self) -> None:
        """Begins what was asked for, or answers it; to be called again and again."""
        if self._descriptor is None:
            return
        if self._at_work:
            self._go_on(self._at_work)
            return
        there: list[Path] = []
        with suppress(OSError):
            there = compile_request.requests(self._folder)
        asked = {}
        for request in there:
            with suppress(OSError):
                about = request.lstat()
                # The same may be asked again, as soon as it was answered.
                asked[request.name, about.st_ino, about.st_mtime_ns] = request
        self._seen &= asked.keys()
        for key, request in asked.items():
            if key not in self._seen:
                self._seen.add(key)
                self._begin(request)
                return

    def _begin(self, request: Path) -> None:
        self._many += 1
        if self._many > _MOST:
            self._refuse(request)
            return
        try:
            wanted = Wanted.from_json(remembered.read(request) or {})
            _check(wanted)
            work = compiled.Compiling(
                *(wanted.text, wanted.parameters, _PROBES, PYTHON),
                environment=self._environment,
                stderr=subprocess.DEVNULL,
            )
        except (OSError, *_MALFORMED):
            self._refuse(request)
            return
        self._at_work = _Work(request, wanted.key, work, time.monotonic() + LONGEST_SECONDS)
        for limit, most in _LIMITS.items():
            with suppress(OSError):
                _, hard = resource.prlimit(work.process.pid, limit)
                least = most if hard == resource.RLIM_INFINITY else min(most, hard)
                resource.prlimit(work.process.pid, limit, (least, least))

    def _go_on(self, work: _Work) -> None:
        """The guest compiles it itself where this machine cannot, and says why it cannot."""
        ended = work.compiling.process.poll() is not None
        if not ended and work.request.exists() and time.monotonic() < work.deadline:
            return
        self._at_work = None
        if not ended:
            work.compiling.kill()
            self._refuse(work.request)
            return
        kept = compile_request.place(self._folder, work.key)
        try:
            content = work.compiling.content()
            _check_result(content)
            if not remembered.write(kept, {"key": work.key, **content}):
                raise ValueError(kept)
        except (ZctraceError, *_MALFORMED):
            self._refuse(work.request)

    def _refuse(self, request: Path) -> None:
        if not compile_request.refuse(request):
            self._end()

    def _end(self) -> None:
        if self._descriptor is not None:
            with suppress(OSError):
                compile_request.end(self._folder)
            os.close(self._descriptor)
            self._descriptor = None


def _check(wanted: Wanted) -> None:
    """Raises ``ValueError`` for what is not compiled of our own files."""
    if wanted.sources != compiled.sources(_PROBES):
        raise ValueError("other header files")
    if not compiling.is_ours(_PROBES, wanted.text):
        raise ValueError("another text")
    for name, value in wanted.parameters.items():
        if not _is_allowed(name, value):
            raise ValueError(name, value)


def _is_allowed(name: str, value: str) -> bool:
    if len(value) > _LONGEST_VALUE:
        return False
    if SIZES.fullmatch(name):
        return value.isascii() and value.isdecimal() and int(value) <= MOST_ENTRIES
    if name in _CONDITIONS:
        return bool(_CONDITION.fullmatch(value))
    return bool(_NAME.fullmatch(name) and _CONSTANT.fullmatch(value))


def _check_result(content: dict[str, Any]) -> None:
    """Raises ``ValueError`` if it is not what every kernel from Linux 5.5 on would have got."""
    for name, code in compiled.Compiled.from_json(content).functions.items():
        for opcode, registers, _, number in compiled.INSTRUCTION.iter_unpack(code):
            if opcode == _CALL and not registers and number in _OF_OLD_KERNELS:
                raise ValueError(name)
