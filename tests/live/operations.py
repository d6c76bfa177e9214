"""Every way in which a program moves bytes, each with what the CPU must copy for it.

Run as nobody: ``operations NONCE CODE FOLDER…``, a folder on each file system. Performs one
operation per line of input, in a window of its own, and answers with a line of JSON: its
name and the bytes that have to be seen, by direction; ``other`` for user copies that are not
made through an iterator. The last answer is ``null``.
"""

import ctypes
import fcntl
import json
import mmap
import os
import socket
import struct
import sys
from contextlib import ExitStack, suppress
from pathlib import Path

NONCE, CODE = int(sys.argv[1]), sys.argv[2]
FOLDERS = [Path(folder) for folder in sys.argv[3:]]
sys.path.insert(0, CODE)

from zctrace.workloads import libc
from zctrace.workloads.marker import (
    Role,
    Scope,
    settled,
    window,
)
from zctrace.workloads.strategies.io_uring import (
    IoUring,
    IoUringZc,
)

SMALL, PAGE, ODD, LARGE = 61, 4096, 50_021, 300_007
C = ctypes.CDLL(None, use_errno=True)
M_ARENA_MAX = -8
PARTS = (7, 1021, 30_011)
"""Lengths of three vectors."""


def checked(result):
    if result < 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
    return result


def data(size):
    return bytes(range(251)) * (size // 251) + bytes(size % 251)


def parts():
    return [data(size) for size in PARTS]


def empties():
    return [bytearray(size) for size in PARTS]


def tcp(stack):
    listener = stack.enter_context(socket.create_server(("127.0.0.1", 0)))
    one = stack.enter_context(socket.create_connection(listener.getsockname()))
    other, _ = listener.accept()
    return one, stack.enter_context(other)


def udp(stack):
    ends = [stack.enter_context(socket.socket(socket.AF_INET, socket.SOCK_DGRAM)) for _ in "12"]
    for end in ends:
        end.bind(("127.0.0.1", 0))
    ends[0].connect(ends[1].getsockname())
    return ends


def unix(kind):
    def pair(stack):
        ends = socket.socketpair(socket.AF_UNIX, kind)
        for end in ends:
            stack.enter_context(end)
            end.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1 << 20)
        return ends

    return pair


def pipe(stack):
    ends = os.pipe()
    for end in ends:
        stack.callback(os.close, end)
    return ends


def large_pipe(stack):
    out, into = pipe(stack)
    fcntl.fcntl(into, 1031, 1 << 20)  # F_SETPIPE_SZ
    return out, into


def receive(end, size):
    got = 0
    while got < size:
        got += len(end.recv(size - got))


def fresh(stack, folder, content=b"", flags=0):
    """An unnamed file, with content that is in the page cache and on the disk."""
    file = os.open(folder, os.O_TMPFILE | os.O_RDWR, 0o600)
    stack.callback(os.close, file)
    if content:
        os.write(file, content)
        os.fsync(file)
        os.lseek(file, 0, os.SEEK_SET)
        os.pread(file, len(content), 0)
    if flags:
        file = os.open(f"/proc/self/fd/{file}", os.O_RDWR | flags)
        stack.callback(os.close, file)
    return file


# Each prepares with a stack for what must be given back, and returns what is to be measured
# and what is to be seen.


def file_write(stack, folder):
    file, content = fresh(stack, folder), data(LARGE)
    return lambda: os.write(file, content), {"u2k": LARGE}


def file_write_small(stack, folder):
    file, content = fresh(stack, folder), data(SMALL)
    return lambda: os.write(file, content), {"u2k": SMALL}


def file_pwritev(stack, folder):
    file, content = fresh(stack, folder), parts()
    return lambda: os.pwritev(file, content, 3), {"u2k": sum(PARTS)}


def file_read(stack, folder):
    file = fresh(stack, folder, data(LARGE))
    return lambda: os.read(file, LARGE), {"k2u": LARGE}


def file_read_beyond_the_end(stack, folder):
    file = fresh(stack, folder, data(ODD))
    return lambda: os.read(file, LARGE), {"k2u": ODD}


def file_preadv(stack, folder):
    file, into = fresh(stack, folder, data(LARGE)), empties()
    return lambda: os.preadv(file, into, 5), {"k2u": sum(PARTS)}


