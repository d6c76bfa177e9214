"""What happened: the values that the collector writes and the analysis reads.

Evidence is JSON, one file per kernel, integers and bytes only. ``SCHEMA`` goes up when a
reader of the old form would misunderstand the new one.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from zctrace.errors import UsageError
from zctrace.evidence.account import Account, Only
from zctrace.evidence.devices import DiskFacts, NicFacts
from zctrace.evidence.json_form import read, write
from zctrace.evidence.origin import Origin
from zctrace.evidence.sites import Blind, Site
from zctrace.probes.hooks import CAPTURE_CALLERS
from zctrace.probes.model import Direction, Kind, Mechanism, Quantity, plain
from zctrace.workloads.kernel_account import KernelAccount
from zctrace.workloads.known import Known
from zctrace.workloads.marker import RoleName

SCHEMA = 3


USER_COPIES = 1
"""The default size, in bytes, from which copies within a program's own memory count."""
WARM, COLD = "warm", "cold"
"""Whether the payload is in the page cache when a transfer begins."""


@dataclass(frozen=True)
class Setting:
    """Under which circumstances strategies are performed; ``nic`` as in :data:`NICS`."""

    strategies: tuple[str, ...]
    nic: str = "lo"
    cache: str = WARM


@dataclass(frozen=True)
class Subject:
    """A program to trace: a command to start, or processes that run already.

    A command has ``command`` and ``folder``; running processes have ``pids`` or ``cgroup``,
    and ``called`` if they were asked for by a name. With ``threads`` only these count, of
    ``pids``, and nothing that they start. Tracing ends after ``seconds``, if that is a
    number. ``follow``: count started processes, too. ``stacks``: keep the stack of each copy.
    ``interval``: seconds between two lines of progress, if that is a number. ``marked``:
    count only the windows that processes open themselves; without ``pids``, any process of
    the user may open one. ``client``: a shell's command, not traced, that begins when the
    command listens; with it the tracing ends. ``user_copies``: from how many bytes on copies
    in the program's own memory count. ``copy_out`` are files that are taken out of a virtual
    machine afterwards. ``busy``: looks have the busiest processes and things, too. ``by_unit``:
    they have units, too. ``only``: what part of it the answer is about.
    """

    command: tuple[str, ...] = ()
    folder: str = "/"
    pids: tuple[int, ...] = ()
    cgroup: str = ""
    seconds: float | None = None
    follow: bool = True
    stacks: bool = False
    interval: float | None = None
    marked: bool = False
    client: str = ""
    user_copies: int | None = None
    called: str = ""
    threads: tuple[int, ...] = ()
    copy_out: tuple[str, ...] = ()
    busy: bool = False
    by_unit: bool = False
    only: Only | None = None

    @property
    def words(self) -> str:
        """What is traced: the command, or whatever ran already."""
        if self.command:
            return " ".join(self.command)
        if self.cgroup:
            numbers = f"cgroup {self.cgroup}"
        elif self.threads:
            numbers = _numbered("thread", self.threads)
        else:
            numbers = _numbered("process", self.pids)
        return f"{self.called} ({numbers})" if self.called else numbers


def _numbered(kind: str, numbers: Sequence[int]) -> str:
    return f"{kind} {', '.join(map(str, numbers))}"


@dataclass(frozen=True)
class Request:
    """What the command line asks of the collector.

    Sizes in bytes. ``uid``, ``gid`` and ``groups`` are whom the strategies run as.
    ``machine`` is ``host``, ``qemu-tcg`` or ``qemu-kvm``. The payload lives on images of
    file systems, ``images`` by their kind: disks' serial numbers in a guest, files on a
    host, empty for one that needs none; each is mounted in a folder of ``mount``.
    ``mechanism`` says how user copies are watched (:class:`zctrace.plan.attachments.Choice`).
    ``plan_only`` ends after planning. ``file`` is a file of the user's that is the payload,
    so that there are no images; ``to`` is where its bytes are sent, ``HOST:PORT``, through the
    device that every setting's ``nic`` names. Both empty if not asked for. ``subject`` is a
    program to trace; then there are no strategies, and nothing of what they need.
    ``user_copies`` is from how many bytes on copies within a program's own memory count,
    where they are watched. ``modules`` are loaded before anything else, but on a host.
    """

    run_id: str
    settings: tuple[Setting, ...]
    sizes: tuple[int, ...]
    chunk: int | None
    pipe_size: int | None
    repeat: int
    uid: int
    gid: int
    groups: tuple[int, ...]
    user: str
    machine: str
    images: dict[str, str]
    mount: str
    nonce: int
    mechanism: str = "auto"
    plan_only: bool = False
    sabotage: tuple[str, ...] = ()
    file: str = ""
    to: str = ""
    subject: Subject | None = None
    user_copies: int = USER_COPIES
    modules: tuple[str, ...] = ()

    @staticmethod
    def from_json(values: dict[str, Any]) -> Request:
        return read(Request, values)


