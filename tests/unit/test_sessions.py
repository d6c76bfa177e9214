"""Sessions and windows, with a collector that has no probes."""

import dataclasses
import functools
import json
import os
import re
import signal
import socket
import subprocess
import sys
import textwrap
import threading
from contextlib import suppress

import pytest
from typer.testing import CliRunner

import zctrace
from tests.conftest import HERE
from tests.links import link
from tests.unit.collectors import altered, collecting
from zctrace import Session, cli, errors
from zctrace.collect import cgroups, windows
from zctrace.collect.program import Tracer
from zctrace.errors import ControlError, FigureError, SessionError, UsageError
from zctrace.evidence import session_protocol
from zctrace.evidence.account import Account
from zctrace.evidence.schema import Evidence, Subject
from zctrace.machine import program_job
from zctrace.session import api
from zctrace.workloads import libc, marker
from zctrace.workloads.control_stimuli import FROM_USER
from zctrace.workloads.known import Controls

ROOT = HERE.parent


@functools.cache
def recorded(name="nginx, sendfile off"):
    values = json.loads((HERE / "evidence" / "programs-6.1.json").read_text())
    return Evidence.from_json(values[name])


@pytest.fixture
def path(tmp_path, monkeypatch):
    socket_path = tmp_path / "socket"
    monkeypatch.setenv(session_protocol.SOCKET, str(socket_path))
    return socket_path


@pytest.fixture
def collector(path):
    with collecting(path, recorded()) as found:
        yield found


def python(script, **environment):
    return subprocess.run(
        [sys.executable, "-c", textwrap.dedent(script)],
        env={**os.environ, "PYTHONPATH": str(link()), **environment},
        cwd="/", capture_output=True, text=True, timeout=60,
    )  # fmt: skip


def test_a_window_and_its_figures(collector):
    with Session() as session, session.window() as window:
        pass
    (subject,) = collector.subjects
    assert subject.pids == (os.getpid(),)
    assert (subject.follow, subject.marked) == (True, True)
    found = window.answer
    assert window.copied_bytes == window.most_copied_bytes == sum(found.copied.values()) > 0
    assert window.copies == window.most_copies == found.copies
    assert window.delivered_bytes == sum(found.delivered.values()) > 16 << 20
    assert window.received_bytes == sum(found.received.values()) > 16 << 20
    assert window.sentence.startswith("not zero-copy: 2.00 copies")
    assert repr(window) == f"<Window: {window.sentence}>"


def test_the_program_marks_the_window_by_itself(collector, monkeypatch):
    """After it was let go, before it says that it is done, and nothing else in between."""
    said = []
    exchange = api.Window._exchange

    def noted(self, channel, message):
        said.append(message)
        return exchange(self, channel, message)

    monkeypatch.setattr(api.Window, "_exchange", noted)
    monkeypatch.setattr(libc, "marker", lambda option, *rest: said.append(rest))
    with Session() as session:
        for scope, number in (
            ("process", marker.Scope.PROCESS),
            ("thread", marker.Scope.THREAD),
        ):
            with session.window(scope):
                said.append("body")
            assert said == [
                {"protocol": 1, "scope": scope},
                (123, marker.Operation.OPEN, marker.Role.PROGRAM, number),
                "body",
                (123, marker.Operation.CLOSE, marker.Role.PROGRAM, number),
                {"done": True},
            ]
            said.clear()
    assert [subject.follow for subject in collector.subjects] == [True, False]


def test_a_client_is_not_told_where_the_kernel_lies(path):
    """It may be a user from whom /proc/kallsyms hides that."""
    place = 0xFFFFFFFF81000000
    found = recorded()
    sites = tuple(dataclasses.replace(site, address=hex(place + 1)) for site in found.sites)
    functions = {"copy": {"address": place + 2}}
    kernel = {**found.kernel, "functions": functions, "calls": {"copy": [[place + 3, "f"]]}}
    evidence = dataclasses.replace(found, sites=sites, kernel=kernel)
    with collecting(path, evidence), Session() as session, session.window() as window:
        pass
    told = json.dumps(window.answer.evidence.to_json())
    assert not re.search(r"0xffffffff|\b1844674\d{13}\b", told)
    assert re.search(r"0xffffffff", json.dumps(evidence.to_json()))
    assert window.copied_bytes > 0


