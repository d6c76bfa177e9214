"""Where, when and with which command evidence was made: what it says of itself."""

from __future__ import annotations

from dataclasses import dataclass

FACTS = ("host", "host_kernel", "ended", "command", "build")
"""Columns of tables that say where evidence is from."""


@dataclass(frozen=True)
class Origin:
    """What the command line knows of the machine it measures on, and of itself.

    ``host`` and ``host_kernel`` are the machine's name and its own kernel's release; what
    was measured may be another kernel in a virtual machine on it. ``ended`` is when the
    measurement did, in ISO 8601 with the offset from UTC. ``command`` is the command line.
    ``commit`` is the one in git that this program was, empty where that is not known.
    """

    host: str
    host_kernel: str
    ended: str
    command: tuple[str, ...]
    version: str
    commit: str = ""

    @property
    def command_line(self) -> str:
        """As a shell takes it; what cannot be printed is escaped."""
        import shlex  # late: a collector in a guest has no use for it

        return printable(shlex.join(self.command))

    @property
    def build(self) -> str:
        """Version and commit, as ``0.1.0 (commit 0123456789ab)``."""
        return f"{self.version} (commit {self.commit[:12]})" if self.commit else self.version

    @property
    def facts(self) -> dict[str, str]:
        """Everything, by :data:`FACTS`, for tables."""
        values = self.host, self.host_kernel, self.ended, self.command_line, self.build
        return dict(zip(FACTS, values, strict=True))


def printable(text: str) -> str:
    """``text`` with everything escaped that a terminal would not print."""
    return "".join(c if c.isprintable() else ascii(c)[1:-1] for c in text)
