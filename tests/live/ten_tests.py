"""Ten tests of a download, of which one has lost its zero-copy path. Run by test_sessions."""

import os
import socket
import subprocess
import sys

import pytest

SIZE, LOST = 1 << 20, 6
RECEIVER = """
import socket
listener = socket.create_server(("127.0.0.1", 0))
print(listener.getsockname()[1], flush=True)
connection, _ = listener.accept()
while connection.recv(1 << 18):
    pass
"""


@pytest.fixture
def client():
    with subprocess.Popen(
        [sys.executable, "-I", "-c", RECEIVER], stdout=subprocess.PIPE, text=True
    ) as receiver:
        address = "127.0.0.1", int(receiver.stdout.readline())
        with socket.create_connection(address) as connection:
            yield connection


@pytest.fixture
def payload(tmp_path):
    path = tmp_path / "payload"
    path.write_bytes(os.urandom(SIZE))
    with path.open("rb") as file:
        yield file


@pytest.mark.max_copies(0.01)
@pytest.mark.parametrize("number", range(10))
def test_download(number, payload, client):
    if number == LOST:
        while piece := payload.read(1 << 16):
            client.sendall(piece)
    else:
        client.sendfile(payload)
