"""How many files a process may have open: a probe is one, a breakpoint one on each processor.

The collector may have as many as it can; what it starts has the limit that the collector found.
"""

from __future__ import annotations

import resource
from contextlib import suppress
from pathlib import Path

_MOST = Path("/proc/sys/fs/nr_open")
"""The kernel's upper bound for all processes."""
_FOUND = resource.getrlimit(resource.RLIMIT_NOFILE)


def raise_limit() -> None:
    """Of this process: as far as the kernel goes, or as far as this process may."""
    most = int(_MOST.read_text())
    for limit in ((most, most), (_FOUND[1], _FOUND[1])):
        # The hard one only with CAP_SYS_RESOURCE.
        with suppress(ValueError, PermissionError):
            resource.setrlimit(resource.RLIMIT_NOFILE, limit)
            return


def limit_as_found(child: int) -> None:
    """Set the limit of a process that was just started to what the collector found.

    Without CAP_SYS_RESOURCE the kernel refuses this for a process of another user. The process
    then keeps the collector's soft limit, which is at most the hard limit that was found.
    """
    with suppress(ProcessLookupError, PermissionError):
        resource.prlimit(child, resource.RLIMIT_NOFILE, _FOUND)
