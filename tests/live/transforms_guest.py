"""In a guest, as root, below ``zctrace serve``: windows around what the CPU transforms.

Prints one JSON object: by the kind of ciphers and the name of each window, what was found.
"""

import json
import mmap
import os
import signal
import socket
import struct
import subprocess
import sys
import threading

from zctrace import Session
from zctrace.errors import ControlError, FigureError

SIZE = 1 << 20
SECONDS = 120
"""More than any window takes."""
TLS_1_2, TLS_1_3 = 0x0303, 0x0304
_TCP_ULP, _SOL_TLS, _TLS_TX, _TLS_RX, _AES_GCM_128 = 31, 282, 1, 2, 51
_PAYLOAD = bytes(range(256)) * (SIZE // 256)
_FILE = os.memfd_create("payload")
os.write(_FILE, _PAYLOAD)


def tcp():
    with socket.create_server(("127.0.0.1", 0)) as listener:
        near = socket.create_connection(listener.getsockname())
        return near, listener.accept()[0]


def ktls(connection, way, version):
    """The keys are the same for both ends; the handshake is somebody else's business."""
    keys = struct.pack(
        "<HH8s16s4s8s", version, _AES_GCM_128, bytes(8), b"k" * 16, b"salt", bytes(8)
    )
    connection.setsockopt(socket.IPPROTO_TCP, _TCP_ULP, b"tls")
    connection.setsockopt(_SOL_TLS, way, keys)


class Reader:
    """A process that reads all that comes; ended by the end of it."""

    def __init__(self, connection, *others):
        self.pid = os.fork()
        if not self.pid:
            for other in others:
                other.close()
            while connection.recv(1 << 17):
                pass
            os._exit(0)
        connection.close()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        os.waitpid(self.pid, 0)


def sending(version, send):
    """A window around ``send(socket)``, which sends over kernel TLS, or over plain TCP."""

    def measured(window):
        near, far = tcp()
        with Reader(far, near), near:
            if version:
                ktls(near, _TLS_TX, version)
            with window:
                send(near)

    return measured


def sent(connection):
    connection.sendall(_PAYLOAD)


def sent_file(connection):
    at = 0
    while at < SIZE:
        at += os.sendfile(connection.fileno(), _FILE, at, SIZE - at)


def receiving(version):
    def measured(window):
        near, far = tcp()
        ktls(near, _TLS_TX, version)
        ktls(far, _TLS_RX, version)

        def send():
            near.sendall(_PAYLOAD)
            near.close()

        # In the same process, but the window is the thread's that receives.
        sender = threading.Thread(target=send)
        with far, window:
            sender.start()
            got = 0
            while part := len(far.recv(1 << 17)):
                got += part
        sender.join()
        assert got == SIZE

    measured.scope = "thread"
    return measured


def cipher(kind, name, *, hashing=False):
    """By AF_ALG, in messages of 64 KiB and less."""

    def measured(window):
        with socket.socket(socket.AF_ALG, socket.SOCK_SEQPACKET, 0) as algorithm:
            algorithm.bind((kind, name))
            if not hashing:
                algorithm.setsockopt(socket.SOL_ALG, socket.ALG_SET_KEY, b"k" * 16)
            operation, _ = algorithm.accept()
        piece = 32 << 10
        with operation, window:
            if hashing:
                operation.sendall(_PAYLOAD)
                operation.recv(64)
                return
            for at in range(0, SIZE, piece):
                operation.sendmsg_afalg(
                    [_PAYLOAD[at : at + piece]], op=socket.ALG_OP_ENCRYPT, iv=bytes(16)
                )
                assert len(operation.recv(piece)) == piece

    return measured


def encrypted_disk(window):
    """Written past the page cache to a disk that kcryptd encrypts."""
    subprocess.run(
        "modprobe brd rd_nr=1 rd_size=8192; modprobe dm-crypt", shell=True, check=True
    )
    table = f"0 16384 crypt aes-xts-plain64 {'01' * 64} 0 /dev/ram0 0"
    # A guest has no udev, which would make the device's node.
    alone = {**os.environ, "DM_DISABLE_UDEV": "1"}
    subprocess.run(["dmsetup", "create", "zctrace", "--table", table], check=True, env=alone)
    buffer = mmap.mmap(-1, SIZE)
    buffer[:] = _PAYLOAD
    disk = os.open("/dev/mapper/zctrace", os.O_WRONLY | os.O_DIRECT)
    try:
        with window:
            assert os.pwrite(disk, buffer, 0) == SIZE
    finally:
        os.close(disk)
        subprocess.run(["dmsetup", "remove", "zctrace"], check=True, env=alone)


WINDOWS = {
    "plain send": sending(None, sent),
    "plain sendfile": sending(None, sent_file),
    "send, TLS 1.2": sending(TLS_1_2, sent),
    "send, TLS 1.3": sending(TLS_1_3, sent),
    "sendfile, TLS 1.2": sending(TLS_1_2, sent_file),
    "receive, TLS 1.2": receiving(TLS_1_2),
    "receive, TLS 1.3": receiving(TLS_1_3),
    "cbc": cipher("skcipher", "cbc(aes)"),
    "ctr": cipher("skcipher", "ctr(aes)"),
    "sha256": cipher("hash", "sha256", hashing=True),
    "dm-crypt": encrypted_disk,
}


def found(window):
    """``figure`` is what the session has for a program that relies on it."""
    answer = window.answer
    try:
        figure = window.transformed_bytes
    except (FigureError, ControlError) as error:
        figure = str(error)
    return {
        "figure": figure,
        "transformed_bytes": answer.transformed.bytes,
        "by": [vars(part) for part in answer.transformed.by],
        "unassigned": answer.transformed.unassigned,
        "blind": answer.transformed.blind,
        "copied": answer.copied,
        "delivered": sum(answer.delivered.values()),
        "sentence": window.sentence,
        "doubts": list(answer.doubts),
        "failed": [f"{control.name}: {control.detail}" for control in answer.failed],
        "things": [line.name for line in answer.things],
    }


def windows(session):
    result = {}
    for name, measured in WINDOWS.items():
        print(name, file=sys.stderr, flush=True)
        signal.alarm(SECONDS)  # of which it dies
        window = session.window(getattr(measured, "scope", "process"))
        measured(window)
        result[name] = found(window)
    return result


def main():
    """With ciphers in C, which are put together of others; and with the processor's own."""
    subprocess.run(["modprobe", "tls"], check=True)
    with Session() as session:
        result = {"in C": windows(session)}
        subprocess.run(["modprobe", "aesni_intel"], check=True)
        result["of the processor"] = windows(session)
    json.dump(result, sys.stdout)


if __name__ == "__main__":
    main()
