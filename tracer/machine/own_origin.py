"""What this command says of itself in evidence: machine, time, command line and build."""

from __future__ import annotations

import os
import sys
from datetime import datetime
from pathlib import Path

from zctrace._version import __version__
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
        __version__,
        commit(Path(__file__).resolve().parents[2]),
    )


def commit(folder: Path) -> str:
    """The commit that is checked out in ``folder``; empty if it is no checkout of ours.

    Read from git's files: git itself would do what the folder's configuration says, as root.
    """
    try:
        if not (folder / "pyproject.toml").is_file():
            return ""
        git = folder / ".git"
        if git.is_file():  # a worktree
            git = folder / git.read_text().removeprefix("gitdir:").strip()
        head = (git / "HEAD").read_text().strip()
        if not head.startswith("ref:"):
            return _checked(head)
        name = head.removeprefix("ref:").strip()
        common = git / "commondir"
        shared = git / common.read_text().strip() if common.is_file() else git
        if (shared / name).is_file():
            return _checked((shared / name).read_text().strip())
        packed = (shared / "packed-refs").read_text().splitlines()
        return next(
            (_checked(one.split()[0]) for one in packed if one.endswith(f" {name}")), ""
        )
    except (OSError, UnicodeDecodeError):
        return ""


def _checked(text: str) -> str:
    return text if len(text) >= 40 and set(text) <= set("0123456789abcdef") else ""


def _utf8(word: str) -> str:
    return os.fsencode(word).decode("utf-8", "backslashreplace")
