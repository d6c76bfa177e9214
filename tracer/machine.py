"""Where a kernel is measured: this host, or a virtual machine; and how to ask it."""

from __future__ import annotations

import dataclasses
import json
import os
import secrets
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from probes.catalogue import CATALOGUE, EVENT_SITES
from probes.site import Kind
from probes.site import Path as DataPath
from tracer import errors, kernel, kernels, stage, target, vm
from tracer.errors import KernelError, MissingError, ResourceError
from tracer.evidence import USER_COPIES, Evidence, Request, Setting
from tracer.guardian import RunFolder, guarded
from tracer.phases import SERVING, TRACING
from tracer.plan import Choice, plan
from tracer.wiring import HARDWARE_ADDRESSES, NICS, Nic
from workloads.catalogue import strategy_named
from workloads.jvm import java, netty
from workloads.jvm.process import Jvm
from workloads.jvm.strategies import Netty

Say = Callable[[str], None]

AUTO, HOST = "auto", "host"
SHARE = "run"
"""The folder, in that of the run, in which the two halves talk to each other."""
ARCHITECTURE = "x86_64"
SYSTEM_PATH = f"{os.defpath}:/usr/sbin:/sbin"
"""Where the system's own programs are, whatever the caller's PATH says."""
MODULES = (("bcc", "python3-bpfcc"), ("capstone", "python3-capstone"))
"""What collecting imports beside the standard library, and Debian's packages of it."""
_DISK_RESERVE = 64 << 20
_TURN_BYTES = 2048
"""One turn of a chunked loop takes as long as moving these."""
FILE_SYSTEMS = {
    "ext4": ("mkfs.ext4 -q -F", "e2fsprogs", 0),
    "xfs": ("mkfs.xfs -q -f", "xfsprogs", 320 << 20),
    "btrfs": ("mkfs.btrfs -q -f", "btrfs-progs", 128 << 20),
    "tmpfs": ("", "", 0),
}
"""How each is made (empty: by mounting it), Debian's package for that, and the least size
in bytes that it takes."""
_ORDERLY_SECONDS = 10


@dataclass(frozen=True)
class Place:
    """A kernel to measure: the host's own, where ``kernel`` is ``None``.

    ``instead`` says why it is not the host's although that was the first choice.
    """

    kernel: kernels.Kernel | None
    instead: str = ""


@dataclass(frozen=True)
class Options:
    """What to run; sizes in bytes, ``None`` for the default.

    ``file`` and ``to`` are the user's own file and where to send it. ``everything`` is
    whether nobody has asked for the settings' devices, so that others may stand for them.
    """

    settings: tuple[Setting, ...]
    sizes: tuple[int, ...]
    chunk: int | None = None
    pipe_size: int | None = None
    user_copies: int = USER_COPIES
    repeat: int = 1
    file_systems: tuple[str, ...] = ("ext4",)
    mechanism: str = Choice.AUTO.value
    plan_only: bool = False
    sabotage: tuple[str, ...] = ()
    keep: bool = False
    file: Path | None = None
    to: str = ""
    everything: bool = False
    boot_seconds: float = vm.BOOT_SECONDS

    @property
    def strategies(self) -> tuple[str, ...]:
        """All that are performed, each once."""
        return tuple(dict.fromkeys(name for s in self.settings for name in s.strategies))

    @property
    def nics(self) -> tuple[Nic, ...]:
        """All of zctrace's own that are used, each once."""
        names = dict.fromkeys(setting.nic for setting in self.settings)
        return tuple(NICS[name] for name in names if name in NICS)

    @property
    def size(self) -> int:
        """The largest of the payloads: what room is made for."""
        return max(self.sizes)

    @property
    def java_bytes(self) -> int:
        """Memory for the Java virtual machine; 0 where no strategy needs one."""
        if not any(isinstance(strategy_named(n).performer, Jvm) for n in self.strategies):
            return 0
        return java.process_bytes(min(self.chunk or self.size, self.size))

    @property
    def work(self) -> int:
        """How much there is to do in a step, in bytes that would take as long."""
        turns = self.size // self.chunk if self.chunk else 0
        return self.size + turns * _TURN_BYTES


class Limits(Protocol):
    """How long a collector may take, and whether its logs are kept if it fails."""

    @property
    def work(self) -> int: ...
    @property
    def boot_seconds(self) -> float: ...
    @property
    def keep(self) -> bool: ...


