"""One kernel, all strategies: the collector's phases in order.

observe → plan → load → attach → (activate → run → drain) … → detach. Runs as root next
to the kernel, on a host or in a guest; needs nothing from outside the distribution.
"""

from __future__ import annotations

import json
import os
import platform
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

from probes.catalogue import COPY_SITES, EVENT_SITES
from tracer import __version__, kernel, payload, perf, target
from tracer.errors import MissingError, TraceError, WorkloadError
from tracer.evidence import Evidence, Hits, Request, Run
from tracer.plan import AttachPlan, CopyAttachment, plan

Say = Callable[[str], None]
_HERE = Path(__file__).resolve().parent.parent


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


def collect(request: Request, say: Say) -> Evidence:
    """Do what is asked; ``say`` is told about every step. Raises ``ZctraceError``."""
    watch = Stopwatch(say)
    with watch.phase("observe", "looking at the kernel"):
        facts = kernel.observe(COPY_SITES, EVENT_SITES)
    with watch.phase("plan", "planning the probes"):
        attach_plan = plan(COPY_SITES, EVENT_SITES, facts)
    if request.plan_only:
        return _evidence(request, facts, attach_plan, {}, (), watch, "not loaded")
    watched = {event.site.quantity for event in attach_plan.events}
    if not {"syscall-enter", "syscall-exit"} <= watched:
        raise TraceError(
            f"Linux {facts.release} shows no tracepoints for system calls",
            "without them no window can be opened",
            "mount -t tracefs nodev /sys/kernel/tracing",
        )
    if facts.breakpoint:
        raise TraceError(
            f"Linux {facts.release} refuses breakpoints in its own code",
            facts.breakpoint,
            "another kernel, in a virtual machine: zctrace run --kernel 6.1",
        )
    with watch.phase("import", "loading BCC"):
        attach = _import_attach()
    with (
        payload.mounted(request) as file,
        target.cgroup(request.run_id, own_machine=request.machine != "host") as cgroup,
        attach.Meter(attach_plan, request.nonce, request.sabotage) as meter,
    ):
        with watch.phase("compile", "compiling the probes"):
            meter.load(_HERE / "probes")
        with watch.phase("attach", "attaching the probes"):
            meter.attach(cgroup)
        runs, rights = _perform(request, file, cgroup, meter, watch)
    return _evidence(
        request, facts, attach_plan, rights, tuple(runs), watch, attach.BCC_VERSION
    )


def _import_attach() -> Any:
    try:
        from tracer import attach
    except ImportError as error:
        raise MissingError(
            f"BCC's Python module cannot be imported: {error}",
            f"{sys.executable} has no module bcc",
            "apt-get install python3-bpfcc",
        ) from error
    return attach


def _perform(
    request: Request, file: Path, cgroup: Path, meter: Any, watch: Stopwatch
) -> tuple[list[Run], dict[str, Any]]:
    """All runs of all strategies, and the rights of the process that performed them."""
    runs = []
    with _Workload(request, file, cgroup) as workload:
        with watch.phase("start", "starting the strategies' process"):
            pids = workload.start()
            rights = target.rights(pids["sender"])
        for name in request.strategies:
            for index in range(request.repeat):
                nth = f", {index + 1} of {request.repeat}" if request.repeat > 1 else ""
                with watch.phase("run", f"running {name}{nth}"):
                    runs.append(_run(name, index, request, workload, meter))
    return runs, rights


def _run(name: str, index: int, request: Request, workload: _Workload, meter: Any) -> Run:
    meter.reset()
    hits, lost = meter.hits(), meter.lost()
    meter.activate()
    skipped = meter.skipped()
    outcome = workload.run(name)
    skips = {cause: count - skipped[cause] for cause, count in meter.skipped().items()}
    # Disarmed, a breakpoint's own count and its program's cannot drift apart any more.
    meter.deactivate()
    return Run(
        strategy=name,
        run_index=index,
        payload_bytes=request.size,
        chunk_bytes=request.chunk,
        received_bytes=outcome["received"],
        counts=tuple(meter.counts()),
        hits=_hits_since(hits, meter.hits()),
        lost={
            **{cause: count - lost[cause] for cause, count in meter.lost().items()},
            **skips,
            "cpus-unwatched": meter.unwatched_cpus(),
        },
        expected=outcome["expected"],
        neighbour=outcome["neighbour"],
    )


