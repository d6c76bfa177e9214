"""A program to be traced: operations handed to the kernel by rings, each for bytes of its own.

``python3 ring_workload.py WHAT FOLDER``: in the folder is a file ``payload`` of SIZE bytes, and
room for more. The test knows what is moved by the names below.
"""

import ctypes
import os
import socket
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))

from zctrace.workloads import libc, ring

PIECE = 1 << 16
READ, ASYNC, DIRECT, SPLICED, POLLED = (n * PIECE for n in (16, 8, 24, 12, 5))
"""Bytes that are read from the payload; the last by a thread of the kernel's that polls."""
TWINS = (1009, 2003)
"""Received by two operations at once that have the same number of the program's."""
SHOTS, DATAGRAM = 20, 1111
"""Messages that one operation receives, one after the other."""
ZERO_COPY = 7 * PIECE
SILENT = 2 * PIECE
AIO_READ, AIO_DIRECT, AIO_WRITTEN = 9 * PIECE, 6 * PIECE, 4 * PIECE
OP_WRITE, OP_RECVMSG, OP_RECV, OP_PROVIDE, OP_SPLICE = 23, 10, 27, 31, 30
FIXED, FORCED, SELECT, SKIP = 1 << 0, 1 << 4, 1 << 5, 1 << 6
SEVERAL_SHOTS = 1 << 1


def memory(size):
    """Address of so many bytes that begin a page."""
    return libc.Buffer(size).address


def perform(queue, operation, **members):
    """One operation, and what came of it."""
    queue.prepare(operation, **members)
    queue.enter(1)
    return ring.moved(queue.completion()[0], str(operation))


def in_pieces(size, move):
    """``move`` is told where to begin and how many bytes there are left, again and again."""
    done = 0
    while done < size:
        done += move(done, min(PIECE, size - done))


def connection():
    with socket.create_server(("127.0.0.1", 0)) as listener:
        near = socket.create_connection(listener.getsockname())
        return near, listener.accept()[0]


def reads(queue, file, buffer):
    """Read and send, and by a registered file and buffer, in a thread of the kernel's."""
    near, far = connection()

    def move(at, size):
        got = perform(
            queue, ring.OP_READ, fd=file, address=buffer.address, length=size, offset=at
        )
        in_pieces(
            got,
            lambda done, left: perform(
                queue,
                ring.OP_SEND,
                fd=near.fileno(),
                address=buffer.address + done,
                length=left,
            ),
        )
        in_pieces(got, lambda done, left: len(far.recv(left)))
        return got

    in_pieces(READ, move)
    queue.register_files(file)
    queue.register(buffer)
    in_pieces(
        ASYNC,
        lambda at, size: perform(
            queue, ring.OP_READ_FIXED, fd=0, address=buffer.address, length=size, offset=at,
            flags=FIXED | FORCED,
        ),
    )  # fmt: skip


def twins(queue):
    """Two at once with one number, which wait for bytes of different connections."""
    ends = [connection() for _ in TWINS]
    addresses = [memory(size) for size in TWINS]
    for (_, far), size, address in zip(ends, TWINS, addresses, strict=True):
        queue.prepare(OP_RECV, fd=far.fileno(), address=address, length=size, user_data=77)
    queue.enter(2, 0)
    for (near, _), size in zip(ends, TWINS, strict=True):
        near.send(bytes(size))
        assert ring.moved(queue.completion()[0], "twin") == size


def spliced(queue, file):
    out, into = os.pipe()
    near, far = connection()

    def move(at, size):
        got = perform(
            queue,
            OP_SPLICE,
            fd=into,
            offset=2**64 - 1,
            address=at,
            length=size,
            file_index=file,
        )
        in_pieces(
            got,
            lambda done, left: perform(
                queue, OP_SPLICE, fd=near.fileno(), offset=2**64 - 1, address=2**64 - 1,
                length=left, file_index=out,
            ),
        )  # fmt: skip
        in_pieces(got, lambda done, left: len(far.recv(left)))
        return got

    in_pieces(SPLICED, move)


def zero_copy(queue, buffer):
    near, far = connection()

    def move(at, size):
        queue.prepare(ring.OP_SEND_ZC, fd=near.fileno(), address=buffer.address, length=size)
        queue.enter(1)
        got = ring.moved(queue.completion()[0], "send")
        in_pieces(got, lambda done, left: len(far.recv(left)))
        assert queue.completion()[1] & ring.CQE_F_NOTIF
        return got

    in_pieces(ZERO_COPY, move)


class Message(ctypes.Structure):
    """struct msghdr."""

    _fields_ = [
        ("name", ctypes.c_void_p),
        ("name_length", ctypes.c_uint),
        ("vectors", ctypes.c_void_p),
        ("vector_count", ctypes.c_size_t),
        ("control", ctypes.c_void_p),
        ("control_length", ctypes.c_size_t),
        ("flags", ctypes.c_int),
    ]


