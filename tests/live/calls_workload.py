"""A program to be traced: system calls that move bytes, each a number of its own.

``python3 calls_workload.py EXT4 XFS``: in each folder is a file ``payload``. The test knows
what is moved by the names below. Only what Python's own library does not offer is called
through the C library.
"""

import ctypes
import os
import socket
import sys
import threading
from fcntl import ioctl
from pathlib import Path

FEW, MANY = (1009, 2003, 3001), (101,) * 100
MOST = tuple(1 + number % 7 for number in range(1024))
"""Lengths of messages that are sent at once; the kernel takes no more than the last."""
SEND_TO, SEND_MESSAGE = 5003, 6007
SIX = 40009
"""Over IPv6."""
INTO_PIPE, OUT_OF_PIPE, INTO_FIFO = 30011, 20011, 10103
WRITES = {"writev": 7013, "pwritev": 7103, "pwritev2": 7207}
READS = {"readv": 8011, "preadv": 8101, "preadv2": 8209}
CLONED, FROM, TO_END_FROM = 1 << 20, 2 << 20, 3 << 20
"""Of a file whose blocks are shared."""
FICLONERANGE = 0x4020940D


class Vector(ctypes.Structure):
    _fields_ = [("base", ctypes.c_void_p), ("length", ctypes.c_size_t)]


class Message(ctypes.Structure):
    """struct mmsghdr."""

    _fields_ = [
        ("name", ctypes.c_void_p),
        ("name_length", ctypes.c_uint),
        ("vectors", ctypes.POINTER(Vector)),
        ("vector_count", ctypes.c_size_t),
        ("control", ctypes.c_void_p),
        ("control_length", ctypes.c_size_t),
        ("flags", ctypes.c_long),
        ("moved", ctypes.c_uint),
    ]


def call(name, *arguments):
    libc = ctypes.CDLL(None, use_errno=True)
    function = getattr(libc, name)
    function.restype = ctypes.c_ssize_t
    moved = function(*arguments)
    if moved < 0:
        raise OSError(ctypes.get_errno(), name)
    return moved


def vector(size):
    memory = ctypes.create_string_buffer(size)
    return Vector(ctypes.addressof(memory), size), memory


def messages(lengths):
    """An array of them, and what has to be kept meanwhile."""
    array = (Message * len(lengths))()
    kept = []
    for message, length in zip(array, lengths, strict=True):
        one, memory = vector(length)
        message.vectors, message.vector_count = ctypes.pointer(one), 1
        kept += [one, memory]
    return array, kept


def pair(family, kind, address):
    """Two sockets that are connected to each other."""
    if kind == socket.SOCK_STREAM:
        with socket.create_server((address, 0), family=family) as listener:
            near = socket.create_connection(listener.getsockname()[:2])
            return near, listener.accept()[0]
    near, far = (socket.socket(family, kind) for _ in range(2))
    near.bind((address, 0))
    far.bind((address, 0))
    near.connect(far.getsockname())
    far.connect(near.getsockname())
    return near, far


def received(far, size):
    while size:
        size -= len(far.recv(size))


def several():
    for lengths in (FEW, MANY):
        near, far = pair(socket.AF_INET, socket.SOCK_DGRAM, "127.0.0.1")
        array, kept = messages(lengths)
        assert call("sendmmsg", near.fileno(), array, len(lengths), 0) == len(lengths)
        array, kept = messages(lengths)
        assert call("recvmmsg", far.fileno(), array, len(lengths), 0, None) == len(lengths)
        assert [message.moved for message in array] == list(lengths)
        del kept
    # More than a socket has room for: one thread sends while the other one receives.
    near, far = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
    (sent, received), kept = zip(*(messages(MOST) for _ in range(2)), strict=True)
    rest = (len(MOST), 0)
    sender = threading.Thread(target=call, args=("sendmmsg", near.fileno(), sent, *rest))
    sender.start()
    assert call("recvmmsg", far.fileno(), received, *rest, None) == len(MOST)
    sender.join()
    for array in (sent, received):
        assert [message.moved for message in array] == list(MOST)
    del kept


def sockets():
    near, far = pair(socket.AF_INET, socket.SOCK_DGRAM, "127.0.0.1")
    assert near.send(bytes(SEND_TO)) == len(far.recv(65536)) == SEND_TO
    near, far = pair(socket.AF_INET, socket.SOCK_DGRAM, "127.0.0.1")
    assert near.sendmsg([bytes(SEND_MESSAGE - 7), bytes(7)]) == SEND_MESSAGE
    assert far.recvmsg_into([bytearray(7), bytearray(SEND_MESSAGE)])[0] == SEND_MESSAGE
    near, far = pair(socket.AF_INET6, socket.SOCK_STREAM, "::1")
    near.sendall(bytes(SIX))
    received(far, SIX)


def pipes(folder):
    out, into = os.pipe()
    one, kept = vector(INTO_PIPE)
    assert call("vmsplice", into, ctypes.byref(one), 1, 0) == INTO_PIPE
    one, kept = vector(OUT_OF_PIPE)
    assert call("vmsplice", out, ctypes.byref(one), 1, 0) == OUT_OF_PIPE
    other_out, other_into = os.pipe()
    rest = INTO_PIPE - OUT_OF_PIPE
    assert call("tee", out, other_into, ctypes.c_size_t(rest), 0) == rest
    assert len(os.read(other_out, 65536)) == rest
    fifo = folder / "fifo"
    os.mkfifo(fifo)
    both = os.open(fifo, os.O_RDWR)
    one, kept = vector(INTO_FIFO)
    assert call("vmsplice", both, ctypes.byref(one), 1, 0) == INTO_FIFO
    del kept


def files(folder):
    file = os.open(folder / "vectors", os.O_RDWR | os.O_CREAT)
    one, kept = vector(1 << 16)
    offset = ctypes.c_long(0)
    os.writev(file, [bytes(WRITES["writev"])])
    os.pwritev(file, [bytes(WRITES["pwritev2"])], 0, os.RWF_DSYNC)
    one.length = WRITES["pwritev"]
    call("pwritev", file, ctypes.byref(one), 1, offset)
    os.pwrite(file, bytes(1 << 16), 0)
    os.lseek(file, 0, os.SEEK_SET)
    os.readv(file, [bytearray(READS["readv"])])
    os.preadv(file, [bytearray(READS["preadv2"])], 0, os.RWF_NOWAIT)
    one.length = READS["preadv"]
    call("preadv", file, ctypes.byref(one), 1, offset)
    del kept


def clones(folder):
    for name, length, start in (("range", CLONED, FROM), ("to-end", 0, TO_END_FROM)):
        with (folder / "payload").open("rb") as source, (folder / name).open("wb") as copy:
            what = [(source.fileno(), 8), (start, 8), (length, 8), (0, 8)]
            packed = b"".join(value.to_bytes(size, "little") for value, size in what)
            ioctl(copy, FICLONERANGE, packed)


def main():
    ext4, xfs = map(Path, sys.argv[1:3])
    several()
    sockets()
    pipes(ext4)
    files(ext4)
    clones(xfs)


if __name__ == "__main__":
    main()