def file_mapped_write(stack, folder):
    """write(2) from a mapping of another file that has not been touched."""
    source, file = fresh(stack, folder, data(LARGE)), fresh(stack, folder)
    address = libc.mmap(LARGE, libc.PROT_READ, libc.MAP_SHARED, source)
    stack.callback(libc.munmap, address, LARGE)
    return lambda: libc.write(file, address, LARGE), {"u2k": LARGE}


def file_write_bad_address(stack, folder):
    """Half of the buffer is there: what is copied before the fault counts.

    Some file systems try once more and copy it again.
    """
    file = fresh(stack, folder)
    address = libc.mmap(2 * PAGE, libc.PROT_READ, libc.MAP_PRIVATE | libc.MAP_ANONYMOUS)
    libc.munmap(address + PAGE, PAGE)
    stack.callback(libc.munmap, address, PAGE)

    def run():
        with suppress(OSError):
            libc.write(file, address, 2 * PAGE)

    return run, {"u2k": None}


def sendfile_to_file(stack, folder):
    source, file = fresh(stack, folder, data(LARGE)), fresh(stack, folder)
    return lambda: os.sendfile(file, source, 0, LARGE), {"k2k": LARGE}


def splice_to_file(stack, folder):
    out, into = large_pipe(stack)
    file = fresh(stack, folder)
    os.write(into, data(ODD))
    return lambda: os.splice(out, file, ODD), {"k2k": ODD}


def splice_from_file(stack, folder):
    _out, into = large_pipe(stack)
    file = fresh(stack, folder, data(LARGE))
    return lambda: os.splice(file, into, ODD), {}


def sendfile_to_tcp(stack, folder):
    one, _other = tcp(stack)
    file = fresh(stack, folder, data(ODD))
    return lambda: os.sendfile(one.fileno(), file, 0, ODD), {}


def sendfile_to_unix(stack, folder):
    one, _other = unix(socket.SOCK_STREAM)(stack)
    file = fresh(stack, folder, data(ODD))
    return lambda: os.sendfile(one.fileno(), file, 0, ODD), {}


def private_mapping_written(stack, folder):
    file = fresh(stack, folder, data(3 * PAGE))
    view = mmap.mmap(file, 3 * PAGE, mmap.MAP_PRIVATE, mmap.PROT_READ | mmap.PROT_WRITE)
    stack.callback(view.close)

    def run():
        for page in range(3):
            view[page * PAGE] = 1

    return run, {"k2k": 3 * PAGE}


def shared_mapping_written(stack, folder):
    file = fresh(stack, folder, data(3 * PAGE))
    view = mmap.mmap(file, 3 * PAGE)
    stack.callback(view.close)

    def run():
        for page in range(3):
            view[page * PAGE] = 1

    return run, {}


def direct_read(stack, folder):
    file = fresh(stack, folder, data(16 * PAGE), os.O_DIRECT)
    buffer = libc.Buffer(16 * PAGE)
    stack.callback(buffer.close)
    return lambda: libc.read(file, buffer.address, 16 * PAGE), {}


ON_FILES = [
    file_write,
    file_write_small,
    file_pwritev,
    file_read,
    file_read_beyond_the_end,
    file_preadv,
    file_mapped_write,
    file_write_bad_address,
    sendfile_to_file,
    splice_to_file,
    splice_from_file,
    sendfile_to_tcp,
    sendfile_to_unix,
    private_mapping_written,
    shared_mapping_written,
]


def pipe_both_ways(stack):
    out, into = large_pipe(stack)
    content = data(LARGE)

    def run():
        os.write(into, content)
        os.read(out, LARGE)

    return run, {"u2k": LARGE, "k2u": LARGE}


def pipe_many_small(stack):
    out, into = large_pipe(stack)
    content = data(100)

    def run():
        for _ in range(500):
            os.write(into, content)
        os.read(out, 50_000)

    return run, {"u2k": 50_000, "k2u": 50_000}


def pipe_vectors(stack):
    out, into = large_pipe(stack)
    content, buffers = parts(), empties()

    def run():
        os.writev(into, content)
        os.readv(out, buffers)

    return run, {"u2k": sum(PARTS), "k2u": sum(PARTS)}


