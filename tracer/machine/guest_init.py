"""The first program of a guest: ``python3 -I guest_init.py``, as process 1.

Gets ready everything that is the same in each run, and waits for the share of a run to appear,
which a machine that was saved here has once it goes on. Then it makes this machine's root file
system the guest's, and runs the collector.

Stands alone, in an initial file system that has the interpreter, the modules imported here and
a few drivers. What is imported by now, the collector need not import.
"""

# ruff: noqa: F401 – imported for the collector
from __future__ import annotations

import array
import ast
import base64
import bisect
import contextlib
import copy
import ctypes
import dataclasses
import errno
import fcntl
import hashlib
import importlib
import inspect
import ipaddress
import json
import locale
import mmap
import os
import pathlib
import pickle
import platform
import pwd
import random
import resource
import selectors
import shutil
import signal
import socket
import struct
import subprocess
import sys
import tempfile
import threading
import time
import traceback
import types
import typing
import zipfile
from contextlib import suppress

with suppress(ImportError):
    # Since Python 3.14, imported by the first structure.
    importlib.import_module("ctypes._layout")

READY = "zctrace: ready for a run"
"""Printed once everything is there but the run."""
FAILED = "the guest's first program failed:"
"""Printed with the reason where it cannot get there."""
RUN_TAG, ROOT_TAG, LIBRARIES_TAG, MODULES_TAG = (
    *("zctrace_run", "zctrace_root"),
    *("zctrace_lib", "zctrace_modules"),
)
JOB, RESUMED, DRIVERS = "guest.json", "guest.resumed", "/drivers"
PACKED, PACKAGE = "package.packed", "code/zctrace"
"""The collector's own files, all in one, and where they are in the run's folder."""
_KERNEL_FILE_SYSTEMS = (
    ("proc", "/proc", "nosuid,nodev,noexec"),
    ("sysfs", "/sys", "nosuid,nodev,noexec"),
    ("devtmpfs", "/dev", "nosuid,noexec"),
    ("tmpfs", "/run", "mode=755"),
)
_BENEATH = (
    ("devpts", "/dev/pts", "nosuid,noexec,mode=620,gid=5"),
    ("tmpfs", "/dev/shm", "nosuid,nodev"),
    ("debugfs", "/sys/kernel/debug", ""),
    ("tracefs", "/sys/kernel/tracing", ""),
    ("securityfs", "/sys/kernel/security", ""),
    ("cgroup2", "/sys/fs/cgroup", ""),
)
_KERNELS_OWN = ("dev", "proc", "run", "sys")
_EMPTY = ("/var/log", "/var/tmp", "/var/cache", "/var/lib/apt", "/var/lib/private")
_LIBRARIES, _LOWER = "/usr/lib", "/run/zctrace-lib"
_PLAN9 = "trans=virtio,version=9p2000.L,msize=512000"
_UNCACHED = f"{_PLAN9},access=any"
_FLAGS = {"ro": 1, "nosuid": 2, "nodev": 4, "noexec": 8}
_MOVE = 1 << 13
_FINIT_MODULE = 313
_RNDADDENTROPY, _RNDRESEEDCRNG = 0x40085203, 0x5207
_SIOCGIFFLAGS, _SIOCSIFFLAGS, _IFF_UP = 0x8913, 0x8914, 1
_POWER_OFF = 0x4321FEDC
_REAP = f"""
import ctypes, os, sys
collector = int(sys.argv[1])
while collector and collector != os.wait()[0]:
    pass
os.sync()
ctypes.CDLL(None).reboot({_POWER_OFF})
"""
_ROUND_SECONDS, _DEVICE_SECONDS = 0.02, 30.0
_RESCAN = "/sys/bus/pci/rescan"
_LINKS = (("fd", ""), ("stdin", "/0"), ("stdout", "/1"), ("stderr", "/2"))
_ENVIRONMENT = {
    "PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
    "HOME": "/root",
    "LANG": "C.UTF-8",
    # Otherwise importing capstone imports all of setuptools, ten seconds emulated.
    "SETUPTOOLS_USE_DISTUTILS": "stdlib",
}
_libc = ctypes.CDLL(None, use_errno=True)


def _done(result: int, what: str) -> None:
    if result:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number), what)


def _mount(kind: str, source: str, point: str, options: str = "") -> None:
    words = [word for word in options.split(",") if word]
    flags = sum(_FLAGS.get(word, 0) for word in words)
    data = ",".join(word for word in words if word not in _FLAGS)
    # Where nothing can be made, it is there already.
    with suppress(OSError):
        os.makedirs(point)
    arguments = [os.fsencode(text) for text in (source, point, kind)]
    result = _libc.mount(*arguments, flags, os.fsencode(data))
    if result and ctypes.get_errno() == errno.ENODEV:
        raise OSError(errno.ENODEV, f"this kernel has no file system {kind}", point)
    _done(result, f"{kind} at {point}")


