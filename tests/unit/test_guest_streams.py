"""Standard input on its way into a guest. Both halves run here, and share our files."""

import os
import pty
import threading
from contextlib import contextmanager
from pathlib import Path

import pytest

from zctrace.collect import standard_input
from zctrace.collect.describe import PIECES, SERVING, TRACING
from zctrace.collect.standard_input import Source
from zctrace.machine import guest_streams
from zctrace.machine.guest_streams import MOST_PIECES, PIECE_BYTES, Pieces


@contextmanager
def forwarding(folder, descriptor):
    """The guest's end of ``descriptor``, while our end forwards it."""
    Source.of(descriptor).write(folder)
    over = threading.Event()
    pieces = Pieces(folder / PIECES, descriptor)

    def forward():
        while not over.wait(0.001):
            pieces.forward()

    with standard_input.opened(folder) as found:
        found.step("attaching the probes")
        host = threading.Thread(target=forward)
        host.start()
        try:
            yield found
        finally:
            over.set()
            host.join()


def read_all(descriptor):
    got = b""
    while some := os.read(descriptor, 1 << 20):
        got += some
    return got


def write_in_background(descriptor, text):
    def write():
        with os.fdopen(descriptor, "wb", buffering=0) as file:
            file.write(text)

    thread = threading.Thread(target=write)
    thread.start()
    return thread


@pytest.mark.parametrize("step", [TRACING, SERVING])
@pytest.mark.parametrize("size", [0, 1, PIECE_BYTES, MOST_PIECES * PIECE_BYTES + 4099])
def test_a_pipe_is_a_pipe_with_the_same_bytes_and_end(tmp_path, size, step):
    text = os.urandom(size)
    ours, theirs = os.pipe()
    writer = write_in_background(theirs, text)
    with forwarding(tmp_path, ours) as found:
        found.step(step)
        assert Path(f"/proc/self/fd/{found.descriptor}").is_fifo()
        assert read_all(found.descriptor) == text
    writer.join()
    os.close(ours)


def test_what_comes_later_is_forwarded_at_once(tmp_path):
    ours, theirs = os.pipe()
    with forwarding(tmp_path, ours) as found:
        found.step(TRACING)
        for word in (b"one", b"two"):
            os.write(theirs, word)
            assert os.read(found.descriptor, 100) == word
        os.close(theirs)
        assert os.read(found.descriptor, 100) == b""
    os.close(ours)


def test_nothing_is_taken_before_the_command_runs(tmp_path):
    ours, theirs = os.pipe()
    os.write(theirs, b"line")
    with standard_input.opened(tmp_path) as found:
        found.step("attaching the probes")
        Pieces(tmp_path / PIECES, ours).forward()
    assert os.read(ours, 100) == b"line"


def test_of_an_endless_stream_only_some_pieces_are_taken(tmp_path):
    ours = os.open("/dev/zero", os.O_RDONLY)
    (tmp_path / PIECES).mkdir()
    pieces = Pieces(tmp_path / PIECES, ours)
    for _ in range(3 * MOST_PIECES):
        pieces.forward()
    sizes = [path.stat().st_size for path in (tmp_path / PIECES).iterdir()]
    assert sizes == [PIECE_BYTES] * MOST_PIECES
    (tmp_path / PIECES / "0").unlink()
    pieces.forward()
    assert (tmp_path / PIECES / str(MOST_PIECES)).exists()
    os.close(ours)


def test_a_command_that_ends_first_ends_the_forwarding(tmp_path):
    ours, theirs = os.pipe()
    with forwarding(tmp_path, ours) as found:
        found.step(TRACING)
        os.write(theirs, b"x" * 4096)
        assert os.read(found.descriptor, 1) == b"x"
        found.step("running the self-tests again")
    assert not (tmp_path / PIECES).exists()
    os.write(theirs, b"later")
    Pieces(tmp_path / PIECES, ours).forward()
    assert os.read(ours, 100) == b"later"


def test_a_file_is_opened_where_it_is_read(tmp_path):
    file = tmp_path / "file"
    file.write_bytes(b"read already, not yet")
    with file.open("rb") as ours:
        os.lseek(ours.fileno(), 14, os.SEEK_SET)
        with forwarding(tmp_path, ours.fileno()) as found:
            found.step(TRACING)
            assert os.path.samestat(os.fstat(found.descriptor), file.stat())
            assert read_all(found.descriptor) == b"not yet"
            assert not (tmp_path / PIECES).exists()


@pytest.mark.parametrize("becomes", ["gone", "another", "fifo"])
def test_a_file_that_the_guest_does_not_have_comes_through_a_pipe(tmp_path, becomes):
    file = tmp_path / "file"
    file.write_bytes(b"that of before")
    with file.open("rb") as ours:
        Source.of(ours.fileno()).write(tmp_path)
        file.unlink()
        if becomes == "another":
            file.write_bytes(b"quite another!")
            os.utime(file, (1, 1))
        elif becomes == "fifo":
            os.mkfifo(file)
        pieces = Pieces(tmp_path / PIECES, ours.fileno())
        with standard_input.opened(tmp_path) as found:
            found.step(TRACING)
            pieces.forward()
            assert read_all(found.descriptor) == b"that of before"


@pytest.mark.parametrize("name", ["/dev/null", "/dev/zero", "/dev/urandom"])
def test_a_device_of_memory_is_the_guest_s_own(tmp_path, name):
    with Path(name).open("rb", buffering=0) as ours, forwarding(tmp_path, ours.fileno()) as it:
        assert os.fstat(it.descriptor).st_rdev == Path(name).stat().st_rdev


def test_without_standard_input_there_is_nothing_to_read(tmp_path):
    for described in (False, True):
        if described:
            Source.of(None).write(tmp_path)
        with standard_input.opened(tmp_path) as found:
            assert os.fstat(found.descriptor).st_rdev == Path(os.devnull).stat().st_rdev


def test_a_folder_is_an_empty_stream(tmp_path):
    ours = os.open(tmp_path, os.O_RDONLY)
    with forwarding(tmp_path, ours) as found:
        found.step(TRACING)
        assert read_all(found.descriptor) == b""
    os.close(ours)


def test_a_terminal_is_read_line_by_line_until_its_end(tmp_path):
    master, ours = pty.openpty()
    with forwarding(tmp_path, ours) as found:
        found.step(TRACING)
        os.write(master, b"line\n")
        assert os.read(found.descriptor, 100) == b"line\n"
        os.write(master, b"\x04")
        assert read_all(found.descriptor) == b""
    os.close(master)
    os.close(ours)


def test_a_terminal_is_left_to_who_is_in_its_foreground(tmp_path, monkeypatch):
    ours, theirs = os.pipe()
    os.write(theirs, b"for the shell")
    (tmp_path / PIECES).mkdir()
    monkeypatch.setattr(guest_streams.os, "tcgetpgrp", lambda descriptor: os.getpgrp() + 1)
    Pieces(tmp_path / PIECES, ours).forward()
    assert os.read(ours, 100) == b"for the shell"
