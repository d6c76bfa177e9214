"""A web server that sends one file to one client, and ends.

``python3 web_server.py`` reads the file and sends what it has read. ``python3 web_server.py
--sendfile`` has the kernel send it. To be traced with ``--no-follow``: other processes make the
file, and are the client.
"""

import os
import socket
import sys

MIB = 64
CLIENT = """
import sys, urllib.request
with urllib.request.urlopen(sys.argv[1]) as answer:
    print(sum(map(len, iter(lambda: answer.read(1 << 20), b""))), "B received")
"""


def start(*command):
    return os.posix_spawnp(command[0], command, os.environ)


def send(file, client, size):
    if "--sendfile" in sys.argv:
        while os.sendfile(client.fileno(), file.fileno(), None, size):
            pass
    else:
        while piece := file.read(64 << 10):
            client.sendall(piece)


path = f"/dev/shm/payload-{os.getpid()}"
os.waitpid(start("dd", "if=/dev/zero", f"of={path}", "bs=1M", f"count={MIB}", "status=none"), 0)
with open(path, "rb", buffering=0) as file, socket.create_server(("127.0.0.1", 0)) as server:
    os.remove(path)
    size = os.fstat(file.fileno()).st_size
    address = f"http://127.0.0.1:{server.getsockname()[1]}/"
    reader = start(sys.executable, "-c", CLIENT, address)
    client, _ = server.accept()
    with client:
        client.recv(4096)
        client.sendall(b"HTTP/1.0 200 OK\r\nContent-Length: %d\r\n\r\n" % size)
        send(file, client, size)
    os.waitpid(reader, 0)
