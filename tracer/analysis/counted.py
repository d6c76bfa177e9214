"""What a count says by itself: where its bytes went, and whether the CPU copied them."""

from __future__ import annotations

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
_KERNEL_ITERATOR_SYSCALLS = frozenset({"sendfile", "splice", "tee", "copy_file_range"})
"""System calls whose iterators never describe user memory: a copy through one of them
stays inside the kernel, whatever the function's name says. For breakpoints, which do not
see the iterator."""


def direction_of(
    seen: Direction | None, promised: Direction | None, syscall: str | None
) -> Direction | None:
    """Where the bytes of a count went; ``promised`` by the function, if it was not seen."""
    if seen or promised is None:
        return seen
    return Direction.KERNEL_TO_KERNEL if syscall in _KERNEL_ITERATOR_SYSCALLS else promised


def transmitted(evidence: Evidence, run: Run, quantity: Quantity) -> int:
    """Bytes that the subject's device was given: ``quantity`` is payload or headers.

    Of that device alone: what is stacked on it was given the same packets before.
    """
    device = f"device {evidence.nic_of(run).number}"
    return run.moved(quantity, run.role, device)
