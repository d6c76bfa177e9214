"""Boot a kernel in a virtual machine on this machine's own files, and collect in there.

virtme-ng does the booting: QEMU, with the root file system shared read-only over 9p.
Everything that the run owns is in its folder, virtme-ng's home included, so that nobody's
configuration has a say and nothing stays behind.
"""

from __future__ import annotations

import fcntl
import json
import os
import shlex
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tracer import errors
from tracer.errors import MachineError, MissingError
from tracer.guardian import RunFolder
from tracer.kernels import Kernel, cache_folder

Say = Callable[[str], None]

PYTHON = "/usr/bin/python3"
"""The distribution's own: the one that can import its bcc."""
BOOT_SECONDS = 420.0
_KVM_SECONDS = 25.0
_STEP_SECONDS = 180.0
_SLOWEST_BYTES_PER_SECOND = 1 << 20
"""Of payload, in one emulated step: written, read, checked and moved."""
_POLL_SECONDS = 0.05
_LIBRARIES = Path("/usr/lib")
_LIBRARIES_TAG = "zctrace_lib"
_GUEST_LIBRARIES = "/run/zctrace-lib"
_KVM_GET_API_VERSION, _KVM_API_VERSION = 0xAE00, 12
_USELESS_MODULES = (
    *("kvm", "kvm_amd", "kvm_intel", "ahci", "sr_mod", "cdrom", "sg", "iTCO_wdt", "i6300esb"),
    *("i2c_i801", "lpc_ich", "powernow_k8", "acpi_cpufreq", "pcspkr", "psmouse", "serio_raw"),
    *("joydev", "evdev", "button", "qemu_fw_cfg", "aesni_intel", "ghash_clmulni_intel"),
    *("sha512_ssse3", "sha256_ssse3", "sha1_ssse3", "crct10dif_pclmul", "crc32_pclmul"),
)
"""Drivers for what QEMU's machine has and nobody here uses, and ciphers that test themselves
when they are loaded. Emulated, that is a good part of the time to boot."""
_MIN_MEMORY = 1 << 30
_DISK_SERIAL = "zctrace"
_FIRST_HUB = 7
"""The number of the emulator's first hub; 0 is the one of its own default network."""


@dataclass(frozen=True)
class Guest:
    """What to boot. ``folder`` is shared read-write; ``disks`` are NVMe ones.

    ``nics`` are pairs of network devices, joined to each other: each QEMU's name of the
    device, and the two hardware addresses. ``boot_options`` go on the kernel's command line.
    """

    kernel: Kernel
    kvm: bool
    memory_bytes: int
    folder: Path
    disks: tuple[Path, ...] = ()
    boot_options: tuple[str, ...] = ()
    nics: tuple[tuple[str, tuple[str, str]], ...] = ()

    @property
    def machine(self) -> str:
        """The machine's kind, as evidence names it."""
        return "qemu-kvm" if self.kvm else "qemu-tcg"


def disk_name(number: int) -> str:
    """The serial number of the ``number``-th of its disks.

    In which order the guest finds them, and so what it calls them, is up to its drivers.
    """
    return f"{_DISK_SERIAL}{number}"


def memory_for(payload_bytes: int) -> int:
    """Guest memory in bytes: the page cache and a user buffer hold the payload at once."""
    return _MIN_MEMORY + payload_bytes * 5 // 2


