"""The initial file system of a guest: Python, ``guest_init.py`` and a few drivers.

All of it is this machine's: the distribution's interpreter with what guest_init imports, and
the kernel's own modules. So it is small, and made in less than a second.

Source of the format: Documentation/driver-api/early-userspace/buffer-format.rst.
"""

from __future__ import annotations

import hashlib
import json
import lzma
import os
import stat
import subprocess
from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from zctrace import packages, trust
from zctrace.errors import MachineError, MissingError
from zctrace.machine import guest_init
from zctrace.machine.kernels import Kernel, line_of

PYTHON = "/usr/bin/python3"
"""The distribution's own: the one that can import its bcc."""
INIT = "/guest_init.py"
_SOURCE = Path(guest_init.__file__)
_LOADER = "/lib64/ld-linux-x86-64.so.2"
_INVENTORY = """
import json, runpy, sys
runpy.run_path(sys.argv[1])
files = [getattr(m, a, None) for m in list(sys.modules.values())
         for a in ("__file__", "__cached__")]
with open("/proc/self/maps") as maps:
    files += [line.split(None, 5)[5].strip() for line in maps if "/" in line]
print(json.dumps([sys.path, sorted({file for file in files if file})]))
"""
"""Prints the folders and files that the interpreter has used once all is imported."""
_REQUIRED = ("virtio_pci", "9pnet_virtio", "9p", "overlay")
"""Drivers without which no guest comes up: it gets its files over 9p, and puts an overlay on
them."""
_WANTED = (
    *_REQUIRED,
    # nvme's checksum asks for the last two itself, before modules can be loaded.
    *("crct10dif_generic", "crct10dif_pclmul", "nvme"),
)
"""Drivers that every guest needs. What a kernel has built in, or not, is left out."""
_TOP_LINKS = ("bin", "lib", "lib64", "sbin")
_UNPACKERS = {".zst": "zstd", ".gz": "gzip"}


@dataclass(frozen=True)
class Contents:
    """What goes in: links and files by where they are here, and the drivers in their order."""

    folders: tuple[str, ...]
    paths: tuple[str, ...]
    drivers: tuple[Path, ...]

    @cached_property
    def key(self) -> str:
        """Another one, as soon as anything of it changes."""
        all_paths = [*self.paths, *map(str, self.drivers)]
        about = [[path, *_state(path)] for path in all_paths]
        sources = [Path(path).read_bytes().hex() for path in (_SOURCE, __file__)]
        text = json.dumps([self.folders, about, sources])
        return hashlib.sha256(text.encode()).hexdigest()[:16]

    def write(self, target: Path) -> None:
        """Write the archive; an interrupt leaves no half of it there."""
        partial = target.with_name(f"{target.name}.partial-{os.getpid()}")
        partial.write_bytes(b"".join(self._entries()))
        partial.rename(target)

    def _entries(self) -> Iterator[bytes]:
        made = {"/"}

        def folders(path: str) -> Iterator[bytes]:
            if path not in made:
                yield from folders(os.path.dirname(path))
                made.add(path)
                yield _entry(path, stat.S_IFDIR | 0o755)

        for name in _TOP_LINKS:
            if os.path.islink(f"/{name}"):
                yield _entry(name, stat.S_IFLNK | 0o777, os.fsencode(os.readlink(f"/{name}")))
        for folder in ("/dev", guest_init.DRIVERS, *self.folders):
            yield from folders(folder)
        # Standard output, before there is anything else.
        yield _entry("/dev/console", stat.S_IFCHR | 0o600, device=(5, 1))
        for path in self.paths:
            yield from folders(os.path.dirname(path))
            about = os.lstat(path)
            link = stat.S_ISLNK(about.st_mode)
            data = os.fsencode(os.readlink(path)) if link else Path(path).read_bytes()
            # Compiled modules are used if their source is as old as they say.
            yield _entry(path, about.st_mode, data, int(about.st_mtime))
        for number, driver in enumerate(self.drivers):
            name = f"{guest_init.DRIVERS}/{number:02d}-{driver.name}"
            yield _entry(name, stat.S_IFREG | 0o644, _unpacked(driver))
        yield _entry(INIT, stat.S_IFREG | 0o644, _SOURCE.read_bytes())
        yield _entry("TRAILER!!!", 0)


