"""Root file systems of Debian releases, in zctrace's cache.

mmdebstrap makes them, from the machine's own archive and with its signatures checked; only the
suite's name is replaced. Such a root has what ``debootstrap --variant=minbase`` installs:
packages that are essential, and apt. About 130 MB.
"""

import fcntl
import shutil
import subprocess
import tempfile
from pathlib import Path

from zctrace.errors import KernelError
from zctrace.machine import debian_archive
from zctrace.machine.kernels import cache_folder

RELEASES = ("bookworm", "trixie", "sid")
"""Debian 12, 13 and the next ones."""
_SETTINGS = ("Acquire::http", "Acquire::https", "Acquire::Check", "Acquire::Retries")
"""How this machine's apt reaches its archive: what a root's apt has to know, too."""


def root_of(release, name, packages, say):
    """The root file system of ``release`` with ``packages``, built if it is not at hand.

    It stays in ``name`` of the cache: whole or not at all; remove the folder to have it built
    anew. Raises :class:`KernelError` where the archive does not have the release or a package.
    """
    folder = cache_folder() / name
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        for partial in folder.glob(".partial-*"):
            shutil.rmtree(partial)
        root = folder / release
        if not root.exists():
            say(f"making a root file system of {release}")
            partial = tempfile.mkdtemp(prefix=".partial-", dir=folder)
            try:
                _make(release, f"{partial}/root", packages).rename(root)
            finally:
                shutil.rmtree(partial, ignore_errors=True)
    return root


def _make(release, target, packages):
    sites = dict.fromkeys(
        site for site, suite in debian_archive._configured() if "security" not in suite
    )
    if not sites:
        raise KernelError(
            "apt has no Debian archive configured",
            hint="apt-get indextargets lists what it has",
        )
    _run(
        "mmdebstrap", "--mode=root", "--variant=minbase", "--quiet",
        *(f"--aptopt={setting}" for setting in apt_settings()),
        *(f"--include={package}" for package in packages),
        release, target, *(debian_archive._source(site, release) for site in sites),
    )  # fmt: skip
    return Path(target)


def apt_settings():
    """Lines of apt's configuration: how this machine reaches its archive."""
    lines = _run("apt-config", "dump", "Acquire").splitlines()
    return [line for line in lines if line.startswith(_SETTINGS) and not line.endswith('"";')]


def _run(*command):
    result = subprocess.run(command, capture_output=True, text=True)
    if result.returncode:
        raise KernelError(f"{command[0]} failed", result.stderr.strip())
    return result.stdout
