"""Small root file systems with the BCC of other Debian releases, in zctrace's cache.

Packages come through apt from the machine's own archive, signatures checked; only the
suite's name is replaced. They are unpacked and not installed: no script of theirs runs,
and nothing is there but Python, BCC and what these two link to. About 300 MB each.
"""

import fcntl
import shutil
import subprocess
import tempfile
from pathlib import Path

from zctrace.errors import KernelError
from zctrace.machine import debian_archive
from zctrace.machine.kernels import cache_folder

PYTHON = "/usr/bin/python3"
_PACKAGES = ("python3", "python3-bpfcc")
_MERGED = ("bin", "sbin", "lib", "lib64")
"""Links into /usr; the package that brings them is not unpacked."""
_MOUNT_POINTS = ("dev", "proc", "run", "sys", "tmp")


class _Suite(debian_archive.Archive):
    """One release of the machine's archive, with lists and packages in ``folder``."""

    def packages(self):
        """Download what BCC needs; returns the files."""
        for part in ("state/lists/partial", "cache/archives/partial"):
            (self._folder / part).mkdir(parents=True)
        self._sources.write_text(self._lines)
        self._apt("apt-get", "update")
        self._apt(
            "apt-get", "install", "--yes", "--no-install-recommends", "--download-only",
            *_PACKAGES,
        )  # fmt: skip
        return sorted((self._folder / "cache/archives").glob("*.deb"))


def root_of(release, say):
    """The root file system of ``release``, built if it is not at hand.

    Whole or not at all; remove the folder to have it built anew. Raises
    :class:`KernelError` where the archive does not have the release or its BCC.
    """
    folder = cache_folder() / "bcc"
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        for partial in folder.glob(".partial-*"):
            shutil.rmtree(partial)
        root = folder / release
        if not root.exists():
            partial = Path(tempfile.mkdtemp(prefix=".partial-", dir=folder))
            try:
                _build(release, partial, say).rename(root)
            finally:
                shutil.rmtree(partial, ignore_errors=True)
    return root


def _build(release, folder, say):
    sites = dict.fromkeys(
        site for site, suite in debian_archive._configured() if "security" not in suite
    )
    if not sites:
        raise KernelError(
            "apt has no Debian archive configured",
            hint="apt-get indextargets lists what it has",
        )
    suite = _Suite(folder / "apt", [debian_archive._source(site, release) for site in sites])
    say(f"fetching {release}'s {_PACKAGES[-1]} and what it needs")
    packages = suite.packages()
    say(f"unpacking {len(packages)} packages")
    root = folder / "root"
    for name in _MERGED:
        (root / "usr" / name).mkdir(parents=True)
        (root / name).symlink_to(f"usr/{name}")
    for package in packages:
        _run("dpkg-deb", "-x", package, root)
    for name in _MERGED:
        # Packages from before the merge unpack folders over the links, and work with them.
        if not (root / name).exists():
            (root / name).symlink_to(f"usr/{name}")
    for name in _MOUNT_POINTS:
        (root / name).mkdir(exist_ok=True)
    root.chmod(0o755)
    # Shows that nothing is missing, and leaves the modules compiled: in an emulated
    # machine that would take longer than importing them.
    _run("chroot", root, PYTHON, "-c", "import bcc")
    return root


def _run(*command):
    result = subprocess.run(command, capture_output=True, text=True)
    if result.returncode:
        raise KernelError(f"{command[0]} failed", result.stderr.strip())
