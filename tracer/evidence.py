"""What happened: the values that the collector writes and the analysis reads.

Evidence is JSON, one file per kernel, integers and bytes only. ``SCHEMA`` goes up when a
reader of the old form would misunderstand the new one.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field
from typing import Any

from tracer.errors import UsageError

SCHEMA = 2


@dataclass(frozen=True)
class Request:
    """What the command line asks of the collector.

    Sizes in bytes. ``uid``, ``gid`` and ``groups`` are whom the strategies run as.
    ``machine`` is ``host``, ``qemu-tcg`` or ``qemu-kvm``. The payload lives on images of
    file systems, ``images`` by their kind: block devices in a guest, files on a host, empty
    for one that needs none; each is mounted in a folder of ``mount``. ``mechanism`` says how
    user copies are watched (:class:`tracer.plan.Choice`). ``plan_only`` ends after planning.
    """

    run_id: str
    strategies: tuple[str, ...]
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

    @staticmethod
    def from_json(values: dict[str, Any]) -> Request:
        lists = {k: tuple(values[k]) for k in ("strategies", "sizes", "groups", "sabotage")}
        return Request(**{**values, **lists})


@dataclass(frozen=True)
class Count:
    """One cell of the meter: how often, and how many bytes.

    ``direction`` is set where it was seen; ``syscall`` is ``None`` outside system calls;
    ``caller`` is who called the function that copied, as ``function+0x12``, where known.
    """

    role: str
    quantity: str
    function: str
    mechanism: str
    direction: str | None
    syscall: str | None
    caller: str | None
    calls: int
    bytes: int


@dataclass(frozen=True)
class Hits:
    """Executions of a probed instruction, counted twice.

    ``perf`` is the breakpoint's own count, ``None`` for function probes;
    ``multiplexed`` is whether it was not armed all the time.
    """

    program: int
    perf: int | None
    multiplexed: bool = False


@dataclass(frozen=True)
class Run:
    """One transfer, or why there was none (``unavailable``).

    ``role`` is that of the process under measurement. ``expected`` is what each of its
    controls moved, ``neighbour`` what the other process did, in bytes by
    ``quantity:direction``, and system calls by ``syscall:name``; ``account`` is the
    kernel's own word on the transfer. ``hits`` and ``lost`` are those of this run alone.
    """

    strategy: str
    role: str
    file_system: str
    run_index: int
    payload_bytes: int
    chunk_bytes: int | None
    received_bytes: int
    counts: tuple[Count, ...]
    hits: dict[str, Hits]
    lost: dict[str, int]
    expected: dict[str, int]
    neighbour: dict[str, int]
    account: dict[str, int] = field(default_factory=dict)
    unavailable: str = ""

    @staticmethod
    def from_json(values: dict[str, Any]) -> Run:
        return Run(
            **{
                **values,
                "counts": tuple(Count(**count) for count in values["counts"]),
                "hits": {name: Hits(**hits) for name, hits in values["hits"].items()},
            }
        )


@dataclass(frozen=True)
class Evidence:
    """Everything known about the runs on one kernel.

    ``sites`` are the copy sites attached, ``blind`` those wanted and not, ``events`` the
    quantities of attached event sites. ``rights`` is what the strategies could do.
    ``timings`` in seconds by phase.
    """

    kernel: dict[str, Any]
    machine: dict[str, Any]
    tool: dict[str, str]
    request: Request
    rights: dict[str, Any]
    sites: tuple[dict[str, Any], ...]
    blind: tuple[dict[str, Any], ...]
    events: tuple[str, ...]
    runs: tuple[Run, ...] = ()
    timings: dict[str, float] = field(default_factory=dict)
    schema: int = SCHEMA

    def to_json(self) -> dict[str, Any]:
        return dataclasses.asdict(self)

    @staticmethod
    def from_json(values: dict[str, Any]) -> Evidence:
        if values.get("schema") != SCHEMA:
            raise UsageError(
                f"evidence of schema {values.get('schema')}, this is for {SCHEMA}",
                "it was written by another version of zctrace",
                'use the version named under "tool" in the file',
            )
        return Evidence(
            **{
                **values,
                "request": Request.from_json(values["request"]),
                "sites": tuple(values["sites"]),
                "blind": tuple(values["blind"]),
                "events": tuple(values["events"]),
                "runs": tuple(Run.from_json(run) for run in values["runs"]),
            }
        )