def contents(kernel: Kernel) -> Contents:
    """What a guest with this kernel needs; raises :class:`MachineError`."""
    command = [PYTHON, "-I", "-c", _INVENTORY, str(_SOURCE)]
    result = subprocess.run(command, capture_output=True, text=True)
    if result.returncode:
        raise MachineError(
            f"{PYTHON} cannot import what a virtual machine's first program needs",
            result.stderr.strip().rpartition("\n")[2],
            packages.remedy("python"),
        )
    folders, files = json.loads(result.stdout)
    paths: dict[str, None] = {}
    for file in (PYTHON, _LOADER, *files):
        if os.path.isfile(file):
            _add(file, paths)
    real = {os.path.realpath(folder) for folder in folders if os.path.isdir(folder)}
    drivers = _drivers(kernel.modules) if kernel.modules else ()
    return Contents(tuple(sorted(real)), tuple(paths), tuple(drivers))


def _add(file: str, paths: dict[str, None]) -> None:
    """A file and the links that it goes by: how the loader finds a library is by one."""
    folder = os.path.realpath(os.path.dirname(file))
    path = os.path.join(folder, os.path.basename(file))
    if path in paths:
        return
    paths[path] = None
    if os.path.islink(path):
        _add(os.path.join(folder, os.readlink(path)), paths)
        return
    stem, is_library, _ = os.path.basename(path).partition(".so")
    for link in Path(folder).glob(f"{stem}.so*") if is_library else ():
        if link.is_symlink() and os.path.realpath(link) == path:
            paths[str(link)] = None


def _drivers(modules: Path) -> list[Path]:
    """Those that are wanted, each after those that it needs."""
    needs = {}
    try:
        index = (modules / "modules.dep").read_text()
    except OSError as error:
        raise MachineError(
            f"{modules}/modules.dep cannot be read: {error.strerror}",
            "it tells which modules the virtual machine's drivers need",
            f"depmod --basedir {modules.parents[2]} {modules.name}, as root",
        ) from error
    for line in index.splitlines():
        path, _, needed = line.partition(":")
        needs[path] = needed.split()
    by_name = {_name(path): path for path in needs}
    _require(modules, by_name.keys())
    order: dict[str, None] = {}

    def add(path: str) -> None:
        # The last is what all the others need.
        for needed in reversed(needs[path]):
            add(needed)
        order[path] = None

    for name in _WANTED:
        if name in by_name:
            add(by_name[name])
    return [modules / path for path in order]


def _name(path: str) -> str:
    return Path(path).name.partition(".")[0].replace("-", "_")


def _require(modules: Path, loadable: Collection[str]) -> None:
    """Raise :class:`MachineError` for a kernel that was built without what a guest needs."""
    try:
        lines = (modules / "modules.builtin").read_text().splitlines()
    except OSError:
        return  # Nothing tells what is built in: its first program will.
    built_in = set(map(_name, lines))
    lacking = [n for n in _REQUIRED if n not in loadable and n not in built_in]
    if lacking:
        raise MachineError(
            f"Linux {modules.name} cannot be booted in a virtual machine here",
            f"it was built without {', '.join(lacking)}, by which the machine gets its files",
            f"--kernel {line_of(modules.name)}, the usual flavour; or --kernel host where this "
            "one runs",
        )


def _unpacked(driver: Path) -> bytes:
    data = driver.read_bytes()
    if driver.suffix == ".xz":
        return lzma.decompress(data)
    if program := _UNPACKERS.get(driver.suffix):
        command = [program, "--decompress", "--stdout"]
        try:
            unpacked = subprocess.run(
                command,
                input=data,
                capture_output=True,
                check=True,
                env=trust.system_environment(),
            )
            return unpacked.stdout
        except FileNotFoundError as error:
            raise MissingError(
                f"{program} is not installed",
                f"it unpacks {driver.name} for the virtual machine",
                packages.remedy(program),
            ) from error
    return data


def _state(path: str) -> Iterable[int]:
    about = os.lstat(path)
    return about.st_size, about.st_mtime_ns


def _entry(
    name: str, mode: int, data: bytes = b"", time: int = 0, device: tuple[int, int] = (0, 0)
) -> bytes:
    """One file of an archive of the format newc."""
    named = os.fsencode(name.lstrip("/")) + b"\0"
    numbers = (0, mode, 0, 0, 1, time, len(data), 0, 0, *device, len(named), 0)
    head = b"070701" + b"".join(b"%08X" % number for number in numbers) + named
    return head + bytes(-len(head) % 4) + data + bytes(-len(data) % 4)