@dataclass(frozen=True)
class Count:
    """One cell of the meter: how often, and how many bytes.

    ``direction`` is set where it was seen; ``syscall`` is ``None`` outside system calls;
    ``caller`` is who called the function that copied, as ``function+0x12``, where known; of
    what a device moves, the device.
    """

    role: RoleName
    quantity: Quantity
    function: str
    mechanism: Mechanism
    direction: Direction | None
    syscall: str | None
    caller: str | None
    calls: int
    bytes: int
    large: bool = False
    """Whether each of the copies was of ``LARGE_BYTES`` or more; known only for user copies
    that are seen without an iterator."""

    @property
    def was_captured(self) -> bool:
        """Whether a zero-copy send's pages were copied because a capture wanted the packet."""
        return plain((self.caller or "").partition("+")[0]) in CAPTURE_CALLERS


@dataclass(frozen=True)
class Hits:
    """Executions of a probed instruction, counted twice: by the program and by the event.

    ``perf`` is ``None`` where there is no second count; ``multiplexed`` is whether it was
    not counting all the time. ``shared`` is whether the program's count has also those of
    others, just before and after: it may be higher then, and never lower.
    """

    program: int
    perf: int | None
    multiplexed: bool = False
    shared: bool = False

    @property
    def agree(self) -> bool:
        """Whether no execution was missed."""
        if self.perf is None:
            return True
        missed = self.program < self.perf if self.shared else self.program != self.perf
        return not (missed or self.multiplexed)

    def plus(self, other: Hits) -> Hits:
        """Both stretches together."""
        known = self.perf is not None and other.perf is not None
        return Hits(
            self.program + other.program,
            (self.perf or 0) + (other.perf or 0) if known else None,
            self.multiplexed or other.multiplexed,
            self.shared,
        )


@dataclass(frozen=True)
class Capture:
    """A process that captured packets, as tcpdump does."""

    process: int
    name: str


INTERRUPTS = "on_interrupt"
"""How the names of these causes begin: probes of interrupts. An interrupt that arrives in one
of the meter's programs is not counted, so the number of interrupts is a lower bound."""

LEFT = "other-cgroup"
"""Among what was lost: cgroups that threads of the program were moved to, out of its own."""
UNWATCHED = "cpus-unwatched"
"""Likewise: processors that went off or came, where no breakpoint was then."""
SKIPPED, CALLED = "-skipped", ("on_fentry", "on_fexit")
"""How the names of causes end that are programs skipped by the kernel. A kernel that does not
report skips gives none of these causes, which does not mean that nothing was lost. And how the
names of fentry and fexit programs begin, whose skips more kernels report."""


def losses(lost: dict[str, int]) -> dict[str, int]:
    """See :attr:`Run.losses`."""
    return {
        cause: many for cause, many in lost.items() if many and not cause.startswith(INTERRUPTS)
    }


@dataclass(frozen=True)
class Run:
    """One transfer, or why there was none (``unavailable``).

    ``role`` is that of the process under measurement. ``expected`` is what each of its
    controls did, ``neighbour`` what the other process did; ``account`` is the kernel's own
    word on the transfer. ``hits`` and ``lost`` are those of this run alone;
    ``attempts`` is how often it was done until nothing was lost. ``user_copies_from`` is
    from how many bytes on copies within the program's own memory were counted; ``None``
    where none were. ``captures`` are who captured packets at the end, if any were copied for a
    packet capture.
    """

    strategy: str
    role: RoleName
    file_system: str
    nic: str
    cache: str
    run_index: int
    payload_bytes: int
    chunk_bytes: int | None
    received_bytes: int
    counts: tuple[Count, ...]
    hits: dict[str, Hits]
    lost: dict[str, int]
    expected: Known
    neighbour: Known
    account: KernelAccount = field(default_factory=KernelAccount)
    unavailable: str = ""
    attempts: int = 1
    user_copies_from: int | None = None
    captures: tuple[Capture, ...] = ()

    @property
    def arrived_bytes(self) -> int:
        """What came over the wire, without headers of packets: of TLS more than payload."""
        secured = self.account.secured_bytes
        return self.received_bytes if secured is None else secured

    @property
    def losses(self) -> dict[str, int]:
        """What was lost, by cause; without interrupts, whose number is a lower bound."""
        return losses(self.lost)

    @property
    def tells_skips(self) -> bool:
        """Whether it is known how often programs of probes and tracepoints were skipped."""
        return any(c.endswith(SKIPPED) and not c.startswith(CALLED) for c in self.lost)

    def moved(self, quantity: Quantity, role: RoleName, caller: str | None = None) -> int:
        """Bytes of a quantity, for one role; of one caller, where it is named."""
        return sum(
            count.bytes
            for count in self.counts
            if (count.quantity, count.role) == (quantity, role)
            and caller in (None, count.caller)
        )


