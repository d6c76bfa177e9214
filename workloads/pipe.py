"""A pipe that splicing strategies move references to pages through."""

from __future__ import annotations

import fcntl
import os

from zctrace.workloads import libc


class Pipe:
    """Two descriptors; ``capacity`` in bytes, ``None`` for the kernel's default."""

    def __init__(self, capacity: int | None = None) -> None:
        self.out, self.into = os.pipe()
        try:
            if capacity is not None:
                fcntl.fcntl(self.into, fcntl.F_SETPIPE_SZ, capacity)
        except OSError:
            self.close()
            raise

    def drain(self, fd: int, size: int, flags: int) -> None:
        """splice(2) ``size`` bytes of the pipe's to ``fd``, in as many calls as it takes."""
        while size:
            size -= libc.splice(self.out, fd, size, flags)

    def close(self) -> None:
        os.close(self.into)
        os.close(self.out)
