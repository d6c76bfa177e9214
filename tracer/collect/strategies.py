"""One kernel, all strategies: the collector's phases in order.

mount → observe → plan → load → attach → (activate → run → drain) … → detach. Runs as root next
to the kernel, on a host or in a guest; needs nothing from outside the distribution.
"""

from __future__ import annotations

import dataclasses
import functools
import itertools
import json
import os
import subprocess
from collections.abc import Callable, Iterator
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

from zctrace.collect import captures, cgroups, disk, network, open_files, payload
from zctrace.collect.attached import attached, survey
from zctrace.collect.describe import RUNNING, Stopwatch, evidence_of, hits_since, isolated
from zctrace.collect.disk import Disk
from zctrace.errors import WorkloadError
from zctrace.evidence import devices
from zctrace.evidence.devices import DiskFacts, NicFacts
from zctrace.evidence.schema import COLD, UNWATCHED, Count, Evidence, Request, Run, Setting
from zctrace.notices import Say
from zctrace.probes.catalogue import CATALOGUE
from zctrace.probes.model import Direction, Mechanism, Quantity
from zctrace.workloads import marker, peers
from zctrace.workloads.catalogue import strategy_named
from zctrace.workloads.outcome import Outcome
from zctrace.workloads.strategy import performers_of

_ATTEMPTS = 5
_READ, _OTHER = Quantity.DISK_READ, Quantity.DISK_READ_OTHER


def collect(request: Request, say: Say) -> Evidence:
    """Do what is asked; ``say`` gets every step. Raises ``ZctraceError``."""
    watch = Stopwatch(say)
    # First the file systems: what they are made of may be modules, with call sites.
    with payload.mounted(request) as files:
        found = survey(CATALOGUE, request, watch)
        if request.plan_only:
            return evidence_of(
                *(request, found.facts, found.plan, {}, watch, "not loaded"), rights={}
            )
        found.require(request)
        user_copies = request.user_copies if _copies_by_itself(request) else None
        with attached(request, found, watch, user_copies_from=user_copies) as instrument:
            performed = _perform(request, files, instrument.cgroup, instrument.meter, watch)
            return instrument.evidence(
                request,
                watch,
                user_memory=performed.user_memory,
                rights=performed.rights,
                disks=performed.disks,
                nics=performed.nics,
                runs=tuple(performed.runs),
            )


def _copies_by_itself(request: Request) -> bool:
    """Whether any of the strategies may copy within its own memory."""
    names = {name for setting in request.settings for name in setting.strategies}
    return any(strategy_named(name).user_memory for name in names)


@dataclass
class _Performed:
    """What came of a request: the runs, and what they were done with."""

    runs: list[Run] = field(default_factory=list)
    rights: dict[str, Any] = field(default_factory=dict)
    user_memory: bool = False
    disks: dict[str, DiskFacts] = field(default_factory=dict)
    nics: dict[str, NicFacts] = field(default_factory=dict)


def _perform(
    request: Request, files: dict[str, Path], cgroup: Path, meter: Any, watch: Stopwatch
) -> _Performed:
    """All runs of all strategies, in every setting."""
    performed = _Performed()
    disks = {
        (kind, size): disk.under(file, size)
        for kind, file in files.items()
        for size in request.sizes
    }
    for (kind, _), found in disks.items():
        performed.disks[kind] = found.facts()
    for setting in request.settings:
        with ExitStack() as stack:
            with watch.phase("wire", f"laying the cable: {setting.nic}"):
                if request.to:
                    wire = network.outward(setting.nic)
                else:
                    wire = stack.enter_context(network.wired(devices.NICS[setting.nic]))
            performed.nics[setting.nic] = wire.facts()
            meter.set_ends(wire.ends)
            workload = stack.enter_context(_Workload(request, setting, files, cgroup, wire))
            with watch.phase("start", "starting the strategies' process"):
                pids = workload.start()
                performed.rights = cgroups.rights(pids[marker.RoleName.SENDER])
            performers = performers_of(map(strategy_named, setting.strategies))
            for role in {performer.role for performer in performers} & pids.keys():
                with watch.phase("probe", f"probing the {role}"):
                    meter.watch_user_memory(pids[role])
                performed.user_memory = True
            for size, name in itertools.product(request.sizes, setting.strategies):
                of = f", {size} B" if len(request.sizes) > 1 else ""
                over = f" over {setting.nic}" if len(request.settings) > 1 else ""
                for index in range(request.repeat):
                    nth = f", {index + 1} of {request.repeat}" if request.repeat > 1 else ""
                    with watch.phase("run", f"{RUNNING} {name}{over}{of}{nth}"):
                        attempt = functools.partial(
                            _attempt,
                            *(name, size, index, setting, request, workload, meter, disks),
                        )
                        performed.runs.append(_repeated(attempt, setting, request, workload))
    return performed


