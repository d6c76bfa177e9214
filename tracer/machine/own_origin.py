"""What this command says of itself in evidence: machine, time, command line and version."""

from __future__ import annotations

import os
import sys
from datetime import datetime

from zctrace._version import version
from zctrace.evidence.origin import Origin

NAME = "zctrace"


def here() -> Origin:
    """That of this process, now."""
    machine = os.uname()
    return Origin(
        machine.nodename,
        machine.release,
        datetime.now().astimezone().isoformat(timespec="seconds"),
        tuple(map(_utf8, (NAME, *sys.argv[1:]))),
        version(),
    )


def _utf8(word: str) -> str:
    return os.fsencode(word).decode("utf-8", "backslashreplace")
