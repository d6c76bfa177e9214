"""Kernels at hand: fetched ones in the cache, installed ones, and how to get more."""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import re
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from zctrace import packages, trust
from zctrace.errors import KernelError, MissingError, OutputError, ResourceError
from zctrace.machine.cache import cache_folder as cache_folder
from zctrace.machine.cache import trusted_cache as trusted_cache
from zctrace.machine.debian_archive import (
    Archive,
    StockKernel,
    all_releases,
    flavour,
    own_release,
    version_key,
)
from zctrace.notices import Say

_UNPACKED_RATIO = 8
"""Unpacked files and packages together, at most this many times the packages."""
_VERSION = re.compile(r"\d+\.\d+\S*")
_INDEXER = "depmod"


@dataclass(frozen=True)
class Kernel:
    """A kernel that can be booted: its image, and its modules where they belong to it.

    ``version`` is the distribution's package version, empty where unknown; ``stock``
    whether it was fetched as this machine's release's own.
    """

    release: str
    image: Path
    origin: str
    version: str = ""
    stock: bool = False

    @property
    def modules(self) -> Path | None:
        """Where its modules are; ``None`` without any."""
        folder = self.image.parent.parent / "lib" / "modules" / self.release
        return folder if folder.is_dir() else None

    @property
    def identity(self) -> str:
        """A name for this very image: another one at the same path has another."""
        about = self.image.stat()
        which = f"{self.image} {about.st_size} {about.st_mtime_ns}"
        return f"{self.release}-{hashlib.sha256(which.encode()).hexdigest()[:12]}"


def cached() -> list[Kernel]:
    """Kernels in the cache, oldest first; what is damaged is none, and is fetched anew.

    Raises :class:`OutputError` for a cache that cannot be looked into, or is not ours alone.
    """
    described = trusted_cache("kernels").glob("[!.]*/kernel.json")
    kernels = [kernel for one in described if (kernel := _described(one))]
    return sorted(kernels, key=lambda kernel: version_key(kernel.version))


def _described(description: Path) -> Kernel | None:
    home = description.parent
    try:
        values = json.loads(description.read_text())
        release, version, stock = (values[key] for key in ("release", "version", "stock"))
    except (OSError, ValueError, LookupError, TypeError):
        return None
    image = home / "boot" / f"vmlinuz-{home.name}"
    if release != home.name or not isinstance(version, str) or not image.is_file():
        return None
    return Kernel(release, image, "cache", version, stock is True)


def installed() -> list[Kernel]:
    """Kernels of this machine that have their modules, oldest first."""
    kernels = [
        Kernel(image.name.removeprefix("vmlinuz-"), image, "installed")
        for image in Path("/boot").glob("vmlinuz-*")
    ]
    return sorted(
        (k for k in kernels if Path("/lib/modules", k.release).is_dir()),
        key=lambda kernel: version_key(kernel.release),
    )


def machine_folder(kernel: Kernel) -> Path:
    """The folder for files that booting a kernel needs: next to the kernels, by its image."""
    return trusted_cache("machines") / kernel.identity


def stock(say: Say) -> Kernel:
    """This machine's release's own kernel, from the cache or else from the archive."""
    for kernel in reversed(cached()):
        if kernel.stock:
            return kernel
    return fetch("stock", say)


def resolve(name: str, say: Say) -> Kernel:
    """The kernel that ``--kernel name`` means: a path, a release, or a version.

    A version that is not at hand is fetched. Raises :class:`KernelError`.
    """
    check_name(name)
    return at_hand(name) or fetch(name, say)


def check_name(name: str) -> None:
    """Raise :class:`KernelError` for what can be no kernel's name."""
    if "/" not in name and not _VERSION.fullmatch(name):
        raise KernelError(
            f"--kernel {name}: no such kernel",
            "it is neither auto, host, a version such as 6.1, nor a path",
            "zctrace kernels lists those at hand",
        )


def at_hand(name: str) -> Kernel | None:
    """The kernel that ``name`` means, if it need not be fetched."""
    if "/" in name:
        return _from_path(Path(name))
    fitting = (k for k in installed() + cached() if _matches(name, k.release, k.version))
    return next(reversed(list(fitting)), None)