def find_place(name: str, say: Say) -> Place:
    """The place that ``--kernel name`` means. Needs root; may fetch a kernel."""
    if name == HOST:
        return Place(None)
    if name == AUTO:
        reasons = why_not_host()
        if not reasons:
            return Place(None)
        return Place(kernels.stock(say), "; ".join(reasons))
    return Place(kernels.resolve(name, say))


def why_not_host(facts: kernel.KernelFacts | None = None) -> list[str]:
    """Why this machine's own kernel cannot be measured; empty where it can.

    ``facts`` about it, where they are known already; otherwise the kernel is asked.
    """
    facts = facts or kernel.observe(CATALOGUE)
    attach_plan = plan(CATALOGUE, facts)
    paths = frozenset({DataPath.FILE, DataPath.PIPE, DataPath.TCP})
    blind = dict.fromkeys(b.reason for b in attach_plan.blind_for(paths))
    counting = [copy for copy in attach_plan.copies if copy.kind is Kind.COPY]
    reasons = [*blind, *(copy.note for copy in counting if not copy.exact)]
    unseen = [
        site.tracepoint for site in EVENT_SITES if site.tracepoint not in facts.tracepoints
    ]
    if unseen:
        reasons.append(f"tracepoints are missing ({unseen[0]}, …): tracefs is not mounted")
    return reasons


def has_module(name: str) -> bool:
    """Whether the distribution's Python, which collects, has a module."""
    look = f"import importlib.util as u; raise SystemExit(u.find_spec({name!r}) is None)"
    try:
        return subprocess.run([vm.PYTHON, "-I", "-c", look]).returncode == 0
    except FileNotFoundError:
        return False


def require_architecture() -> None:
    """Raise :class:`KernelError` on a processor whose registers zctrace does not know."""
    architecture = os.uname().machine
    if architecture != ARCHITECTURE:
        raise KernelError(
            f"this machine is {architecture}",
            f"zctrace reads byte counts from registers, and knows those of {ARCHITECTURE} only",
            f"a machine with {ARCHITECTURE}, or a virtual one",
        )


def require_modules() -> None:
    """Raise :class:`MissingError` for a Python module that collecting needs."""
    for name, package in MODULES:
        if not has_module(name):
            raise MissingError(
                f"{vm.PYTHON} has no module {name}",
                "the probes are loaded with the distribution's own Python and BCC",
                f"apt-get install {package}",
            )