def _hits_since(before: dict[str, Hits], after: dict[str, Hits]) -> dict[str, Hits]:
    return {
        name: Hits(
            program=hits.program - before[name].program,
            perf=None if hits.perf is None else hits.perf - (before[name].perf or 0),
            multiplexed=hits.multiplexed,
        )
        for name, hits in after.items()
    }


class _Workload:
    """The strategies' process: unprivileged, in the cgroup, driven line by line."""

    def __init__(self, request: Request, file: Path, cgroup: Path) -> None:
        self._cgroup = cgroup
        command = [sys.executable, "-I", str(_HERE / "tracer" / "isolated.py"), "workloads"]
        command += request.strategies
        command += ["--file", str(file), "--size", str(request.size)]
        command += ["--repeat", str(request.repeat), "--nonce", str(request.nonce)]
        command += ["--controls", "--handshake"]
        if request.chunk is not None:
            command += ["--chunk", str(request.chunk)]
        if request.pipe_size is not None:
            command += ["--pipe-size", str(request.pipe_size)]
        try:
            self._process = subprocess.Popen(
                command,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                cwd="/",
                user=request.uid,
                group=request.gid,
                extra_groups=request.groups,
                text=True,
                env={"PATH": os.defpath, "LANG": "C.UTF-8"},
            )
        except OSError as error:
            raise WorkloadError(f"the strategies could not be started: {error}") from error

    def __enter__(self) -> _Workload:
        return self

    def __exit__(self, *_: object) -> None:
        self._process.kill()
        self._process.communicate()

    def start(self) -> dict[str, int]:
        """Let it start its peers, once it is in the cgroup; returns all pids by role."""
        (self._cgroup / "cgroup.procs").write_text(str(self._process.pid))
        pids: dict[str, int] = self._exchange("the start")["pids"]
        return pids

    def run(self, name: str) -> dict[str, Any]:
        """Let it perform the next transfer; returns its own account of it."""
        return self._exchange(name)

    def _exchange(self, doing: str) -> dict[str, Any]:
        stdin, stdout = self._pipe(self._process.stdin), self._pipe(self._process.stdout)
        try:
            stdin.write("go\n")
            stdin.flush()
        except BrokenPipeError:
            pass  # it died; its last words are on stderr
        answer = stdout.readline()
        if answer:
            message: dict[str, Any] = json.loads(answer)
            return message
        last_words = self._pipe(self._process.stderr).read().strip()
        status = self._process.wait()
        raise WorkloadError(
            f"{doing} failed: the strategies' process ended with status {status}",
            last_words.splitlines()[-1] if last_words else "it said nothing",
            "python -m workloads STRATEGY --file F runs one alone",
        )

    @staticmethod
    def _pipe(pipe: IO[str] | None) -> IO[str]:
        assert pipe is not None
        return pipe


def _evidence(
    request: Request,
    facts: kernel.KernelFacts,
    attach_plan: AttachPlan,
    rights: dict[str, Any],
    runs: tuple[Run, ...],
    watch: Stopwatch,
    bcc_version: str,
) -> Evidence:
    return Evidence(
        kernel=facts.to_json(),
        machine={
            "kind": request.machine,
            "cpu": facts.cpu,
            "cpus": len(perf.online_cpus()),
            "memory_bytes": os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"),
        },
        tool={
            "zctrace": __version__,
            "bcc": bcc_version,
            "python": platform.python_version(),
        },
        request=request,
        rights=rights,
        sites=tuple(_site(copy) for copy in attach_plan.copies),
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
        events=tuple(event.site.quantity for event in attach_plan.events),
        runs=runs,
        timings=watch.seconds,
    )


def _site(copy: CopyAttachment) -> dict[str, Any]:
    site = copy.site
    return {
        "quantity": site.quantity,
        "function": site.function,
        "kind": site.kind.value,
        "direction": site.direction.value if site.direction else None,
        "mechanism": copy.mechanism.value,
        "address": hex(copy.address),
        "exact": copy.exact,
        "paths": sorted(path.value for path in site.paths),
        "why": site.why,
        "note": copy.note,
    }


def write_json(path: Path, value: Any) -> None:
    """Whole or not at all: the reader on the other side polls for the file."""
    partial = path.with_suffix(".partial")
    partial.write_text(json.dumps(value))
    partial.replace(path)


def request_from(path: Path) -> Request:
    return Request.from_json(json.loads(path.read_text()))
