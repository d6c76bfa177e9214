"""What a count says by itself: where its bytes went, and whether the CPU copied them."""

from __future__ import annotations

from collections import Counter

from zctrace.evidence.schema import Evidence, Run
from zctrace.probes.model import Direction, Quantity

EVENTS_WITH_BYTES = frozenset(
    {
        Quantity.DISK_READ,
        Quantity.DISK_READ_OTHER,
        Quantity.DISK_WRITE,
        Quantity.TRANSMIT_PAYLOAD,
        Quantity.TRANSMIT_HEADERS,
        Quantity.DMA_MAPPED,
    }
)
"""Quantities with bytes that the CPU does not copy."""
_WITHOUT_SITE = EVENTS_WITH_BYTES | {Quantity.BOUNCE, Quantity.USER_COPY_ROUTINE}
"""Quantities with bytes that need no site: seen at tracepoints and hooks, or only compared."""
_KERNEL_ITERATOR_SYSCALLS = frozenset({"sendfile", "splice", "tee", "copy_file_range"})
"""System calls whose iterators never describe user memory: a copy through one of them
stays inside the kernel, whatever the function's name says. For breakpoints, which do not
see the iterator."""

TIME_CALL, _TIME_BYTES = "clock_gettime", 16
"""What a runtime such as Java's calls when it likes; of a struct __kernel_timespec."""


def time_bytes(run: Run, role: str) -> int:
    """Bytes that the kernel copied to user memory to tell the time.

    A look at the time is a system call only where user mode cannot read the kernel's clock:
    with hpet or acpi_pm in /sys/devices/system/clocksource/clocksource0/current_clocksource.
    """
    looks = (role, Quantity.SYSCALL_EXIT, TIME_CALL)
    calls = sum(c.calls for c in run.counts if (c.role, c.quantity, c.syscall) == looks)
    return _TIME_BYTES * calls


def direction_of(
    seen: Direction | None, promised: Direction | None, syscall: str | None
) -> Direction | None:
    """Where the bytes of a count went; ``promised`` by the function, if it was not seen."""
    if seen or promised is None:
        return seen
    return Direction.KERNEL_TO_KERNEL if syscall in _KERNEL_ITERATOR_SYSCALLS else promised


def at_no_site(evidence: Evidence, run: Run) -> dict[str, int]:
    """Bytes copied, by function and mechanism that the evidence has no site of."""
    found: Counter[str] = Counter()
    for count in run.counts:
        if count.quantity not in _WITHOUT_SITE and evidence.site_of(count) is None:
            found[f"{count.function} ({count.mechanism})"] += count.bytes
    return dict(+found)


def transmitted(evidence: Evidence, run: Run, quantity: Quantity) -> int:
    """Bytes that the subject's device was given: ``quantity`` is payload or headers.

    Of that device alone: what is stacked on it was given the same packets before.
    """
    device = f"device {evidence.nic_of(run).number}"
    return run.moved(quantity, run.role, device)