def test_figures_are_known_behind_the_window(collector):
    with Session() as session:
        window = session.window()
        for when in ("not entered", "open"):
            for figure in ("copied_bytes", "copies", "delivered_bytes", "answer", "sentence"):
                with pytest.raises(UsageError, match="not been closed"):
                    getattr(window, figure)
            assert repr(window) == "<Window: not closed>"
            if when == "not entered":
                window.__enter__()
        window.__exit__(None, None, None)
        assert window.copied_bytes > 0
        with pytest.raises(UsageError, match="only once"), window:
            pass


def test_a_32_bit_python_is_told_that_it_cannot_open_a_window(collector, monkeypatch):
    """Its marker would reach the kernel with half of its number, and open nothing."""
    monkeypatch.setattr(sys, "maxsize", (1 << 31) - 1)
    with (
        Session() as session,
        pytest.raises(SessionError, match="a 32-bit Python cannot"),
        session.window(),
    ):
        pass


def test_a_scope_that_there_is_not(collector):
    with Session() as session, pytest.raises(UsageError, match="'thred'"):
        session.window("thred")
    assert collector.subjects == []


@pytest.mark.parametrize(
    ("values", "kind", "words"),
    [
        ({"lost": {"tally": 3}}, FigureError, "3 events were lost"),
        ({"expected": {FROM_USER: 1}}, ControlError, "known bytes"),
    ],
)
def test_a_figure_that_may_be_too_small_is_none(path, values, kind, words):
    with (
        collecting(path, altered(recorded(), **values)),
        Session() as session,
        session.window() as window,
    ):
        pass
    for figure in (
        *("copied_bytes", "copies", "most_copied_bytes", "most_copies"),
        *("delivered_bytes", "received_bytes"),
    ):
        with pytest.raises(kind) as raised:
            getattr(window, figure)
        assert words in raised.value.why
    assert window.answer.doubts or window.answer.failed


def test_bytes_of_nobody_s(path):
    with (
        collecting(path, altered(recorded(), outside=4096)),
        Session() as session,
        session.window() as window,
    ):
        pass
    for figure in ("copied_bytes", "copies"):
        with pytest.raises(FigureError) as raised:
            getattr(window, figure)
        assert "4096 B were copied" in raised.value.why
    found = window.answer
    assert window.most_copied_bytes == found.copied_bytes + 4096
    assert window.most_copies == (found.copied_bytes + 4096) / sum(found.delivered.values())


def test_nothing_moved(path):
    nothing = recorded()
    nothing = dataclasses.replace(
        nothing, trace=dataclasses.replace(nothing.trace, account=Account())
    )
    with collecting(path, nothing), Session() as session, session.window() as window:
        pass
    for figure in ("copies", "most_copies"):
        with pytest.raises(FigureError, match="nothing was delivered or received"):
            getattr(window, figure)
    assert window.copied_bytes > 0


def test_an_exception_passes_on_and_the_window_is_closed(collector):
    with Session() as session:
        window = session.window()
        with pytest.raises(ZeroDivisionError), window:
            _ = 1 // 0
        assert window.copied_bytes > 0
        with session.window():
            pass
    assert collector.aborted == 0
    assert len(collector.subjects) == 2


def test_one_at_a_time(collector):
    with Session() as session, session.window() as outer:
        with pytest.raises(SessionError, match="another window is open"), session.window():
            pass
        refused = []

        def elsewhere():
            try:
                session.window().__enter__()
            except SessionError as error:
                refused.append(error)

        thread = threading.Thread(target=elsewhere)
        thread.start()
        thread.join()
        assert len(refused) == 1
    assert outer.copied_bytes > 0
    assert len(collector.subjects) == 1


def test_what_the_collector_raises_is_raised_here(collector):
    collector.evidence = errors.WorkloadError("the controls failed", "why", "try")
    with Session() as session:
        with pytest.raises(errors.WorkloadError) as raised, session.window():
            pass
        assert (raised.value.why, raised.value.hint) == ("why", "try")
        # The body's own exception says more; the other is there for who asks for figures.
        window = session.window()
        with pytest.raises(ZeroDivisionError), window:
            _ = 1 // 0
        with pytest.raises(errors.WorkloadError):
            _ = window.copied_bytes


def test_nobody_there(path):
    session = Session()
    with pytest.raises(SessionError, match="no collector at"), session.window():
        pass


