"""What a trace cost, and what its copies did, in words: from what was timed beforehand."""

from __future__ import annotations

from collections.abc import Sequence

from zctrace.analysis.lines import Line
from zctrace.analysis.sentences import called
from zctrace.evidence.schema import Price, Trace
from zctrace.probes.model import Quantity
from zctrace.workloads.marker import RoleName

_EMULATED = " Times of an emulated machine do not apply to real hardware."
_OWN_COPY = (
    " Each call of a function that is watched in programs' own memory takes {:.2f} µs "
    "longer, in every program."
)
_LEAST_SHARE = 0.001
_SHARE, _NAMED_CALLS = 0.05, 3
"""From which share of the time of copies on a call is named, and how many are."""


def of_tracing(trace: Trace, price: Price, machine: str) -> str:
    """What the meter cost the program, from what was timed beforehand on this ``machine``."""
    own = [count for count in trace.run.counts if count.role is RoleName.PROGRAM]
    calls, copies = (
        sum(count.calls for count in own if count.quantity == quantity)
        for quantity in (Quantity.SYSCALL_ENTER, Quantity.USER_COPY_ROUTINE)
    )
    spent = (calls * price.call + copies * price.copy) / 1e9
    share = spent / trace.seconds if trace.seconds else 0
    percent = f"{share * 100:.1f}" if share >= _LEAST_SHARE or not share else "< 0.1"
    return (
        f"Overhead, estimated from timings before the trace: {spent:.2g} s, {percent} % of one "
        f"CPU. Each system call of the program takes {price.call / 1000:.2f} µs longer, each "
        f"copy {price.copy / 1000:.2f} µs. Each system call of another program takes "
        f"{price.bystander / 1000:.2f} µs longer."
        + (_OWN_COPY.format(price.own_copy / 1000) if price.own_copy else "")
        + (_EMULATED if machine == "qemu-tcg" else "")
    )


def of_copies(
    trace: Trace, price: Price, copied: int, machine: str, parts: Sequence[Line] = ()
) -> str:
    """What copies took, from what one byte took beforehand; empty where it was not timed.

    ``parts`` are what was copied in each call, the most first.
    """
    spent = seconds_of(copied, price)
    if not spent:
        return ""
    said = (
        f"Copies, estimated from a timing before the trace: {spent:.2g} s of CPU time "
        f"({price.byte:.2g} ns per byte)"
    )
    if trace.cpu_seconds and spent <= trace.cpu_seconds:
        said += f", {spent / trace.cpu_seconds:.0%} of the program's {trace.cpu_seconds:.2g} s"
    largest = [line for line in parts if line.copied_bytes >= copied * _SHARE][:_NAMED_CALLS]
    if len(largest) > 1:
        each = (
            f"{seconds_of(line.copied_bytes, price):.2g} s by {called(line.name)}"
            for line in largest
        )
        said += f": {', '.join(each)}"
    return f"{said}." + (_EMULATED if machine == "qemu-tcg" else "")


def seconds_of(copied: int, price: Price | None) -> float | None:
    """CPU time that copying so many bytes took, estimated; ``None`` where it was not timed."""
    return copied * price.byte / 1e9 if price and price.byte else None
