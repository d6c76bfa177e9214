"""In a guest, as nobody, below ``zctrace serve``: tests that count what they copy.

The last test fails, as it should.
"""

import json
import os
import queue
import re
import socket
import subprocess
import sys
import threading
from contextlib import contextmanager
from pathlib import Path

import pytest

import zctrace as package
from zctrace.analysis import sentences
from zctrace.errors import FigureError, SessionError, UsageError
from zctrace.workloads import libc, marker

SIZE = 1 << 20
ODD = 300_007


_SKIPPED = re.compile(r"events were lost \(on_f(entry|exit)_\w+-skipped \d+\)$")


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
    # An interrupt in one of the meter's programs may skip that program: then the answer is open
    # and says so. The figures are compared to the byte in any case.
    assert [doubt for doubt in answer.doubts if not _SKIPPED.search(doubt)] == []
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
        assert window.sentence == f"zero-copy: the CPU copied none of the {SIZE} B delivered"
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


WRITER = """
import os, socket, sys
if sys.argv[2:] and os.fork():
    os._exit(0)
if sys.argv[2:]:
    os.setsid()
    if os.fork():
        os._exit(0)
with socket.socket(fileno=int(sys.argv[1])) as orders:
    while order := orders.recv(100):
        name, size = order.decode().split()
        with open(name, "wb", 0) as file:
            file.write(bytes(int(size)))
        orders.send(b"!")
"""
"""Writes so many bytes to a file for each order; as a daemon, if there is a second argument."""


@contextmanager
def outliving(*daemon):
    """What starts such a program, and then gives it orders."""
    ours, theirs = socket.socketpair()

    def order(path, size):
        ours.send(f"{path} {size}".encode())
        assert ours.recv(1) == b"!"

    def start():
        theirs.set_inheritable(True)
        words = [sys.executable, "-I", "-S", "-c", WRITER, str(theirs.fileno()), *daemon]
        started.append(subprocess.Popen(words, close_fds=False))
        if daemon:
            started[0].wait()
        theirs.close()
        return order

    started = []
    with ours:
        yield start
    started[0].wait()


def copied_for(answer, paths):
    """By the file's name; those for which nothing was are left out."""
    names = {str(path) for path in paths}
    lines = [line for line in answer.things if line.name in names and line.copied]
    return {line.name.rpartition("/")[2]: line.copied for line in lines}


@pytest.mark.parametrize("daemon", [(), ("daemon",)], ids=["server", "daemon"])
def test_what_outlives_a_window_is_counted_in_it_alone(zctrace, tmp_path, daemon):
    paths = [tmp_path / name for name in ("in", "closed", "between", "second")]
    with outliving(*daemon) as start:
        with zctrace.window() as first:
            order = start()
            order(paths[0], 4099)
            ask = first._exchange

            def late(channel, message):
                """The program has closed its window, and the collector does not know yet."""
                order(paths[1], 6007)
                return ask(channel, message)

            first._exchange = late
        order(paths[2], 10_007)
        with zctrace.window() as second:
            order(paths[3], 20_011)
    assert copied_for(found(first), paths) == {"in": {"u2k": 4099}}
    # The second has the order and the answer. It is not the server's window.
    answer, size = found(second), len(f"{paths[3]} 20011")
    assert copied_for(answer, paths) == {}
    assert answer.copied == {"u2k": size, "k2u": 1}
    assert (second.delivered_bytes, second.received_bytes) == (size, 1)
    assert [path.stat().st_size for path in paths] == [4099, 6007, 10_007, 20_011]


def test_a_thread_that_outlives_a_window_is_part_of_the_next(zctrace, tmp_path):
    """It is one of the process's; it began in one window, and is in a call at its end."""
    paths = [tmp_path / name for name in ("in", "between", "second")]
    sizes = queue.SimpleQueue()
    written = queue.SimpleQueue()

    def write():
        for path in paths:
            with path.open("wb", buffering=0) as file:
                file.write(bytes(sizes.get()))
            written.put(path)

    thread = threading.Thread(target=write)
    with zctrace.window() as first:
        thread.start()
        sizes.put(4099)
        written.get()
    sizes.put(10_007)
    written.get()
    with zctrace.window() as second:
        sizes.put(20_011)
        written.get()
    thread.join()
    assert copied_for(found(first), paths) == {"in": {"u2k": 4099}}
    assert found(second).copied == {"u2k": 20_011}


def test_that_fails(zctrace, payload, receiver):
    with payload.open("rb") as file, zctrace.window() as window:
        receiver.sendall(file.read())
    assert window.copies < 0.01
