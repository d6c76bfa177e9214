"""Files for the user: written whole or not at all, and theirs, not root's.

A symbolic link stays: its target is written. A stream is written to and never replaced: ``-``
for standard output, /dev/stdout, /dev/fd/N, pipes, devices.

Under sudo everything here is done with the rights of the user who called sudo. The exception is
a path that only root can change: then root writes, and gives the file to the caller.
"""

from __future__ import annotations

import errno
import os
import re
import secrets
import stat
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path

from zctrace import trust
from zctrace.errors import OutputError

STDOUT = Path("-")
_STDOUT_DESCRIPTOR = 1
_MOST_NAMES = 100
"""So many names are tried for a result whose own name is taken."""
_ELSEWHERE = "another folder, or - for standard output"
_NUMBER = re.compile("[0-9]{1,9}")
"""Of a descriptor: more digits do not fit into an int."""
_DESCRIPTORS = re.compile(r"/proc/(self|thread-self|\d+)(/task/\d+)?/fd")


def check(path: Path, option: str, *, force: bool) -> None:
    """Refuse early what would fail late; raises :class:`OutputError`."""
    if _descriptor(path) is not None:
        return
    with _told(path, f"{option} {path}"), _acting(path):
        _check(path, option, force=force)


@contextmanager
def _told(path: Path, what: str) -> Iterator[None]:
    """Raise :class:`OutputError` for an ``OSError``; ``what`` could not be written."""
    try:
        yield
    except OSError as error:
        os.getcwd()  # raises where it is the working folder that is gone
        why = "nothing was left behind"
        with suppress(OSError):  # the path itself may be what is wrong
            if whose := _whose(path):
                user, others = whose
                why = f"user {user.uid}, who called sudo, is the one to write it, as {others}"
        raise OutputError(f"{what}: {error.strerror}", why, _ELSEWHERE) from error


def _check(path: Path, option: str, *, force: bool) -> None:
    _require_own_link(path)
    if path.is_block_device():
        raise OutputError(f"{option} {path}: is a disk", hint=f"{option} FILE")
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
    with _Partial(folder):
        pass


def check_folder(path: Path, option: str) -> None:
    """The same for a folder, which may be there; raises :class:`OutputError`."""
    with _told(path, f"{option} {path}"), _acting(path):
        if path.is_dir():
            where = path
        elif path.exists():
            raise OutputError(f"{option} {path}: is no folder", hint=f"{option} FOLDER")
        elif not (where := path.absolute().parent).is_dir():
            raise OutputError(f"{option} {path}: no folder {where}", hint=f"mkdir -p {where}")
        with _Partial(where):
            pass


def write_into(folder: Path, files: Mapping[str, str | bytes], *, force: bool = True) -> None:
    """Write files below ``folder`` by their paths in it; raises :class:`OutputError`."""
    for name, content in files.items():
        path = folder / name
        with _told(path, f"{path} could not be written"), _acting(folder):
            for missing in reversed([p for p in path.parents if not p.exists()]):
                missing.mkdir()
                _give_to_caller(missing)
        write(path, content, force=force)


def check_distinct(outputs: Iterable[tuple[str, Path]]) -> None:
    """Raise :class:`OutputError` for two that go to one place, however it is spelt.

    ``outputs`` are options with their paths. Devices such as /dev/null take any number.
    """
    places: dict[object, str] = {}
    for option, path in outputs:
        with _told(path, f"{option} {path}"):
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


def write(path: Path, text: str | bytes, *, force: bool = True) -> None:
    """Put ``text`` in place of ``path`` in one step; raises :class:`OutputError`.

    In UTF-8, whatever the locale; names that are not UTF-8 are escaped. Without ``force`` a
    file of that name is not replaced: the text goes to another name, which the error tells.
    """
    with _told(path, f"{path} could not be written"):
        if _descriptor(path) is not None:
            _write_to_stream(path, text)
            return
        with _acting(path):
            _require_own_link(path)
            if _is_stream(path):
                _write_to_stream(path, text)
                return
            target = _target(path)
            with _Partial(target.parent) as partial:
                partial.write(text)
                if force:
                    partial.take_the_place_of(target.name)
                    return
                for number in range(1, _MOST_NAMES):
                    name = target.name if number == 1 else f"{target.name}.{number}"
                    if partial.be(name):
                        break
                else:
                    raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST))
        if name != target.name:
            raise OutputError(
                f"{path}: was written by another program during the measurement",
                f"the result is in {target.parent / name}",
                f"another name for each result, or --force to replace {path}",
            )


def _whose(path: Path) -> tuple[trust.Caller, str] | None:
    """With whose rights ``path`` is written if not with ours, and why."""
    caller = trust.caller()
    why = trust.why_not(path, {0}) if caller else ""
    return (caller, why) if caller and why else None


@contextmanager
def lines(path: Path) -> Iterator[Callable[[str], None]]:
    """What puts a line at the end of a new file, or of a stream, at once.

    Raises :class:`OutputError`.
    """
    what = f"{path} could not be written"
    with _told(path, what), _acting(path):
        if is_stdout(path):
            file = os.fdopen(os.dup(_STDOUT_DESCRIPTOR), "wb", buffering=0)
        else:
            _require_own_link(path)
            file = path.open("wb", buffering=0)

    def put(line: str) -> None:
        with _told(path, what):
            file.write(_encoded(f"{line}\n"))

    with file:
        yield put


