"""Whom root may trust: who called sudo, and which folders no other user can change.

Root reads code and kernels from folders, and writes results into folders. A user who can put a
file there, or replace the folder, would act with root's rights.
"""

from __future__ import annotations

import os
import pwd
import stat
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

SYSTEM_PATH = f"{os.defpath}:/usr/sbin:/sbin"
"""Where the distribution's programs are; a user's PATH may lead elsewhere."""
MOST_LINKS = 40
"""As many as the kernel follows (MAXSYMLINKS)."""
_MOST_UID = 2**32 - 2
_OTHERS_MAY_WRITE = stat.S_IWGRP | stat.S_IWOTH


@dataclass(frozen=True)
class Caller:
    """Who called sudo."""

    uid: int
    gid: int

    @property
    def environment(self) -> dict[str, str]:
        """Ours, with the user's home and name."""
        try:
            user = pwd.getpwuid(self.uid)
        except KeyError:
            return {**os.environ, "HOME": "/"}
        named = {"HOME": user.pw_dir, "USER": user.pw_name, "LOGNAME": user.pw_name}
        return {**os.environ, **named}

    @property
    def groups(self) -> list[int]:
        """All that the user is in."""
        try:
            return os.getgrouplist(pwd.getpwuid(self.uid).pw_name, self.gid)
        except KeyError:
            return [self.gid]

    @contextmanager
    def acting(self) -> Iterator[None]:
        """Run the body with the caller's rights, not with root's.

        Raises ``OSError`` where root may not do that.
        """
        gid, groups = os.getegid(), os.getgroups()
        try:
            os.setgroups(self.groups)
            os.setegid(self.gid)
            os.seteuid(self.uid)
            yield
        finally:
            os.seteuid(0)
            os.setegid(gid)
            os.setgroups(groups)


def caller() -> Caller | None:
    """The user who called sudo, as sudo says; ``None`` without sudo, and if we are not root."""
    numbers = [os.environ.get(name, "") for name in ("SUDO_UID", "SUDO_GID")]
    if os.getuid() or not all(number.isascii() and number.isdigit() for number in numbers):
        return None
    uid, gid = map(int, numbers)
    return Caller(uid, gid) if 0 < uid <= _MOST_UID and gid <= _MOST_UID else None


def system_environment() -> dict[str, str]:
    """For the distribution's programs that root runs: ours, without the PATH."""
    return {**os.environ, "PATH": SYSTEM_PATH}


def owners() -> frozenset[int]:
    """The users whom this process may trust: root, its own, and the one who called sudo."""
    by_sudo = caller()
    return frozenset({0, os.getuid(), *([by_sudo.uid] if by_sudo else [])})


def close_to_others() -> None:
    """Set a umask so that no other user can write to new files, as sudo does."""
    if not os.getuid():
        os.umask(os.umask(_OTHERS_MAY_WRITE) | _OTHERS_MAY_WRITE)


def why_not(path: Path, owners: Collection[int], *, sticky: bool = False) -> str:
    """Why a user other than ``owners`` could change what ``path`` leads to; empty if none can.

    Every folder on the way counts, also behind symbolic links. In a folder with the sticky bit,
    such as /tmp, every user can make files, and none can replace another user's files. With
    ``sticky``, the last folder may be such a folder. A missing file counts as its folder does.
    Raises ``OSError``.
    """
    here, links = Path("/"), 0
    # Not normalised: behind a link, .. is not the folder before it.
    whole = path if path.is_absolute() else Path.cwd() / path  # that may be gone
    todo = [*reversed(whole.parts[1:])]
    while True:
        about = here.stat()
        if not stat.S_ISDIR(about.st_mode):
            return ""
        if about.st_uid not in owners:
            return f"{here} belongs to {_name(about.st_uid)}"
        shared = bool(about.st_mode & _OTHERS_MAY_WRITE)
        keeps = bool(about.st_mode & stat.S_ISVTX)
        if shared and not (keeps and (todo or sticky)):
            return f"others can write to {here}"
        if not todo:
            return ""
        name = todo.pop()
        if name == "..":
            here = here.parent
            continue
        entry = here / name
        try:
            about = entry.lstat()
        except FileNotFoundError:
            return f"others can write to {here}" if shared and not sticky else ""
        if shared and about.st_uid not in owners:
            return f"{entry} belongs to {_name(about.st_uid)}"
        if not stat.S_ISLNK(about.st_mode):
            here = entry
            continue
        links += 1
        if links > MOST_LINKS:
            return f"{entry} is one of too many links"
        target = entry.readlink()
        todo += [part for part in reversed(target.parts) if part != "/"]
        if target.is_absolute():
            here = Path("/")


def _name(uid: int) -> str:
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return f"user {uid}"