def _move(source: str, point: str) -> None:
    _done(_libc.mount(os.fsencode(source), os.fsencode(point), None, _MOVE, None), point)


def _overlay(folder: str, lower: str) -> None:
    upper = f"/run/zctrace-over{folder}"
    for part in ("upper", "work"):
        os.makedirs(f"{upper}/{part}")
    # Those who look into a folder see who owns it and what may be done with it, on top.
    there = os.stat(lower)
    os.chown(f"{upper}/upper", there.st_uid, there.st_gid)
    os.chmod(f"{upper}/upper", there.st_mode & 0o7777)
    layers = f"lowerdir={lower},upperdir={upper}/upper,workdir={upper}/work"
    _mount("overlay", "overlay", folder, layers)


def _load_drivers() -> None:
    """In the order of their names; one that is there already, or useless here, is no error."""
    for name in sorted(os.listdir(DRIVERS)):
        with open(f"{DRIVERS}/{name}", "rb") as file:
            _libc.syscall(_FINIT_MODULE, file.fileno(), b"", 0)


def _loopback_up() -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as any_socket:
        name = b"lo".ljust(16, b"\0")
        answer = fcntl.ioctl(any_socket, _SIOCGIFFLAGS, name + bytes(24))
        flags = int.from_bytes(answer[16:18], "little") | _IFF_UP
        fcntl.ioctl(any_socket, _SIOCSIFFLAGS, name + flags.to_bytes(2, "little") + bytes(22))


def _prepare() -> None:
    os.environ.clear()
    os.environ.update(_ENVIRONMENT)
    for kind, point, options in _KERNEL_FILE_SYSTEMS:
        _mount(kind, kind, point, options)
    for name, number in _LINKS:
        with suppress(FileExistsError):
            os.symlink(f"/proc/self/fd{number}", f"/dev/{name}")
    _load_drivers()
    for kind, point, options in _BENEATH:
        # A kernel need not have all of them. The code that needs one reports it.
        with suppress(OSError):
            _mount(kind, kind, point, options)
    socket.sethostname("localhost")
    _loopback_up()


def _attach() -> None:
    """Mount the run's share, as soon as there is a device of it.

    Then all other devices are there, too, and known.
    """
    told = False
    while True:
        try:
            _mount("9p", RUN_TAG, "/share", _UNCACHED)
            break
        except FileNotFoundError:
            if not told:
                told = True
                print(READY, flush=True)
        time.sleep(_ROUND_SECONDS)
        _rescan()
    # The machine may have been saved in the middle of a rescan. That one has then found the
    # devices of the slots that were still to come, and no others.
    if told:
        _rescan()


def _rescan() -> None:
    with open(_RESCAN, "w") as rescan:
        rescan.write("1")


def _start_anew(seed: str) -> None:
    """The time of day and the randomness are not those of when the machine was saved."""
    with open(f"/share/{RESUMED}", "w"):
        pass
    # The time of a file is the time of who keeps the files.
    now = os.stat(f"/share/{RESUMED}").st_mtime_ns
    time.clock_settime_ns(time.CLOCK_REALTIME, now)
    entropy = bytes.fromhex(seed)
    with open("/dev/random", "wb", buffering=0) as pool:
        head = struct.pack("ii", len(entropy) * 8, len(entropy))
        fcntl.ioctl(pool, _RNDADDENTROPY, head + entropy)
        fcntl.ioctl(pool, _RNDRESEEDCRNG)
    random.seed()


def _switch_root() -> None:
    _mount("9p", ROOT_TAG, "/root", f"ro,{_UNCACHED}")
    for _, point, _ in _KERNEL_FILE_SYSTEMS:
        _move(point, f"/root{point}")
    os.makedirs("/root/run/zctrace-share")
    _move("/share", "/root/run/zctrace-share")
    os.chdir("/root")
    _move(".", "/")
    os.chroot(".")
    os.chdir("/")
    importlib.invalidate_caches()


