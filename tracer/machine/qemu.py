"""Boot a kernel in a virtual machine on this machine's own files, and collect in there.

QEMU gives the guest this machine's root file system, read-only, and the run's own folder over
9p; ``guest_init.py`` makes a system of them. Where the processor is emulated, booting takes
seconds. So a machine is saved once it has booted, before it has anything of a run, and each run
goes on from there. What a run adds, the guest then finds on its PCI bus.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
import secrets
import shutil
import signal
import subprocess
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import BinaryIO

from zctrace import packages
from zctrace.collect.describe import MEMORY
from zctrace.errors import MissingError
from zctrace.machine import emulator, guest_init, initramfs, kernels, saved
from zctrace.machine.emulator import CONSOLE
from zctrace.machine.emulator import MIN_MEMORY as MIN_MEMORY
from zctrace.machine.emulator import Guest as Guest
from zctrace.machine.emulator import command as command
from zctrace.machine.emulator import disk_name as disk_name
from zctrace.machine.emulator import memory_for as memory_for
from zctrace.machine.guardian import RunFolder, write_private
from zctrace.machine.initramfs import PYTHON as PYTHON
from zctrace.machine.outside_compiler import OutsideCompiler
from zctrace.machine.progress import POLL_SECONDS, Progress

_SYSTEM_FOLDERS = "/usr/sbin:/sbin"
"""Where programs are that the PATH of a user may not name."""
_SAVED_STEP, _SAVED_MOST = 2 << 30, 4 << 30
"""Memory is part of what is saved, so a machine that goes on has one of two sizes. A guest's
memory takes this machine's only where the guest has used it."""
_ROOM_BYTES = 1 << 30
"""Several times what one takes on the disk."""
_RESUME_SECONDS, _SAVE_SECONDS = 30.0, 60.0
_MONITOR, _MONITOR_LOG = ("-monitor", "stdio"), "monitor.log"
_SAVE = """migrate_set_parameter max-bandwidth 100G
migrate "exec:cat >{name}"
info migrate
quit
"""
_SAVED_SIGN = b"Migration status: completed"
_SEED_BYTES = 64


PROGRAMS = (
    (emulator.PROGRAM, f"QEMU ({emulator.PROGRAM})", "qemu"),
    ("modprobe", "kmod (modprobe)", "kmod"),
)
"""What booting a kernel takes: the program, its name in messages, the need it is of. The
guest's kernel calls this machine's modprobe."""


def missing() -> list[tuple[str, str]]:
    """Programs that a virtual machine needs and that are not there, with the remedy."""
    path = os.pathsep.join((os.environ.get("PATH", os.defpath), _SYSTEM_FOLDERS))
    return [
        (what, packages.remedy(need))
        for program, what, need in PROGRAMS
        if not shutil.which(program, path=path)
    ]


def require() -> None:
    """Raise :class:`MissingError` for the first thing that is missing."""
    for what, remedy in missing():
        raise MissingError(f"{what} is not installed", "it boots the kernel", remedy)


def run(guest: Guest, collector: list[str], run_folder: RunFolder, progress: Progress) -> None:
    """Boot, run ``collector`` in the guest, and end the guest when it has answered.

    Raises :class:`MachineError` for a guest that does not boot, stalls or dies.
    """
    log = guest.folder / "guest.log"
    with OutsideCompiler(run_folder.path / MEMORY, run_folder.environment) as compiler:
        began = time.monotonic()
        process = start(guest, collector, log, run_folder, progress)
        started = time.monotonic()
        try:
            progress.wait(process, guest.folder / CONSOLE, log, compiler.look)
            progress.booted_after += started - began
        finally:
            end(process)


def start(
    guest: Guest,
    collector: list[str],
    log: Path,
    run_folder: RunFolder,
    progress: Progress | None = None,
) -> subprocess.Popen[bytes]:
    """A guest that is booting, or has booted, and runs ``collector``; :func:`end` ends it.

    It goes on from a saved machine only with a ``progress``, and where that saves time.
    """
    contents = initramfs.contents(guest.kernel)
    like_others = not (guest.kvm or guest.boot_options or guest.qemu_options)
    if progress and like_others and guest.kernel.origin != "path":
        with suppress(OSError):
            going_on = _from_saved(guest, contents, collector, log, run_folder, progress)
            if going_on:
                return going_on
    image = guest.folder / "initramfs"
    contents.write(image)
    _write_job(guest, collector, log)
    return _process(command(guest, image), guest.folder, run_folder)