def fetch(name: str, say: Say) -> Kernel:
    """Download the newest kernel that ``name`` means: a version, or ``stock``.

    A version may end with a flavour: 6.1-rt. Unpacks it into the cache, whole or not at all.
    Raises :class:`KernelError`, and :class:`ResourceError` where the disk is too small.
    """
    if name != "stock" and not _VERSION.fullmatch(name):
        raise KernelError(f"{name}: not a kernel version", hint="zctrace kernels fetch 6.1")
    with _locked_cache() as cache:
        archive, chosen = _choose(name, cache, say)
        home = cache / "kernels" / chosen.release
        if chosen.release not in (kernel.release for kernel in cached()):
            _get(archive, chosen, home, stock=name == "stock", say=say)
        elif name == "stock":
            _describe(home, chosen, stock=True)
    return next(k for k in cached() if k.release == chosen.release)


def fetched_first(name: str, say: Say) -> StockKernel:
    """What :func:`fetch` would fetch; raises :class:`KernelError` where it could not."""
    with _locked_cache() as cache:
        return _choose(name, cache, say)[1]


def offered(say: Say) -> list[StockKernel]:
    """All that :func:`fetch` can fetch, oldest first."""
    with _locked_cache() as cache:
        found = all_releases(cache / "apt").kernels(say)
    return [kernel for kernel in found if not kernel.lacking]


def _choose(name: str, cache: Path, say: Say) -> tuple[Archive, StockKernel]:
    if name == "stock":
        archive = own_release(cache / "apt")
        return archive, archive.default(say)
    archive = all_releases(cache / "apt")
    return archive, _newest(name, archive.kernels(say))


def _newest(name: str, named: list[StockKernel]) -> StockKernel:
    fitting = [k for k in named if _matches(name, k.release, k.version)]
    whole = [k for k in fitting if not k.lacking]
    if whole:
        return whole[-1]
    suffix = f"-{flavour(name)}" if flavour(name) else ""
    lines = {
        f"{line_of(k.version)}{suffix}"
        for k in named
        if not k.lacking and flavour(k.release) == flavour(name)
    }
    has = f"it has {', '.join(sorted(lines, key=version_key))}"
    hint = "zctrace kernels fetch VERSION, with one of these"
    if not fitting:
        raise KernelError(f"the package archive has no kernel {name}", has, hint)
    raise KernelError(
        f"the package archive has kernel {name} only in part",
        f"{fitting[-1].release} needs {', '.join(fitting[-1].lacking)}, which the archive no "
        f"longer has; {has}",
        hint,
    )


def line_of(version: str) -> str:
    """The line that a kernel is of: 6.1 for 6.1.192-2."""
    return ".".join(re.findall(r"\d+", version)[:2])


def remove(name: str) -> list[Kernel]:
    """Remove the cached kernels of exactly this release or version; returns them.

    Raises :class:`KernelError` for the beginning of a name, and says which kernels it fits.
    """
    with _locked_cache():
        fitting = [k for k in cached() if name and name in (k.release, k.version)]
        if not fitting and (
            close := [k.release for k in cached() if _matches(name, k.release, k.version)]
        ):
            raise KernelError(
                f"{name}: not the whole name of a kernel in the cache",
                f"it fits {', '.join(close)}, and only whole names are removed",
                f"zctrace kernels rm {close[0]}",
            )
        if not fitting:
            raise KernelError(
                f"{name}: not in the cache",
                "only fetched kernels can be removed, never installed ones",
                "zctrace kernels",
            )
        for kernel in fitting:
            # Out of sight first: what an interrupt leaves is swept up as a half-made kernel.
            home, machines = kernel.image.parent.parent, machine_folder(kernel)
            if machines.is_dir():
                machines.rename(home / machines.parent.name)
            doomed = home.with_name(f".partial-{home.name}")
            home.rename(doomed)
            shutil.rmtree(doomed)
    return fitting


def _matches(name: str, release: str, version: str) -> bool:
    """Whether ``name`` is a release, a version, or the beginning of one.

    Other flavours than the usual one must be named: 6.1-rt.
    """
    if name == release:
        return True
    named = flavour(name)
    if named != flavour(release):
        return False
    stem = name.removesuffix(f"-{named}") if named else name
    return any(
        whole == stem or (whole.startswith(stem) and not whole[len(stem)].isalnum())
        for whole in (release, version)
        if whole
    )


