"""A copy of the collecting half where everybody can read it.

The strategies run as an unprivileged user, who may not be able to look into the folder
that zctrace is installed in (root's home, say).
"""

from __future__ import annotations

import shutil
from pathlib import Path

import zctrace
from zctrace import probes, workloads
from zctrace.workloads.jvm import java, netty

_PACKAGES = {"zctrace": zctrace, "zctrace/probes": probes, "zctrace/workloads": workloads}
"""By where each belongs under the name of the first, wherever they are now."""
_LEFT_OUT = shutil.ignore_patterns("__pycache__", "probes", "workloads", "reports", "commands")


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
    for name, package in _PACKAGES.items():
        shutil.copytree(package.__path__[0], code / name, ignore=_LEFT_OUT)
    jvm = code / "zctrace" / "workloads" / "jvm"
    if driver:
        java.stage(driver, jvm / java.BUILT.name)
    if library:
        netty.stage(library, jvm / netty.BUILT.name)
    for path in [code, *code.rglob("*")]:
        path.chmod(0o755 if path.is_dir() else 0o644)
    return code