def command(guest: Guest, script: Path) -> list[str]:
    """virtme-ng's command line for running ``script`` in the guest as root."""
    arguments = [
        _vng(),
        "--verbose",
        "--run",
        str(guest.kernel.image),
        "--disable-microvm",
        # Where virtiofsd does not start, as in some containers, waiting for it takes seconds.
        "--force-9p",
        "--user",
        "root",
        # One processor: an emulated 7.3 with two panicked while a static key was patched.
        "--cpus",
        "1",
        "--memory",
        f"{guest.memory_bytes >> 20}M",
        "--rwdir",
        str(guest.folder),
        "--append",
        "loglevel=4",
        "--append",
        f"modprobe.blacklist={','.join(_USELESS_MODULES)}",
    ]
    for option in guest.boot_options:
        arguments += ["--append", option]
    if guest.kernel.modules:
        # virtme-ng hides parts of the root file system (/var/cache, say) in the guest.
        arguments += ["--rodir", str(guest.kernel.modules)]
    if not guest.kvm:
        # Four levels of page tables instead of five: each missed translation is cheaper.
        arguments += ["--disable-kvm", "--append", "no5lvl"]
    # The C library, Python's and BCC's 200 MB of compiler a second time: guest_script.
    devices = [
        "-fsdev",
        f"local,id=zctracelib,path={_LIBRARIES},security_model=none,readonly=on,multidevs=remap",
        "-device",
        f"virtio-9p-pci,fsdev=zctracelib,mount_tag={_LIBRARIES_TAG}",
    ]
    for number, disk in enumerate(guest.disks):
        devices += [
            "-drive",
            f"file={disk},if=none,id=zctracedisk{number},format=raw",
            "-device",
            f"nvme,drive=zctracedisk{number},serial={disk_name(number)}",
        ]
    for hub, (device, addresses) in enumerate(guest.nics):
        for end, address in enumerate(addresses):
            devices += [
                "-netdev",
                f"hubport,id=zctracenic{hub}{end},hubid={_FIRST_HUB + hub}",
                "-device",
                f"{device},netdev=zctracenic{hub}{end},mac={address}",
            ]
    for device in devices:
        arguments.append(f"--qemu-opts={device}")
    return [*arguments, "--exec", f"sh {shlex.quote(str(script))}"]


_CACHE_LIBRARIES = """
mkdir -p "$lower" "$over/upper" "$over/work" "$over/lib"
mount -t 9p -o "$options" "$tag" "$lower" &&
    mount -t overlay -o "lowerdir=$lower,upperdir=$over/upper,workdir=$over/work" overlay \\
        "$over/lib" || cached=no
# Where the kernel's modules are is a mount of its own, which comes along.
if [ "$cached" = yes ] && mountpoint -q "$libraries/modules"; then
    mkdir -p "$over/lib/modules" && mount --move "$libraries/modules" "$over/lib/modules" ||
        cached=no
fi
[ "$cached" = yes ] && mount --move "$over/lib" "$libraries"
"""
"""The root file system is shared without a page cache, which triples the time to import bcc,
and has what programs read from their libraries put into their memory by the host. Libraries
are shared a second time, cached, and take the place of the others, changeable as these are."""


def guest_script(collector: list[str], log: Path) -> str:
    """What the guest runs: drivers, the cached libraries, then the collector."""
    return "\n".join(
        (
            f"exec >{shlex.quote(str(log))} 2>&1",
            "modprobe -q nvme",
            f"libraries={_LIBRARIES} lower={_GUEST_LIBRARIES} over={_GUEST_LIBRARIES}-over",
            f"tag={_LIBRARIES_TAG} cached=yes",
            "options=ro,trans=virtio,version=9p2000.L,cache=loose,msize=512000",
            _CACHE_LIBRARIES.strip(),
            # Otherwise importing capstone imports all of setuptools, ten seconds emulated.
            "export SETUPTOOLS_USE_DISTUTILS=stdlib",
            f"exec {shlex.join(collector)}",
            "",
        )
    )


def missing() -> list[tuple[str, str]]:
    """Programs that a virtual machine needs and that are not there, with the remedy."""
    found = []
    if not shutil.which("qemu-system-x86_64"):
        found.append(("QEMU (qemu-system-x86_64)", "apt-get install qemu-system-x86"))
    if not _find_vng():
        found.append(("virtme-ng (vng)", "pip install virtme-ng"))
    if not shutil.which("busybox"):
        found.append(("busybox", "apt-get install busybox-static"))
    return found


def require() -> None:
    """Raise :class:`MissingError` for the first thing that is missing."""
    for what, remedy in missing():
        raise MissingError(f"{what} is not installed", "it boots the kernel", remedy)


def run(guest: Guest, collector: list[str], run_folder: RunFolder, progress: Progress) -> None:
    """Boot, run ``collector`` in the guest, and end the guest when it has answered.

    Raises :class:`MachineError` for a guest that does not boot, stalls or dies.
    """
    script, log = guest.folder / "guest.sh", guest.folder / "guest.log"
    console = guest.folder / "console.log"
    script.write_text(guest_script(collector, log))
    process = _start(command(guest, script), guest.folder, console, run_folder)
    try:
        progress.wait(process, console, log)
    finally:
        end(process)