def test_a_collector_that_ends(collector):
    """In a window: no hang, and no figure."""
    with Session() as session:
        window = session.window()
        with pytest.raises(SessionError, match="does not answer"), window:
            collector.end()
        with pytest.raises(SessionError):
            _ = window.copied_bytes


def test_a_collector_that_is_silent(path):
    with (
        windows.listening(path, os.getuid(), os.getgid()),
        Session(seconds=0.2) as session,
        pytest.raises(SessionError) as raised,
        session.window(),
    ):
        pass
    assert "no whole answer within 0.2 s" in raised.value.why


def test_a_collector_that_says_its_answer_byte_by_byte(path):
    """Each byte comes in time, and the line never ends."""
    over = threading.Event()
    with windows.listening(path, os.getuid(), os.getgid()) as listener:

        def trickle():
            connection, _ = listener.accept()
            with connection, suppress(OSError):
                while not over.wait(0.02):
                    connection.sendall(b" ")

        thread = threading.Thread(target=trickle)
        thread.start()
        try:
            with pytest.raises(SessionError) as raised, Session(seconds=0.3).window():
                pass
        finally:
            over.set()
            thread.join()
    assert "no whole answer within 0.3 s" in raised.value.why


@pytest.mark.parametrize(
    "line", [b"nonsense\n", b"[1]\n", b"half", b""], ids=["no JSON", "no object", "half", "end"]
)
def test_a_collector_that_talks_nonsense(path, line):
    with windows.listening(path, os.getuid(), os.getgid()) as listener:

        def answer():
            connection, _ = listener.accept()
            with connection:
                connection.recv(1000)
                connection.sendall(line)

        thread = threading.Thread(target=answer)
        thread.start()
        with pytest.raises(SessionError), Session().window():
            pass
        thread.join()


def test_a_client_that_is_killed_in_a_window(collector):
    """Also where a process that it has forked keeps the connection."""
    result = python(
        """
        import os, time, zctrace
        with zctrace.Session() as session, session.window():
            if os.fork() == 0:
                os.close(1)
                os.close(2)
                time.sleep(2)
                os._exit(0)
            os.kill(os.getpid(), 9)
        """
    )
    assert result.returncode == -9, result.stderr
    with Session() as session, session.window() as window:
        pass
    assert window.copied_bytes > 0
    assert collector.aborted == 1


def test_a_child_that_was_forked_in_a_window_leaves_it_to_its_parent(collector):
    result = python(
        """
        import os, zctrace
        with zctrace.Session() as session:
            with session.window() as window:
                child = os.fork()
            if child == 0:
                os._exit(7)
            assert os.waitpid(child, 0)[1] >> 8 == 7
            print(window.copied_bytes > 0)
        """
    )
    assert result.stdout == "True\n", result.stderr
    assert collector.aborted == 0


@pytest.mark.parametrize(
    "line",
    [
        b"nonsense\n",
        b'{"protocol": 1, "scope": "everybody"}\n',
        b'{"protocol": 2, "scope": "process"}\n',
        b"x" * 5000 + b"\n",
        b"[" * 4000 + b"\n",
        b"",
    ],
    ids=["no JSON", "scope", "protocol", "long", "deep", "end"],
)
def test_a_client_that_talks_nonsense(collector, path, line):
    with socket.socket(socket.AF_UNIX) as connection:
        connection.connect(str(path))
        connection.sendall(line)
        connection.shutdown(socket.SHUT_WR)
        answer = connection.makefile("rb").read()
    assert answer == b"" or json.loads(answer)["error"] == "UsageError"
    assert bool(answer) == (b"scope" in line)
    assert collector.subjects == []
    with Session() as session, session.window() as window:
        pass
    assert window.copied_bytes > 0


def test_a_client_that_says_something_else_in_its_window(collector, path):
    with socket.socket(socket.AF_UNIX) as connection:
        connection.connect(str(path))
        lines = connection.makefile("rwb")
        lines.write(b'{"protocol": 1, "scope": "process"}\n')
        lines.flush()
        assert json.loads(lines.readline()) == {"nonce": 123}
        lines.write(b"{}\n")
        lines.flush()
        assert lines.readline() == b""
        lines.close()
    assert collector.aborted == 1


def test_somebody_else(path):
    with collecting(path, recorded(), uid=os.getuid() + 1) as collector:
        with pytest.raises(errors.RightsError) as raised, Session().window():
            pass
        assert f"not for user {os.getuid()}" in raised.value.what
        assert collector.subjects == []
    assert not path.exists()