@dataclass(frozen=True)
class Price:
    """Nanoseconds, timed on the machine before anything was counted.

    That the meter adds: ``call`` to a system call of the traced program; ``copy`` also to each
    copy of user memory in it; ``bystander`` to a system call of another program; ``own_copy``
    to a call of a watched function that copies in a program's own memory, of any program.
    ``byte``: what the kernel takes to copy one, without the meter. 0: not timed.
    """

    call: float
    copy: float
    bystander: float
    byte: float = 0.0
    own_copy: float = 0.0


@dataclass(frozen=True)
class Trace:
    """What a traced program did.

    ``run`` has its counts, under the role ``program``, and those of the controls.
    ``seconds`` is how long it was counted; ``ended`` why no longer: ``exited``, ``time``,
    ``interrupted``, ``served`` (the client ended) or, of a window, ``closed``. ``status`` is a
    command's, as a shell has it; ``None`` where it was not ours. ``client_status`` is the
    client's; ``None`` where there was none, or it was ended with the tracing. ``cpu_seconds``
    is the program's CPU time, where that is known. ``watched`` are the functions that copy in
    the program's own memory, with their files, where these were watched; ``unwatched`` the
    processes and programs in which they are not, with the reason. ``price`` is what the meter
    cost; of saved traces older than that it is ``None``, and ``costs`` how often each of the
    meter's programs ran, for all programs, and for how many ns.
    """

    run: Run
    account: Account
    seconds: float
    ended: str
    status: int | None
    costs: dict[str, tuple[int, int]] = field(default_factory=dict)
    price: Price | None = None
    client_status: int | None = None
    cpu_seconds: float | None = None
    watched: tuple[str, ...] = ()
    unwatched: tuple[str, ...] = ()


@dataclass(frozen=True)
class Evidence:
    """Everything known about the runs on one kernel, or about one traced program.

    ``sites`` are the copy sites attached, ``blind`` those wanted and not, ``events`` the
    quantities of attached event sites, ``hooks`` those of attached hooks. ``disks`` has the
    disk under the payload by file system, ``nics`` the network device by ``--nic``.
    ``rights`` is what the strategies could do. ``timings`` in seconds by phase. ``origin`` is
    ``None`` in what was saved before it was recorded, and of sessions.
    """

    kernel: dict[str, Any]
    machine: dict[str, Any]
    tool: dict[str, str]
    request: Request
    rights: dict[str, Any]
    sites: tuple[Site, ...]
    blind: tuple[Blind, ...]
    events: tuple[Quantity, ...]
    hooks: tuple[str, ...] = ()
    disks: dict[str, DiskFacts] = field(default_factory=dict)
    nics: dict[str, NicFacts] = field(default_factory=dict)
    runs: tuple[Run, ...] = ()
    timings: dict[str, float] = field(default_factory=dict)
    trace: Trace | None = None
    origin: Origin | None = None
    schema: int = SCHEMA

    def sites_of(self, kind: Kind) -> Sequence[Site]:
        return [site for site in self.sites if site.kind is kind]

    def nic_of(self, run: Run) -> NicFacts:
        return self.nics[run.nic]

    def disk_of(self, run: Run) -> DiskFacts:
        return self.disks[run.file_system]

    def site_of(self, count: Count) -> Site | None:
        """Where a count of copies is from; ``None`` of events."""
        return self._sites.get((count.quantity, count.function, count.mechanism))

    @cached_property
    def _sites(self) -> dict[tuple[Quantity, str, Mechanism], Site]:
        return {(site.quantity, site.function, site.mechanism): site for site in self.sites}

    def to_json(self) -> dict[str, Any]:
        written: dict[str, Any] = write(self)
        return written

    @staticmethod
    def from_json(values: dict[str, Any]) -> Evidence:
        if values.get("schema") != SCHEMA:
            raise UsageError(
                f"evidence of schema {values.get('schema')}, this is for {SCHEMA}",
                "it was written by another version of zctrace",
                'use the version named under "tool" in the file',
            )
        return read(Evidence, values)
