"""Where, when and with which command evidence was made: what it says of itself."""

from __future__ import annotations

from dataclasses import dataclass

from zctrace.printable import printable

FACTS = ("host", "host_kernel", "ended", "command", "build")
"""Columns of tables that say where evidence is from."""


@dataclass(frozen=True)
class Origin:
    """What the command line knows of the machine it measures on, and of itself.

    ``host`` and ``host_kernel`` are the machine's name and its own kernel's release; what
    was measured may be another kernel in a virtual machine on it. ``ended`` is when the
    measurement did, in ISO 8601 with the offset from UTC. ``command`` is the command line.
    ``version`` is that of zctrace, which names the commit.
    """

    host: str
    host_kernel: str
    ended: str
    command: tuple[str, ...]
    version: str

    @property
    def command_line(self) -> str:
        """As a shell takes it; what cannot be printed is escaped."""
        import shlex  # late: a collector in a guest has no use for it

        return printable(shlex.join(self.command))

    @property
    def facts(self) -> dict[str, str]:
        """Everything, by :data:`FACTS`, for tables."""
        values = self.host, self.host_kernel, self.ended, self.command_line, self.version
        return dict(zip(FACTS, values, strict=True))