def append(path: Path, text: str) -> None:
    """Put ``text`` behind what ``path`` has; raises :class:`OutputError`."""
    with (
        _told(path, f"{path} could not be written"),
        _acting(path),
        path.open("ab") as file,
    ):
        file.write(_encoded(text))


@contextmanager
def _acting(path: Path) -> Iterator[None]:
    """Run the body with these rights."""
    whose = _whose(path)
    if not whose:
        yield
        return
    with whose[0].acting():
        yield


class _Partial:
    """A file without a name of its own yet; gone at the end of the ``with`` if it has got none.

    By descriptors alone: a user who can rename files in the folder, or the folder, could
    make us change another file by its path.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
        self._name = ""
        try:
            # The file disappears if we are killed.
            self._file = os.open(".", os.O_TMPFILE | os.O_WRONLY, 0o600, dir_fd=self._folder)
        except OSError:  # EOPNOTSUPP, or EISDIR of file systems that do not know of it
            self._file = self._with_a_name()

    def _with_a_name(self) -> int:
        self._name = f".zctrace-{secrets.token_hex(8)}"
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL
        try:
            return os.open(self._name, flags, 0o600, dir_fd=self._folder)
        except BaseException:
            os.close(self._folder)
            raise

    def __enter__(self) -> _Partial:
        return self

    def __exit__(self, *_: object) -> None:
        if self._name:
            with suppress(FileNotFoundError):
                os.unlink(self._name, dir_fd=self._folder)
        os.close(self._file)
        os.close(self._folder)

    def write(self, text: str | bytes) -> None:
        """All of it, to the disk; and for the caller."""
        with open(self._file, "wb", closefd=False) as file:
            file.write(_encoded(text))
        os.fsync(self._file)
        mask = os.umask(0)
        os.umask(mask)
        os.fchmod(self._file, 0o666 & ~mask)
        _give_to_caller(self._file)

    def be(self, name: str) -> bool:
        """Get this name; ``False`` if there is a file that has it."""
        try:
            if self._name:
                # Not every file system has links: the name is taken first, and then replaced.
                flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL
                os.close(os.open(name, flags, 0o600, dir_fd=self._folder))
                self.take_the_place_of(name)
            else:
                self._call_it(name)
        except FileExistsError:
            return False
        return True

    def take_the_place_of(self, name: str) -> None:
        """Be the file of that name, in one step."""
        if not self._name:
            with suppress(FileExistsError):
                self._call_it(name)
                return
            another = f".zctrace-{secrets.token_hex(8)}"
            self._call_it(another)
            self._name = another
        os.replace(self._name, name, src_dir_fd=self._folder, dst_dir_fd=self._folder)

    def _call_it(self, name: str) -> None:
        # Only with a folder does Python have the kernel follow the link.
        os.link(f"/proc/self/fd/{self._file}", name, dst_dir_fd=self._folder)


def _give_to_caller(file: int | Path) -> None:
    """What root has made: to the user who called sudo."""
    caller = trust.caller()
    if caller and not os.geteuid():
        os.chown(file, caller.uid, caller.gid)


def _encoded(text: str | bytes) -> bytes:
    return text if isinstance(text, bytes) else text.encode("utf-8", "backslashreplace")


def _write_to_stream(path: Path, text: str | bytes) -> None:
    descriptor = _descriptor(path)
    if descriptor == _STDOUT_DESCRIPTOR:
        sys.stdout.flush()
        sys.stdout.buffer.write(_encoded(text))
        sys.stdout.buffer.flush()
        return
    # One of ours is not opened anew: that would begin at the start of a file behind it.
    where = path if descriptor is None else os.dup(descriptor)
    with open(where, "wb") as stream:
        stream.write(_encoded(text))


def _target(path: Path) -> Path:
    """The file itself, behind all symbolic links; it need not be there."""
    target = Path(os.path.realpath(path))
    if target.is_symlink():  # one that leads to itself
        raise OSError(errno.ELOOP, os.strerror(errno.ELOOP))
    return target


def _require_own_link(path: Path) -> None:
    """Raise ``OSError`` for a link that somebody has put there who is not to be believed.

    The kernel follows none in a folder such as /tmp, if so configured: here we follow by
    ourselves, and everywhere.
    """
    with suppress(FileNotFoundError, NotADirectoryError):
        about = os.lstat(path)
        if stat.S_ISLNK(about.st_mode) and about.st_uid not in trust.owners():
            raise PermissionError(0, f"is a link that belongs to user {about.st_uid}")


def _descriptor(path: Path) -> int | None:
    """The descriptor of ours that a path names, such as /dev/stdout."""
    if path == STDOUT:
        return _STDOUT_DESCRIPTOR
    place = os.path.abspath(path)
    for _ in range(trust.MOST_LINKS):
        folder, name = os.path.realpath(os.path.dirname(place)), os.path.basename(place)
        if found := _DESCRIPTORS.fullmatch(folder):
            own = found[1] in ("self", "thread-self", str(os.getpid()))
            return int(name) if own and _NUMBER.fullmatch(name) else None
        if not os.path.islink(place):
            return None
        place = os.path.join(folder, os.readlink(place))
    return None


def _is_stream(path: Path) -> bool:
    if _descriptor(path) is not None:
        return True
    return path.exists() and not path.is_file() and not path.is_dir()
