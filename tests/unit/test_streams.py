"""Wherever a command prints, and wherever it is started: its output, or one error."""

import json
import os
import threading

import pytest

from tests.conftest import HERE
from tests.unit.forked import CLOSED, run
from zctrace.commands import streams
from zctrace.errors import OutputError, UsageError

COMMANDS = (
    ("--version",), ("--help",), ("strategies",), ("report", "result"),
    ("report", "result", "--markdown", "-"), ("compare", "result", "result"),
)  # fmt: skip


@pytest.fixture(scope="module")
def zctrace(tmp_path_factory):
    folder = tmp_path_factory.mktemp("streams")
    recorded = json.loads((HERE / "evidence" / "linux-6.1.json").read_text())
    recorded["runs"] = recorded["runs"][:2]
    (folder / "result").write_text(json.dumps({"evidence": [recorded]}))

    def zctrace(*words, encoding="utf-8", **around):
        words = [str(folder / word) if word == "result" else word for word in words]
        env = {**os.environ, "ZCTRACE_CACHE": str(folder), "PYTHONIOENCODING": encoding}
        return run("zctrace.cli", *words, env=env, **around)

    return zctrace


@pytest.mark.parametrize("words", COMMANDS, ids=" ".join)
def test_a_full_standard_output_is_one_error(zctrace, words):
    result = zctrace(*words, stdout="/dev/full")
    assert result.stderr.splitlines() == [
        "zctrace: standard output could not be written: No space left on device",
        "    try: send standard output to a file system with free space",
    ]
    assert result.returncode == OutputError.exit_code


def test_a_pipe_that_does_not_wait_gets_everything():
    reader, writer = os.pipe()
    os.set_blocking(writer, False)
    found = []

    def read():
        with open(reader, "rb") as file:
            found.append(file.read())

    thread = threading.Thread(target=read)
    with streams._text(streams._Output(writer, "w"), None) as out:
        while True:  # until it is full
            try:
                os.write(writer, b"x" * 4096)
            except BlockingIOError:
                break
        thread.start()
        out.write("end" * 50_000)
    thread.join()
    assert found[0].lstrip(b"x") == b"end" * 50_000


@pytest.mark.parametrize("words", COMMANDS, ids=" ".join)
def test_a_closed_standard_output_takes_everything(zctrace, words):
    result = zctrace(*words, stdout=CLOSED)
    assert (result.returncode, result.stderr) == (0, "")


@pytest.mark.parametrize("words", COMMANDS, ids=" ".join)
def test_what_a_terminal_cannot_encode_is_escaped(zctrace, words):
    result = zctrace(*words, encoding="ascii")
    assert (result.returncode, result.stderr) == (0, "")
    assert result.stdout
    # A file is in UTF-8 whatever the locale, also where it is standard output.
    assert "-" in words or result.stdout.isascii()


@pytest.mark.parametrize("words", COMMANDS, ids=" ".join)
def test_without_a_working_folder_everything_that_needs_none_goes_on(zctrace, words):
    assert zctrace(*words, folder=None).returncode == 0


@pytest.mark.parametrize(
    "words",
    [
        ("report", "result", "--html", "page"),
        ("trace", "--kernel", "./nowhere", "--", "true"),
    ],
    ids=" ".join,
)
def test_a_working_folder_that_is_gone_is_one_error(zctrace, words):
    result = zctrace(*words, folder=None)
    assert result.stderr.splitlines() == [
        "zctrace: the working folder does not exist any more",
        "    try: cd to a folder that exists",
    ]
    assert result.returncode == UsageError.exit_code
