"""The strategies of Java, performed by a real virtual machine without a tracer or root."""

import json
import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from collections import Counter
from pathlib import Path

import pytest

from tests.unit import forked, straced
from zctrace import packages
from zctrace.errors import ResourceError
from zctrace.evidence.schema import Setting
from zctrace.machine import images, job, staging
from zctrace.workloads.catalogue import STRATEGIES, strategy_named
from zctrace.workloads.control_stimuli import stimuli
from zctrace.workloads.jvm import java, performers
from zctrace.workloads.jvm.performers import JAVA
from zctrace.workloads.known import Known
from zctrace.workloads.marker import Role
from zctrace.workloads.peers import total
from zctrace.workloads.prepared import NotPreparedError, read_staged
from zctrace.workloads.runner import Runner
from zctrace.workloads.strategy import Task

ROOT = Path(__file__).parents[2]
NAMES = [strategy.name for strategy in STRATEGIES if strategy.name.startswith("java-")]
MIB = 1 << 20
SIZES = (1, 4095, 65537, MIB)
_SECONDS = 60


def why_not():
    try:
        java.find()
    except NotPreparedError as error:
        return str(error)
    return ""


needs_java = pytest.mark.skipif(bool(why_not()), reason=why_not())


@pytest.fixture(scope="module")
def cache(tmp_path_factory):
    return tmp_path_factory.mktemp("cache")


@pytest.fixture(autouse=True)
def own_cache(cache, monkeypatch):
    """Compiled once for all, and not into the user's."""
    monkeypatch.setenv("ZCTRACE_CACHE", str(cache))


@pytest.fixture
def payload(tmp_path):
    file = tmp_path / "payload"
    file.write_bytes((bytes(range(251)) * 4178)[:MIB].ljust(MIB, b"z"))
    return file


@pytest.fixture
def runner(payload):
    """Makes runners in this process."""
    made = []

    def make(**options):
        made.append(Runner({"": payload}, sizes=[MIB], controls=False, **options))
        return made[-1]

    yield make
    for one in made:
        one.close()


def lines_of(result):
    assert (result.returncode, result.stderr) == (0, "")
    return [json.loads(line) for line in result.stdout.splitlines()]


def workload(*arguments):
    return lines_of(forked.run("zctrace.workloads.__main__", *arguments))


def test_there_are_five():
    assert len(NAMES) == 5
    assert {strategy_named(name).performer for name in NAMES} == {JAVA}


@needs_java
@pytest.mark.parametrize("extra", [(), ("--chunk", 4096)])
def test_every_byte_arrives(payload, extra):
    """A runner compares the CRC of what has arrived."""
    sizes = [text for size in SIZES for text in ("--size", size)]
    lines = workload(*NAMES, "--file", payload, *sizes, *extra)
    assert [(line["size"], line["strategy"]) for line in lines] == [
        (size, name) for size in SIZES for name in NAMES
    ]
    for line in lines:
        assert (line["received"], line["unavailable"]) == (line["size"], "")
        assert line["account"].keys() == {"retransmitted_bytes"}


@needs_java
def test_controls_of_both_processes_add_up(payload):
    lines = workload(*NAMES, "--file", payload, "--controls", "--repeat", 2)
    assert [line["strategy"] for line in lines] == [n for n in NAMES for _ in range(2)]
    expected = total(stimuli()) + Known.from_json(
        {
            "copy-from-iter-atomic:u2k": 100_064,
            "copy-to-iter:k2u": 100_064,
            "user-memory:u2u": 100_003 + 70_001 + 8 * 10_007,
            "syscall:write": 2,
            "syscall:read": 2,
            "syscall:lseek": 1,
        }
    )
    (once,) = workload("sendfile", "--file", payload, "--controls")
    for line in lines:
        assert line["expected"] == expected.to_json()
        # While Python's thread was idle, and while Java's was.
        assert line["neighbour"] == {name: 2 * n for name, n in once["neighbour"].items()}


@pytest.fixture(scope="module")
def traced(tmp_path_factory, cache):
    """The number of the thread that transfers, and every window, by an independent tracer."""
    if reason := why_not() or straced.why_not():
        pytest.skip(reason)
    (folder := tmp_path_factory.mktemp("strace")).joinpath("payload").write_bytes(bytes(MIB))
    return straced.performed(folder, NAMES, "--controls", cache=cache)