def _repeated(
    attempt: Callable[[], Run], setting: Setting, request: Request, workload: _Workload
) -> Run:
    """One run in which nothing was lost, or the last of several.

    The kernel skips our programs for an interrupt that arrives while one of them runs, and for
    all that the interrupt leads to. Skips are counted, and the run is repeated. A transfer over
    a network device is repeated, too, if TCP sent a part twice. Over loopback, where that is
    common, the run stays.
    """
    for number in itertools.count(1):
        run = attempt()
        lossless = all(hits.agree for hits in run.hits.values()) and not run.losses
        twice = setting.nic != devices.LOOPBACK and run.account.sent_again
        # More arrived than was seen leaving: an interrupt on top of a probe, which neither
        # its program nor its counter has seen.
        unseen = (
            run.account.retransmitted_bytes is not None
            and run.moved(Quantity.TRANSMIT_PAYLOAD, run.role) < run.arrived_bytes
        )
        last = (
            (lossless and not twice and not unseen)
            or run.unavailable
            or request.sabotage
            or number == _ATTEMPTS
        )
        workload.answer(again=not last)
        if last:
            return dataclasses.replace(run, attempts=number)
    raise AssertionError


def _attempt(
    name: str,
    size: int,
    index: int,
    setting: Setting,
    request: Request,
    workload: _Workload,
    meter: Any,
    disks: dict[tuple[str, int], Disk],
) -> Run:
    meter.reset()
    meter.follow_cpus()
    hits, lost = meter.hits(), meter.lost()
    meter.activate()
    skipped = meter.skipped()
    answer = workload.run(name)
    outcome, file_system = Outcome.from_json(answer), answer["file_system"]
    skips = {cause: count - skipped[cause] for cause, count in meter.skipped().items()}
    # Disarmed, a breakpoint's own count and its program's cannot drift apart any more.
    meter.deactivate()
    under, counts = disks[file_system, size], meter.counts()
    return Run(
        strategy=name,
        role=marker.role_name(strategy_named(name).role),
        file_system=file_system,
        nic=setting.nic,
        cache=setting.cache,
        run_index=index,
        payload_bytes=size,
        chunk_bytes=request.chunk,
        received_bytes=outcome.received,
        counts=(*counts, *_disk_counts(meter, under), *_mapped_counts(meter)),
        hits=hits_since(hits, meter.hits()),
        lost={
            **{cause: count - lost[cause] for cause, count in meter.lost().items()},
            **skips,
            UNWATCHED: meter.unwatched_cpus(),
        },
        expected=outcome.controls.expected,
        neighbour=outcome.controls.neighbour,
        account=outcome.account,
        unavailable=outcome.unavailable,
        user_copies_from=request.user_copies if strategy_named(name).user_memory else None,
        captures=captures.behind(counts),
    )


