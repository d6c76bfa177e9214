"""Files for the user: written whole or not at all, and theirs, not root's.

A symbolic link stays: its target is written. A stream is written to and never replaced: ``-``
for standard output, /dev/stdout, /dev/fd/N, pipes, devices.
"""

from __future__ import annotations

import errno
import os
import re
import secrets
import sys
import tempfile
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

from zctrace.errors import OutputError

STDOUT = Path("-")
_STDOUT_DESCRIPTOR = 1
_MOST_LINKS = 40
"""As many as the kernel follows (MAXSYMLINKS)."""
_DESCRIPTORS = re.compile(r"/proc/(self|thread-self|\d+)(/task/\d+)?/fd")


def check(path: Path, option: str, *, force: bool) -> None:
    """Refuse early what would fail late; raises :class:`OutputError`."""
    try:
        _check(path, option, force=force)
    except OSError as error:
        raise OutputError(f"{option} {path}: {error.strerror}") from error


def _check(path: Path, option: str, *, force: bool) -> None:
    if _is_stream(path):
        return
    if path.is_dir():
        raise OutputError(f"{option} {path}: is a folder", hint=f"{option} {path}/result")
    if path.exists() and not force:
        raise OutputError(
            f"{option} {path}: exists already", "results are not overwritten", "--force"
        )
    folder = _target(path).parent
    if not folder.is_dir():
        raise OutputError(f"{option} {path}: no folder {folder}", hint=f"mkdir -p {folder}")
    handle, probe = _unnamed(folder)
    os.close(handle)
    if probe:
        os.unlink(probe)


def check_distinct(outputs: Iterable[tuple[str, Path]]) -> None:
    """Raise :class:`OutputError` for two that go to one place, however it is spelt.

    ``outputs`` are options with their paths. Devices such as /dev/null take any number.
    """
    places: dict[object, str] = {}
    for option, path in outputs:
        place: object = _descriptor(path)
        if place is None and not _is_stream(path):
            place = _target(path)
        if place is None:
            continue
        named = f"{option} {path}"
        if place in places:
            raise OutputError(
                "two outputs would go to the same place",
                f"{places[place]}, {named}",
                "a path of its own for each",
            )
        places[place] = named


def is_stdout(path: Path) -> bool:
    """Whether an output goes where reports are printed."""
    return _descriptor(path) == _STDOUT_DESCRIPTOR


def write(path: Path, text: str) -> None:
    """Put ``text`` in place of ``path`` in one step; raises :class:`OutputError`.

    In UTF-8, whatever the locale; names that are not UTF-8 are escaped. Under sudo the file
    belongs to the user who called it.
    """
    partial = ""
    try:
        if _is_stream(path):
            _write_to_stream(path, text)
            return
        target = _target(path)
        handle, partial = _unnamed(target.parent)
        with open(handle, "w", encoding="utf-8", errors="backslashreplace") as file:
            file.write(text)
            file.flush()
            os.fsync(handle)
            _give_to_caller(handle)
            partial = partial or _named(handle, target)
        if partial:
            os.replace(partial, target)
    except OSError as error:
        if partial and os.path.exists(partial):
            os.unlink(partial)
        raise OutputError(
            f"{path} could not be written: {error.strerror}",
            "nothing was left behind",
            "another folder, or - for standard output",
        ) from error


def _unnamed(folder: Path) -> tuple[int, str]:
    """A new file that goes with whoever is killed, and no name.

    With a name, which stays then, where the file system has no such files.
    """
    try:
        return os.open(folder, os.O_TMPFILE | os.O_RDWR, 0o600), ""
    except OSError:  # EOPNOTSUPP, or EISDIR of those that do not know of it
        return tempfile.mkstemp(dir=folder, prefix=".zctrace-")


def _named(handle: int, target: Path) -> str:
    """Name an unnamed file: ``target``, or where that is taken, what is returned."""
    folder = os.open(target.parent, os.O_PATH | os.O_DIRECTORY)
    try:
        for name in (target.name, f".zctrace-{secrets.token_hex(8)}"):
            # Only with a folder does Python have the kernel follow the link.
            with suppress(FileExistsError):
                os.link(f"/proc/self/fd/{handle}", name, dst_dir_fd=folder)
                return "" if name == target.name else str(target.parent / name)
    finally:
        os.close(folder)
    raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), str(target))


def _write_to_stream(path: Path, text: str) -> None:
    descriptor = _descriptor(path)
    if descriptor == _STDOUT_DESCRIPTOR:
        sys.stdout.flush()
        sys.stdout.buffer.write(text.encode("utf-8", "backslashreplace"))
        sys.stdout.buffer.flush()
        return
    # One of ours is not opened anew: that would begin at the start of a file behind it.
    where = path if descriptor is None else os.dup(descriptor)
    with open(where, "w", encoding="utf-8", errors="backslashreplace") as stream:
        stream.write(text)


def _target(path: Path) -> Path:
    """The file itself, behind all symbolic links; it need not be there."""
    return Path(os.path.realpath(path))


def _descriptor(path: Path) -> int | None:
    """The descriptor of ours that a path names, such as /dev/stdout."""
    if path == STDOUT:
        return _STDOUT_DESCRIPTOR
    place = os.path.abspath(path)
    for _ in range(_MOST_LINKS):
        folder, name = os.path.realpath(os.path.dirname(place)), os.path.basename(place)
        if found := _DESCRIPTORS.fullmatch(folder):
            own = found[1] in ("self", "thread-self", str(os.getpid()))
            return int(name) if own and name.isdigit() else None
        if not os.path.islink(place):
            return None
        place = os.path.join(folder, os.readlink(place))
    return None


def _is_stream(path: Path) -> bool:
    if _descriptor(path) is not None:
        return True
    return path.exists() and not path.is_file() and not path.is_dir()


def _give_to_caller(handle: int) -> None:
    mask = os.umask(0)
    os.umask(mask)
    os.fchmod(handle, 0o666 & ~mask)
    uid, gid = os.environ.get("SUDO_UID", ""), os.environ.get("SUDO_GID", "")
    if os.geteuid() == 0 and uid.isdigit() and gid.isdigit():
        os.fchown(handle, int(uid), int(gid))
