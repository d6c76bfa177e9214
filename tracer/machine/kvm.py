"""Whether KVM boots a kernel on this machine."""

from __future__ import annotations

import fcntl
import json
import os
import shlex
import time
from contextlib import suppress
from pathlib import Path

from zctrace.machine.guardian import RunFolder
from zctrace.machine.kernels import Kernel, trusted_cache
from zctrace.machine.progress import POLL_SECONDS
from zctrace.machine.qemu import MIN_MEMORY, Guest, end, start
from zctrace.notices import Say

_KVM_SECONDS = 25.0
_KVM_GET_API_VERSION, _KVM_API_VERSION = 0xAE00, 12


def kvm_works(kernel: Kernel, run_folder: RunFolder, say: Say) -> bool:
    """Whether KVM really boots ``kernel``, tried once per kernel and boot of this machine.

    A /dev/kvm that opens proves little: nested virtualisation is often half there.
    """
    known = kvm_known(kernel)
    if known is not None:
        return known
    say("trying KVM")
    works = _kvm_boots(kernel, run_folder)
    memory = _kvm_memory()
    with suppress(OSError):
        memory.parent.mkdir(parents=True, exist_ok=True)
        tried = _kvm_tried() | {str(kernel.image): works}
        memory.write_text(json.dumps({"boot_id": _boot_id(), "works": tried}))
    return works


def kvm_known(kernel: Kernel) -> bool | None:
    """What is known of KVM without trying: ``None`` where it has to be tried."""
    return _kvm_tried().get(str(kernel.image)) if _kvm_answers() else False


def _kvm_tried() -> dict[str, bool]:
    """By image, since this machine has booted."""
    with suppress(OSError, ValueError, LookupError, TypeError):
        known = json.loads(_kvm_memory().read_text())
        if known["boot_id"] == _boot_id():
            return dict(known["works"])
    return {}


def _kvm_memory() -> Path:
    return trusted_cache("kvm.json")


def _boot_id() -> str:
    return Path("/proc/sys/kernel/random/boot_id").read_text().strip()


def _kvm_answers() -> bool:
    try:
        fd = os.open("/dev/kvm", os.O_RDWR | os.O_CLOEXEC)
    except OSError:
        return False
    try:
        return fcntl.ioctl(fd, _KVM_GET_API_VERSION) == _KVM_API_VERSION
    except OSError:
        return False
    finally:
        os.close(fd)


def _kvm_boots(kernel: Kernel, run_folder: RunFolder) -> bool:
    folder = run_folder.path / "kvm"
    folder.mkdir()
    sign = folder / "booted"
    collector = ["sh", "-c", f"echo yes > {shlex.quote(str(sign))}"]
    guest = Guest(kernel, True, MIN_MEMORY, folder)
    process = start(guest, collector, folder / "guest.log", run_folder)
    deadline = time.monotonic() + _KVM_SECONDS
    try:
        while time.monotonic() < deadline and process.poll() is None:
            if sign.exists() and sign.read_text():
                return True
            time.sleep(POLL_SECONDS)
        return sign.exists() and bool(sign.read_text())
    finally:
        end(process)
