"""Modules of a kernel that are to be loaded before it is measured: whether that can be done."""

from __future__ import annotations

import difflib
import os
from collections.abc import Sequence
from pathlib import Path

from zctrace import packages
from zctrace.collect.modules import MODPROBE
from zctrace.errors import MissingError, UsageError
from zctrace.kernel import remembered
from zctrace.machine.places import Place

_LOADABLE, _BUILT_IN = "modules.dep", "modules.builtin"
"""Files of a kernel's folder: each line begins with the path of a module."""
_INSTALLED = Path("/lib/modules")


def chosen(names: Sequence[str]) -> tuple[str, ...]:
    """As the kernel spells them, each once."""
    return tuple(dict.fromkeys(name.replace("-", "_") for name in names))


def check(names: Sequence[str], places: Sequence[Place]) -> None:
    """Raise ``ZctraceError`` where one of the modules cannot be loaded at one of the places."""
    for place in places if names else ():
        if place.kernel:
            _check_guest(names, place.kernel.release, place.kernel.modules)
        else:
            _check_host(names)


def _check_guest(names: Sequence[str], release: str, folder: Path | None) -> None:
    if folder is None:
        raise UsageError(
            f"--module {names[0]}: Linux {release} has an image, but no modules",
            f"there is no folder ../lib/modules/{release}",
            "a kernel with its modules: --kernel 6.1",
        )
    known = _known(folder)
    for name in names:
        if known and name not in known:
            raise _unknown(name, release, known)
    if not os.access(MODPROBE, os.X_OK):
        raise MissingError(
            f"{MODPROBE} is not installed",
            "a virtual machine has this machine's programs, and loads modules with it",
            packages.remedy("kmod"),
        )


def _check_host(names: Sequence[str]) -> None:
    """What this machine has loaded, or built in, is fine. Its own kernel is left as it is."""
    release = os.uname().release
    known = _known(_INSTALLED / release)
    there = _named(_INSTALLED / release / _BUILT_IN)
    there |= {path.name for path in remembered.SYS_MODULES.glob("*")}
    for name in names:
        if name in there:
            continue
        if known and name not in known:
            raise _unknown(name, release, known)
        raise UsageError(
            f"--module {name}: it is not loaded in this machine's own kernel",
            "zctrace loads modules in virtual machines only",
            f"modprobe {name}; or a virtual machine: --kernel 6.1",
        )


def _unknown(name: str, release: str, known: set[str]) -> UsageError:
    near = difflib.get_close_matches(name, sorted(known))
    return UsageError(
        f"--module {name}: Linux {release} has no such module",
        "" if near else f"it has {len(known)}, and none has a name like that",
        " or ".join(f"--module {one}" for one in near),
    )


def _known(folder: Path) -> set[str]:
    """All names of a kernel; none where one of the lists is missing."""
    parts = [_named(folder / name) for name in (_LOADABLE, _BUILT_IN)]
    return set().union(*parts) if all(parts) else set()


def _named(file: Path) -> set[str]:
    """Names of modules in a list; none where there is no list."""
    try:
        lines = file.read_text().splitlines()
    except OSError:
        return set()
    files = (Path(line.partition(":")[0]).name for line in lines)
    return {file.partition(".")[0].replace("-", "_") for file in files}
