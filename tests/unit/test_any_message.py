"""Whatever a session and its collector say to each other: a figure, or one error with words."""

import json
import socket
import subprocess
from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as some

from tests.unit.collectors import collecting
from tests.unit.test_any_saved import FEW, RECORDED, mutate
from zctrace import Session, errors
from zctrace.evidence.schema import Evidence
from zctrace.evidence.session_protocol import SOCKET, Channel
from zctrace.session import api, own_collector
from zctrace.workloads import libc

MOST = 1 << 16
"""Bytes of an answer here: those of 64 MiB take too long."""
PROGRAM = RECORDED["programs-6.1"]["evidence"][0]
REQUEST = {"protocol": 1, "scope": "process"}
FIGURES = (
    *("answer", "sentence", "copied_bytes", "copies", "most_copied_bytes", "most_copies"),
    *("delivered_bytes", "received_bytes", "transformed_bytes"),
)
KEYS = some.sampled_from(
    ["nonce", "error", "what", "why", "hint", "done", "protocol", "scope", "socket", "x"]
)
VALUES = some.recursive(
    some.one_of(
        some.none(), some.booleans(), some.integers(), some.floats(), some.text(max_size=5),
        some.sampled_from(["process", "SessionError", "\udcff", 1, 10**400, 1 << 62]),
    ),
    lambda inner: some.lists(inner, max_size=3) | some.dictionaries(KEYS, inner, max_size=4),
    max_leaves=6,
)  # fmt: skip
DEPTHS = some.sampled_from([100, *range(850, 1000, 10), 3000])
"""Of brackets: also those that Python can just about read."""


@some.composite
def lines(draw, usual):
    """One line, or what should be one; ``usual`` is what is said where all is well."""
    kind = draw(
        some.sampled_from(["usual", "object", "value", "part", "bytes", "deep", "huge"])
    )
    if kind == "bytes":
        return draw(some.binary(max_size=40))
    if kind == "huge":
        return draw(some.sampled_from([b"9", b"[", b"{}\n", b'{"a":'])) * MOST
    if kind == "deep":
        depth = draw(DEPTHS)
        return f'{{"{draw(KEYS)}":{"[" * depth}{"]" * depth}}}\n'.encode()
    value = draw(some.dictionaries(KEYS, VALUES, max_size=4) if kind == "object" else VALUES)
    whole = json.dumps(usual if kind == "usual" else value).encode() + b"\n"
    return whole[: draw(some.integers(0, len(whole)))] if kind == "part" else whole


def has_words(error):
    assert error.what
    assert error.why
    assert error.hint
    for word in ("KeyError", "TypeError", "Traceback", "NoneType", "<class", "RecursionError"):
        assert word not in str(error)


def looked_at(window):
    for figure in FIGURES:
        try:
            getattr(window, figure)
        except errors.ZctraceError as error:
            has_words(error)
    repr(window)


def test_whatever_a_collector_answers_is_one_error(monkeypatch):
    monkeypatch.setattr(api, "_ANSWER_BYTES", MOST)
    monkeypatch.setattr(libc, "marker", lambda *_: None)

    @FEW
    @given(lines({"nonce": 123}), lines({"error": "KernelError"}))
    def attempt(first, second):
        ours, theirs = socket.socketpair()
        monkeypatch.setattr(api.Window, "_connected", lambda _: Channel(ours, 5))
        window = api.Window("/run/socket", "process", 5)

        def answer(line):
            theirs.setblocking(False)
            theirs.send(line)
            if not line.endswith(b"\n"):
                theirs.shutdown(socket.SHUT_WR)

        with theirs:
            answer(first)
            try:
                with window:
                    answer(second)
            except errors.ZctraceError as error:
                has_words(error)
        assert ours.fileno() == -1
        looked_at(window)

    attempt()


def test_whatever_evidence_a_collector_gives_figures_are_known_or_one_error():
    text = json.dumps(PROGRAM)

    @FEW
    @given(some.data())
    def attempt(data):
        evidence = json.loads(text)
        mutate(data.draw, evidence)
        window = api.Window("/run/socket", "process", 5)
        try:
            window._answer = api._answer(evidence, "/run/socket")
        except errors.ZctraceError as error:
            has_words(error)
        looked_at(window)

    attempt()


def test_whatever_a_client_asks_the_next_one_is_served(tmp_path, monkeypatch):
    path = tmp_path / "socket"
    monkeypatch.setenv(SOCKET, str(path))

    @FEW
    @given(lines(REQUEST), lines({"done": True}))
    def attempt(first, second):
        with socket.socket(socket.AF_UNIX) as connection:
            connection.connect(str(path))
            with suppress(OSError):  # it hangs up on a line that is too long
                for line in (first, second):
                    connection.sendall(line)
                connection.shutdown(socket.SHUT_WR)
            with suppress(ConnectionError):
                for line in connection.makefile("rb"):
                    answer = json.loads(line)
                    if "error" in answer:
                        has_words(errors.from_json(answer))

    with collecting(path, Evidence.from_json(PROGRAM)) as collector:
        attempt()
        assert collector.thread.is_alive()
        with Session() as session, session.window() as window:
            pass
    assert window.copied_bytes > 0


@pytest.mark.parametrize(
    "said", [b"", b"\xff\n", b"[]\n", b"{}\n", b'{"socket": 1}\n', b'{"error": 1}\n', b'{"sock']
)
@pytest.mark.parametrize("ends", [True, False], ids=["and ends", "and stays"])
def test_whatever_a_collector_of_our_own_says_first_is_one_error(monkeypatch, said, ends):
    """As where sudo says something of its own in its place."""
    started = []

    def start(command, **options):
        words = "exec printf %s; " if ends else "printf %s; exec cat >/dev/null"
        octal = "".join(f"\\{byte:03o}" for byte in said)
        started.append(popen(["sh", "-c", words % f"'{octal}'"], **options))
        return started[-1]

    popen = subprocess.Popen
    monkeypatch.setattr(subprocess, "Popen", start)
    monkeypatch.setattr(own_collector, "_START_SECONDS", 0.2)
    with pytest.raises(errors.ZctraceError) as raised:
        own_collector.Attendant()
    has_words(raised.value)
    assert started[0].poll() is not None
