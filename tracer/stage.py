"""A copy of the collecting half where everybody can read it.

The strategies run as an unprivileged user, who may not be able to look into the folder
that zctrace is installed in (root's home, say).
"""

from __future__ import annotations

import shutil
from pathlib import Path

from workloads.jvm import java, netty

_HERE = Path(__file__).resolve().parent.parent
_PACKAGES = ("probes", "workloads", "tracer")
_LEFT_OUT = shutil.ignore_patterns("__pycache__", "reports", "commands")


def stage(
    folder: Path,
    driver: java.Built | java.NoJavaError | None = None,
    library: netty.Netty | netty.NoNettyError | None = None,
) -> Path:
    """Copy the three packages into ``folder``; returns where they are.

    With the driver of the Java strategies, or the reason why there is none, if they are to be
    performed; and with Netty likewise.
    """
    code = folder / "code"
    for package in _PACKAGES:
        shutil.copytree(_HERE / package, code / package, ignore=_LEFT_OUT)
    if driver:
        java.stage(driver, code / java.BUILT.relative_to(_HERE))
    if library:
        netty.stage(library, code / netty.BUILT.relative_to(_HERE))
    for path in [code, *code.rglob("*")]:
        path.chmod(0o755 if path.is_dir() else 0o644)
    return code
