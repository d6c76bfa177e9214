"""What measuring strategies and tracing a program have in common, phase by phase.

observe → plan → load → attach → … → evidence. Part of collecting: the standard library.
"""

from __future__ import annotations

import json
import os
import platform
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from zctrace import probes
from zctrace._version import version
from zctrace.evidence.schema import Evidence, Hits, Request
from zctrace.evidence.sites import Site
from zctrace.kernel import facts as kernel
from zctrace.kernel import perf_events, text
from zctrace.kernel.symbols import SymbolTable
from zctrace.notices import Say
from zctrace.plan.attachments import AttachPlan
from zctrace.probes.model import Direction, Kind, Mechanism, Quantity
from zctrace.probes.user_functions import PROGRAM_COPIES
from zctrace.workloads import catalogue
from zctrace.workloads.prepared import NotPreparedError, staged

TRACING = "tracing; Ctrl-C ends it and reports"
"""The step that takes as long as a traced program does."""
SERVING = "serving windows"
"""Likewise, the step that takes as long as a command whose windows are traced."""
RUNNING = "running"
"""How the steps begin in which something is counted that takes only so long."""
SOCKET_NAME = "socket"
"""The socket for windows, in the folder of the request."""
TAKEN_OUT = "out-{}"
"""The name of a file that is taken out of a virtual machine, by its place in the list."""
ENVIRONMENT, STOP, OUTPUTS = "environment.json", "stop", ("stdout", "stderr")
"""Files in the folder of the request, for a traced command: its environment, which no other
user can read; a file that ends the tracing; in a guest, the command's output."""
INPUT, PIECES = "input.json", "input"
"""Likewise, in a guest: what its standard input is, and the folder for pieces of a stream."""
PROBES = Path(probes.__path__[0])
"""Where the programs for the kernel are, and the headers they are compiled against."""
_ISOLATED = Path(__file__).with_name("isolated.py")
_IS_COPY = _ISOLATED.parents[1].name == "zctrace"
"""And no checkout, which Python finds by its list of installed packages."""
MEMORY = "observed"
"""The folder of facts about kernels, next to the staged packages; may be missing."""
OBSERVED = Path(__file__).resolve().parents[3] / MEMORY
"""That of the copy that this is."""


def isolated(module: str) -> list[str]:
    """The command that runs a module of this package with nothing else having a say.

    It sees the standard library, and from a checkout what else is installed.
    """
    return [sys.executable, "-I", *(["-S"] if _IS_COPY else []), str(_ISOLATED), module]


class Stopwatch:
    """Seconds spent per phase; announces each phase when it begins."""

    def __init__(self, say: Say) -> None:
        self._say = say
        self.seconds: dict[str, float] = {}

    @contextmanager
    def phase(self, name: str, announcement: str = "") -> Iterator[None]:
        self._say(announcement or name)
        began = time.monotonic()
        try:
            yield
        finally:
            self.seconds[name] = self.seconds.get(name, 0.0) + time.monotonic() - began


class Locator:
    """Names the functions around addresses, from symbols that are read when first needed."""

    def __init__(self) -> None:
        self._symbols: SymbolTable | None = None

    def __call__(self, address: int) -> str:
        if self._symbols is None:
            self._symbols = SymbolTable(text.KALLSYMS.read_bytes())
        return self._symbols.locate(address)


def hits_since(before: dict[str, Hits], after: dict[str, Hits]) -> dict[str, Hits]:
    return {
        name: Hits(
            program=hits.program - before[name].program,
            perf=None if hits.perf is None else hits.perf - (before[name].perf or 0),
            multiplexed=hits.multiplexed,
            shared=hits.shared,
        )
        for name, hits in after.items()
    }


def _performer_versions() -> dict[str, str]:
    """The versions of what others than this program performed strategies with."""
    versions: dict[str, str] = {}
    for performer in catalogue.performers():
        with suppress(NotPreparedError):
            if prepared := staged(performer.key):
                versions |= prepared.versions
    return versions


def evidence_of(
    request: Request,
    facts: kernel.KernelFacts,
    attach_plan: AttachPlan,
    refused: dict[int, list[str]],
    watch: Stopwatch,
    bcc_version: str,
    *,
    user_memory: bool = False,
    **results: Any,
) -> Evidence:
    """What is to be said whatever was measured, and ``results``, members of evidence.

    ``user_memory`` is whether copies within a program's own memory were watched.
    """
    return Evidence(
        kernel=facts.to_json(),
        machine={
            "kind": request.machine,
            "cpu": facts.cpu,
            "cpus": len(perf_events.online_cpus()),
            "memory_bytes": os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"),
        },
        tool={
            "zctrace": version(),
            "bcc": bcc_version,
            "python": platform.python_version(),
            **_performer_versions(),
        },
        request=request,
        sites=tuple(sites(attach_plan, refused, user_memory=user_memory)),
        blind=attach_plan.blind,
        events=tuple(dict.fromkeys(event.site.quantity for event in attach_plan.events)),
        hooks=tuple(attachment.hook.quantity for attachment in attach_plan.hooks),
        timings=watch.seconds,
        **results,
    )


def sites(
    attach_plan: AttachPlan, refused: dict[int, list[str]], *, user_memory: bool = False
) -> Iterator[Site]:
    """What evidence says of everything that counts copies; ``refused`` as a meter has it."""
    for call in attach_plan.calls:
        target, not_probed = call.target, refused.get(call.number, [])
        yield Site(
            quantity=target.quantity,
            function=target.function,
            kind=Kind.COPY,
            purpose=target.purpose,
            direction=target.direction,
            mechanism=Mechanism.CALL_SITE,
            breakpoint=target.breakpoint,
            callers=len(call.calls) - len(not_probed),
            unreached=(*(c.name for c in call.unreached), *not_probed),
            paths=target.paths,
            why=target.why,
        )
    for copy in attach_plan.copies:
        yield Site(
            quantity=copy.site.quantity,
            function=copy.site.function,
            kind=copy.kind,
            direction=copy.site.direction,
            mechanism=copy.mechanism,
            address=hex(copy.address),
            exact=copy.exact,
            paths=copy.site.paths,
            why=copy.site.why,
            note=copy.note,
        )
    for function in PROGRAM_COPIES if user_memory else ():
        yield Site(
            quantity=Quantity.USER_MEMORY,
            function=function.function,
            kind=Kind.COPY,
            direction=Direction.USER_TO_USER,
            mechanism=Mechanism.UPROBE,
            # None of the kernel's.
            paths=frozenset(),
            why=function.why,
        )


def write_json(path: Path, value: Any) -> None:
    """Whole or not at all: the reader on the other side polls for the file."""
    partial = path.with_suffix(".partial")
    partial.write_text(json.dumps(value))
    partial.replace(path)


def request_from(path: Path) -> Request:
    return Request.from_json(json.loads(path.read_text()))