@dataclass
class Progress:
    """The collector's steps, as they come through a file; with a time limit on each.

    ``file`` gets a line of JSON per step, ``answer`` appears when there is one. Lines that
    are no steps are for ``show``.
    """

    file: Path
    answer: Path
    say: Say
    payload_bytes: int
    boot_seconds: float = BOOT_SECONDS
    boots: bool = True
    """Whether there is a machine to boot first, or only a process to start."""
    endless: str = ""
    """The step that may take as long as it likes."""
    show: Callable[[dict[str, Any]], None] = lambda line: None
    meanwhile: Callable[[], None] = lambda: None
    """To be called all the time while waiting."""
    booted_after: float = 0.0
    """Seconds until the first step; known after :meth:`wait`."""
    _read: int = 0

    def wait(self, process: subprocess.Popen[bytes], console: Path, log: Path) -> None:
        """Until there is an answer; raises :class:`MachineError` when there will be none."""
        seen = False
        limit = self.boot_seconds
        step = "boot" if self.boots else "start"
        began = time.monotonic()
        deadline = began + limit
        while not self.answer.exists():
            self.meanwhile()
            for line in self._lines():
                if "step" in line:
                    step = line["step"]
                    self.say(step)
                else:
                    self.show(line)
                self.booted_after = self.booted_after or time.monotonic() - began
                seen = True
                limit = _STEP_SECONDS + self.payload_bytes / _SLOWEST_BYTES_PER_SECOND
                deadline = time.monotonic() + limit
            if process.poll() is not None:
                if self.answer.exists():
                    return
                early = (
                    "the kernel did not boot" if self.boots else "the collector did not start"
                )
                raise self._failure(
                    f"the collector died at: {step}" if seen else early, log, console
                )
            if time.monotonic() > deadline and step != self.endless:
                what = f"no progress for {limit:.0f} s at: {step}"
                raise self._failure(what, log, console, slow=self.boots and not seen)
            time.sleep(_POLL_SECONDS)

    def _failure(
        self, what: str, log: Path, console: Path, *, slow: bool = False
    ) -> errors.ZctraceError:
        kind = MachineError if self.boots else errors.TraceError
        hint = "--boot-timeout SECONDS for a slow machine; " if slow else ""
        return kind(
            what,
            _last_words(log) or _last_words(console) or "it left no message",
            f"{hint}--keep keeps its log; zctrace doctor looks for the cause",
        )

    def _lines(self) -> list[dict[str, Any]]:
        """What has come since the last time: whole lines only."""
        with suppress(FileNotFoundError), self.file.open("rb") as file:
            file.seek(self._read)
            text = file.read()
            whole = text[: text.rfind(b"\n") + 1]
            self._read += len(whole)
            return [json.loads(line) for line in whole.splitlines()]
        return []


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
    return cache_folder() / "kvm.json"


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
    script = folder / "guest.sh"
    script.write_text(f"echo yes > {shlex.quote(str(sign))}\n")
    guest = Guest(kernel, True, _MIN_MEMORY, folder)
    process = _start(command(guest, script), folder, folder / "console.log", run_folder)
    deadline = time.monotonic() + _KVM_SECONDS
    try:
        while time.monotonic() < deadline and process.poll() is None:
            if sign.exists() and sign.read_text():
                return True
            time.sleep(_POLL_SECONDS)
        return sign.exists() and bool(sign.read_text())
    finally:
        end(process)


def _start(
    arguments: list[str], folder: Path, console: Path, run_folder: RunFolder
) -> subprocess.Popen[bytes]:
    home = folder / "home"
    home.mkdir()
    tools = f"{Path(_vng()).parent}:{os.defpath}:/usr/sbin:/sbin"
    with console.open("wb") as output:
        process = subprocess.Popen(
            arguments,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            cwd=folder,
            env={
                "PATH": tools,
                "HOME": str(home),
                "TMPDIR": str(home),
                "LANG": "C.UTF-8",
                "TERM": "dumb",
                **run_folder.environment,
            },
            start_new_session=True,
        )
    return process


def end(process: subprocess.Popen[bytes]) -> None:
    """Kill the whole process group and wait for its leader."""
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def _last_words(log: Path) -> str:
    """The last lines of a log that say something."""
    try:
        text = log.read_text(errors="replace")
    except OSError:
        return ""
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return " | ".join(lines[-3:])[-400:]


def _find_vng() -> str | None:
    beside = Path(sys.executable).parent / "vng"
    return str(beside) if beside.exists() else shutil.which("vng")


def _vng() -> str:
    return _find_vng() or "vng"
