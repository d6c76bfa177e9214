"""In a guest, as nobody, below ``zctrace serve``: tests that count what they copy.

The last test fails, as it should.
"""

import json
import os
import socket
import subprocess
import sys
import threading
from pathlib import Path

import pytest

import zctrace as package
from zctrace.analysis import sentences
from zctrace.errors import FigureError, SessionError, UsageError
from zctrace.workloads import libc, marker

SIZE = 1 << 20
ODD = 300_007


def found(window):
    """What there is to compare, and to look at where it differs."""
    answer = window.answer
    print(
        json.dumps(
            {
                "sentence": window.sentence,
                "copied": answer.copied,
                "delivered": answer.delivered,
                "received": answer.received,
                "beside": answer.beside,
                "unassigned": answer.unassigned,
                "doubts": list(answer.doubts),
                "failed": [vars(control) for control in answer.failed],
                "calls": {line.name: line.calls for line in answer.calls},
                "seconds": answer.trace.seconds,
            }
        )
    )
    assert answer.failed == []
    assert answer.doubts == ()
    return answer


@pytest.fixture
def payload(tmp_path):
    file = tmp_path / "payload"
    file.write_bytes(bytes(range(251)) * (SIZE // 251) + bytes(SIZE % 251))
    return file


@pytest.fixture
def receiver():
    """A connection over loopback, of which another process reads the other end."""
    script = (
        "import socket\n"
        "s = socket.create_server(('127.0.0.1', 0))\n"
        "print(s.getsockname()[1], flush=True)\n"
        "c, _ = s.accept()\n"
        "n = 0\n"
        "while p := c.recv(1 << 16): n += len(p)\n"
        "print(n)\n"
    )
    process = subprocess.Popen(
        [sys.executable, "-I", "-S", "-c", script], stdout=subprocess.PIPE, text=True
    )
    sender = socket.create_connection(("127.0.0.1", int(process.stdout.readline())))
    yield sender
    sender.close()
    assert int(process.stdout.read()) == SIZE
    process.wait()


def test_nobody_has_no_rights():
    assert os.geteuid() == 65534
    assert "CapEff:\t0000000000000000\n" in Path("/proc/self/status").read_text()


def test_nothing(zctrace):
    with zctrace.window() as window:
        pass
    answer = found(window)
    assert window.copied_bytes == 0
    assert (answer.calls, answer.beside, answer.unassigned) == ([], {}, 0)
    with pytest.raises(FigureError, match="nothing was delivered"):
        _ = window.copies


def test_written_to_a_file_and_sent_to_oneself(zctrace, tmp_path):
    data = bytes(ODD)
    left, right = socket.socketpair()
    buffer = bytearray(4099)
    with (tmp_path / "file").open("wb", buffering=0) as file, left, right:
        with zctrace.window() as window:
            file.write(data)
        answer = found(window)
        assert answer.copied == {"u2k": ODD}
        assert (window.delivered_bytes, window.copied_bytes) == (ODD, ODD)
        assert window.copies == 1
        with zctrace.window() as second:
            left.send(memoryview(data)[:4099])
            right.recv_into(buffer)
        answer = found(second)
        assert answer.copied == {"u2k": 4099, "k2u": 4099}
        # Both sockets are the program's own.
        assert (second.delivered_bytes, second.received_bytes) == (0, 0)
        assert answer.border.inside == {"socket": 4099}
        assert second.copies == 2
        # What the first has seen is not the second's, nor the other way round.
        assert window.copied_bytes == ODD


def test_sendfile(zctrace, payload, receiver):
    with payload.open("rb") as file:
        with zctrace.window() as window:
            sent = 0
            while sent < SIZE:
                sent += os.sendfile(receiver.fileno(), file.fileno(), sent, SIZE - sent)
        answer = found(window)
        assert window.delivered_bytes == SIZE
        assert window.copied_bytes == 0
        assert window.copies < 0.01
        assert answer.delivered == {"socket": SIZE}
        assert window.sentence == f"zero-copy: of {SIZE} B delivered the CPU copied none"
        assert sentences.sentence(answer) == window.sentence


def test_a_child(zctrace):
    """What it starts is counted; a thread's window has neither it nor other threads."""
    count = f"head -c {ODD} /dev/zero | cat >/dev/null"
    go, done = threading.Event(), threading.Event()
    reading, writing = os.pipe()

    def other():
        go.wait()
        os.write(writing, bytes(1009))
        done.set()

    thread = threading.Thread(target=other)
    thread.start()
    with zctrace.window() as window:
        subprocess.run(["sh", "-c", count], check=True)
    pipe = [line for line in found(window).things if line.name.startswith("pipe:")]
    assert any(line.copied == {"u2k": ODD, "k2u": ODD} for line in pipe)
    with zctrace.window("thread") as alone:
        go.set()
        done.wait()
        os.write(writing, bytes(17))
    thread.join()
    assert found(alone).copied == {"u2k": 17}
    os.close(reading)
    os.close(writing)


def test_an_exception_and_a_window_in_a_window(zctrace, tmp_path):
    window = zctrace.window()

    def body():
        with (tmp_path / "file").open("wb", buffering=0) as file, window:
            with pytest.raises(SessionError, match="another window"), zctrace.window():
                pass
            file.write(b"x" * 97)
            with pytest.raises(UsageError, match="not been closed"):
                _ = window.copied_bytes
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        body()
    copied = {line.name.rpartition("/")[2]: line.copied for line in found(window).things}
    assert copied["file"] == {"u2k": 97}


@pytest.mark.parametrize("passed", [(), (marker.Operation.OPEN,)], ids=["none", "half"])
def test_a_filter_that_keeps_the_marker_from_the_kernel(zctrace, monkeypatch, passed):
    """No window, and no figure; also where it was opened and never closed."""
    mark = libc.marker

    def filtered(option, nonce, operation, *rest):
        if operation in passed:
            mark(option, nonce, operation, *rest)

    monkeypatch.setattr(libc, "marker", filtered)
    window = zctrace.window()
    with pytest.raises(SessionError, match="not seen"), window:
        pass
    with pytest.raises(SessionError, match="not seen"):
        _ = window.copied_bytes


def test_a_process_that_dies_in_a_window(zctrace):
    """What it has forked lives on, with the connection and the window that it inherited."""
    script = (
        "import os, time, zctrace\n"
        "with zctrace.Session() as session, session.window():\n"
        "    if os.fork() == 0:\n"
        "        time.sleep(300)\n"
        "    os.kill(os.getpid(), 9)\n"
    )
    environment = {**os.environ, "PYTHONPATH": str(Path(package.__path__[0]).parent)}
    dead = subprocess.run([sys.executable, "-c", script], env=environment)
    assert dead.returncode == -9
    with zctrace.window() as window:
        pass
    assert found(window).copied == {}


def test_what_was_started_in_a_window_may_outlive_it(zctrace):
    """A server, say."""
    with zctrace.window() as window:
        child = subprocess.Popen(["sleep", "300"])
    child.kill()
    child.wait()
    assert "execve" in window.answer.beside
    found(window)
    with zctrace.window() as window:
        pass
    assert found(window).copied == {}


def test_that_fails(zctrace, payload, receiver):
    with payload.open("rb") as file, zctrace.window() as window:
        receiver.sendall(file.read())
    assert window.copies < 0.01
