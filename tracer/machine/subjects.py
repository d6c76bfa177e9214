"""Programs that run already: by number, name, cgroup, systemd unit or container."""

from __future__ import annotations

import os
import re
import subprocess
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from zctrace import trust
from zctrace.collect import cgroups, processes
from zctrace.collect.mounts import mounts
from zctrace.errors import UsageError

_COMM_BYTES = 15
"""Of a process's name, that the kernel keeps (TASK_COMM_LEN)."""
_LEAST_ID = 4
"""Digits of a container's ID, from which on it is looked for."""
_UNITS = ("service", "scope", "slice", "socket", "mount", "swap")
_MONITOR = "conmon"
"""In the name of a cgroup: not a container, but what watches over it."""
_ENGINES = ("docker", "podman", "nerdctl")
"""Commands that tell a container's ID by its name."""
_IDS = "[0-9a-f]{12,64}|[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}"
"""What is the beginning of an ID, or a pod's UID, and no name."""
_ENGINE_SECONDS = 10
"""Longer, and it does not answer: its daemon is stuck."""


@dataclass(frozen=True)
class Running:
    """What runs already: ``pids``, or a ``cgroup``'s folder, or threads alone by number.

    ``called`` is by what it was asked for, empty if by these numbers.
    """

    pids: tuple[int, ...] = ()
    cgroup: str = ""
    threads: tuple[int, ...] = ()
    called: str = ""


def by_number(pids: Iterable[int]) -> Running:
    """Raises :class:`UsageError` for a process that is not there, or is ourselves."""
    for pid in (several := tuple(dict.fromkeys(pids))):
        if not os.path.isdir(f"/proc/{pid}"):
            raise UsageError(f"-p {pid}: there is no such process", hint="pgrep -a NAME")
        if pid == os.getpid():
            raise UsageError(f"-p {pid}: that is zctrace itself")
    return Running(several)


def by_thread(numbers: Iterable[int]) -> Running:
    """Threads of one process, or of several, and what they start is not followed.

    Raises :class:`UsageError` for one that is not there.
    """
    several = tuple(dict.fromkeys(numbers))
    owners = []
    for number in several:
        try:
            status = Path(f"/proc/{number}/status").read_bytes()
        except OSError as error:
            raise UsageError(
                f"--thread {number}: there is no such thread", hint="ps -L -p PID"
            ) from error
        owners.append(int(re.search(rb"^Tgid:\s*(\d+)", status, re.MULTILINE)[1]))  # type: ignore[index]
    if os.getpid() in owners:
        raise UsageError("--thread: that is zctrace itself")
    return Running(tuple(dict.fromkeys(owners)), threads=several)


def by_name(name: str) -> Running:
    """The processes that are called ``name``, as ps and top show it, or whose program is.

    Raises :class:`UsageError` if there is none.
    """
    own = processes.family([os.getpid()])
    found = tuple(p for p in sorted(processes.numbers() - own) if _is_called(p, name))
    if not found:
        raise UsageError(
            f"--name {name}: there is no such process", hint="ps -eo pid,comm; pgrep -af WORD"
        )
    return Running(found, called=name)


def _is_called(pid: int, wanted: str) -> bool:
    folder = Path(f"/proc/{pid}")
    try:
        comm = os.fsdecode((folder / "comm").read_bytes().rstrip(b"\n"))
        words = os.fsdecode((folder / "cmdline").read_bytes()).split("\0")
    except OSError:  # it is gone
        return False
    program = ""
    with suppress(OSError):
        program = (folder / "exe").readlink().name.removesuffix(" (deleted)")
    if wanted in (comm, program, Path(words[0]).name):
        return True
    # The kernel has cut its name; of a script, which another program runs.
    cut = os.fsencode(wanted)[:_COMM_BYTES] == os.fsencode(comm) != os.fsencode(wanted)
    return cut and wanted in [Path(word).name for word in words]