def image_size(payload_bytes: int, file_system: str) -> int:
    """Bytes of the image that a payload, and a copy of it, live on."""
    _, _, least = FILE_SYSTEMS[file_system]
    return max(payload_bytes * 9 // 4 + _DISK_RESERVE, least)


def check_resources(
    payload_bytes: int,
    file_systems: Sequence[str],
    places: list[Place],
    more_bytes: int = 0,
) -> None:
    """Raise :class:`ResourceError` where memory or disk is too small for the payload.

    Without ``file_systems`` the payload is a file that is there. ``more_bytes`` of memory are
    for what is not as large as the payload.
    """
    cached = payload_bytes * max(len(file_systems), 1)
    wanted = cached * 5 // 2 + more_bytes
    if any(place.kernel for place in places):
        wanted = vm.memory_for(cached) + more_bytes
    available = _available_memory()
    if wanted > available:
        raise ResourceError(
            f"a payload of {payload_bytes} B needs {wanted >> 20} MiB of memory, "
            f"{available >> 20} MiB are available",
            "the page cache and a user buffer hold the payload at the same time",
            "a smaller --size",
        )
    folder = Path(tempfile.gettempdir())
    free = shutil.disk_usage(folder).free
    images = sum(image_size(payload_bytes, kind) for kind in file_systems)
    if images > free:
        raise ResourceError(
            f"a payload of {payload_bytes} B needs {images >> 20} MiB in "
            f"{folder}, {free >> 20} MiB are free",
            hint="TMPDIR=FOLDER puts temporary files elsewhere",
        )


def _available_memory() -> int:
    with open("/proc/meminfo") as file:
        for line in file:
            if line.startswith("MemAvailable:"):
                return int(line.split()[1]) << 10
    return 0


def collect(place: Place, options: Options, say: Say) -> Evidence:
    """Measure at one place; raises ``ZctraceError``. Needs root."""
    run_id = secrets.token_hex(8)
    with guarded(run_id) as run_folder:
        driver = _java(options, say)
        code = stage.stage(run_folder.path, driver, _netty(options, driver, say))
        (run_folder.path / SHARE).mkdir(mode=0o755)
        guest = None
        if place.kernel:
            disks = (
                () if options.plan_only else tuple(_images(options, run_folder.path).values())
            )
            memory = guest_memory(options)
            guest = make_guest(
                place.kernel, run_folder, memory, say, disks, emulated(options.nics)
            )
        if not options.plan_only:
            for kind, image in _images(options, run_folder.path).items():
                make_image(image, kind, options.size)
        request = _request(run_id, options, guest, run_folder.path)
        return evidence_from(*answered(request, guest, run_folder, code, say, options))


def guest_memory(options: Options) -> int:
    """Bytes of memory that a guest for these must have."""
    return vm.memory_for(options.size * len(options.file_systems)) + options.java_bytes


def _java(options: Options, say: Say) -> java.Built | java.NoJavaError | None:
    """What the Java strategies need, if there are any; or why there is none."""
    if options.plan_only or not options.java_bytes:
        return None
    say("compiling what Java performs, if that was not done before")
    try:
        return java.build(kernels.cache_folder())
    except java.NoJavaError as error:
        return error
    except OSError as error:
        return java.NoJavaError(f"what Java performs was not compiled: {error}")


def _netty(
    options: Options, driver: java.Built | java.NoJavaError | None, say: Say
) -> netty.Netty | netty.NoNettyError | None:
    """The same for those of Netty. Without Java that is the reason, for them as well."""
    needed = any(isinstance(strategy_named(name), Netty) for name in options.strategies)
    if not needed or not isinstance(driver, java.Built):
        return None
    try:
        return netty.build(driver, kernels.cache_folder(), say)
    except netty.NoNettyError as error:
        return error
    except OSError as error:
        return netty.NoNettyError(f"Netty is not to be had: {error}")


def make_guest(
    booted: kernels.Kernel,
    run_folder: RunFolder,
    memory_bytes: int,
    say: Say,
    disks: tuple[Path, ...] = (),
    nics: tuple[tuple[str, tuple[str, str]], ...] = (),
) -> vm.Guest:
    """What to boot; finds out whether KVM works. Raises :class:`MissingError`."""
    vm.require()
    kvm = vm.kvm_works(booted, run_folder, say)
    return vm.Guest(booted, kvm, memory_bytes, run_folder.path, disks, nics=nics)


def evidence_from(answer: dict[str, Any], booted_after: float) -> Evidence:
    """What :func:`answered` returns, of a collector that was asked for evidence."""
    evidence = Evidence.from_json(answer)
    return dataclasses.replace(evidence, timings={"boot": booted_after, **evidence.timings})


def answered(
    request: Request,
    guest: vm.Guest | None,
    run_folder: RunFolder,
    code: Path,
    say: Say,
    limits: Limits,
    streams: Sequence[int] = (),
    meanwhile: Callable[[], None] = lambda: None,
    show: Callable[[dict[str, Any]], None] = lambda line: None,
) -> tuple[dict[str, Any], float]:
    """Have a collector do what is requested, in ``guest`` or here; raises ``ZctraceError``.

    Returns its answer, as JSON has it, and the seconds until it began. A collector here
    gets the descriptors ``streams`` for a program's command, and stays in our session for
    its sake. ``meanwhile`` is called again and again while it works, ``show`` with every
    look at what happens.
    """
    share = run_folder.path / SHARE
    files = {name: share / name for name in ("request.json", "evidence.json", "progress")}
    files["request.json"].write_text(json.dumps(dataclasses.asdict(request)))
    collector = [vm.PYTHON, "-I", str(code / "tracer" / "isolated.py"), "tracer.collector"]
    collector += map(str, files.values())
    if streams:
        collector.append(",".join(map(str, streams)))
    progress = vm.Progress(
        files["progress"],
        files["evidence.json"],
        say,
        limits.work,
        limits.boot_seconds,
        boots=guest is not None,
        endless=SERVING if request.subject and request.subject.marked else TRACING,
        meanwhile=meanwhile,
        show=show,
    )
    try:
        if guest:
            how = "" if guest.kvm else ", emulated"
            say(f"booting Linux {guest.kernel.release} in a virtual machine{how}")
            vm.run(guest, collector, run_folder, progress)
        else:
            _run_here(collector, run_folder, progress, streams)
        answer: dict[str, Any] = json.loads(files["evidence.json"].read_text())
        if "error" in answer:
            raise errors.from_json(answer)
    except errors.ZctraceError:
        if limits.keep:
            say(f"logs kept in {_keep(run_folder.path, request.run_id)}")
        raise
    return answer, progress.booted_after


def _images(options: Options, folder: Path) -> dict[str, Path]:
    """The image of each file system that needs one."""
    if options.file:
        return {}
    return {
        kind: folder / f"payload.{kind}"
        for kind in options.file_systems
        if FILE_SYSTEMS[kind][0]
    }


def _request(run_id: str, options: Options, guest: vm.Guest | None, folder: Path) -> Request:
    uid, gid, groups, user = target.invoking_user()
    images = {kind: str(path) for kind, path in _images(options, folder).items()}
    if guest:
        images = {kind: vm.disk_name(number) for number, kind in enumerate(images)}
    kinds = () if options.plan_only else options.file_systems
    return Request(
        run_id=run_id,
        settings=options.settings,
        sizes=options.sizes,
        chunk=options.chunk,
        pipe_size=options.pipe_size,
        user_copies=options.user_copies,
        repeat=options.repeat,
        uid=uid,
        gid=gid,
        groups=groups,
        user=user,
        machine=guest.machine if guest else HOST,
        images={kind: images.get(kind, "") for kind in kinds},
        mount=str(folder / "payload"),
        nonce=secrets.randbits(62),
        mechanism=options.mechanism,
        plan_only=options.plan_only,
        sabotage=options.sabotage,
        file=str(options.file or ""),
        to=options.to,
    )


def emulated(nics: Sequence[Nic]) -> tuple[tuple[str, tuple[str, str]], ...]:
    """The pairs of network devices that a guest must have for these."""
    models = dict.fromkeys(nic.emulated for nic in nics if nic.emulated)
    return tuple((model, HARDWARE_ADDRESSES) for model in models)


def make_image(image: Path, kind: str, payload_bytes: int) -> None:
    """Make an empty file system for a payload; raises ``ZctraceError``."""
    program, package, _ = FILE_SYSTEMS[kind]
    with image.open("wb") as file:
        file.truncate(image_size(payload_bytes, kind))
    try:
        result = subprocess.run(
            [*program.split(), str(image)],
            capture_output=True,
            text=True,
            env={**os.environ, "PATH": SYSTEM_PATH},
        )
    except FileNotFoundError as error:
        raise MissingError(
            f"{program.split()[0]} is not installed",
            f"the payload lives on a file system of its own, {kind} here",
            f"apt-get install {package}",
        ) from error
    if result.returncode:
        raise ResourceError(
            f"{program.split()[0]} failed", result.stderr.strip(), "more room in TMPDIR"
        )


def _run_here(
    collector: list[str],
    run_folder: RunFolder,
    progress: vm.Progress,
    streams: Sequence[int] = (),
) -> None:
    log = run_folder.path / "collector.log"
    with log.open("wb") as output:
        process = subprocess.Popen(
            collector,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            env={"PATH": SYSTEM_PATH, "LANG": "C.UTF-8", **run_folder.environment},
            # A traced command may want the terminal.
            start_new_session=not streams,
            pass_fds=streams,
        )
    try:
        progress.wait(process, log, log)
        process.wait(timeout=_ORDERLY_SECONDS)
    finally:
        # It has a mount and a cgroup to give back; the guardian does so where it cannot.
        process.terminate()
        with suppress(subprocess.TimeoutExpired):
            process.wait(timeout=_ORDERLY_SECONDS)
        if streams:
            process.kill()
            process.wait()
        else:
            vm.end(process)


def _keep(folder: Path, run_id: str) -> Path:
    kept = Path(tempfile.gettempdir()) / f"zctrace-kept-{run_id}"
    kept.mkdir()
    for log in (*folder.glob("*.log"), *folder.glob("run/*")):
        shutil.copy(log, kept)
    return kept
