"""What TCP says of a transfer is asked when it can say no more."""

import socket
import struct

import pytest

from zctrace.workloads import endpoints


class Connection:
    """Whose segments are acknowledged one look after the other."""

    def __init__(self, *unacknowledged):
        self.left = list(unacknowledged)

    def getsockopt(self, level, option, size):
        assert (level, option, size) == (socket.IPPROTO_TCP, socket.TCP_INFO, 256)
        info = bytearray(size)
        now = self.left.pop(0) if len(self.left) > 1 else self.left[0]
        struct.pack_into("=I", info, endpoints._UNACKED, now)
        return bytes(info)


@pytest.fixture
def naps(monkeypatch):
    taken = []
    monkeypatch.setattr(endpoints.time, "sleep", taken.append)
    monkeypatch.setattr(endpoints.time, "monotonic", lambda: sum(taken))
    return taken


def test_it_is_asked_again_until_all_is_acknowledged(naps):
    connection = Connection(3, 256, 0, 0)
    endpoints.acknowledged(connection)
    assert connection.left == [0]
    assert len(naps) == 2


def test_who_never_acknowledges_is_not_waited_for_for_ever(naps):
    endpoints.acknowledged(Connection(1))
    assert sum(naps) == pytest.approx(endpoints._ACKNOWLEDGED_SECONDS, abs=0.1)


def test_where_tcp_has_it():
    """In a real connection, where the kernel fills struct tcp_info in."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        near = socket.create_connection(listener.getsockname())
        far, _ = listener.accept()
        with near, far:
            near.sendall(bytes(1000))
            assert len(far.recv(1000, socket.MSG_WAITALL)) == 1000
            endpoints.acknowledged(near)
            assert endpoints.sent(near) == (1000, 0)