def by_cgroup(path: str) -> Running:
    """A cgroup by its folder, or by its path in the hierarchy; raises :class:`UsageError`."""
    for folder in (Path(path), cgroups.hierarchy() / path.lstrip("/")):
        if os.path.isfile(folder / "cgroup.procs"):
            return Running(cgroup=str(folder))
    raise UsageError(
        f"--cgroup {path}: there is no such cgroup",
        hint="systemctl show --property ControlGroup UNIT; or a folder of /sys/fs/cgroup",
    )


def everybody() -> Running:
    """All processes of this machine, but for zctrace itself."""
    return Running(cgroup=str(cgroups.hierarchy()), called="this machine")


def by_unit(name: str) -> Running:
    """A unit of systemd's; without a suffix it is a service.

    Raises :class:`UsageError` if it does not run, or if several managers have one.
    """
    unit = name if name.rpartition(".")[2] in _UNITS else f"{name}.service"
    found = _folders(lambda folder: folder == unit)
    return _the_one(
        found, f"--unit {unit}", unit, "systemctl status UNIT; systemd-cgls shows all units"
    )


def by_container(name: str) -> Running:
    """A container of docker, podman, containerd or CRI-O by its ID, or the first digits of it.

    Of docker, podman and nerdctl also by its name, where their command is installed. Also a
    Kubernetes pod by its UID, and a machine of systemd-nspawn's or LXC's by its name.
    Raises :class:`UsageError` if it does not run, or if several do.
    """
    numbers = {name, *([] if re.fullmatch(_IDS, name) else _numbers(name))}
    found = _folders(lambda folder: any(_is_container(folder, number) for number in numbers))
    return _the_one(
        found,
        f"--container {name}",
        f"container {name}",
        "docker ps, podman ps or crictl ps show those that run",
    )


def _numbers(name: str) -> Iterable[str]:
    """The IDs of the containers that the engines here know by this name."""
    if not re.fullmatch(r"[a-zA-Z0-9][a-zA-Z0-9_.-]*", name):
        return
    for engine in _ENGINES:
        command = (engine, "container", "inspect", "--format", "{{.Id}}", name)
        # Not installed, not running, or without such a container.
        with suppress(OSError, subprocess.SubprocessError):
            asked = subprocess.run(
                command,
                env=trust.system_environment(),
                timeout=_ENGINE_SECONDS,
                check=True,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                text=True,
                errors="replace",
            )
            if re.fullmatch("[0-9a-f]{64}", number := asked.stdout.strip()):
                yield number


def _is_container(folder: str, name: str) -> bool:
    if _MONITOR in folder:
        return False
    bare = folder.removesuffix(".scope").removesuffix(".slice")
    last = bare.rpartition("-")[2]
    if len(name) >= _LEAST_ID and re.fullmatch("[0-9a-f]{64}", last) and last.startswith(name):
        return True
    # systemd's names of slices have no "-" but between levels.
    pod = name.replace("-", "_")
    return bare in (f"machine-{name}", f"lxc.payload.{name}", f"pod{name}") or (
        bare.startswith("kubepods") and last == f"pod{pod}"
    )


def _folders(wanted: Callable[[str], bool]) -> list[Path]:
    """The cgroups of that name, of the first hierarchy that has any; none inside another."""
    roots = [cgroups.hierarchy()]
    roots += [m.point for m in mounts() if m.file_system in ("cgroup", "cgroup2")]
    for root in dict.fromkeys(roots):
        found = []
        for folder, inside, _ in os.walk(root):
            found += [Path(folder, name) for name in inside if wanted(name)]
            inside[:] = [name for name in inside if not wanted(name)]
        if found:
            return sorted(found)
    return []


def _the_one(found: list[Path], asked: str, called: str, hint: str) -> Running:
    if not found:
        raise UsageError(f"{asked}: no cgroup of that name: it does not run", hint=hint)
    if len(found) > 1:
        raise UsageError(
            f"{asked}: there are {len(found)}",
            ", ".join(map(str, found)),
            "zctrace trace --cgroup PATH",
        )
    (folder,) = found
    if not cgroups.members(folder):
        raise UsageError(f"{asked}: no process is in {folder}", hint=hint)
    return Running(cgroup=str(folder), called=called)
