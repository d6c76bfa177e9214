"""What is counted, and between which memories.

Alone, for each start of the self-tests, which need no more of the vocabulary, waits for it.
"""

from __future__ import annotations

import enum


class Direction(enum.StrEnum):
    """Between which memories bytes move, seen from the CPU."""

    USER_TO_KERNEL = "u2k"
    KERNEL_TO_USER = "k2u"
    KERNEL_TO_KERNEL = "k2k"
    USER_TO_USER = "u2u"
    DEVICE_TO_KERNEL = "d2k"
    """By DMA, without the CPU."""
    KERNEL_TO_DEVICE = "k2d"


class Quantity(enum.StrEnum):
    """What is counted, under whatever name a kernel does it: evidence has these words."""

    COPY_TO_ITER = "copy-to-iter"
    COPY_FROM_ITER = "copy-from-iter"
    COPY_FROM_ITER_ATOMIC = "copy-from-iter-atomic"
    """Into the page cache of a file."""
    CSUM_AND_COPY_TO_ITER = "csum-and-copy-to-iter"
    CSUM_AND_COPY_FROM_ITER = "csum-and-copy-from-iter"
    COPY_PAGE = "copy-page"
    LINEAR_TO_PAGE = "linear-to-page"
    """Of a socket's bytes that are spliced, and in no page of their own."""
    MEMORY_COPY = "memory-copy"
    """By a plain copy, in a place that moves payload (:mod:`zctrace.probes.memory_copies`)."""
    METADATA_FROM_USER = "metadata-from-user"
    METADATA_TO_USER = "metadata-to-user"
    USER_COPY_ROUTINE = "user-copy-routine"
    COPY_TO_USER = "copy-to-user"
    """Not through an iterator; likewise the next."""
    COPY_FROM_USER = "copy-from-user"
    """The processor's routine, which most of the above call."""
    SKB_COPY_UBUFS = "skb-copy-ubufs"
    SKB_COPY_BITS = "skb-copy-bits"
    SKB_COPY_AND_CSUM_BITS = "skb-copy-and-csum-bits"
    BOUNCE = "bounce"
    USER_MEMORY = "user-memory"
    """Within a program's own memory (:mod:`zctrace.probes.user_functions`)."""
    ENCRYPTION = "encryption"
    """This and the next two: transformed, not copied (:mod:`zctrace.probes.transforms`)."""
    DECRYPTION = "decryption"
    CHECKSUM = "checksum"

    SYSCALL_ENTER = "syscall-enter"
    SYSCALL_EXIT = "syscall-exit"
    PAGE_FAULT_USER = "page-fault-user"
    PAGE_FAULT_KERNEL = "page-fault-kernel"
    CONTEXT_SWITCH_VOLUNTARY = "context-switch-voluntary"
    CONTEXT_SWITCH_INVOLUNTARY = "context-switch-involuntary"
    INTERRUPT = "interrupt"
    PROCESS_FORK = "process-fork"
    PROCESS_EXEC = "process-exec"
    PROCESS_EXIT = "process-exit"
    CGROUP_LEFT = "cgroup-left"
    MODULE_LOADED = "module-loaded"
    MODULE_FREED = "module-freed"
    CPU_CHANGED = "cpu-changed"
    RING_COMPLETED = "ring-completed"
    """An operation of io_uring that moves no bytes, or does not say how many."""

    DISK_REQUEST = "disk-request"
    DISK_REQUEST_PUT_BACK = "disk-request-put-back"
    DISK_READ = "disk-read"
    """The payload among the requests to disks."""
    DISK_READ_OTHER = "disk-read-other"
    DISK_WRITE = "disk-write"
    TRANSMIT_PAYLOAD = "transmit-payload"
    TRANSMIT_HEADERS = "transmit-headers"
    TRANSMITTED = "transmitted"
    DMA_MAPPED = "dma-mapped"
