"""What a command in a guest reads from its standard input: the bytes, their end, the figures.

On one kernel: how it gets into the guest is the same for all.
"""

import hashlib
import json
import os
import subprocess
from contextlib import contextmanager

import pytest

from tests.live.conftest import zctrace
from zctrace.analysis import program
from zctrace.evidence.schema import Evidence

KERNEL = ("--kernel", "6.1")
BYTES = 10_000_003


@pytest.fixture(scope="module")
def payload(live, tmp_path_factory):
    file = tmp_path_factory.mktemp("input") / "payload"
    file.write_bytes(os.urandom(BYTES))
    return file


@contextmanager
def piped(*command):
    """The end of a pipe that a command writes to; when it is left, the command has ended."""
    with subprocess.Popen(command, stdout=subprocess.PIPE) as process:
        yield process.stdout
        process.stdout.close()
        process.wait(timeout=60)


def received(found):
    """Where its standard input comes from: kinds, bytes that came in, and copies for them."""
    account = found.trace.account
    flows = [flow for flow in account.flows if flow.descriptor == 0 and flow.way == "in"]
    things = {flow.thing for flow in flows}
    copied = [b for b in account.bookings if b.thing in things and b.direction == "k2u"]
    kinds = {account.things[number].kind for number in things}
    return kinds, sum(flow.bytes for flow in flows), sum(b.bytes for b in copied)


def test_a_pipe_of_ten_megabytes(payload, tmp_path):
    out = tmp_path / "json"
    with piped("cat", payload) as stdin:
        result = zctrace("trace", *KERNEL, "--json", out, "--", "sha256sum", stdin=stdin)
    assert result.returncode == 0, result.stderr
    digest = hashlib.sha256(payload.read_bytes()).hexdigest()
    assert result.stdout.startswith(f"{digest}  -\n")
    (evidence,) = json.loads(out.read_text())["evidence"]
    found = program.answer(Evidence.from_json(evidence))
    assert (found.failed, found.doubts) == ([], ())
    assert received(found) == ({"pipe"}, BYTES, BYTES)
    assert found.received["pipe"] == BYTES
    # Who fills the pipe is no part of the program.
    assert found.copied["k2u"] - BYTES < 64 << 10
    assert found.copied.get("u2k", 0) < 4096


def test_an_endless_stream_ends_with_the_command(live):
    script = "head -c 100000 | sha256sum; stat -Lc %F /dev/stdin"
    with piped("yes") as stdin:
        result = zctrace(
            "check", "--max-copies", 9, *KERNEL, "--", "sh", "-c", script, stdin=stdin
        )
    assert result.returncode == 0, result.stderr
    digest = hashlib.sha256(b"y\n" * 50_000).hexdigest()
    assert result.stdout.startswith(f"{digest}  -\nfifo\n")


def test_a_file_is_that_file_from_where_it_was_read_to(payload, tmp_path):
    out = tmp_path / "json"
    script = "readlink /proc/self/fd/0; exec sha256sum"
    with payload.open("rb") as stdin:
        os.lseek(stdin.fileno(), 3, os.SEEK_SET)
        result = zctrace("trace", *KERNEL, "--json", out, "--", "sh", "-c", script, stdin=stdin)
    digest = hashlib.sha256(payload.read_bytes()[3:]).hexdigest()
    assert result.stdout.startswith(f"{payload}\n{digest}  -\n"), result.stderr
    (evidence,) = json.loads(out.read_text())["evidence"]
    kinds, size, _ = received(program.answer(Evidence.from_json(evidence)))
    assert (kinds, size) == ({"file"}, BYTES - 3)


@pytest.mark.parametrize("closed", [False, True], ids=["null", "closed"])
def test_without_input_there_is_none(live, closed):
    """Below ``serve``, which has its own way to start a command."""
    close = (lambda: os.close(0)) if closed else None
    script = "readlink /proc/self/fd/0; wc -c"
    result = zctrace(
        *("serve", *KERNEL, "--", "sh", "-c", script),
        stdin=subprocess.DEVNULL,
        preexec_fn=close,
    )
    assert result.stdout == "/dev/null\n0\n", result.stderr
