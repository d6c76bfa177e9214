"""Where a kernel is measured: this host, or a virtual machine; and how to ask it."""

from __future__ import annotations

import os
import secrets
import shutil
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from zctrace.collect import cgroups
from zctrace.evidence.devices import HARDWARE_ADDRESSES, NICS, Nic
from zctrace.evidence.schema import USER_COPIES, Evidence, Request, Setting
from zctrace.machine import collector_process, kernels, qemu, staging
from zctrace.machine import kvm as machine_kvm
from zctrace.machine import progress as machine_progress
from zctrace.machine.guardian import RunFolder, guarded
from zctrace.machine.images import FILE_SYSTEMS, available_memory, image_size, make_image
from zctrace.machine.places import HOST, Place
from zctrace.notices import Say
from zctrace.plan.attachments import Choice
from zctrace.workloads import performer
from zctrace.workloads.catalogue import strategy_named
from zctrace.workloads.performer import Performer
from zctrace.workloads.prepared import NotPreparedError, Prepared
from zctrace.workloads.strategy import performers_of

_TURN_BYTES = 2048
"""One turn of a chunked loop takes as long as moving these."""
_MOST_GUESTS = 2
_EMULATOR_BYTES = 512 << 20
"""Memory of QEMU itself, in addition to its guest's, most of it for translated code. 414 MiB
were the most that was seen."""


@dataclass(frozen=True)
class Options:
    """What to run; sizes in bytes, ``None`` for the default.

    ``file`` and ``to`` are the user's own file and where to send it. ``everything``: the
    user has not asked for the settings' devices, so that other devices may replace them.
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
    modules: tuple[str, ...] = ()
    boot_seconds: float = machine_progress.BOOT_SECONDS

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
    def performers(self) -> tuple[Performer, ...]:
        """Those of the strategies, each once."""
        return performers_of(map(strategy_named, self.strategies))

    @property
    def performer_bytes(self) -> int:
        """Memory for their processes; 0 where no strategy needs one."""
        return performer.memory_bytes(self.performers, min(self.chunk or self.size, self.size))

    @property
    def work(self) -> int:
        """How much there is to do in a step, in bytes that would take as long."""
        turns = self.size // self.chunk if self.chunk else 0
        return self.size + turns * _TURN_BYTES


def guests_at_once(options: Options, places: Sequence[Place]) -> int:
    """How many of the places can be measured side by side: two guests, or one place.

    An emulated guest takes a processor for itself. The host is measured alone: guests would
    have their part in its context switches and interrupts.
    """
    if len(places) < _MOST_GUESTS or any(place.kernel is None for place in places):
        return 1
    memory = _MOST_GUESTS * (guest_memory(options) + _EMULATOR_BYTES)
    disk = _MOST_GUESTS * sum(image_size(options.size, kind) for kind in options.file_systems)
    enough = (
        len(os.sched_getaffinity(0)) >= _MOST_GUESTS
        and memory <= available_memory()
        and disk <= shutil.disk_usage(tempfile.gettempdir()).free
    )
    return _MOST_GUESTS if enough else 1


@dataclass(frozen=True)
class PreparedRun:
    """All that measuring at a place needs, in the folder of the run."""

    request: Request
    guest: qemu.Guest | None
    run_folder: RunFolder
    code: Path
    options: Options
    say: Say

    def collect(self, meanwhile: Callable[[], None] = lambda: None) -> Evidence:
        """Measure; raises ``ZctraceError``, and what ``meanwhile`` raises.

        ``meanwhile`` is called again and again. Forks nothing and sets no signal handler, so
        that any thread may call this.
        """
        return collector_process.evidence_from(
            *collector_process.answered(
                self.request,
                self.guest,
                self.run_folder,
                self.code,
                self.say,
                self.options,
                meanwhile=meanwhile,
            )
        )


def collect(place: Place, options: Options, say: Say) -> Evidence:
    """Measure at one place; raises ``ZctraceError``. Needs root."""
    with prepared(place, options, say) as job:
        return job.collect()


@contextmanager
def prepared(place: Place, options: Options, say: Say) -> Iterator[PreparedRun]:
    """A run's folder with what measuring at a place needs; raises ``ZctraceError``.

    For the main thread: a guardian is forked. Needs root.
    """
    run_id = secrets.token_hex(8)
    with guarded(run_id) as run_folder:
        code = staging.stage(run_folder.path, _prepared(options, say))
        (run_folder.path / collector_process.SHARE).mkdir(mode=0o700)
        guest = None
        if place.kernel:
            disks = (
                () if options.plan_only else tuple(_images(options, run_folder.path).values())
            )
            memory = guest_memory(options)
            guest = make_guest(*(place, run_folder, memory, say, disks, emulated(options.nics)))
        if not options.plan_only:
            for kind, image in _images(options, run_folder.path).items():
                make_image(image, kind, options.size)
        request = _request(run_id, options, guest, run_folder.path)
        yield PreparedRun(request, guest, run_folder, code, options, say)


def guest_memory(options: Options) -> int:
    """Bytes of memory that a guest for these must have."""
    return qemu.memory_for(options.size * len(options.file_systems)) + options.performer_bytes


def _prepared(options: Options, say: Say) -> dict[str, Prepared | NotPreparedError]:
    """What each performer needs, by its key; or why that cannot be had."""
    if options.plan_only:
        return {}
    cache = kernels.trusted_cache()
    return {one.key: performer.attempt(one, cache, say) for one in options.performers}


def make_guest(
    place: Place,
    run_folder: RunFolder,
    memory_bytes: int,
    say: Say,
    disks: tuple[Path, ...] = (),
    nics: tuple[tuple[str, tuple[str, str]], ...] = (),
) -> qemu.Guest:
    """What to boot; finds out whether KVM works. Raises :class:`MissingError`."""
    assert place.kernel is not None
    qemu.require()
    kvm = machine_kvm.kvm_works(place.kernel, run_folder, say)
    return qemu.Guest(
        *(place.kernel, kvm, memory_bytes, run_folder.path, disks),
        nics=nics,
        processors=place.processors,
    )


def _images(options: Options, folder: Path) -> dict[str, Path]:
    """The image of each file system that needs one."""
    if options.file:
        return {}
    return {
        kind: folder / f"payload.{kind}"
        for kind in options.file_systems
        if FILE_SYSTEMS[kind][0]
    }


def _request(run_id: str, options: Options, guest: qemu.Guest | None, folder: Path) -> Request:
    uid, gid, groups, user = cgroups.invoking_user()
    images = {kind: str(path) for kind, path in _images(options, folder).items()}
    if guest:
        images = {kind: qemu.disk_name(number) for number, kind in enumerate(images)}
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
        modules=options.modules,
    )


def emulated(nics: Sequence[Nic]) -> tuple[tuple[str, tuple[str, str]], ...]:
    """The pairs of network devices that a guest must have for these."""
    models = dict.fromkeys(nic.emulated for nic in nics if nic.emulated)
    return tuple((model, HARDWARE_ADDRESSES) for model in models)
