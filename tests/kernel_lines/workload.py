"""Traced in a guest: a file is sent, copied and sent with MSG_ZEROCOPY, each known bytes.

``workload FOLDER``: SOURCE and COPY are made in there. Each has a size of its own, so that no
other file and no other call is taken for it. Says how much TCP has sent again of what was sent
with MSG_ZEROCOPY: that is copied again, too. On a busy machine there are a few packets.
"""

import os
import socket
import struct
import sys
import threading
import time

SOURCE, COPY = "lines-source", "lines-copy"
MADE, SENT, COPIED, ZEROCOPY = 1_004_000, 1_000_003, 300_007, 200_003
CHUNK = 65_536
SO_ZEROCOPY, MSG_ZEROCOPY = 60, 0x4000000
UNACKED, BYTES_RETRANS, INFO_BYTES = 24, 208, 216
"""Where struct tcp_info has tcpi_unacked and tcpi_bytes_retrans (include/uapi/linux/tcp.h)."""
AGAIN = "sent again: {} B"


def receive(connection):
    """Everything, with recv(2)."""
    buffer = bytearray(CHUNK)
    while connection.recv_into(buffer):
        pass
    connection.close()


def send(listener, action):
    """Do ``action`` with a connection that a thread of ours receives from."""
    with socket.create_connection(listener.getsockname()) as connection:
        other, _ = listener.accept()
        receiver = threading.Thread(target=receive, args=(other,))
        receiver.start()
        action(connection)
        connection.shutdown(socket.SHUT_WR)
        receiver.join()
        return sent_again(connection)


def sent_again(connection):
    """Bytes, once everything is acknowledged."""
    while True:
        info = connection.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, INFO_BYTES)
        if not struct.unpack_from("=I", info, UNACKED)[0]:
            return struct.unpack_from("=Q", info, BYTES_RETRANS)[0]
        time.sleep(0.01)


def main(folder):
    """Returns nothing; raises if anything was moved in part."""
    source = os.open(f"{folder}/{SOURCE}", os.O_RDWR | os.O_CREAT | os.O_TRUNC)
    copy = os.open(f"{folder}/{COPY}", os.O_RDWR | os.O_CREAT | os.O_TRUNC)
    assert os.pwrite(source, bytes(range(251)) * 4000, 0) == MADE

    def by_sendfile(connection):
        at = 0
        while at < SENT:
            at += os.sendfile(connection.fileno(), source, at, SENT - at)

    def by_zerocopy(connection):
        connection.setsockopt(socket.SOL_SOCKET, SO_ZEROCOPY, 1)
        assert connection.send(bytes(ZEROCOPY), MSG_ZEROCOPY) == ZEROCOPY

    with socket.create_server(("127.0.0.1", 0)) as listener:
        send(listener, by_sendfile)
        again = send(listener, by_zerocopy)
    left = COPIED
    while left:
        left -= os.write(copy, os.read(source, min(CHUNK, left)))
    print(AGAIN.format(again))


if __name__ == "__main__":
    main(sys.argv[1])
