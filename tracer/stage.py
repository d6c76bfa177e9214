"""A copy of the collecting half where everybody can read it.

The strategies run as an unprivileged user, who may not be able to look into the folder
that zctrace is installed in (root's home, say).
"""

from __future__ import annotations

import shutil
from pathlib import Path

_HERE = Path(__file__).resolve().parent.parent
_PACKAGES = ("probes", "workloads", "tracer")
_LEFT_OUT = shutil.ignore_patterns("__pycache__", "reports", "commands")


def stage(folder: Path) -> Path:
    """Copy the three packages into ``folder``; returns where they are."""
    code = folder / "code"
    for package in _PACKAGES:
        shutil.copytree(_HERE / package, code / package, ignore=_LEFT_OUT)
    for path in [code, *code.rglob("*")]:
        path.chmod(0o755 if path.is_dir() else 0o644)
    return code
