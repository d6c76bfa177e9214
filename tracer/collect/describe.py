"""What measuring strategies and tracing a program have in common, phase by phase.

observe → plan → load → attach → … → evidence. Part of collecting: the standard library.
"""

from __future__ import annotations

import json
import os
import platform
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from zctrace import probes
from zctrace._version import __version__
from zctrace.errors import MissingError, TraceError
from zctrace.evidence.schema import Evidence, Hits, Request
from zctrace.kernel import facts as kernel
from zctrace.kernel import perf_events, text
from zctrace.kernel.symbols import SymbolTable
from zctrace.plan.attachments import AttachPlan, CallAttachment, Choice, CopyAttachment
from zctrace.probes.model import Direction, Kind, Mechanism, Purpose, Quantity
from zctrace.probes.user_functions import USER_COPIES
from zctrace.workloads.jvm import java, netty

Say = Callable[[str], None]
TRACING = "tracing; Ctrl-C ends it and reports"
"""The step that takes as long as a traced program does."""
SERVING = "serving windows"
"""Likewise, the step that takes as long as a command whose windows are traced."""
SOCKET_NAME = "socket"
"""That of windows, beside the request."""
ENVIRONMENT, STOP, OUTPUTS = "environment.json", "stop", ("stdout", "stderr")
"""Files beside the request for a traced command: its environment, which is nobody else's
business; one whose being there ends the tracing; what it prints, in a guest."""
PROBES = Path(probes.__path__[0])
"""Where the programs for the kernel are, and the headers they are compiled against."""
ISOLATED = str(Path(__file__).with_name("isolated.py"))
"""What runs a module of this package with nothing else having a say."""


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


def require(facts: kernel.KernelFacts, attach_plan: AttachPlan, choice: Choice) -> None:
    watched = {event.site.quantity for event in attach_plan.events}
    if not {Quantity.SYSCALL_ENTER, Quantity.SYSCALL_EXIT} <= watched:
        raise TraceError(
            f"Linux {facts.release} shows no tracepoints for system calls",
            "without them no window can be opened",
            "mount -t tracefs nodev /sys/kernel/tracing",
        )
    if facts.breakpoint and choice is not Choice.CALL_SITE:
        raise TraceError(
            f"Linux {facts.release} refuses breakpoints in its own code",
            facts.breakpoint,
            "--mechanism callsite, with nothing to agree with; or another kernel, in a "
            "virtual machine: zctrace run --kernel 6.1",
        )
    if choice is Choice.CALL_SITE and not attach_plan.calls:
        raise TraceError(
            f"Linux {facts.release} lets no call of a copying function be watched",
            facts.text or "none was found",
            "another kernel, in a virtual machine: zctrace run --kernel 6.1",
        )


class Locator:
    """Names the functions around addresses, from symbols that are read when first needed."""

    def __init__(self) -> None:
        self._symbols: SymbolTable | None = None

    def __call__(self, address: int) -> str:
        if self._symbols is None:
            self._symbols = SymbolTable(text.KALLSYMS.read_bytes())
        return self._symbols.locate(address)


def import_attach() -> Any:
    try:
        from zctrace.collect import meter
    except ImportError as error:
        raise MissingError(
            f"BCC's Python module cannot be imported: {error}",
            f"{sys.executable} has no module bcc",
            "apt-get install python3-bpfcc",
        ) from error
    return meter


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


def _java() -> dict[str, str]:
    """The versions of what strategies of Java were performed with, if any were."""
    versions = {}
    with suppress(java.NoJavaError, netty.NoNettyError):
        if built := java.staged():
            versions["java"] = built.jdk.version
        if netty.staged():
            versions["netty"] = netty.version()
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
            "zctrace": __version__,
            "bcc": bcc_version,
            "python": platform.python_version(),
            **_java(),
        },
        request=request,
        sites=(*describe(attach_plan, refused), *(user_sites() if user_memory else ())),
        blind=tuple(
            {
                "quantity": blind.quantity,
                "functions": list(blind.functions),
                "reason": blind.reason,
                "paths": sorted(path.value for path in blind.paths),
                "kind": blind.kind.value,
            }
            for blind in attach_plan.blind
        ),
        events=tuple(dict.fromkeys(event.site.quantity for event in attach_plan.events)),
        hooks=tuple(attachment.hook.quantity for attachment in attach_plan.hooks),
        timings=watch.seconds,
        **results,
    )


def describe(attach_plan: AttachPlan, refused: dict[int, list[str]]) -> list[dict[str, Any]]:
    """What evidence says of everything that counts copies; ``refused`` as a meter has it."""
    calls = [_target(call, refused.get(call.number, [])) for call in attach_plan.calls]
    return [*calls, *(_site(copy) for copy in attach_plan.copies)]


def _site(copy: CopyAttachment) -> dict[str, Any]:
    site = copy.site
    return {
        "quantity": site.quantity,
        "function": site.function,
        "kind": copy.kind.value,
        "purpose": Purpose.PAYLOAD.value,
        "direction": site.direction.value if site.direction else None,
        "mechanism": copy.mechanism.value,
        "address": hex(copy.address),
        "exact": copy.exact,
        "breakpoint": "",
        "callers": None,
        "unreached": [],
        "paths": sorted(path.value for path in site.paths),
        "why": site.why,
        "note": copy.note,
    }


def user_sites() -> list[dict[str, Any]]:
    return [
        {
            "quantity": Quantity.USER_MEMORY,
            "function": copy.function,
            "kind": Kind.COPY.value,
            "purpose": Purpose.PAYLOAD.value,
            "direction": Direction.USER_TO_USER.value,
            "mechanism": Mechanism.UPROBE.value,
            "address": None,
            "exact": True,
            "breakpoint": "",
            "callers": None,
            "unreached": [],
            # None of the kernel's.
            "paths": [],
            "why": copy.why,
            "note": "",
        }
        for copy in USER_COPIES
    ]


def _target(call: CallAttachment, refused: list[str]) -> dict[str, Any]:
    target = call.target
    return {
        "quantity": target.quantity,
        "function": target.function,
        "kind": Kind.COPY.value,
        "purpose": target.purpose.value,
        "direction": target.direction.value,
        "mechanism": Mechanism.CALL_SITE.value,
        "address": None,
        "exact": True,
        "breakpoint": target.breakpoint,
        "callers": len(call.calls) - len(refused),
        "unreached": [*(c.name for c in call.unreached), *refused],
        "paths": sorted(path.value for path in target.paths),
        "why": target.why,
        "note": "",
    }


def write_json(path: Path, value: Any) -> None:
    """Whole or not at all: the reader on the other side polls for the file."""
    partial = path.with_suffix(".partial")
    partial.write_text(json.dumps(value))
    partial.replace(path)


def request_from(path: Path) -> Request:
    return Request.from_json(json.loads(path.read_text()))