def _from_saved(
    guest: Guest,
    contents: initramfs.Contents,
    collector: list[str],
    log: Path,
    run_folder: RunFolder,
    progress: Progress,
) -> subprocess.Popen[bytes] | None:
    """A guest that goes on from a saved machine; ``None`` where it does not.

    Whatever is the matter then, booting will tell.
    """
    memory = -(-guest.memory_bytes // _SAVED_STEP) * _SAVED_STEP
    if memory > _SAVED_MOST or len(guest.disks) > emulator.PORTS:
        return None
    guest = dataclasses.replace(guest, memory_bytes=memory)
    folder = kernels.machine_folder(guest.kernel)
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    image = folder / f"{contents.key}.initramfs"
    machine = emulator.machine(guest, image)

    def save(path: Path) -> bool:
        saving = [*machine, *emulator.serial(guest.folder / "saving.log"), *_MONITOR]
        return _save(saving, guest.folder, path, run_folder, progress)

    if shutil.disk_usage(folder).free < _ROOM_BYTES:
        return None
    if not image.exists():
        contents.write(image)
    os.utime(image)
    saved.prune(folder, image.suffix)
    program = os.stat(shutil.which(emulator.PROGRAM) or emulator.PROGRAM)
    # The guest has measured this processor's clock when it booted.
    about = [machine, program.st_size, program.st_mtime_ns, _processor()]
    key = hashlib.sha256(json.dumps(about).encode()).hexdigest()[:16]
    state = saved.opened(folder, key, save, progress.meanwhile)
    if not state:
        return None
    with state:
        _write_job(guest, collector, log)
        arguments = [*machine, *emulator.run_devices(guest, plugged=False), *_MONITOR]
        arguments += ["-incoming", f"fd:{state.fileno()}"]
        process = _process(arguments, guest.folder, run_folder, state)
    goes_on = False
    try:
        goes_on = _plugged(process, guest, progress.meanwhile)
    finally:
        if not goes_on:
            end(process)
    if goes_on:
        return process
    saved.discard(folder, key)
    for file in (guest_init.RESUMED, CONSOLE):
        (guest.folder / file).unlink(missing_ok=True)
    return None


def _save(
    arguments: list[str], folder: Path, path: Path, run_folder: RunFolder, progress: Progress
) -> bool:
    """Boot a machine that has nothing of a run, and save it; returns whether that went well."""
    progress.say("the first start of this kernel: it is saved, to go on from there each time")
    process = _process(arguments, folder, run_folder, directory=path.parent)
    try:
        ready = guest_init.READY.encode()
        if not _until(
            lambda: ready in _read(folder / "saving.log"),
            process,
            progress.boot_seconds,
            progress.meanwhile,
        ):
            return False
        _tell(process, _SAVE.format(name=path.name))
        _until(lambda: False, process, _SAVE_SECONDS, progress.meanwhile)
        if _SAVED_SIGN not in _read(folder / _MONITOR_LOG):
            return False
        progress.say(f"saved: {path.stat().st_size >> 20} MiB in {path.parent}")
        return True
    finally:
        end(process)


def _processor() -> list[str]:
    lines = Path("/proc/cpuinfo").read_text(errors="replace").splitlines()
    return [line for line in lines if line.startswith("model name")][:1]


def _plugged(
    process: subprocess.Popen[bytes], guest: Guest, meanwhile: Callable[[], None]
) -> bool:
    """Plug the disks into a machine as soon as it goes on; false if it does not."""
    sign = guest.folder / guest_init.RESUMED
    if not _until(sign.exists, process, _RESUME_SECONDS, meanwhile):
        return False
    for number in range(len(guest.disks)):
        _tell(process, f"device_add {emulator.nvme(number)}\n")
    return True


def _until(
    condition: Callable[[], bool],
    process: subprocess.Popen[bytes],
    seconds: float,
    meanwhile: Callable[[], None],
) -> bool:
    """Whether it comes true while the process lives, and in time."""
    deadline = time.monotonic() + seconds
    while not condition():
        meanwhile()
        if process.poll() is not None or time.monotonic() > deadline:
            return condition()
        time.sleep(POLL_SECONDS)
    return True


def _tell(process: subprocess.Popen[bytes], commands: str) -> None:
    if process.stdin:
        with suppress(BrokenPipeError):
            process.stdin.write(commands.encode())
            process.stdin.flush()


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except FileNotFoundError:
        return b""


def _write_job(guest: Guest, collector: list[str], log: Path) -> None:
    """What the guest's first program is to do. No other user can read its seed."""
    package = guest.folder / guest_init.PACKAGE
    if package.is_dir():
        (guest.folder / guest_init.PACKED).write_bytes(guest_init.pack(package))
    job = {
        "command": collector,
        "disks": len(guest.disks),
        "folder": str(guest.folder),
        "log": str(log),
        "modules": bool(guest.kernel.modules),
        "nics": len(guest.nics),
        "seed": secrets.token_hex(_SEED_BYTES),
    }
    write_private(guest.folder / guest_init.JOB, json.dumps(job))


def _process(
    arguments: list[str],
    folder: Path,
    run_folder: RunFolder,
    state: BinaryIO | None = None,
    directory: Path | None = None,
) -> subprocess.Popen[bytes]:
    """QEMU, with its monitor, if it has one, on its standard input and output."""
    with (
        (folder / CONSOLE).open("ab") as errors,
        (folder / _MONITOR_LOG).open("ab") as output,
    ):
        return subprocess.Popen(
            arguments,
            stdin=subprocess.PIPE if _MONITOR[0] in arguments else subprocess.DEVNULL,
            stdout=output,
            stderr=errors,
            cwd=directory or folder,
            env={
                "PATH": f"{os.defpath}:{_SYSTEM_FOLDERS}",
                "TMPDIR": str(folder),
                **run_folder.environment,
            },
            pass_fds=(state.fileno(),) if state else (),
            start_new_session=True,
        )


def end(process: subprocess.Popen[bytes]) -> None:
    """Kill the whole process group and wait for its leader."""
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    if process.stdin:
        with suppress(BrokenPipeError):
            process.stdin.close()
