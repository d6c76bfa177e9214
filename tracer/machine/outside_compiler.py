"""Have BCC compile on this machine what a guest asks for: it takes seconds, there a minute.

A guest may run anything. Only our own text is compiled, with macros of the guest's; and what
comes of it goes to that guest, and later to guests of the same kernel.
"""

from __future__ import annotations

import re
import subprocess
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import zctrace.probes
from zctrace import trust
from zctrace.collect import compile_request, compiled, compiling
from zctrace.errors import ZctraceError
from zctrace.kernel import remembered
from zctrace.machine.initramfs import PYTHON

_PROBES = Path(zctrace.probes.__file__).parent
_MACRO = re.compile(r"[A-Z][A-Z0-9_]*(\([a-z]+\))?")
_CALL = 0x85
"""BPF_JMP | BPF_CALL."""
_OF_OLD_KERNELS = {4, 45}
"""bpf_probe_read and bpf_probe_read_str. BCC has them called instead of those that we name
where this machine's own kernel does not have these, or does not show its symbols."""
_MOST = 64
"""Requests of a guest; a run has one or two."""
_MALFORMED = (LookupError, TypeError, ValueError, AttributeError)


class OutsideCompiler:
    """Answers what a guest asks for in ``memory``; a context manager, and no thread.

    ``environment`` marks the compiler as the run's, so that it ends with it.
    """

    def __init__(self, memory: Path, environment: Mapping[str, str]) -> None:
        self._memory = memory
        self._environment = {"PATH": trust.SYSTEM_PATH, "LANG": "C.UTF-8", **environment}
        self._seen: set[str] = set()
        self._at_work: tuple[Path, compile_request.Wanted, compiled.Compiling] | None = None

    def __enter__(self) -> OutsideCompiler:
        if self._memory.is_dir():
            with suppress(OSError):
                compile_request.invite(self._memory)
        return self

    def __exit__(self, *_: object) -> None:
        if self._at_work:
            self._at_work[2].kill()

    def look(self) -> None:
        """To be called all the time: begins what was asked for, and answers it."""
        if self._at_work:
            request, wanted, work = self._at_work
            if work.process.poll() is None:
                return
            self._at_work = None
            self._answer(request, wanted, work)
        for request in compile_request.requests(self._memory):
            if request.name not in self._seen and len(self._seen) < _MOST:
                self._seen.add(request.name)
                self._begin(request)
                return

    def _begin(self, request: Path) -> None:
        try:
            wanted = compile_request.Wanted.from_json(remembered.read(request) or {})
            _check(wanted)
            work = compiled.Compiling(
                *(wanted.text, wanted.parameters, _PROBES, PYTHON),
                environment=self._environment,
                stderr=subprocess.DEVNULL,
            )
        except (OSError, *_MALFORMED):
            compile_request.refuse(request)
            return
        self._at_work = request, wanted, work

    def _answer(
        self, request: Path, wanted: compile_request.Wanted, work: compiled.Compiling
    ) -> None:
        """The guest compiles it itself where this machine cannot, and says why it cannot."""
        try:
            content = work.content()
            _check_result(content)
        except (ZctraceError, *_MALFORMED):
            compile_request.refuse(request)
            return
        remembered.write(
            compile_request.place(self._memory, wanted.key), {"key": wanted.key, **content}
        )


def _check(wanted: compile_request.Wanted) -> None:
    """Raises ``ValueError`` for another text than ours."""
    if not compiling.is_ours(_PROBES, wanted.text):
        raise ValueError("not of these sources")
    for name in wanted.parameters:
        if not _MACRO.fullmatch(name):
            raise ValueError(name)


def _check_result(content: dict[str, Any]) -> None:
    """Raises ``ValueError`` if it is not what every kernel from Linux 5.5 on would have got."""
    for name, code in compiled.Compiled.from_json(content).functions.items():
        for opcode, registers, _, number in compiled.INSTRUCTION.iter_unpack(code):
            if opcode == _CALL and not registers and number in _OF_OLD_KERNELS:
                raise ValueError(name)