def vmsplice_and_read(stack):
    out, into = large_pipe(stack)
    buffer = libc.Buffer(16 * PAGE)
    stack.callback(buffer.close)
    vector = libc.Span(buffer.address, 16 * PAGE)

    def run():
        libc.vmsplice(into, ctypes.addressof(vector))
        os.read(out, 16 * PAGE)

    return run, {"k2u": 16 * PAGE}


def vmsplice_to_user(stack):
    out, into = large_pipe(stack)
    os.write(into, data(ODD))
    buffer = libc.Buffer(ODD)
    stack.callback(buffer.close)
    vector = libc.Span(buffer.address, ODD)
    return lambda: libc.vmsplice(out, ctypes.addressof(vector)), {"k2u": ODD}


def tee_and_splice(stack):
    first, second = large_pipe(stack), large_pipe(stack)
    os.write(first[1], data(ODD))
    null = os.open("/dev/null", os.O_WRONLY)
    stack.callback(os.close, null)

    def run():
        libc.tee(first[0], second[1], ODD)
        os.splice(second[0], null, ODD)

    return run, {}


def stream(pair, size):
    def prepare(stack):
        one, other = pair(stack)
        content = data(size)

        def run():
            one.sendall(content)
            receive(other, size)

        return run, {"u2k": size, "k2u": size}

    return prepare


def vectors(pair):
    def prepare(stack):
        one, other = pair(stack)
        content, buffers = parts(), empties()

        def run():
            one.sendmsg(content)
            other.recvmsg_into(buffers, 0, socket.MSG_WAITALL if pair is tcp else 0)

        return run, {"u2k": sum(PARTS), "k2u": sum(PARTS)}

    return prepare


def peek(stack):
    one, other = tcp(stack)
    one.sendall(data(5003))

    def run():
        other.recv(5003, socket.MSG_PEEK | socket.MSG_WAITALL)
        other.recv(5003, socket.MSG_WAITALL)

    return run, {"k2u": 2 * 5003}


def truncated_datagram(stack):
    one, other = udp(stack)
    one.send(data(5003))
    return lambda: other.recv(1009), {"k2u": 1009}


def discarded(stack):
    """MSG_TRUNC on TCP throws bytes away without copying them."""
    one, other = tcp(stack)
    one.sendall(data(5003))
    return lambda: other.recv(5003, socket.MSG_TRUNC | socket.MSG_WAITALL), {}


def splice_from_tcp(stack):
    one, other = tcp(stack)
    _out, into = large_pipe(stack)
    one.sendall(data(5003))
    return lambda: os.splice(other.fileno(), into, 5003), {}


def vmsplice_to_tcp(stack):
    one, _other = tcp(stack)
    out, into = large_pipe(stack)
    buffer = libc.Buffer(8 * PAGE)
    stack.callback(buffer.close)
    vector = libc.Span(buffer.address, 8 * PAGE)

    def run():
        libc.vmsplice(into, ctypes.addressof(vector))
        os.splice(out, one.fileno(), 8 * PAGE)

    return run, {}


def zerocopy_send(stack):
    one, other = tcp(stack)
    one.setsockopt(socket.SOL_SOCKET, 60, 1)
    content = data(20_011)

    def run():
        one.send(content, libc.MSG_ZEROCOPY)

    def settle():
        receive(other, 20_011)

    return run, {"k2k": 20_011}, settle


def sendfile_to_udp(stack):
    """Some kernels copy, some pass pages on; whatever it is, all ways must agree."""
    one, _other = udp(stack)
    file = fresh(stack, FOLDERS[0], data(5003))
    return lambda: os.sendfile(one.fileno(), file, 0, 5003), {"k2k": None}


def zerocopy_received_elsewhere(stack):
    """Another process receives: nearly everything is copied on top of its thread."""
    one, other = tcp(stack)
    one.setsockopt(socket.SOL_SOCKET, 60, 1)
    content, pieces = data(1_000_003), 4
    if not (child := os.fork()):
        # What it copies for itself (a small packet in the backlog is pulled together) is
        # not the sender's.
        with window(NONCE, Role.SINK, Scope.THREAD):
            receive(other, pieces * len(content))
        os._exit(0)
    expected = {"k2k": pieces * len(content), "copy-on-write": None}

    def run():
        for _ in range(pieces):
            sent = 0
            while sent < len(content):
                sent += one.send(content[sent:], libc.MSG_ZEROCOPY)

    def settle():
        os.waitpid(child, 0)
        info = one.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 256)
        # What TCP sends again is looped back, and copied, again.
        expected["k2k"] += struct.unpack_from("=Q", info, 208)[0]

    return run, expected, settle