def _furnish(job: dict[str, typing.Any]) -> None:
    """This machine's root file system, changeable, with the run's folder in its place.

    It is shared without a page cache, which makes everything slow that imports or links, and
    has what programs read from their libraries put into their memory by the host. Libraries
    are shared a second time, cached, and take the place of the others.
    """
    for name in sorted(set(os.listdir("/")) - set(_KERNELS_OWN)):
        folder = f"/{name}"
        if os.path.isdir(folder) and not os.path.islink(folder):
            # Where that cannot be, it is there, and read only.
            with contextlib.suppress(OSError):
                _overlay(folder, folder)
    for folder in _EMPTY:
        if os.path.isdir(folder):
            mode = os.stat(folder).st_mode & 0o7777
            _mount("tmpfs", "tmpfs", folder, f"nosuid,nodev,mode={mode:o}")
    _mount("9p", LIBRARIES_TAG, _LOWER, f"ro,{_PLAN9},cache=loose")
    _overlay(_LIBRARIES, _LOWER)
    modules = f"/lib/modules/{os.uname().release}"
    if job["modules"]:
        _mount("9p", MODULES_TAG, modules, f"ro,{_UNCACHED}")
    elif os.path.isdir(modules):
        _mount("tmpfs", "tmpfs", modules, "ro,mode=755")
    os.mkdir("/run/lock")
    os.chmod("/run/lock", 0o1777)
    os.makedirs(job["folder"], exist_ok=True)
    _move("/run/zctrace-share", job["folder"])
    os.rmdir("/run/zctrace-share")
    _package_in_memory(job["folder"])


def pack(folder: pathlib.Path) -> bytes:
    """Files below ``folder`` as one: a line with their names and sizes, and their contents."""
    files = [path for path in sorted(folder.rglob("*")) if path.is_file()]
    contents = [path.read_bytes() for path in files]
    names = [
        (str(path.relative_to(folder)), len(content))
        for path, content in zip(files, contents, strict=True)
    ]
    return json.dumps(names).encode() + b"\n" + b"".join(contents)


def unpack(packed: bytes, folder: str) -> None:
    """Make the files again, in ``folder``."""
    head, _, rest = packed.partition(b"\n")
    at = 0
    for name, size in json.loads(head):
        path = f"{folder}/{name}"
        try:
            file = os.open(path, os.O_WRONLY | os.O_CREAT, 0o644)
        except FileNotFoundError:
            os.makedirs(os.path.dirname(path))
            file = os.open(path, os.O_WRONLY | os.O_CREAT, 0o644)
        os.write(file, memoryview(rest)[at : at + size])
        os.close(file)
        at += size


def _package_in_memory(folder: str) -> None:
    """Of a share without a cache each import would ask dozens of times."""
    with suppress(FileNotFoundError), open(f"{folder}/{PACKED}", "rb") as file:
        packed = file.read()
        _mount("tmpfs", "tmpfs", f"{folder}/{PACKAGE}", "nosuid,nodev,mode=755")
        unpack(packed, f"{folder}/{PACKAGE}")


def _await_devices(disks: int, nics: int) -> None:
    """Until its disks are there, and the drivers of network devices loaded."""
    deadline = time.monotonic() + _DEVICE_SECONDS
    while len(list(pathlib.Path("/sys/block").glob("nvme*"))) < disks:
        if time.monotonic() > deadline:
            return  # the code that looks for it reports it
        time.sleep(_ROUND_SECONDS)
    if nics:
        for bus in ("pci", "virtio"):
            devices = pathlib.Path(f"/sys/bus/{bus}/devices").iterdir()
            lacking = [device for device in devices if not (device / "driver").exists()]
            names = [(device / "modalias").read_text().strip() for device in lacking]
            if names:
                subprocess.run(["modprobe", "--quiet", "--all", "--use-blacklist", *names])


def _become(command: list[str], job: dict[str, typing.Any]) -> None:
    """Be the collector, in this interpreter if it is one for this."""
    os.setsid()
    os.chdir(job["folder"])
    log = os.open(job["log"], os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
    null = os.open(os.devnull, os.O_RDONLY)
    for source, number in ((null, 0), (log, 1), (log, 2)):
        os.dup2(source, number)
    os.close(log)
    os.close(null)
    if command[:2] != [sys.executable, "-I"]:
        os.execvp(command[0], command)
    sys.argv[:] = command[2:]
    main = types.ModuleType("__main__")
    main.__file__ = command[2]
    sys.modules["__main__"] = main
    code = compile(pathlib.Path(command[2]).read_bytes(), command[2], "exec")
    exec(code, main.__dict__)


def _run() -> int:
    """Set up a run; returns 0 in the process that is to be its collector."""
    _attach()
    with open(f"/share/{JOB}") as file:
        job = json.load(file)
    _start_anew(job["seed"])
    _switch_root()
    _furnish(job)
    _await_devices(job["disks"], job["nics"])
    process = os.fork()
    if not process:
        _become(job["command"], job)
    return process


def main() -> None:
    """Returns in the collector's process only, when it is done."""
    try:
        _prepare()
        if not (process := _run()):
            return
    except Exception as error:
        if os.getpid() != 1:
            raise
        traceback.print_exc()
        print(FAILED, error, flush=True)
        process = 0
    # Another program, so that the collector shares its memory with no process: a write to a
    # shared page would be a copy in the kernel that is measured.
    os.execv(sys.executable, [sys.executable, "-I", "-S", "-c", _REAP, str(process)])


if __name__ == "__main__":
    main()
