"""A copy of the collecting half where everybody can read it.

The strategies run as an unprivileged user, who may not be able to look into the folder
that zctrace is installed in (root's home, say). It is compiled, so that an import need not.
"""

from __future__ import annotations

import compileall
import py_compile
import shutil
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType

import zctrace
from zctrace import _version, probes, workloads
from zctrace.workloads import prepared as preparation
from zctrace.workloads.prepared import NotPreparedError, Prepared

PACKAGES = {"zctrace": zctrace, "zctrace/probes": probes, "zctrace/workloads": workloads}
"""By where each belongs under the name of the first, wherever they are now."""
_LEFT_OUT = shutil.ignore_patterns("probes", "workloads", "reports", "commands")
"""Not what Python has compiled: it is good for a copy, too, which has its source's times."""


def stage(
    folder: Path, performers: Mapping[str, Prepared | NotPreparedError] = MappingProxyType({})
) -> Path:
    """Copy the three packages into ``folder``; returns where they are.

    With what each of ``performers`` needs, by its key, or the reason why that is not there.
    """
    code = folder / "code"
    for name, package in PACKAGES.items():
        shutil.copytree(package.__path__[0], code / name, ignore=_LEFT_OUT)
    (code / "zctrace" / _version.FILE).write_text(f"{_version.version()}\n", encoding="ascii")
    for key, prepared in performers.items():
        preparation.stage(prepared, code / "zctrace" / "workloads" / preparation.STAGED / key)
    # In a guest this takes many times as long. These files do not change any more.
    compileall.compile_dir(
        code, quiet=2, invalidation_mode=py_compile.PycInvalidationMode.UNCHECKED_HASH
    )
    for path in [code, *code.rglob("*")]:
        path.chmod(0o755 if path.is_dir() else 0o644)
    return code