def executed(stack):
    """Another program, in a child."""
    file = fresh(stack, FOLDERS[0], data(LARGE))
    block, blocks = 7919, 3
    arguments = [f"if=/proc/self/fd/{file}", "of=/dev/null", f"bs={block}", f"count={blocks}"]
    os.set_inheritable(file, True)
    quiet = [(os.POSIX_SPAWN_OPEN, 2, "/dev/null", os.O_WRONLY, 0)]

    def run():
        child = os.posix_spawn(
            "/bin/busybox", ["busybox", "dd", *arguments], {}, file_actions=quiet
        )
        assert os.waitpid(child, 0)[1] == 0

    # The kernel reads the program's head for itself, and takes the arguments; the C library
    # asks for a few random bytes.
    seen = {"k2u:read": block * blocks, "k2u": None}
    return run, {**seen, "k2k": None, "other": None, "copy-on-write": None}


def zerocopy_datagram(stack):
    one, other = udp(stack)
    one.setsockopt(socket.SOL_SOCKET, 60, 1)
    content = data(8009)

    def run():
        one.send(content, libc.MSG_ZEROCOPY)

    # 5.10 copies what fits into the packet's head from the program at once.
    return run, {"any": 8009}, lambda: other.recv(8009)


def process_vm(stack):
    source, target = libc.Buffer(ODD), libc.Buffer(ODD)
    stack.callback(source.close)
    stack.callback(target.close)
    local, remote = libc.Span(target.address, ODD), libc.Span(source.address, ODD)

    def run():
        checked(
            C.process_vm_readv(os.getpid(), ctypes.byref(local), 1, ctypes.byref(remote), 1, 0)
        )

    return run, {"k2u": ODD}


def device(path, size, expected):
    def prepare(stack):
        file = os.open(path, os.O_RDONLY)
        stack.callback(os.close, file)
        return lambda: os.read(file, size), expected

    return prepare


def kernel_text(stack):
    file = os.open("/proc/self/maps", os.O_RDONLY)
    stack.callback(os.close, file)
    seen = {}

    def run():
        seen["k2u"] = len(os.read(file, 4000))

    return run, seen


def sysctl(stack):
    file = os.open("/proc/sys/kernel/ostype", os.O_RDONLY)
    stack.callback(os.close, file)
    return lambda: os.read(file, 100), {"k2u": len("Linux\n")}


def message_queue(stack):
    queue = checked(C.msgget(0, 0o1600))
    stack.callback(C.msgctl, queue, 0, None)
    message = struct.pack("@l", 1) + data(5003)
    buffer = ctypes.create_string_buffer(6000)

    def run():
        checked(C.msgsnd(queue, message, 5003, 0))
        checked(C.msgrcv(queue, buffer, 5003, ctypes.c_long(0), 0))

    return run, {"other": 2 * 5003}


def memory_file(stack):
    file = os.memfd_create("x")
    stack.callback(os.close, file)
    content = data(LARGE)

    def run():
        os.write(file, content)
        os.pread(file, LARGE, 0)

    return run, {"u2k": LARGE, "k2u": LARGE}


def ring(strategy, expected):
    def prepare(stack):
        from zctrace.workloads.strategy import Task

        one, other = tcp(stack)
        file = fresh(stack, FOLDERS[0], data(20_011))
        if reason := strategy.unavailable(file):
            return None, {"unavailable": reason}
        transfer = strategy.prepare(Task(file, one.fileno(), 20_011))
        stack.callback(transfer.close)
        return transfer.run, expected, lambda: receive(other, 20_011)

    return prepare


def forked(stack):
    """A child that is forked in the window, and what it executes."""
    _out, into = large_pipe(stack)
    content = data(ODD)

    def run():
        if not (child := os.fork()):
            os.write(into, content)
            os._exit(0)
        os.waitpid(child, 0)

    # Pages that both write to are copied; how many is the C library's affair.
    return run, {"u2k": ODD, "copy-on-write": None}