def several_shots(queue, kind):
    """One operation that receives again and again, into buffers that the kernel chooses."""
    if kind == OP_RECV:
        near, far = connection()
    else:
        near, far = (socket.socket(socket.AF_INET, socket.SOCK_DGRAM) for _ in range(2))
        far.bind(("127.0.0.1", 0))
        near.connect(far.getsockname())
    message = Message(name_length=28, control_length=40)
    perform(
        queue, OP_PROVIDE, fd=SHOTS, address=memory(SHOTS * 4096), length=4096, buffer_index=7
    )
    queue.prepare(
        kind, fd=far.fileno(), ioprio=SEVERAL_SHOTS, flags=SELECT, buffer_index=7, user_data=5,
        address=ctypes.addressof(message) if kind == OP_RECVMSG else 0,
    )  # fmt: skip
    queue.enter(1, 0)
    for _ in range(SHOTS):
        near.send(bytes(DATAGRAM))
        assert ring.moved(queue.completion()[0], "shot") >= DATAGRAM


def direct(queue, path):
    file = os.open(path, os.O_RDONLY | os.O_DIRECT)
    address = memory(DIRECT)
    for at in range(0, DIRECT, 2 * PIECE):
        got = perform(
            queue, ring.OP_READ, fd=file, address=address, length=2 * PIECE, offset=at
        )
        assert got == 2 * PIECE


def all_of(folder):
    payload = folder / "payload"
    file, other = (os.open(path, os.O_RDONLY) for path in (payload, folder / "other"))
    buffer = libc.Buffer(PIECE)
    reads(ring.Ring(), file, buffer)
    twins(ring.Ring())
    spliced(ring.Ring(), file)
    direct(ring.Ring(), payload)
    queue = ring.Ring(ring.SETUP_SQPOLL)
    in_pieces(
        POLLED,
        lambda at, size: perform(
            queue, ring.OP_READ, fd=other, address=buffer.address, length=size, offset=at
        ),
    )
    if ring.Ring().supports(ring.OP_SEND_ZC):
        zero_copy(ring.Ring(), buffer)
        for kind in (OP_RECV, OP_RECVMSG):
            several_shots(ring.Ring(), kind)


def silent(folder):
    """Operations that ask for no completion where they succeed, and one that does."""
    queue, buffer = ring.Ring(), libc.Buffer(PIECE)
    file = os.open(folder / "payload", os.O_RDONLY)
    for at in range(0, SILENT, PIECE):
        queue.prepare(
            ring.OP_READ, fd=file, address=buffer.address, length=PIECE, offset=at, flags=SKIP
        )
        queue.enter(1, 0)


class ControlBlock(ctypes.Structure):
    """struct iocb."""

    _fields_ = [
        ("data", ctypes.c_uint64),
        ("key", ctypes.c_uint32),
        ("rw_flags", ctypes.c_int),
        ("operation", ctypes.c_uint16),
        ("priority", ctypes.c_int16),
        ("file", ctypes.c_uint32),
        ("buffer", ctypes.c_uint64),
        ("size", ctypes.c_uint64),
        ("offset", ctypes.c_int64),
        ("rest", ctypes.c_uint64 * 2),
    ]


def aio(folder):
    """By io_submit(2); what comes of it is read by io_getevents(2)."""
    context = ctypes.c_uint64()
    libc.syscall("io_setup", 206, 16, ctypes.addressof(context))
    events = ctypes.create_string_buffer(32)

    def perform(operation, file, address, size, at):
        block = ControlBlock(
            operation=operation, file=file, buffer=address, size=size, offset=at
        )
        where = ctypes.c_uint64(ctypes.addressof(block))
        libc.syscall("io_submit", 209, context.value, 1, ctypes.addressof(where))
        libc.syscall("io_getevents", 208, context.value, 1, 1, ctypes.addressof(events), 0)
        return ctypes.c_int64.from_buffer(events, 16).value

    address = memory(PIECE)
    for flags, size in ((0, AIO_READ), (os.O_DIRECT, AIO_DIRECT)):
        file = os.open(folder / "payload", os.O_RDONLY | flags)
        in_pieces(size, lambda at, left, file=file: perform(0, file, address, left, at))
    file = os.open(folder / "written", os.O_WRONLY | os.O_CREAT)
    in_pieces(AIO_WRITTEN, lambda at, left: perform(1, file, address, left, at))


if __name__ == "__main__":
    {"all": all_of, "silent": silent, "aio": aio}[sys.argv[1]](Path(sys.argv[2]))
