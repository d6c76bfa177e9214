"""The payload: a file on real file systems of its own.

The images are made by the command line, outside the guest; here they are mounted. On a
host that happens in a private mount namespace, so that the mounts end with the process
however that ends.
"""

from __future__ import annotations

import os
import subprocess
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

from zctrace.collect import disk
from zctrace.collect.mounts import mounts
from zctrace.errors import ResourceError, ZctraceError
from zctrace.evidence.schema import Request
from zctrace.workloads import libc

_DISKS = Path("/sys/block")
_DISK_SECONDS, _POLL_SECONDS = 30.0, 0.05

_PATTERN = bytes(range(251)) * 4177
"""About 1 MiB. The period is prime, so that a block that lands in the wrong place does
not look right."""


@contextmanager
def mounted(request: Request) -> Iterator[dict[str, Path]]:
    """Mount the images and make the payloads; yields their paths by file system.

    Files and folders belong to the user of the strategies. The files are on the disk, and
    not in the page cache.
    """
    if request.file:
        path = Path(request.file)
        _, kind = disk.mounted(path)
        yield {kind: path}
        return
    if request.machine == "host":
        libc.unshare(libc.CLONE_NEWNS)
        _run("mount", "--make-rprivate", "/")
    mount = Path(request.mount)
    _make(mount)
    with ExitStack() as stack:
        stack.callback(mount.rmdir)
        yield {
            kind: stack.enter_context(_payload(request, kind, image, mount / kind))
            for kind, image in request.images.items()
        }


@contextmanager
def _payload(request: Request, kind: str, image: str, mount: Path) -> Iterator[Path]:
    options = "noatime"
    if image and request.machine == "host":
        options += ",loop"
    _make(mount)
    try:
        source = image or kind
        if image and request.machine != "host":
            source = find_disk(image)
        _run("mount", "-t", kind, "-o", options, source, str(mount))
        if options.endswith(",loop"):
            _read_past_cache(mount)
        try:
            folder = mount / "zctrace"
            folder.mkdir(mode=0o700, exist_ok=True)
            file = folder / "payload"
            _fill(file, max(request.sizes))
            os.chown(file, request.uid, request.gid)
            os.chown(folder, request.uid, request.gid)
            yield file
        finally:
            _run("umount", "--lazy", str(mount))
    finally:
        mount.rmdir()


def _make(folder: Path) -> None:
    """One that the strategies' user can go through, whatever the umask."""
    folder.mkdir(exist_ok=True)
    folder.chmod(0o755)


def _read_past_cache(mount: Path) -> None:
    """Have the loop device of a mounted image read and write its file directly, if it can.

    Otherwise it copies what is read from the page cache of the image. These copies would be
    counted, and could not be attributed.
    """
    for found in mounts():
        if found.point == mount.resolve():
            command = ["losetup", "--direct-io=on", found.source]
            subprocess.run(command, capture_output=True, check=False)


def find_disk(serial: str) -> str:
    """The disk with that serial number, once its driver has found it."""
    deadline = time.monotonic() + _DISK_SECONDS
    while True:
        for node in _DISKS.glob("nvme*"):
            with suppress(OSError):
                if (node / "device" / "serial").read_text().strip() == serial:
                    return f"/dev/{node.name}"
        if time.monotonic() > deadline:
            raise ZctraceError(f"the machine's disk {serial} does not show up")
        time.sleep(_POLL_SECONDS)


def _fill(file: Path, size: int) -> None:
    try:
        with file.open("wb") as out:
            left = size
            while left:
                left -= out.write(_PATTERN[:left])
            out.flush()
            os.fsync(out.fileno())
            os.posix_fadvise(out.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
    except OSError as error:
        raise ResourceError(
            f"the payload of {size} bytes could not be written: {error.strerror}",
            hint="a smaller --size",
        ) from error


def _run(*command: str) -> None:
    result = subprocess.run(command, capture_output=True, text=True)
    if result.returncode:
        raise ZctraceError(f"{' '.join(command)} failed", result.stderr.strip())