def threads(stack):
    import threading

    # One arena for all threads: before it makes many, the C library reads how many
    # processors there are, "0\n" in a file under /sys, and that is counted, too.
    C.mallopt(M_ARENA_MAX, 1)
    pipes = [pipe(stack) for _ in range(64)]
    content = data(1009)

    def both(out, into):
        for _ in range(10):
            os.write(into, content)
            os.read(out, 1009)

    workers = [threading.Thread(target=both, args=ends) for ends in pipes]

    def run():
        for worker in workers:
            worker.start()
        for worker in workers:
            worker.join()

    # Starting a thread gives the kernel some structures.
    many = 64 * 10 * 1009
    return run, {"u2k": many, "k2u": many, "other": None, "copy-on-write": None}


def killed(stack):
    """A child that is killed halfway: what it copied until then counts."""
    _out, into = large_pipe(stack)
    ready = large_pipe(stack)
    content = data(ODD)

    def run():
        if not (child := os.fork()):
            os.write(into, content)
            os.write(ready[1], b"!")
            while True:
                os.sched_yield()
        os.read(ready[0], 1)
        os.kill(child, 9)
        os.waitpid(child, 0)

    return run, {"u2k": ODD + 1, "k2u": 1, "copy-on-write": None}


ALONE = {
    "pipe": pipe_both_ways,
    "pipe, many small": pipe_many_small,
    "pipe, vectors": pipe_vectors,
    "vmsplice, read": vmsplice_and_read,
    "vmsplice to user memory": vmsplice_to_user,
    "tee, splice to /dev/null": tee_and_splice,
    "TCP": stream(tcp, LARGE),
    "TCP, small": stream(tcp, SMALL),
    "TCP, vectors": vectors(tcp),
    "TCP, peek": peek,
    "TCP, discarded": discarded,
    "TCP, splice to pipe": splice_from_tcp,
    "TCP, vmsplice": vmsplice_to_tcp,
    "TCP, MSG_ZEROCOPY": zerocopy_send,
    "TCP, MSG_ZEROCOPY, received elsewhere": zerocopy_received_elsewhere,
    "UDP": stream(udp, 40_009),
    "UDP, one packet": stream(udp, 5003),
    "UDP, small": stream(udp, SMALL),
    "UDP, sendfile": sendfile_to_udp,
    "UDP, vectors": vectors(udp),
    "UDP, truncated": truncated_datagram,
    "UDP, MSG_ZEROCOPY": zerocopy_datagram,
    "AF_UNIX stream": stream(unix(socket.SOCK_STREAM), ODD),
    "AF_UNIX stream, vectors": vectors(unix(socket.SOCK_STREAM)),
    "AF_UNIX datagram": stream(unix(socket.SOCK_DGRAM), ODD),
    "AF_UNIX packets": stream(unix(socket.SOCK_SEQPACKET), ODD),
    "process_vm_readv": process_vm,
    "/dev/zero": device("/dev/zero", ODD, {}),
    "/dev/urandom": device("/dev/urandom", ODD, {"k2u": ODD}),
    "/proc": kernel_text,
    "sysctl": sysctl,
    "message queue": message_queue,
    "memfd": memory_file,
    "io_uring": ring(IoUring(), {"u2k": 20_011, "k2u": 20_011}),
    "io_uring, zero-copy": ring(IoUringZc(), {"k2k": 2 * 20_011}),
    "fork": forked,
    "exec": executed,
    "64 threads": threads,
    "killed": killed,
}


def operations():
    for name, prepare in ALONE.items():
        yield name, prepare
    for folder in FOLDERS:
        for prepare in ON_FILES:
            yield f"{folder.name}, {prepare.__name__}", lambda s, p=prepare, f=folder: p(s, f)
        if folder.name != "tmpfs":
            yield f"{folder.name}, direct_read", lambda s, f=folder: direct_read(s, f)


def perform(prepare):
    with ExitStack() as stack:
        libc.own_all_memory()
        run, expected, *settle = prepare(stack)
        if run:
            with window(NONCE, Role.SENDER, Scope.PROCESS):
                run()
            for wait in settle:
                wait()
            settled(NONCE, Role.SENDER)
        return expected


def say(**answer):
    print(json.dumps(answer), flush=True)


if __name__ == "__main__":
    for name, prepare in operations():
        if not sys.stdin.readline():
            break
        try:
            say(name=name, expected=perform(prepare))
        except OSError as error:
            say(name=name, expected={"unavailable": str(error)})
    sys.stdin.readline()
    print("null", flush=True)