def _from_path(image: Path) -> Kernel:
    if not os.path.isfile(image):
        raise KernelError(f"--kernel {image}: no such file", hint="zctrace kernels")
    with image.open("rb") as file:
        head = file.read(0x206)
    # The boot protocol's signature: Documentation/arch/x86/boot.rst, "HdrS" at 0x202.
    if head[0x202:0x206] != b"HdrS":
        raise KernelError(
            f"--kernel {image}: not a Linux kernel image",
            "the boot protocol's signature is missing",
            "a bzImage, as in /boot/vmlinuz-*",
        )
    return Kernel(image.name.removeprefix("vmlinuz-"), image.resolve(), "path")


@contextmanager
def _locked_cache() -> Iterator[Path]:
    """The cache, locked; unfinished kernels of processes that have ended are removed."""
    cache = trusted_cache("kernels").parent
    try:
        (cache / "kernels").mkdir(parents=True, exist_ok=True)
        lock = (cache / "lock").open("w")
    except OSError as error:
        raise OutputError(
            f"the cache {cache} cannot be used: {error.strerror}",
            hint="sudo, or ZCTRACE_CACHE=FOLDER",
        ) from error
    with lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        for partial in (cache / "kernels").glob(".partial-*"):
            shutil.rmtree(partial)
        yield cache


def _get(archive: Archive, chosen: StockKernel, home: Path, *, stock: bool, say: Say) -> None:
    size = archive.size(chosen)
    free = shutil.disk_usage(home.parent).free
    if free < size * _UNPACKED_RATIO:
        raise ResourceError(
            f"not enough disk for kernel {chosen.release}: {free >> 20} MiB free in "
            f"{home.parent}, {size * _UNPACKED_RATIO >> 20} MiB wanted",
            hint="ZCTRACE_CACHE=FOLDER puts the cache elsewhere",
        )
    partial = Path(tempfile.mkdtemp(prefix=".partial-", dir=home.parent))
    try:
        for package in archive.download(chosen, partial, say):
            say(f"unpacking {package.name}")
            _unpack(package, partial / "files")
            package.unlink()
        _arrange(partial, chosen.release)
        _describe(partial, chosen, stock=stock)
        partial.chmod(0o755)
        if home.exists():
            shutil.rmtree(home)  # a damaged one
        partial.rename(home)
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def _unpack(package: Path, folder: Path) -> None:
    result = subprocess.run(
        ["dpkg-deb", "-x", str(package), str(folder)],
        capture_output=True,
        text=True,
        env=trust.system_environment(),
    )
    if result.returncode:
        raise KernelError(
            f"{package.name} could not be unpacked",
            result.stderr.strip(),
            "zctrace kernels fetch, once more",
        )


def _arrange(partial: Path, release: str) -> None:
    """Image in boot/, modules in lib/modules/, whatever the packages' own layout."""
    files = partial / "files"
    images = [*files.rglob(f"vmlinuz-{release}"), *files.rglob("vmlinuz")]
    modules = [path for path in files.rglob(release) if path.parent.name == "modules"]
    if not images or not modules:
        raise KernelError(
            f"the packages of kernel {release} hold no image or no modules",
            "the archive packs its kernels in a way not seen before",
            "--kernel PATH names a kernel image of your own",
        )
    (partial / "boot").mkdir()
    images[0].rename(partial / "boot" / f"vmlinuz-{release}")
    (partial / "lib" / "modules").mkdir(parents=True)
    modules[0].rename(partial / "lib" / "modules" / release)
    shutil.rmtree(files)
    _index(partial, release)


def _index(home: Path, release: str) -> None:
    """Write what modprobe and a guest's initial file system read: which module needs which.

    Packages leave that to the installing program.
    """
    try:
        result = subprocess.run(
            [_INDEXER, "--basedir", str(home), release],
            capture_output=True,
            text=True,
            env=trust.system_environment(),
        )
    except FileNotFoundError as error:
        raise MissingError(
            "depmod is not installed",
            "it lists the modules of a kernel that was fetched",
            packages.remedy("kmod"),
        ) from error
    if result.returncode:
        raise KernelError(f"depmod failed for kernel {release}", result.stderr.strip())


def _describe(home: Path, chosen: StockKernel, *, stock: bool) -> None:
    (home / "kernel.json").write_text(
        json.dumps({"release": chosen.release, "version": chosen.version, "stock": stock})
    )