def test_the_thread_that_is_named_is_the_one_that_transfers(traced):
    pids, windows = traced
    assert {w.thread for w in windows if w.role is Role.SENDER} == {pids["jvm"]}
    for role in (Role.CONTROL_BEFORE, Role.CONTROL_AFTER, Role.CONTROL_IDLE):
        threads = [w.thread for w in windows if w.role is role]
        assert Counter(threads) == {pids["jvm"]: len(NAMES), pids["sender"]: len(NAMES)}


def test_the_window_holds_the_transfer_and_nothing_else(traced):
    _, windows = traced
    transfers = [w for w in windows if w.role is Role.SENDER]
    traditional, mapped, transfer_to, heap, direct = transfers
    version = java.find().major
    stat = "newfstatat" if "newfstatat" in mapped.calls else "fstat"
    # A stream is written to in pieces, a channel is not.
    assert traditional.sizes == [("read", MIB), *[("write", MIB // 8)] * 8]
    assert traditional.calls == [name for name, _ in traditional.sizes]
    assert mapped.calls == [stat, "mmap", "write"]
    assert mapped.sizes == [("write", MIB)]
    attempt = ["copy_file_range"] if version >= 22 else []
    assert transfer_to.calls == [stat, *attempt, "sendfile"]
    assert transfer_to.sizes == [("sendfile", MIB)]
    for buffered in (heap, direct):
        assert buffered.calls == ["read", "write"]
        assert buffered.sizes == [("read", MIB), ("write", MIB)]


def test_the_controls_make_the_calls_that_they_say(traced):
    pids, windows = traced
    own = [w for w in windows if w.thread == pids["jvm"]]
    for window in own:
        if window.role in (Role.CONTROL_BEFORE, Role.CONTROL_AFTER):
            assert window.calls == ["write", "write", "lseek", "read", "read"]
            assert [n for _, n in window.sizes] == [61, 100_003, 61, 100_003]
        elif window.role is Role.CONTROL_IDLE:
            assert set(window.calls) <= {"sched_yield"}


@needs_java
def test_nothing_is_started_for_other_strategies(payload, runner):
    made = runner(strategies=[strategy_named("sendfile")])
    assert set(made.pids) == {"sender", "sink", "source"}
    assert JAVA.threads == {}


@needs_java
def test_a_virtual_machine_that_dies_ends_the_run(runner):
    strategy = strategy_named("java-transfer-to")
    made = runner(strategies=[strategy])
    os.kill(JAVA._jvm._process.pid, signal.SIGKILL)
    with pytest.raises(OSError, match="the JVM ended with SIGKILL"):
        made.run(strategy)


@needs_java
def test_a_virtual_machine_that_does_not_start_says_why(runner, monkeypatch):
    monkeypatch.setattr(java, "_MAIN", "zctrace.Absent")
    with pytest.raises(OSError, match=r"the JVM ended with status 1: .*zctrace.Absent"):
        runner(strategies=[strategy_named("java-mmap")])


@needs_java
def test_an_error_in_java_is_an_error_here(runner, monkeypatch):
    strategy = strategy_named("java-transfer-to")
    made = runner(strategies=[strategy])
    monkeypatch.setattr(type(strategy), "name", "java-nonsense")
    with pytest.raises(OSError, match="in Java, IllegalArgumentException: java-nonsense"):
        made.run(strategy)


@needs_java
def test_when_the_parent_is_killed_the_virtual_machine_ends(payload, cache):
    command = [sys.executable, "-m", "zctrace.workloads", "java-mmap", "--handshake"]
    with subprocess.Popen(
        [*command, "--file", payload],
        cwd=ROOT,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as parent:
        parent.stdin.write("go\n")
        parent.stdin.flush()
        thread = json.loads(parent.stdout.readline())["pids"]["jvm"]
        status = Path(f"/proc/{thread}/status").read_text()
        (number,) = re.findall(r"^Tgid:\s+(\d+)$", status, re.MULTILINE)
        assert f"PPid:\t{parent.pid}\n" in status
        parent.kill()
        deadline = time.monotonic() + 10
        while Path(f"/proc/{number}").exists() and time.monotonic() < deadline:
            time.sleep(0.01)
        assert not Path(f"/proc/{number}").exists()
    # Nor are there files by which others would find it, or of what it has learnt.
    assert not list(Path("/tmp").glob(f"hsperfdata_*/{number}"))
    assert not list(Path("/tmp").glob(f".java_pid{number}"))
    assert [path.name for path in payload.parent.iterdir()] == ["payload"]


@needs_java
def test_a_payload_that_ends_early(tmp_path):
    """The transfer says so; and who maps more than there is, before anything is sent."""
    file = tmp_path / "payload"
    file.write_bytes(b"x" * 5003)
    JAVA.start(0, 20011)
    try:
        for name in NAMES:
            strategy = strategy_named(name)
            with socket.create_server(("127.0.0.1", 0)) as listener, file.open() as source:
                near = strategy.connect(listener.getsockname())
                far, _ = listener.accept()
                task = Task(source.fileno(), near.fileno(), 20011, 4099)
                transfer = strategy.prepare(task)
                with near, far, pytest.raises((EOFError, OSError)) as caught:
                    transfer.run()
                transfer.close()
            if name == "java-mmap":
                assert "cannot extend file" in str(caught.value)
            else:
                assert "ended 15008 bytes early" in str(caught.value)
    finally:
        JAVA.close()


@needs_java
def test_to_somebody_else(payload):
    received = bytearray()

    def serve(listener):
        for _ in range(2):  # the rehearsal is another connection
            received.clear()
            connection, _ = listener.accept()
            with connection:
                while piece := connection.recv(MIB):
                    received.extend(piece)

    with socket.create_server(("127.0.0.1", 0)) as listener:
        thread = threading.Thread(target=serve, args=[listener])
        thread.start()
        to = f"127.0.0.1:{listener.getsockname()[1]}"
        (line,) = workload("java-traditional", "--file", payload, "--to", to)
        thread.join(_SECONDS)
    assert line["received"] == MIB
    assert received == payload.read_bytes()


def homes():
    """Of JDKs with the newer linker."""
    return [
        home
        for home in sorted(Path("/usr/lib/jvm").glob("*"))
        if (home / "bin/javac").exists()
        and re.search(r'^JAVA_VERSION="(2[2-9]|[3-9]\d)', (home / "release").read_text(), re.M)
    ]


@pytest.mark.skipif(not homes(), reason="needs JDK 22 or later in /usr/lib/jvm")
def test_a_newer_java(payload, monkeypatch):
    monkeypatch.setenv("JAVA_HOME", str(homes()[-1]))
    lines = workload(*NAMES, "--file", payload, "--controls")
    assert [line["received"] for line in lines] == [MIB] * len(NAMES)


def fake(folder, version, *programs):
    (folder / "bin").mkdir(parents=True)
    (folder / "release").write_text(f'JAVA_VERSION="{version}"\n')
    for program, text in programs:
        (folder / "bin" / program).write_text(f"#!/bin/sh\n{text}\n")
        (folder / "bin" / program).chmod(0o755)
    return folder


RUNS, COMPILER = ("java", "exit 1"), ("javac", "echo no such luck >&2; exit 1")


@pytest.mark.parametrize(
    ("version", "programs", "reason"),
    [
        ("", (), "there is no Java"),
        ("11.0.2", (RUNS, COMPILER), "Java 11.0.2 in .* cannot call the marker"),
        ("21", (RUNS, COMPILER), "Java 21 in .* cannot call the marker"),
        ("17.0.1", (RUNS,), "runs Java 17.0.1 and compiles none"),
        ("22", (RUNS,), "runs Java 22 and compiles none"),
        ("17.0.1", (RUNS, COMPILER), "javac of .* failed: no such luck"),
    ],
)
def test_without_java_there_is_a_reason(
    tmp_path, monkeypatch, runner, version, programs, reason
):
    home = fake(tmp_path / "jdk", version, *programs)
    monkeypatch.setattr(java, "_homes", lambda: [home])
    made = runner(strategies=[strategy_named(name) for name in NAMES])
    assert set(made.pids) == {"sender", "sink", "source"}
    for name in NAMES:
        outcome = made.run(strategy_named(name))
        assert outcome.received == 0
        assert re.search(reason, outcome.unavailable)
        if "javac of" not in reason:
            assert outcome.unavailable.endswith(packages.remedy("java"))
    assert made.run(strategy_named("sendfile")).received == MIB


def test_which_java_is_taken(tmp_path, monkeypatch):
    first, second = (fake(tmp_path / name, "17.0.9", RUNS, COMPILER) for name in "ab")
    monkeypatch.setattr(java, "DEBIAN_HOME", tmp_path / "absent")
    monkeypatch.setenv("PATH", str(second / "bin"))
    monkeypatch.setenv("JAVA_HOME", str(first))
    assert java.find() == java.Jdk(first, "17.0.9")
    monkeypatch.delenv("JAVA_HOME")
    assert java.find().home == second
    monkeypatch.setattr(java, "DEBIAN_HOME", first)
    assert java.find().home == first


@needs_java
def test_what_is_compiled_is_kept(cache, monkeypatch):
    built = java.build(cache)
    assert (built.classes / "zctrace" / "Main.class").is_file()
    assert not list(built.classes.parent.glob(".*"))
    monkeypatch.setattr(java, "compile_into", None)
    assert java.build(cache) == built


@needs_java
def test_what_is_staged_needs_neither_compiler_nor_environment(payload, tmp_path, cache):
    code = staging.stage(tmp_path, {"java": JAVA.prepare(cache, print)})
    built = java.Built.of(read_staged(code / "zctrace/workloads/staged/java"))
    assert built.jdk == java.find()
    assert all(path.stat().st_mode & 0o004 for path in built.classes.rglob("*"))
    command = [
        sys.executable,
        "-I",
        code / "zctrace" / "collect" / "isolated.py",
        "zctrace.workloads",
    ]
    result = subprocess.run(
        [*command, "java-transfer-to", "--file", payload],
        cwd="/",
        env={"PATH": "/nowhere"},
        capture_output=True,
        text=True,
        timeout=_SECONDS,
    )
    assert [line["received"] for line in lines_of(result)] == [MIB]


def test_a_reason_is_staged_as_well(tmp_path):
    code = staging.stage(tmp_path, {"java": NotPreparedError("no such luck")})
    with pytest.raises(NotPreparedError, match="no such luck"):
        read_staged(code / "zctrace/workloads/staged/java")
    assert read_staged(tmp_path) is None


def test_what_cannot_be_run_from_here(tmp_path, monkeypatch):
    (tmp_path / "classes").mkdir()
    built = java.Built(java.Jdk(tmp_path / "jdk", "17.0.1"), tmp_path / "classes")
    monkeypatch.setattr(java, "build", lambda cache: built)
    one = performers.Java(None)
    assert one.refusal() == f"{tmp_path}/jdk/bin/java cannot be run from here"


def options(*names, **more):
    return job.Options(settings=(Setting(names),), sizes=(MIB,), **more)


def test_the_main_job_does_without_java(monkeypatch):
    monkeypatch.setattr(java, "build", None)
    asked = options("read-write", "sendfile")
    assert job._prepared(asked, print) == {}
    assert job._prepared(options("java-mmap", plan_only=True), print) == {}
    assert asked.performer_bytes == 0


def test_with_a_strategy_of_java_there_is_room_and_something_to_stage(monkeypatch):
    asked = options("sendfile", "java-mmap")
    without = job.guest_memory(options("sendfile"))
    assert job.guest_memory(asked) == without + asked.performer_bytes
    assert asked.performer_bytes > 128 << 20
    assert options("java-mmap", chunk=4096).performer_bytes < asked.performer_bytes
    # Netty is in the same process.
    assert options("java-mmap", "netty-tls").performer_bytes == asked.performer_bytes
    with pytest.raises(ResourceError):
        images.check_resources(MIB, (), [], 1 << 60)
    monkeypatch.setattr(job.kernels, "trusted_cache", lambda: Path("/proc/no/such/folder"))
    said = []
    reason = job._prepared(asked, said.append)["java"]
    assert isinstance(reason, NotPreparedError)
    assert len(said) == 1
