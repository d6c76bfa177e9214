"""How much of its memory an unprivileged process may have pinned by the kernel."""

from __future__ import annotations

import resource

from zctrace.workloads import libc

_EXTRA_PAGES = 2
"""Charged to each zero-copy send besides its own, see msg_zerocopy_realloc()."""


def most_pinned() -> int:
    """Bytes, in whole pages, that may be pinned at a time so that as many more may be.

    Half of RLIMIT_MEMLOCK: 4 MiB, less a little, where the limit is the kernel's own.
    Before Linux kernel commit 9dcc38e2813e ("Increase default MLOCK_LIMIT to 8 MiB") (in
    v5.16) that was 64 KiB.
    """
    limit, _ = resource.getrlimit(resource.RLIMIT_MEMLOCK)
    if limit == resource.RLIM_INFINITY:
        return 1 << 62
    pages = limit // libc.PAGE_BYTES // 2 - _EXTRA_PAGES
    return max(pages, 1) * libc.PAGE_BYTES
