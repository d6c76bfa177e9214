"""QEMU's command lines: what a guest is made of."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from zctrace.machine import guest_init, initramfs
from zctrace.machine.kernels import Kernel

PROGRAM = "qemu-system-x86_64"
_LIBRARIES = Path("/usr/lib")
_OPTIONS = (
    # Messages of the kernel before it has a console, if it never gets one.
    *("console=ttyS0", "earlyprintk=serial,ttyS0,115200", "loglevel=4", "panic=-1"),
)
_USELESS_MODULES = (
    *("kvm", "kvm_amd", "kvm_intel", "ahci", "sr_mod", "cdrom", "sg", "iTCO_wdt", "i6300esb"),
    *("i2c_i801", "lpc_ich", "powernow_k8", "acpi_cpufreq", "pcspkr", "psmouse", "serio_raw"),
    *("joydev", "evdev", "button", "qemu_fw_cfg", "aesni_intel", "ghash_clmulni_intel"),
    *("sha512_ssse3", "sha256_ssse3", "sha1_ssse3", "crct10dif_pclmul", "crc32_pclmul"),
)
"""Drivers for devices of QEMU's machine that zctrace does not use, and ciphers that test
themselves when they are loaded. In an emulated machine, loading them takes long."""
MIN_MEMORY = 1 << 30
CONSOLE = "console.log"
_DISK_SERIAL = "zctrace"
PORTS = 4
"""Where disks can be plugged in: one cannot be part of a machine that is saved."""


@dataclass(frozen=True)
class Guest:
    """What to boot. ``folder`` is shared read-write; ``disks`` are NVMe ones.

    ``nics`` are pairs of network devices, joined to each other: each QEMU's name of the
    device, and the two hardware addresses. ``boot_options`` go on the kernel's command line,
    and ``qemu_options`` on QEMU's.
    """

    kernel: Kernel
    kvm: bool
    memory_bytes: int
    folder: Path
    disks: tuple[Path, ...] = ()
    boot_options: tuple[str, ...] = ()
    nics: tuple[tuple[str, tuple[str, str]], ...] = ()
    qemu_options: tuple[str, ...] = ()
    processors: int = 1

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


def command(guest: Guest, image: Path | None = None) -> list[str]:
    """QEMU's command line for booting; ``image`` is the initial file system."""
    image = image or guest.folder / "initramfs"
    return [*machine(guest, image), *run_devices(guest), *guest.qemu_options]


def machine(guest: Guest, image: Path) -> list[str]:
    """Everything that does not depend on the run."""
    options = [*_OPTIONS, f"modprobe.blacklist={','.join(_USELESS_MODULES)}"]
    if not guest.kvm:
        # Four levels of page tables instead of five: each missed translation is cheaper.
        options.append("no5lvl")
        # All virtual processors count by the same clock. The kernel's watchdog takes a pause of
        # the emulator for a fault of it, and then every look at the time is a system call.
        options.append("tsc=reliable")
    # Last, for words that are not the kernel's, and come later, are arguments of its program.
    options += [*guest.boot_options, f"rdinit={initramfs.PYTHON}", "--", "-I", initramfs.INIT]
    arguments = [
        *(PROGRAM, "-nodefaults", "-no-user-config", "-no-reboot", "-display", "none"),
        *("-machine", "q35"),
        *(("-accel", "kvm", "-cpu", "host") if guest.kvm else ("-accel", "tcg", "-cpu", "max")),
        *("-smp", str(guest.processors), "-m", f"{guest.memory_bytes >> 20}M"),
        *("-kernel", str(guest.kernel.image), "-initrd", str(image)),
        *("-append", " ".join(options)),
    ]
    for number in range(PORTS):
        arguments += ["-device", f"pcie-root-port,id=port{number},chassis={number + 1}"]
    return arguments


def run_devices(guest: Guest, *, plugged: bool = True) -> list[str]:
    """The run's own; without its disks themselves if these are to be plugged in later."""
    arguments = serial(guest.folder / CONSOLE)
    shares = {
        guest_init.ROOT_TAG: (Path("/"), "readonly=on"),
        guest_init.LIBRARIES_TAG: (_LIBRARIES, "readonly=on"),
        guest_init.RUN_TAG: (guest.folder, "readonly=off"),
    }
    if guest.kernel.modules:
        shares[guest_init.MODULES_TAG] = (guest.kernel.modules, "readonly=on")
    for tag, (folder, access) in shares.items():
        path = _value(folder)
        arguments += [
            "-fsdev",
            f"local,id={tag},path={path},security_model=none,{access},multidevs=remap",
            "-device",
            f"virtio-9p-pci,fsdev={tag},mount_tag={tag}",
        ]
    for number, disk in enumerate(guest.disks):
        arguments += ["-drive", f"file={_value(disk)},if=none,id=disk{number},format=raw"]
        if plugged:
            arguments += ["-device", nvme(number)]
    for hub, (device, addresses) in enumerate(guest.nics):
        for end, address in enumerate(addresses):
            arguments += [
                "-netdev",
                f"hubport,id=nic{hub}{end},hubid={hub + 1}",
                "-device",
                f"{device},netdev=nic{hub}{end},mac={address}",
            ]
    return arguments


def serial(file: Path) -> list[str]:
    console = f"file,id=console,path={_value(file)},append=on"
    return ["-chardev", console, "-serial", "chardev:console"]


def nvme(number: int) -> str:
    port = f",bus=port{number}" if number < PORTS else ""
    return f"nvme,drive=disk{number},serial={disk_name(number)}{port}"


def _value(path: Path) -> str:
    """As a value in QEMU's lists of options."""
    return str(path).replace(",", ",,")
