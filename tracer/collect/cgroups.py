"""The program under measurement: a cgroup to follow it, and the rights it runs with."""

from __future__ import annotations

import os
import pwd
import resource
import signal
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from zctrace.collect.mounts import mounts
from zctrace.errors import TraceError, UsageError

_PREFIX = "zctrace-"
_REMOVAL_SECONDS = 5.0


def hierarchy() -> Path:
    """Where the perf_event controller lives: its own v1 hierarchy, or v2."""
    unified = None
    for mount in mounts():
        if mount.file_system == "cgroup" and "perf_event" in mount.options:
            return mount.point
        if mount.file_system == "cgroup2":
            unified = mount.point
    if unified is None:
        raise TraceError(
            "no cgroup hierarchy is mounted",
            "breakpoints are scoped to the traced program by a cgroup",
            "mount -t cgroup2 none /sys/fs/cgroup",
        )
    return unified


def is_scope(folder: str) -> bool:
    """Whether breakpoints can be for the tasks in that cgroup alone."""
    return bool(folder) and Path(folder).resolve().is_relative_to(hierarchy().resolve())


def hierarchy_number() -> int:
    """What the kernel calls the one of :func:`hierarchy`; version 2 is 0."""
    for number, controllers, _ in _memberships("self"):
        if "perf_event" in controllers:
            return number
    return 0


def _memberships(process: int | str) -> Iterator[tuple[int, list[str], str]]:
    """The hierarchies that a process is in: number, controllers, and path inside.

    Version 2 has no controllers. Raises ``OSError``.
    """
    # A path may have every byte but the one that ends the line.
    for line in Path(f"/proc/{process}/cgroup").read_bytes().split(b"\n"):
        number, _, rest = os.fsdecode(line).partition(":")
        controllers, _, path = rest.partition(":")
        if path.startswith("/"):
            yield int(number), controllers.split(",") if controllers else [], path


def enable_perf_event(root: Path) -> None:
    """Make new v2 cgroups carry the perf_event controller. For a guest of ours only.

    perf_event is implicit on v2, but the kernel adds the implicit controllers to a
    cgroup's children only when it computes the controllers anew, that is after somebody
    wrote to cgroup.subtree_control. systemd does so at boot; a bare guest has no systemd.
    Without it perf_event_open(PERF_FLAG_PID_CGROUP) fails with ENOENT. Source:
    cgroup_calc_subtree_ss_mask() in kernel/cgroup/cgroup.c.
    """
    available = (root / "cgroup.controllers").read_text().split()
    if available:
        (root / "cgroup.subtree_control").write_text(f"+{available[-1]}")


def common_cgroup(pids: Iterable[int]) -> Path | None:
    """The folder of the cgroup that all of ``pids`` are in; ``None`` where there is none.

    The root cgroup does not count: all processes are in it.
    """
    root = hierarchy()
    unified = (root / "cgroup.controllers").exists()
    found = set()
    for pid in pids:
        with suppress(OSError):
            for _, controllers, path in _memberships(pid):
                if "perf_event" in controllers or (unified and not controllers):
                    found.add(path)
    folder = root / found.pop().lstrip("/") if len(found) == 1 else root
    return folder if folder != root and folder.is_dir() else None


@contextmanager
def cgroup(run_id: str, *, own_machine: bool) -> Iterator[Path]:
    """A new cgroup; on exit whatever still runs in it is killed, and it is removed.

    ``own_machine`` is whether the whole system is ours to configure: a guest.
    """
    root = hierarchy()
    if own_machine and (root / "cgroup.subtree_control").exists():
        enable_perf_event(root)
    folder = root / f"{_PREFIX}{run_id}"
    folder.mkdir()
    try:
        yield folder
    finally:
        remove(folder)


def remove(folder: Path) -> None:
    """Kill what is left in a cgroup of ours, and in those inside it, and remove them."""
    deadline = time.monotonic() + _REMOVAL_SECONDS
    while folder.exists():
        for pid in members(folder):
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        try:
            for inside in sorted(folder.glob("**/"), reverse=True):
                inside.rmdir()
        except OSError:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.01)


def leftovers(run_id: str) -> list[Path]:
    """The cgroup of a run that died without removing it."""
    try:
        folder = hierarchy() / f"{_PREFIX}{run_id}"
    except TraceError:
        return []
    return [folder] if folder.exists() else []


def invoking_user() -> tuple[int, int, tuple[int, ...], str]:
    """Uid, gid, groups and name of the user that strategies run as.

    The user who called sudo; the user ``nobody`` if root is logged in itself.
    """
    name = os.environ.get("SUDO_USER", "")
    try:
        entry = pwd.getpwnam(name) if name and name != "root" else pwd.getpwnam("nobody")
    except KeyError:
        entry = pwd.getpwnam("nobody")
    return _identity(entry)


def caller(name: str = "") -> tuple[int, int, tuple[int, ...], str]:
    """The same of the user that a command runs as: the user of that name, or the caller.

    Root, if sudo was not called: root has typed the command. Raises :class:`UsageError` for
    a name that no user has.
    """
    name = name or os.environ.get("SUDO_USER", "") or "root"
    try:
        return _identity(pwd.getpwnam(name))
    except KeyError as error:
        raise UsageError(f"--user {name}: there is no such user") from error


def _identity(entry: pwd.struct_passwd) -> tuple[int, int, tuple[int, ...], str]:
    groups = tuple(os.getgrouplist(entry.pw_name, entry.pw_gid))
    return entry.pw_uid, entry.pw_gid, groups, entry.pw_name


def rights(pid: int) -> dict[str, Any]:
    """What the process ``pid`` may do, as far as it changes how data moves."""
    status = {}
    # The process may have called itself anything, also in bytes that are no text.
    for line in Path(f"/proc/{pid}/status").read_bytes().split(b"\n"):
        name, _, value = line.decode(errors="replace").partition(":")
        status[name] = value.strip()
    locked, _ = resource.prlimit(pid, resource.RLIMIT_MEMLOCK)
    return {
        "uid": int(status["Uid"].split()[1]),
        "gid": int(status["Gid"].split()[1]),
        "capabilities": status["CapEff"],
        "memlock_bytes": None if locked == resource.RLIM_INFINITY else locked,
        "pipe_max_bytes": int(Path("/proc/sys/fs/pipe-max-size").read_text()),
    }


def members(folder: Path) -> list[int]:
    """Who is in a cgroup, or in one inside it."""
    found: list[int] = []
    for inside, _, _ in os.walk(folder):  # nothing, if the folder has gone
        with suppress(OSError):
            found += map(int, Path(inside, "cgroup.procs").read_text().split())
    return found
