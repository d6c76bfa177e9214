"""Moves known bytes over loopback in three ways; each is received by a process of its own."""

import os
import socket
import sys

SIZE = 300_007
SO_ZEROCOPY, MSG_ZEROCOPY = 60, 0x4000000


def send_all(connection, data, flags=0):
    sent = 0
    while sent < SIZE:
        sent += connection.send(data[sent:], flags)


def main(file):
    listener = socket.create_server(("127.0.0.1", 0))
    receiver = os.fork()
    if not receiver:
        for _ in range(3):
            connection, _ = listener.accept()
            got = 0
            while piece := connection.recv(1 << 16):
                got += len(piece)
            # The answer is of no payload: it lets the next transfer begin.
            connection.close()
            assert got == SIZE, got
        os._exit(0)
    data = memoryview(bytes(SIZE))
    for way in ("send", "sendfile", "zerocopy"):
        with socket.create_connection(listener.getsockname()) as connection:
            if way == "send":
                send_all(connection, data)
            elif way == "sendfile":
                with open(file, "rb") as payload:
                    left, at = SIZE, 0
                    while left:
                        many = os.sendfile(connection.fileno(), payload.fileno(), at, left)
                        left, at = left - many, at + many
            else:
                connection.setsockopt(socket.SOL_SOCKET, SO_ZEROCOPY, 1)
                send_all(connection, data, MSG_ZEROCOPY)
            connection.shutdown(socket.SHUT_WR)
            assert not connection.recv(1)
    _, status = os.waitpid(receiver, 0)
    return status


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