def test_the_socket_is_for_one_user(collector, path):
    assert path.stat().st_mode & 0o777 == 0o600


def test_too_long_a_name(tmp_path):
    with (
        pytest.raises(errors.ResourceError, match="too long a name"),
        windows.listening(tmp_path / ("x" * 108), 0, 0),
    ):
        pass


def test_importing_is_cheap():
    """What every start of pytest imports, and what a window takes."""
    result = python(
        """
        import sys, zctrace, zctrace.pytest_plugin
        assert "zctrace.session.api" not in sys.modules
        own = {m for m in sys.modules if m.partition(".")[0] == "zctrace"}
        assert own == {"zctrace", "zctrace.pytest_plugin"}, own
        from zctrace import Session, Window
        import zctrace.analysis.program, zctrace.workloads.marker
        heavy = {"pandas", "numpy", "rich", "typer", "jinja2", "bcc", "capstone", "elftools"}
        assert not heavy & sys.modules.keys(), heavy & sys.modules.keys()
        """
    )
    assert result.returncode == 0, result.stderr
    assert zctrace.Window is api.Window
    with pytest.raises(AttributeError):
        _ = zctrace.Windows


@pytest.fixture
def alone(monkeypatch, tmp_path):
    """Without a collector, as somebody who is not root; a folder where a sudo may be put."""
    monkeypatch.delenv(session_protocol.SOCKET, raising=False)
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    monkeypatch.setenv("PATH", str(tmp_path))

    def sudo(script):
        file = tmp_path / "sudo"
        file.write_text(f"#!/bin/sh\n{script}\n")
        file.chmod(0o755)
        return file

    return sudo


def test_without_sudo(alone):
    with pytest.raises(errors.RightsError) as raised:
        Session()
    assert raised.value.why == "there is no sudo here"
    assert "sudo zctrace serve" in raised.value.hint


def test_sudo_that_wants_a_password(alone):
    alone('[ "$1" = -n ] && { echo "sudo: a password is required" >&2; exit 1; }')
    with pytest.raises(errors.RightsError) as raised:
        Session()
    assert raised.value.why == "sudo: a password is required"


def test_a_kernel_that_cannot_be_probed(alone):
    error = errors.KernelError("this kernel", "has no probes", "serve --kernel 6.1")
    alone(f"echo '{json.dumps(error.to_json())}'")
    with pytest.raises(errors.KernelError) as raised:
        Session()
    assert (raised.value.what, raised.value.hint) == (error.what, error.hint)


def test_a_collector_by_sudo(alone, tmp_path):
    """It is started with our number, asked, and ends when its input does."""
    path = tmp_path / "socket"
    alone(
        f'printf \'%s\\n\' "$*" >{tmp_path}/words; echo \'{{"socket": "{path}"}}\'; '
        f"read line; echo over >>{tmp_path}/words"
    )
    with collecting(path, recorded()):
        with Session() as session, session.window() as window:
            pass
        assert window.copied_bytes > 0
    words, over = (tmp_path / "words").read_text().splitlines()
    assert words == (
        f"-n -- {sys.executable} -I {zctrace.__path__[0]}/collect/isolated.py "
        f"zctrace.machine.session_collector "
        f"1000 {os.getpid()}"
    )
    assert over == "over"


def test_what_is_started_says_what_is_wrong(monkeypatch):
    """With a machine that it does not know."""
    script = """
        import os, sys
        from zctrace.machine import places, session_collector
        places.ARCHITECTURE = "vax"
        sys.exit(session_collector.main([str(os.getuid()), str(os.getpid())]))
    """
    result = python(script)
    assert result.returncode == errors.KernelError.exit_code, result.stderr
    answer = json.loads(result.stdout)
    assert answer["error"] == "KernelError"
    assert "vax" in answer["why"] + answer["what"] + answer["hint"]


SERVES = """
import os, sys, time
from pathlib import Path
from zctrace.machine import places, program_job, session_collector

def serve(place, wanted, say, ready, stopped):
    assert place.kernel is None
    assert wanted.subject.marked and not wanted.subject.command
    ready(Path("/the/socket"))
    while not stopped():
        time.sleep(0.01)

program_job.serve = serve
places.require_modules = lambda: None
places.why_not_host = lambda: []
sys.exit(session_collector.main([str(os.getuid()), sys.argv[1]]))
"""
"""What is started by a session, for the client that its argument is, without probes."""


