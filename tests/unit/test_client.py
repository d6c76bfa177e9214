"""The client of a traced server: when it is started, and what becomes of it."""

import os
import socket
import time
from types import SimpleNamespace

import pytest

from zctrace.collect import client as clients
from zctrace.collect.client import Client, is_listening
from zctrace.errors import WorkloadError
from zctrace.evidence.schema import Subject

NOBODY = 2**22 + 1
"""More than the number of any process."""


@pytest.fixture
def request_():
    return SimpleNamespace(uid=os.getuid(), gid=os.getgid(), groups=tuple(os.getgroups()))


def client_of(request_, command, *, streams=(), server=("server",), environment=None):
    subject = Subject(command=server, client=command)
    return Client(request_, list(streams), environment or dict(os.environ), subject)


def end_of(client, servers):
    deadline = time.monotonic() + 20
    while not client.has_ended(servers):
        assert time.monotonic() < deadline
        time.sleep(0.01)
    return client.status


def test_a_socket_that_listens_is_noticed():
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        assert not is_listening({os.getpid()})
        one.listen()
        assert is_listening({os.getpid()})
        assert is_listening({NOBODY, os.getpid()})
        assert not is_listening({NOBODY})
        assert not is_listening(set())
    assert not is_listening({os.getpid()})


def test_a_unix_socket_too(tmp_path):
    with socket.socket(socket.AF_UNIX) as one:
        one.bind(str(tmp_path / "it"))
        assert not is_listening({os.getpid()})
        one.listen()
        assert is_listening({os.getpid()})


def test_another_process_s_socket_does_not_count():
    with socket.create_server(("127.0.0.1", 0)):
        child = os.fork()
        if not child:
            os.closerange(3, 100)
            time.sleep(20)
            os._exit(0)
        try:
            deadline = time.monotonic() + 20
            while is_listening({child}) and time.monotonic() < deadline:
                time.sleep(0.01)
            assert not is_listening({child})
        finally:
            os.kill(child, 9)
            os.waitpid(child, 0)


def test_it_waits_for_the_server_and_ends_with_its_status(request_, tmp_path):
    out = (tmp_path / "out").open("w+")
    own = [os.open(os.devnull, os.O_RDONLY), out.fileno(), out.fileno()]
    with client_of(
        request_, "echo $WORD; exit 3", streams=own, environment={"WORD": "it"}
    ) as it:
        assert not it.has_ended({os.getpid()})
        assert it.status is None
        with pytest.raises(WorkloadError, match="before it listened"):
            it.require_started()
        with socket.create_server(("127.0.0.1", 0)):
            assert end_of(it, {os.getpid()}) == 3
        it.require_started()
    os.close(own[0])
    out.seek(0)
    assert out.read() == "it\n"


def test_what_runs_already_is_not_waited_for(request_):
    with client_of(request_, "kill -TERM $$", server=()) as it:
        assert end_of(it, ()) == 143


def test_it_is_ended_with_the_tracing(request_):
    with client_of(request_, "exec sleep 1000", server=()) as it:
        assert not it.has_ended(())
        assert it.status is None
    assert it.status == 143


def test_no_client_is_never_over(request_):
    with client_of(request_, "") as it:
        assert not it.wanted
        assert not it.has_ended({os.getpid()})
        it.require_started()


def test_a_server_that_never_listens(request_, monkeypatch):
    monkeypatch.setattr(clients, "_PATIENCE_SECONDS", 0.0)
    with (
        client_of(request_, "true") as it,
        pytest.raises(WorkloadError, match="was not listening after 0 s"),
    ):
        it.has_ended(set())
