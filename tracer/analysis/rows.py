"""Tidy rows: what was counted, one row a cell, with what the catalogue knows of it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any, NamedTuple

from zctrace.analysis import counted
from zctrace.evidence.schema import Count, Evidence, Run
from zctrace.evidence.sites import Site
from zctrace.probes.model import Direction, Kind, Purpose, Quantity
from zctrace.workloads.marker import RoleName

UNWATCHED = "none"
"""In the place of a mechanism, where there is none."""


class Row(NamedTuple):
    """One of the tidy rows, whose columns these are, in order."""

    kernel: str
    machine: str
    strategy: str
    file_system: str
    nic: str
    cache: str
    payload_bytes: int
    chunk_bytes: int | None
    run_index: int
    role: RoleName
    quantity: Quantity
    site: str
    kind: Kind
    purpose: Purpose | None
    mechanism: str
    direction: Direction | None
    syscall: str | None
    caller: str | None
    calls: int | None
    bytes: int | None
    note: str
    host: str | None = None
    host_kernel: str | None = None
    ended: str | None = None
    command: str | None = None
    build: str | None = None


def tidy_rows(evidence: Evidence, run: Run) -> Iterator[Row]:
    """The tidy rows of one run; none of one that was not possible.

    Every attached copy site has a row for the process under measurement, if only with
    zeros; a site that nothing watches has one with both cells empty and the reason in
    ``note``.
    """
    if run.unavailable:
        return
    common = (
        evidence.kernel["release"],
        evidence.machine["kind"],
        run.strategy,
        run.file_system,
        run.nic,
        run.cache,
        run.payload_bytes,
        run.chunk_bytes,
        run.run_index,
    )
    origin: dict[str, Any] = evidence.origin.facts if evidence.origin else {}
    seen = set()
    for count in run.counts:
        site = evidence.site_of(count)
        if count.role == run.role:
            seen.add((count.quantity, count.function, count.mechanism))
        yield Row(
            *common,
            role=count.role,
            quantity=count.quantity,
            site=count.function,
            kind=_kind(site, count),
            purpose=site.purpose if site else None,
            mechanism=count.mechanism,
            direction=counted.direction_of(
                count.direction, site.direction if site else None, count.syscall
            ),
            syscall=count.syscall,
            caller=count.caller,
            calls=count.calls,
            # An event that counts bytes always has some.
            bytes=count.bytes if site else count.bytes or None,
            note=site.note if site else "",
            **origin,
        )
    for site in evidence.sites:
        unwatched = site.quantity == Quantity.USER_MEMORY and run.user_copies_from is None
        key = (site.quantity, site.function, site.mechanism)
        if key not in seen and not unwatched:
            seen.add(key)  # several sites may be the same function, for different callers
            yield Row(
                *common,
                role=run.role,
                quantity=site.quantity,
                site=site.function,
                kind=site.kind,
                purpose=site.purpose,
                mechanism=site.mechanism,
                direction=site.direction,
                syscall=None,
                caller=None,
                calls=0,
                bytes=0,
                note=site.note,
                **origin,
            )
    for blind in evidence.blind:
        yield Row(
            *common,
            role=run.role,
            quantity=blind.quantity,
            site=" or ".join(blind.functions),
            kind=blind.kind,
            purpose=None,
            mechanism=UNWATCHED,
            direction=None,
            syscall=None,
            caller=None,
            calls=None,
            bytes=None,
            note=blind.reason,
            **origin,
        )


def _kind(site: Site | None, count: Count) -> Kind:
    if site:
        return site.kind
    # Seen at a tracepoint, but it is the processor that copies.
    return Kind.COPY if count.quantity == Quantity.BOUNCE else Kind.EVENT


def sum_bytes(found: Iterable[Row]) -> int:
    """Their sum; a row without a number is of something that nothing watches."""
    return sum(row.bytes or 0 for row in found)


def sum_calls(found: Iterable[Row]) -> int:
    return sum(row.calls or 0 for row in found)