@pytest.mark.parametrize("how", ["its input ends", "its client dies", "it is terminated"])
def test_what_is_started_ends(how):
    client_process = subprocess.Popen(["sleep", "60"])
    process = subprocess.Popen(
        [sys.executable, "-c", SERVES, str(client_process.pid)],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE,
    )  # fmt: skip
    with process:
        assert json.loads(process.stdout.readline()) == {"socket": "/the/socket"}
        assert process.poll() is None
        if how == "its input ends":
            process.stdin.close()
        elif how == "its client dies":
            client_process.kill()
        else:
            process.send_signal(signal.SIGTERM)
        expected = errors.TERMINATED if how == "it is terminated" else 0
        assert process.wait(20) == expected
    client_process.kill()
    client_process.wait()


def test_serve_wants_a_command():
    found = CliRunner().invoke(cli.app, ["serve"])
    assert isinstance(found.exception, UsageError)
    assert "pytest" in found.exception.hint


def test_a_command_is_run_as_it_is(tmp_path):
    """The step that every traced command has, without controls and without a window."""
    near, far = socket.socketpair()
    with near, far:
        options = {"channel": far.fileno(), "folder": str(tmp_path), "control": "none"}
        process = subprocess.Popen(
            [sys.executable, "-m", "zctrace.workloads.launch", json.dumps(options),
             "sh", "-c", "echo $$; exit 3"],
            cwd=ROOT, pass_fds=[far.fileno()], stdout=subprocess.PIPE,
        )  # fmt: skip
        far.close()
        assert process.poll() is None
        near.sendall(b"\n")
        assert near.recv(100) == b""
        output, _ = process.communicate()
    assert (int(output), process.returncode) == (process.pid, 3)


def test_the_first_interrupt_is_for_who_can_wait():
    firsts = []
    patient = False
    with program_job._interruptible(lambda: firsts.append(1), lambda: patient):
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)
        patient = True
        signal.raise_signal(signal.SIGINT)
        assert firsts == [1]
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)
    assert firsts == [1]


class Meter:
    """Notes what is asked of it; has seen a window, or not."""

    def __init__(self, *, seen):
        self.asked = []
        self._answers = {
            "counts": [], "unwatched_cpus": 0, "account": Account(), "saw_window": seen,
        }  # fmt: skip

    def __getattr__(self, name):
        def noted(*arguments):
            self.asked.append((name, *arguments) if name == "scope" else name)
            return self._answers.get(name, {})

        return noted


@pytest.fixture
def traced_by(monkeypatch):
    """A tracer with such a meter, whose controls move nothing, in a cgroup called ours."""

    def made(*, seen, theirs="/theirs"):
        meter = Meter(seen=seen)
        request = recorded().request
        tracer = Tracer(request, meter, "/ours", [], {}, lambda: False, lambda step: None)
        monkeypatch.setattr(tracer, "_control", lambda when, stretch: Controls())
        monkeypatch.setattr(cgroups, "common_cgroup", lambda pids: theirs)
        return tracer, meter

    return made


OURSELVES = Subject(pids=(os.getpid(),), marked=True)


def test_no_table_is_touched_in_a_window(traced_by):
    tracer, meter = traced_by(seen=True)
    trace = tracer.marked(OURSELVES, lambda: meter.asked.append("window"))
    assert (trace.ended, trace.status) == ("closed", None)
    at = meter.asked.index("window")
    assert meter.asked[at - 7 : at + 8] == [
        ("scope", "/theirs"), "close_windows", "about_to_open",
        "follow_cpus", "hits", "activate", "skipped",
        "window",
        "skipped", "deactivate", "hits", "saw_window", "close_windows", ("scope", "/ours"),
        "counts",
    ]  # fmt: skip
    assert meter.asked[0] == "reset"
    assert tracer.rights["uid"] == os.geteuid()


def test_breakpoints_stay_where_they_are_for_the_own_cgroup(traced_by):
    tracer, meter = traced_by(seen=True, theirs="/ours")
    tracer.marked(OURSELVES, lambda: None)
    assert not [asked for asked in meter.asked if asked[0] == "scope"]


