"""Load modules of the running kernel, before anybody looks at it."""

from __future__ import annotations

import subprocess
from collections.abc import Sequence

from zctrace.errors import UsageError
from zctrace.kernel.remembered import SYS_MODULES

MODPROBE = "/sbin/modprobe"
"""Where the kernel looks for it, too."""


def load(names: Sequence[str]) -> None:
    """Load them with what they need, as root; raises :class:`UsageError` for one that fails.

    One that is there already, or built into the kernel, is no error.
    """
    for name in names:
        if (SYS_MODULES / name).is_dir():
            continue
        result = subprocess.run(
            [MODPROBE, "--", name], capture_output=True, text=True, errors="replace"
        )
        if result.returncode:
            raise UsageError(
                f"--module {name}: the kernel does not load it",
                " ".join(result.stderr.split()) or f"modprobe: status {result.returncode}",
                f"without --module {name}",
            )