def _disk_counts(meter: Any, under: Disk) -> Iterator[Count]:
    """The requests to the payload's disk, by whether they are for payload."""
    total: dict[tuple[marker.RoleName, Quantity, str], list[int]] = {}
    for request in meter.requests():
        if request.device != under.number:
            continue
        reads, metadata = request.operation.startswith("R"), "M" in request.operation
        if not reads:
            parts = {Quantity.DISK_WRITE: request.bytes}
        elif under.extents is None:
            parts = {(_OTHER if metadata else _READ): request.bytes}
        else:
            inside = disk.overlap(under.extents, request.start, request.bytes)
            parts = {_READ: inside, _OTHER: request.bytes - inside}
        for quantity, many in parts.items():
            if many:
                cell = total.setdefault((request.role, quantity, request.operation), [0, 0])
                cell[0] += request.times
                cell[1] += request.times * many
    for (role, quantity, operation), (times, many) in total.items():
        yield Count(
            role=role,
            quantity=quantity,
            function="block:block_rq_issue",
            mechanism=Mechanism.TRACEPOINT,
            direction=(
                Direction.KERNEL_TO_DEVICE if quantity is Quantity.DISK_WRITE
                else Direction.DEVICE_TO_KERNEL
            ),
            syscall=None,
            caller=f"{under.device} {operation}",
            calls=times,
            bytes=many,
        )  # fmt: skip


def _mapped_counts(meter: Any) -> Iterator[Count]:
    """What drivers mapped for DMA while watched work was unsettled, for all processes."""
    for mapped in meter.mappings():
        for direction in mapped.direction:
            yield Count(
                role=marker.RoleName.EVERYBODY,
                quantity=Quantity.DMA_MAPPED,
                function="dma_map",
                mechanism=Mechanism.KPROBE,
                direction=direction,
                syscall=None,
                caller=mapped.device,
                calls=mapped.calls,
                bytes=mapped.bytes,
            )


class _Workload:
    """The strategies' process: unprivileged, in the cgroup, driven line by line."""

    def __init__(
        self,
        request: Request,
        setting: Setting,
        files: dict[str, Path],
        cgroup: Path,
        wire: network.Wire,
    ) -> None:
        self._cgroup = cgroup
        command = isolated("zctrace.workloads")
        command += setting.strategies
        for kind, file in files.items():
            command += ["--file", f"{kind}={file}"]
        for size in request.sizes:
            command += ["--size", str(size)]
        command += ["--repeat", str(request.repeat), "--controls", "--handshake"]
        if request.chunk is not None:
            command += ["--chunk", str(request.chunk)]
        if request.pipe_size is not None:
            command += ["--pipe-size", str(request.pipe_size)]
        if setting.cache == COLD:
            command += ["--cold"]
        if request.to:
            command += ["--to", request.to]
        # A socket belongs to the namespace that it was made in; these are the peer's.
        listeners = [
            wire.listen(make) for make in (peers.listen_as_sink, peers.listen_as_source)
        ]
        command += ["--sink", str(listeners[0].fileno())]
        command += ["--source", str(listeners[1].fileno())]
        try:
            with wire.subject():
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
                    env={
                        **{"PATH": os.defpath, "LANG": "C.UTF-8"},
                        marker.NONCE: str(request.nonce),
                    },
                    pass_fds=[listener.fileno() for listener in listeners],
                )
                open_files.limit_as_found(self._process.pid)
        except OSError as error:
            raise WorkloadError(f"the strategies could not be started: {error}") from error
        finally:
            for listener in listeners:
                listener.close()

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

    def answer(self, *, again: bool) -> None:
        """Have the run before repeated, or not."""
        stdin = self._pipe(self._process.stdin)
        with suppress(BrokenPipeError):
            stdin.write("again\n" if again else "on\n")
            stdin.flush()

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
            "python -m zctrace.workloads STRATEGY --file F runs one alone",
        )

    @staticmethod
    def _pipe(pipe: IO[str] | None) -> IO[str]:
        assert pipe is not None
        return pipe