def test_a_window_that_nobody_saw_is_no_window(traced_by):
    """Without this its figures would be false zeros."""
    tracer, meter = traced_by(seen=False)
    with pytest.raises(SessionError, match="not seen"):
        tracer.marked(OURSELVES, lambda: None)
    assert meter.asked[-2:] == ["close_windows", ("scope", "/ours")]


def test_a_client_that_is_gone_leaves_no_window(traced_by):
    tracer, meter = traced_by(seen=True)

    def gone():
        raise session_protocol.GoneError

    with pytest.raises(session_protocol.GoneError):
        tracer.marked(OURSELVES, gone)
    assert "saw_window" not in meter.asked
    assert meter.asked[-2:] == ["close_windows", ("scope", "/ours")]


@pytest.mark.parametrize(
    ("line", "why"),
    [
        (b"{}\n", "no number for the window"),
        (b'{"nonce": "1"}\n', "no number for the window"),
        (b'{"nonce": -1}\n', "no number for the window"),
        (b'{"nonce": true}\n', "no number for the window"),
        (b"x" * 5000, "too long a line"),
        (b"[]\n", "no JSON object"),
        (b"\xff\n", "no JSON"),
    ],
)
def test_a_listener_that_is_no_collector(tmp_path, monkeypatch, line, why):
    monkeypatch.setattr(api, "_ANSWER_BYTES", 4096)
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(tmp_path / "s"))
        listener.listen()

        def answer():
            connection, _ = listener.accept()
            with connection:
                connection.recv(4096)
                connection.sendall(line)

        thread = threading.Thread(target=answer)
        thread.start()
        monkeypatch.setenv("ZCTRACE_SOCKET", str(tmp_path / "s"))
        with pytest.raises(SessionError) as caught, Session(seconds=10).window():
            pass
        thread.join()
    assert why in str(caught.value)
    assert "try: sudo zctrace serve" in str(caught.value)


def test_an_error_with_nothing_in_it_is_one_still():
    assert type(errors.from_json({"error": 1})) is errors.ZctraceError
    assert errors.from_json({"error": "KernelError", "what": "w", "why": "y"}).why == "y"


@pytest.mark.parametrize(
    ("name", "why"), [("absent", "No such file or directory"), ("file", "Connection refused")]
)
def test_no_listener_is_told_in_words(tmp_path, monkeypatch, name, why):
    (tmp_path / "file").touch()
    monkeypatch.setenv("ZCTRACE_SOCKET", str(tmp_path / name))
    with pytest.raises(errors.SessionError) as told, api.Session().window():
        pass
    assert told.value.why == why


def test_what_a_collector_says_is_shown_without_what_a_terminal_obeys():
    error = errors.from_json({"what": "\x1b[31m\n", "why": "\u202e\udcff", "hint": "\x07"})
    assert str(error) == "\\x1b[31m\\n\n    why: \\u202e\\xff\n    try: \\x07"


def test_examples_in_other_languages_have_the_numbers_of_this_version():
    """A change of one of them is another protocol."""
    text = "".join(
        (HERE.parent / "docs" / name).read_text()
        for name in ("examples/zctrace.h", "examples/window.go", "reference/windows.md")
    )
    for number, *patterns in (
        (
            session_protocol.PROTOCOL,
            r"ZCTRACE_PROTOCOL (\d+)",
            r"protocol = (\d+)",
            r'"protocol": (\d+), "scope"',
        ),
        (
            marker.OPTION,
            r"ZCTRACE_MARKER (0x\w+)",
            r"marker   = (0x\w+)",
            r"prctl\((0x\w+), N",
        ),
        (
            marker.Role.PROGRAM,
            r"ZCTRACE_PROGRAM (\d+)",
            r"program  = (\d+)",
            r"N, 1, (\d+), sc",
        ),
        (
            marker.Scope.PROCESS,
            r"ZCTRACE_PROCESS = (\d+)",
            r"process  = (\d+)",
            r"thread, (\d+): process",
        ),
        (marker.Scope.THREAD, r"ZCTRACE_THREAD = (\d+)"),
        (marker.Operation.OPEN, r"nonce, (\d+), ZCTRACE_PROGRAM", r"window.mark\((\d+)\)"),
        (session_protocol.REQUEST_BYTES, r"at\s+most (\d+) bytes"),
    ):
        for pattern in patterns:
            (found,) = re.findall(pattern, text)[:1]
            assert int(found, 0) == number, pattern
