"""In a guest, as root: paths by user copies without an iterator, and by references.

Each function of PATHS is as those of paths_guest.
"""

import contextlib
import ctypes
import mmap
import os
import signal
import socket
import struct
import subprocess
from pathlib import Path

from path_sizes import COPIED_UP, MEMORY, PAGES, PRINTED, QUEUED, SENT  # isort: skip

libc = ctypes.CDLL(None, use_errno=True)
ROOT = Path("/run/paths")
PAGE = 4096


def check(result):
    if result < 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
    return result


def posix_messages():
    """One message each way, through a queue."""
    attributes = struct.pack("=8q", 0, 4, QUEUED, 0, 0, 0, 0, 0)
    queue = check(libc.mq_open(b"/paths", os.O_CREAT | os.O_RDWR, 0o600, attributes))
    check(libc.mq_unlink(b"/paths"))
    sent, received = bytes(QUEUED), ctypes.create_string_buffer(QUEUED)

    def body():
        check(libc.mq_send(queue, sent, QUEUED, 0))
        assert check(libc.mq_receive(queue, received, QUEUED, None)) == QUEUED

    return body, lambda: os.close(queue)


def system_v_messages():
    queue = check(libc.msgget(0, 0o600))
    message = ctypes.create_string_buffer(struct.pack("=q", 1) + bytes(QUEUED), 8 + QUEUED)

    def body():
        check(libc.msgsnd(queue, message, QUEUED, 0))
        assert check(libc.msgrcv(queue, message, QUEUED, 0, 0)) == QUEUED

    return body, lambda: check(libc.msgctl(queue, 0, None))


def other_memory_by_call():
    """process_vm_readv(2) of a child, which has the same memory at the same address."""
    memory = mmap.mmap(-1, MEMORY)
    memory.write(bytes(range(251)) * (MEMORY // 251) + bytes(MEMORY % 251))
    address = ctypes.addressof(ctypes.c_char.from_buffer(memory))
    pid = os.fork()
    if pid == 0:
        with contextlib.suppress(BaseException):
            signal.pause()
        os._exit(0)
    into = mmap.mmap(-1, MEMORY)
    into.write(bytes(MEMORY))
    here = ctypes.addressof(ctypes.c_char.from_buffer(into))
    vectors = [struct.pack("=QQ", at, MEMORY) for at in (here, address)]

    def body():
        assert check(libc.process_vm_readv(pid, vectors[0], 1, vectors[1], 1, 0)) == MEMORY

    def end():
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
        assert len(memory) == len(into)  # both are there until now

    return body, end


def pages_by_userfaultfd():
    """As in live migration: each page is put in its place by an ioctl."""
    fault = check(libc.syscall(323, os.O_CLOEXEC))
    api, register, copy = 0xC018AA3F, 0xC020AA00, 0xC028AA03
    check(libc.ioctl(fault, ctypes.c_ulong(api), bytearray_of("=3Q", 0xAA, 0, 0)))
    size = PAGES * PAGE
    empty, filled = mmap.mmap(-1, size), mmap.mmap(-1, size)
    filled.write(bytes(range(256)) * (size // 256))
    to, source = (ctypes.addressof(ctypes.c_char.from_buffer(m)) for m in (empty, filled))
    check(libc.ioctl(fault, ctypes.c_ulong(register), bytearray_of("=4Q", to, size, 1, 0)))
    requests = [
        bytearray_of("=5Q", to + at, source + at, PAGE, 0, 0) for at in range(0, size, PAGE)
    ]

    def body():
        for request in requests:
            check(libc.ioctl(fault, ctypes.c_ulong(copy), request))

    def end():
        assert empty[:size] == filled[:size]
        os.close(fault)

    return body, end


def bytearray_of(layout, *values):
    """Memory that a call reads, and writes its answer to."""
    return ctypes.create_string_buffer(struct.pack(layout, *values), struct.calcsize(layout))


def _mounted(folder, kind, options=b""):
    folder.mkdir(parents=True, exist_ok=True)
    check(libc.mount(b"test", os.fsencode(folder), kind, 0, options))
    return lambda: check(libc.umount2(os.fsencode(folder), 2))


def copied_up():
    """A file of an overlay's lower layer, opened for writing."""
    folder = ROOT / "layers"
    away = _mounted(folder, b"tmpfs")
    lower, upper, work, merged = (folder / name for name in ("l", "u", "w", "m"))
    for each in (lower, upper, work):
        each.mkdir()
    (lower / "file").write_bytes(bytes(COPIED_UP))
    subprocess.run(["modprobe", "overlay"], check=False)  # or it is built in
    layers = f"lowerdir={lower},upperdir={upper},workdir={work}"
    apart = _mounted(merged, b"overlay", layers.encode())

    def body():
        with (merged / "file").open("r+b", buffering=0):
            pass

    return body, lambda: (apart(), away())


def _sent_from(path, many):
    """By sendfile(2) into a socket that nobody reads."""
    here, there = socket.socketpair()
    here.setsockopt(socket.SOL_SOCKET, 32, 8 << 20)  # SO_SNDBUFFORCE
    file = os.open(path, os.O_RDONLY)

    def body():
        sent = 0
        while sent < many:
            sent += os.sendfile(here.fileno(), file, None, many - sent)

    return body, lambda: (here.close(), there.close(), os.close(file))


def sent_from_memory():
    folder = ROOT / "sent"
    away = _mounted(folder, b"tmpfs")
    (folder / "file").write_bytes(bytes(SENT))
    body, end = _sent_from(folder / "file", SENT)
    return body, lambda: (end(), away())


def sent_from_a_loop_device():
    """Whether the device's thread has copied the page cache's bytes, nobody knows."""
    folder = ROOT / "image"
    away = _mounted(folder, b"tmpfs")
    with (folder / "disk").open("wb") as disk:
        disk.truncate(16 << 20)
    subprocess.run(["mkfs.ext4", "-q", folder / "disk"], check=True)
    (folder / "on").mkdir()
    subprocess.run(["modprobe", "loop"], check=False)  # or it is built in
    subprocess.run(["mount", "-o", "loop", folder / "disk", folder / "on"], check=True)
    (folder / "on" / "file").write_bytes(bytes(SENT))
    # Its journal is written every five seconds, by threads of the kernel's; then it is no more.
    subprocess.run(["mount", "-o", "remount,ro", folder / "on"], check=True)
    body, end = _sent_from(folder / "on" / "file", SENT)

    def gone():
        end()
        subprocess.run(["umount", folder / "on"], check=True)
        away()

    return body, gone


def sent_from_proc():
    """The kernel prints it into pages of its own."""
    return _sent_from("/proc/vmstat", PRINTED)


def made_up_and_thrown_away():
    zero, null = (os.open(f"/dev/{name}", os.O_RDWR) for name in ("zero", "null"))
    memory = mmap.mmap(-1, SENT)

    def body():
        assert os.readv(zero, [memory]) == SENT
        assert os.writev(null, [memory]) == SENT

    return body, lambda: (os.close(zero), os.close(null))


PATHS = (
    *(posix_messages, system_v_messages, other_memory_by_call, pages_by_userfaultfd),
    *(copied_up, sent_from_memory, sent_from_a_loop_device, sent_from_proc),
    made_up_and_thrown_away,
)
