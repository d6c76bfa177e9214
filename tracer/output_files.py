"""Files for the user: written whole or not at all, and theirs, not root's."""

from __future__ import annotations

import os
import sys
import tempfile
from pathlib import Path

from zctrace.errors import OutputError

STDOUT = Path("-")


def check(path: Path, option: str, *, force: bool) -> None:
    """Refuse early what would fail late; raises :class:`OutputError`."""
    try:
        _check(path, option, force=force)
    except OSError as error:
        raise OutputError(f"{option} {path}: {error.strerror}") from error


def _check(path: Path, option: str, *, force: bool) -> None:
    if path == STDOUT or _is_device(path):
        return
    if path.is_dir():
        raise OutputError(f"{option} {path}: is a folder", hint=f"{option} {path}/result")
    if path.exists() and not force:
        raise OutputError(
            f"{option} {path}: exists already", "results are not overwritten", "--force"
        )
    folder = path.parent
    if not folder.is_dir():
        raise OutputError(f"{option} {path}: no folder {folder}", hint=f"mkdir -p {folder}")
    handle, probe = tempfile.mkstemp(dir=folder, prefix=".zctrace-")
    os.close(handle)
    os.unlink(probe)


def write(path: Path, text: str) -> None:
    """Put ``text`` in place of ``path`` in one step; raises :class:`OutputError`.

    Under sudo the file belongs to the user who called it.
    """
    if path == STDOUT:
        sys.stdout.write(text)
        sys.stdout.flush()
        return
    partial = ""
    try:
        if _is_device(path):
            path.write_text(text)
            return
        handle, partial = tempfile.mkstemp(dir=path.parent, prefix=".zctrace-")
        with open(handle, "w") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        _give_to_caller(partial)
        os.replace(partial, path)
    except OSError as error:
        if partial and os.path.exists(partial):
            os.unlink(partial)
        raise OutputError(
            f"{path} could not be written: {error.strerror}",
            "nothing was left behind",
            "another folder, or - for standard output",
        ) from error


def _is_device(path: Path) -> bool:
    """A pipe or a device (/dev/stdout, /dev/null): written to, never replaced."""
    return path.exists() and not path.is_file() and not path.is_dir()


def _give_to_caller(path: str) -> None:
    mask = os.umask(0)
    os.umask(mask)
    os.chmod(path, 0o666 & ~mask)
    uid, gid = os.environ.get("SUDO_UID", ""), os.environ.get("SUDO_GID", "")
    if os.geteuid() == 0 and uid.isdigit() and gid.isdigit():
        os.chown(path, int(uid), int(gid))
