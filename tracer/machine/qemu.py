"""Boot a kernel in a virtual machine on this machine's own files, and collect in there.

virtme-ng does the booting: QEMU, with the root file system shared read-only over 9p.
Everything that the run owns is in its folder, virtme-ng's home included, so that nobody's
configuration has a say and nothing stays behind.
"""

from __future__ import annotations

import os
import shlex
import shutil
import signal
import subprocess
import sys
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from zctrace.errors import MissingError
from zctrace.machine.guardian import RunFolder
from zctrace.machine.kernels import Kernel
from zctrace.machine.progress import Progress

PYTHON = "/usr/bin/python3"
"""The distribution's own: the one that can import its bcc."""
_SYSTEM_FOLDERS = "/usr/sbin:/sbin"
"""Where programs are that the PATH of a user may not name."""
_LIBRARIES = Path("/usr/lib")
_LIBRARIES_TAG = "zctrace_lib"
_GUEST_LIBRARIES = "/run/zctrace-lib"
_USELESS_MODULES = (
    *("kvm", "kvm_amd", "kvm_intel", "ahci", "sr_mod", "cdrom", "sg", "iTCO_wdt", "i6300esb"),
    *("i2c_i801", "lpc_ich", "powernow_k8", "acpi_cpufreq", "pcspkr", "psmouse", "serio_raw"),
    *("joydev", "evdev", "button", "qemu_fw_cfg", "aesni_intel", "ghash_clmulni_intel"),
    *("sha512_ssse3", "sha256_ssse3", "sha1_ssse3", "crct10dif_pclmul", "crc32_pclmul"),
)
"""Drivers for what QEMU's machine has and nobody here uses, and ciphers that test themselves
when they are loaded. Emulated, that is a good part of the time to boot."""
MIN_MEMORY = 1 << 30
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
    return MIN_MEMORY + payload_bytes * 5 // 2


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


PROGRAMS = (
    ("qemu-system-x86_64", "QEMU (qemu-system-x86_64)", "qemu-system-x86"),
    ("busybox", "busybox", "busybox-static"),
    ("file", "file", "file"),
    ("modprobe", "kmod (modprobe)", "kmod"),
)
"""What virtme-ng starts to boot a kernel: the program, its name in messages, its package.

``file`` tells virtme-ng the version of a kernel image; without it virtme-ng needs ``strings``.
"""


def missing() -> list[tuple[str, str]]:
    """Programs that a virtual machine needs and that are not there, with the remedy."""
    path = os.pathsep.join((os.environ.get("PATH", os.defpath), _SYSTEM_FOLDERS))
    found = [
        (what, f"apt-get install {package}")
        for program, what, package in PROGRAMS
        if not shutil.which(program, path=path)
    ]
    if not _find_vng():
        found.append(("virtme-ng (vng)", "pip install virtme-ng"))
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
    process = start_process(command(guest, script), guest.folder, console, run_folder)
    try:
        progress.wait(process, console, log)
    finally:
        end(process)


def start_process(
    arguments: list[str], folder: Path, console: Path, run_folder: RunFolder
) -> subprocess.Popen[bytes]:
    home = folder / "home"
    home.mkdir()
    tools = f"{Path(_vng()).parent}:{os.defpath}:{_SYSTEM_FOLDERS}"
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


def _find_vng() -> str | None:
    beside = Path(sys.executable).parent / "vng"
    return str(beside) if beside.exists() else shutil.which("vng")


def _vng() -> str:
    return _find_vng() or "vng"
