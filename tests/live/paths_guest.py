"""In a guest, as root, below ``zctrace serve``: paths without an iterator of the program's.

Each function of PATHS sets up, and gives what is measured in a window of its own and what takes
everything away again. A line of JSON for each, with what the window has seen.
"""

import contextlib
import ctypes
import json
import mmap
import os
import signal
import socket
import struct
import subprocess
import time
import traceback
from pathlib import Path

from zctrace import Session

from path_sizes import FRAME, FUSE, MEMORY, MEMORY_WRITTEN, MESSAGE, MESSAGES, SECTORS  # isort: skip

libc = ctypes.CDLL(None, use_errno=True)
ROOT = Path("/run/paths")


def check(result):
    if result < 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
    return result


def forked(run):
    """The pid of a process that does nothing else; it is no part of a later window."""
    pid = os.fork()
    if pid == 0:
        with contextlib.suppress(BaseException):
            run()
        os._exit(0)
    return pid


def ended(pid, number=signal.SIGKILL):
    os.kill(pid, number)
    os.waitpid(pid, 0)


def filled(size):
    memory = mmap.mmap(-1, size)
    memory.write(bytes(range(251)) * (size // 251) + bytes(size % 251))
    return memory


def splice_small_messages():
    """Out of a Unix socket into a pipe, and on into nothing."""
    ours, theirs = socket.socketpair()
    for _ in range(MESSAGES):
        theirs.send(bytes(MESSAGE))
    reading, writing = os.pipe()
    nothing = os.open("/dev/null", os.O_WRONLY)

    def body():
        left = MESSAGES * MESSAGE
        while left:
            many = os.splice(ours.fileno(), writing, left)
            while many:
                many -= (moved := os.splice(reading, nothing, many))
                left -= moved

    return body, lambda: [
        ours.close(),
        theirs.close(),
        *map(os.close, (reading, writing, nothing)),
    ]


def _other_memory():
    memory = filled(MEMORY)
    pid = forked(signal.pause)
    address = ctypes.addressof(ctypes.c_char.from_buffer(memory))
    descriptor = os.open(f"/proc/{pid}/mem", os.O_RDWR)
    return address, descriptor, lambda: (os.close(descriptor), ended(pid))


def read_other_memory():
    address, descriptor, end = _other_memory()
    return lambda: os.pread(descriptor, MEMORY, address), end


def write_other_memory():
    address, descriptor, end = _other_memory()
    data = bytes(MEMORY_WRITTEN)
    return lambda: os.pwrite(descriptor, data, address), end


class Daemon:
    """A file system with one file of zeros, by FUSE's protocol (linux/fuse.h)."""

    FOLDER, FILE, MOST = ROOT / "fuse", 2, 1 << 17
    LOOKUP, FORGET, GETATTR, OPEN, READ, RELEASE, INIT, OPENDIR, FORGETS = (
        *(1, 2, 3, 14, 15, 18, 26, 27, 42),
    )

    def __init__(self):
        self.FOLDER.mkdir(parents=True, exist_ok=True)
        subprocess.run(["modprobe", "fuse"], check=False)  # or it is built in
        self.device = os.open("/dev/fuse", os.O_RDWR)
        options = f"fd={self.device},rootmode=40000,user_id=0,group_id=0,allow_other"
        target = os.fsencode(self.FOLDER)
        check(libc.mount(b"test", target, b"fuse", 0, options.encode()))
        assert self.answer() == self.INIT

    def answer(self):
        """Answer one request; returns what it was."""
        asked = os.read(self.device, self.MOST + 4096)
        _, code, number, node = struct.unpack_from("=IIQQ", asked)
        reply = self.reply(code, node, asked[40:])
        if reply is not None:
            error, content = (reply, b"") if isinstance(reply, int) else (0, reply)
            head = struct.pack("=IiQ", 16 + len(content), error, number)
            os.writev(self.device, [head, content] if content else [head])
        return code

    def reply(self, code, node, arguments):
        if code in (self.FORGET, self.FORGETS):
            return None
        if code == self.INIT:
            return struct.pack("=IIIIHHIIHH32x", 7, 31, self.MOST, 0, 12, 9, self.MOST, 1, 0, 0)
        if code == self.LOOKUP:
            return struct.pack("=QQQQII", self.FILE, 0, 9, 9, 0, 0) + self.attributes(self.FILE)
        if code == self.GETATTR:
            return struct.pack("=QII", 9, 0, 0) + self.attributes(node)
        if code in (self.OPEN, self.OPENDIR):
            return struct.pack("=QII", 0, 0, 0)
        if code == self.READ:
            _, offset, size = struct.unpack_from("=QQI", arguments)
            return bytes(max(min(size, FUSE - offset), 0)) or 0
        return 0 if code == self.RELEASE else -38  # ENOSYS

    def attributes(self, node):
        mode, size = (0o100644, FUSE) if node == self.FILE else (0o40755, 0)
        return struct.pack("=6Q10I", node, size, 0, 0, 0, 0, 0, 0, 0, mode, 1, 0, 0, 0, 4096, 0)

    def serve(self, last=-1):
        while self.answer() != last:
            pass

    def end(self):
        check(libc.umount2(os.fsencode(self.FOLDER), 2))
        os.close(self.device)


def fuse_daemon():
    """The daemon's side; its client is another process, which waits for it already."""
    daemon = Daemon()
    client = forked(lambda: (os.close(daemon.device), (daemon.FOLDER / "file").read_bytes()))

    def body():
        daemon.serve(last=daemon.RELEASE)

    return body, lambda: (daemon.end(), ended(client))


def fuse_client():
    """The client's side; the daemon is another process."""
    daemon = Daemon()
    server = forked(daemon.serve)
    file = os.open(daemon.FOLDER / "file", os.O_RDONLY)

    def body():
        while os.read(file, 1 << 16):
            pass

    return body, lambda: (os.close(file), daemon.end(), ended(server))


def loop_direct():
    """By O_DIRECT from a loop device, whose file is read through the page cache."""
    folder = ROOT / "tmpfs"
    folder.mkdir(parents=True, exist_ok=True)
    check(libc.mount(b"test", os.fsencode(folder), b"tmpfs", 0, b""))
    (folder / "file").write_bytes(bytes(SECTORS * 2))
    subprocess.run(["modprobe", "loop"], check=False)  # or it is built in
    losetup = ["losetup", "--find", "--show", folder / "file"]
    device = subprocess.run(losetup, check=True, capture_output=True, text=True).stdout.strip()
    disk, memory = os.open(device, os.O_RDONLY | os.O_DIRECT), mmap.mmap(-1, SECTORS)

    def end():
        os.close(disk)
        subprocess.run(["losetup", "--detach", device], check=True)
        check(libc.umount2(os.fsencode(folder), 2))

    return lambda: os.preadv(disk, [memory], 0), end


def _memory_disk():
    disk = os.open("/dev/ram0", os.O_RDWR | os.O_DIRECT)
    return disk, filled(SECTORS), lambda: os.close(disk)


def memory_disk_too_late():
    """Its driver is loaded while the window is open."""
    return lambda: subprocess.run(["modprobe", "brd", "rd_nr=1"], check=True), lambda: None


def memory_disk_written():
    disk, memory, end = _memory_disk()
    return lambda: os.pwritev(disk, [memory], 0), end


def memory_disk_read():
    disk, memory, end = _memory_disk()
    return lambda: os.preadv(disk, [memory], 0), end


def address_xdp():
    """A frame sent by AF_XDP in copy mode (linux/if_xdp.h)."""
    link = ["ip", "link"]
    subprocess.run([*link, "add", "xdp0", "type", "veth", "peer", "xdp1"], check=True)
    for device in ("xdp0", "xdp1"):
        subprocess.run([*link, "set", device, "up"], check=True)
    sender = os.fdopen(check(libc.socket(44, socket.SOCK_RAW, 0)), "rb", buffering=0)
    descriptor, level, memory = sender.fileno(), 283, filled(1 << 16)
    address = ctypes.addressof(ctypes.c_char.from_buffer(memory))

    def option(number, value):
        check(libc.setsockopt(descriptor, level, number, value, len(value)))

    option(4, struct.pack("=QQIII4x", address, 1 << 16, 4096, 0, 0))  # the frames' memory
    for ring in (5, 6, 3):  # to be filled, completed, sent
        option(ring, struct.pack("=I", 16))
    found, size = ctypes.create_string_buffer(128), ctypes.c_uint32(128)
    check(libc.getsockopt(descriptor, level, 1, found, ctypes.byref(size)))
    producer, _, first, _ = struct.unpack_from("=4Q", found, size.value // 4)
    ring = mmap.mmap(descriptor, first + 16 * 16, offset=1 << 31)
    index, copy_mode = socket.if_nametoindex("xdp0"), 1 << 1
    name = struct.pack("=HHIII", 44, copy_mode, index, 0, 0)
    check(libc.bind(descriptor, name, len(name)))
    struct.pack_into("=QII", ring, first, 0, FRAME, 0)
    struct.pack_into("=I", ring, producer, 1)

    def end():
        ring.close()
        sender.close()
        subprocess.run([*link, "del", "xdp0"], check=True)

    return lambda: check(libc.sendto(descriptor, None, 0, 0x40, None, 0)), end


def ordinary():
    """What programs do all day, while another one starts programs."""
    (ROOT / "from").write_bytes(bytes(FUSE))
    here, there = socket.socketpair()
    receiver = forked(lambda: [there.recv(1 << 16) for _ in iter(int, 1)])
    neighbour = forked(lambda: [subprocess.run(["true"]) for _ in iter(int, 1)])

    def body():
        data = (ROOT / "from").read_bytes()
        (ROOT / "to").write_bytes(data)
        with (ROOT / "from").open("rb") as file, (ROOT / "to").open("r+b") as other:
            os.copy_file_range(file.fileno(), other.fileno(), FUSE, 0, 0)
            sent = 0
            while sent < FUSE:
                sent += os.sendfile(here.fileno(), file.fileno(), sent, FUSE - sent)
        time.sleep(1)

    return body, lambda: (here.close(), there.close(), ended(receiver), ended(neighbour))


PATHS = (
    *(splice_small_messages, read_other_memory, write_other_memory, fuse_daemon, fuse_client),
    *(loop_direct, memory_disk_too_late, memory_disk_written, memory_disk_read),
    *(address_xdp, ordinary),
)


def late(*_):
    raise TimeoutError


def measured(session, path):
    body, end = path()
    try:
        with session.window() as window:
            signal.alarm(60)
            body()
            signal.alarm(0)
    finally:
        end()
    answer = window.answer
    return {
        "copied": {way or "?": size for way, size in (answer.copied or {}).items() if size},
        "sites": {line.name: line.copied_bytes for line in answer.sites},
        "unassigned": answer.unassigned,
        "reasons": [str(why) for why, _ in answer.reasons],
        "doubts": list(answer.doubts),
        "failed": [f"{control.name}: {control.detail}" for control in answer.failed],
    }


signal.signal(signal.SIGALRM, late)
ROOT.mkdir(exist_ok=True)
with Session() as session:
    for path in PATHS:
        try:
            found = measured(session, path)
        except Exception:
            found = {"error": traceback.format_exc()}
        print(json.dumps({"path": path.__name__, **found}), flush=True)
