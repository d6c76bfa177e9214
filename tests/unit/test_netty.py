"""The strategies of Netty: by the real one where it was fetched before, and without."""

import io
import re
import shutil
import socket
import subprocess
import sys
from pathlib import Path

import pytest
from rich.console import Console

from tests.unit import forked, straced
from tests.unit.test_java import fake, homes, lines_of, why_not
from zctrace.collect import describe
from zctrace.commands import strategies as listing
from zctrace.evidence.schema import Setting
from zctrace.machine import job, kernels, staging
from zctrace.workloads import prepared
from zctrace.workloads.catalogue import STRATEGIES, strategy_named
from zctrace.workloads.jvm import java, netty
from zctrace.workloads.jvm.performers import NETTY
from zctrace.workloads.marker import Role
from zctrace.workloads.prepared import NotPreparedError, read_staged, stage
from zctrace.workloads.runner import Runner
from zctrace.workloads.strategy import Expected, Task

NAMES = [strategy.name for strategy in STRATEGIES if strategy.name.startswith("netty-")]
MIB = 1 << 20
_FETCHED = kernels.cache_folder() / "netty"


def why_no_netty():
    """The tests fetch nothing: ``zctrace run`` does, and so do the live tests."""
    if not netty.is_in(_FETCHED.parent):
        return f"Netty is not in {_FETCHED}: zctrace run netty-file-region"
    return why_not()


@pytest.fixture
def real_netty():
    """Asked when it is needed: the live tests, which come before, may have fetched it."""
    if reason := why_no_netty():
        pytest.skip(reason)


needs_netty = pytest.mark.usefixtures("real_netty")


@pytest.fixture(scope="module")
def cache(tmp_path_factory):
    """With what was fetched, and without what was compiled."""
    folder = tmp_path_factory.mktemp("cache")
    if _FETCHED.is_dir():
        (folder / "netty").symlink_to(_FETCHED)
    return folder


@pytest.fixture(autouse=True)
def own_cache(cache, monkeypatch):
    monkeypatch.setenv("ZCTRACE_CACHE", str(cache))


@pytest.fixture
def payload(tmp_path):
    file = tmp_path / "payload"
    file.write_bytes((bytes(range(251)) * 4178)[:MIB].ljust(MIB, b"z"))
    return file


def workload(*arguments):
    return lines_of(forked.run("zctrace.workloads.__main__", *arguments))


def test_there_are_ten():
    assert len(NAMES) == 10
    for name in NAMES:
        assert strategy_named(name).performer is NETTY


@pytest.mark.parametrize("name", NAMES)
def test_claims(name):
    """Of copies and DMA alone; a region is sendfile underneath, with the same exception."""
    strategy = strategy_named(name)
    if "region" in name:
        expected = Expected(0, None, 2)
        assert strategy.claims(gathers=False) == Expected(1, None, 2)
    elif name in ("netty-heap-buffer", "netty-copied", "netty-chunked-file", "netty-tls"):
        expected = Expected(None, None, None)
    else:
        expected = Expected(2, None, 2)
    assert strategy.claims(gathers=True) == expected


@needs_netty
@pytest.mark.parametrize(("sizes", "extra"), [((1, MIB), ()), ((65537,), ("--chunk", 32749))])
def test_every_byte_arrives(payload, sizes, extra):
    """A runner compares the CRC of what has arrived, by TLS of what was decrypted."""
    before = {*Path("/tmp").iterdir()}
    asked = [text for size in sizes for text in ("--size", size)]
    lines = workload(*NAMES, "--file", payload, *asked, *extra)
    assert [(line["size"], line["strategy"]) for line in lines] == [
        (size, name) for size in sizes for name in NAMES
    ]
    for line in lines:
        assert (line["received"], line["unavailable"]) == (line["size"], "")
        # What TCP has sent: a record of each chunk, and that is 38 B more than what is in it.
        secured = line["size"] + 38 * -(-line["size"] // 8192)
        if line["strategy"] != "netty-tls":
            assert "secured_bytes" not in line["account"]
        elif not extra:  # larger chunks are cut, at a size of Java's choosing
            assert line["account"]["secured_bytes"] == secured
    left = {path.name for path in {*Path("/tmp").iterdir()} - before}
    # Of a JVM's own files test_java.py speaks, by its number: others may run at this time.
    assert [name for name in left if "netty" in name] == []


@needs_netty
@pytest.mark.skipif(not homes(), reason="needs JDK 22 or later in /usr/lib/jvm")
def test_a_newer_java(payload, monkeypatch):
    monkeypatch.setenv("JAVA_HOME", str(homes()[-1]))
    names = ("netty-composite", "netty-file-region-epoll")
    lines = workload(*names, "--file", payload)
    assert [line["received"] for line in lines] == [MIB] * len(names)


@pytest.fixture(scope="module")
def windows(tmp_path_factory, cache):
    """By strategy, what strace saw of its transfer."""
    if reason := why_no_netty() or straced.why_not():
        pytest.skip(reason)
    (folder := tmp_path_factory.mktemp("strace")).joinpath("payload").write_bytes(bytes(MIB))
    pids, found = straced.performed(folder, NAMES, cache=cache)
    sent = [window for window in found if window.role is Role.SENDER]
    assert {window.thread for window in sent} == {pids["jvm"]}
    return dict(zip(NAMES, sent, strict=True))


WAITING = {"epoll_wait", "epoll_pwait", "epoll_ctl", "eventfd2", "timerfd_settime"}
"""What an event loop does meanwhile, if the socket does not take everything at once."""
STAT = {"fstat", "newfstatat", "copy_file_range"}
"""What Java's transferTo does beside."""


@pytest.mark.parametrize(
    ("name", "moved"),
    [
        ("netty-direct-buffer", {"read": MIB, "write": MIB}),
        ("netty-heap-buffer", {"read": MIB, "write": MIB}),
        ("netty-copied", {"read": MIB, "write": MIB}),
        ("netty-chunked-file", {"read": MIB, "write": MIB}),
        ("netty-file-region", {"sendfile": MIB}),
        ("netty-file-region-epoll", {"sendfile": MIB}),
    ],
)
def test_what_moves_it(windows, name, moved):
    window = windows[name]
    assert window.moved == moved
    assert set(window.calls) <= moved.keys() | WAITING | STAT | {"close"}


@pytest.mark.parametrize("name", ["netty-composite", "netty-wrapped", "netty-slice"])
def test_parts_are_gathered_by_the_kernel(windows, name):
    """Several parts with one call, as many as the channel takes to be enough."""
    moved = windows[name].moved
    assert moved.pop("read") == MIB
    assert sum(moved.values()) == MIB
    assert moved["writev"] > 0
    assert set(windows[name].calls) <= {"read", "write", "writev"} | WAITING


def test_chunks_are_netty_s_own(windows):
    reads = [size for call, size in windows["netty-chunked-file"].sizes if call == "read"]
    assert reads == [8192] * 128


def test_what_is_sent_by_tls_is_more(windows):
    """A record of each chunk has a head of 5 bytes, a type, a tag of 16, and 16 of nothing."""
    moved = windows["netty-tls"].moved
    assert moved["read"] == MIB
    assert moved["write"] + moved.get("writev", 0) == MIB + 128 * 38


@needs_netty
def test_a_payload_that_ends_early(tmp_path):
    file = tmp_path / "payload"
    file.write_bytes(b"x" * 5003)
    NETTY.start(0, 20011)
    try:
        for name in NAMES:
            if name == "netty-tls":  # nobody is there to shake hands
                continue
            strategy = strategy_named(name)
            assert NETTY.refusal() == ""
            with socket.create_server(("127.0.0.1", 0)) as listener, file.open() as source:
                near = strategy.connect(listener.getsockname())
                far, _ = listener.accept()
                transfer = strategy.prepare(Task(source.fileno(), near.fileno(), 20011, 4099))
                with near, far, pytest.raises((EOFError, OSError)):
                    transfer.run()
                transfer.close()
    finally:
        NETTY.close()


@needs_netty
def test_an_error_in_netty_is_an_error_here(payload, monkeypatch):
    strategy = strategy_named("netty-file-region")
    made = Runner({"": payload}, sizes=[MIB], controls=False, strategies=[strategy])
    monkeypatch.setattr(type(strategy), "name", "netty-nonsense")
    try:
        with pytest.raises(OSError, match="in Java, IllegalArgumentException: netty-nonsense"):
            made.run(strategy)
    finally:
        made.close()


@needs_netty
def test_what_is_staged_needs_neither_maven_nor_compiler(payload, tmp_path, cache):
    code = staging.stage(tmp_path, {"netty": NETTY.prepare(cache, print)})
    folder = code / "zctrace/workloads/staged/netty"
    assert read_staged(folder).folders.keys() == {"driver", "archives", "classes"}
    assert all(path.stat().st_mode & 0o004 for path in folder.rglob("*"))
    command = [
        sys.executable,
        "-I",
        code / "zctrace" / "collect" / "isolated.py",
        "zctrace.workloads",
    ]
    result = subprocess.run(
        [*command, "netty-file-region-epoll", "netty-tls", "--file", payload],
        cwd="/",
        env={"PATH": "/nowhere"},
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert [line["received"] for line in lines_of(result)] == [MIB, MIB]


@needs_netty
def test_what_is_compiled_is_kept(cache, monkeypatch):
    driver = java.build(cache)
    built = netty.build(driver, cache, print)
    assert (built.classes / "zctrace" / "netty" / "Netty.class").is_file()
    assert {path.name for path in built.classes.iterdir()} == {"zctrace", "certificate.pem"}
    monkeypatch.setattr(java, "whole", None)
    assert netty.build(driver, cache, print) == built


def maven(folder, text):
    """The only program on the PATH is one that is called like Maven."""
    folder.mkdir()
    (folder / "mvn").write_text(f"#!{sys.executable}\nimport sys\n{text}\n")
    (folder / "mvn").chmod(0o755)
    return folder


FETCHES = """
import pathlib, zipfile
(out,) = [a.split("=")[1] for a in sys.argv if a.startswith("-DoutputDirectory=")]
out = pathlib.Path(out)
out.mkdir()
name = "netty-transport-native-epoll-1-linux-x86_64.jar"
library = "META-INF/native/libnetty_transport_native_epoll_x86_64.so"
with zipfile.ZipFile(out / name, "w") as archive:
    archive.writestr(library, "code")
(out / "called").write_text(" ".join(sys.argv[1:]))
"""


@pytest.fixture
def driver(tmp_path):
    """Of a Java that compiles everything to nothing."""
    home = fake(tmp_path / "jdk", "17.0.1", *[(n, "exit 0") for n in ("java", "keytool")])
    classes = 'while [ "$1" != -d ]; do shift; done; mkdir "$2"; touch "$2/keys"'
    (home / "bin" / "javac").write_text(f"#!/bin/sh\n{classes}\n")
    (home / "bin" / "javac").chmod(0o755)
    return java.Built(java.Jdk(home, "17.0.1"), tmp_path / "classes")


def test_it_is_fetched_once_and_says_so(tmp_path, driver, monkeypatch):
    monkeypatch.setenv("PATH", str(maven(tmp_path / "bin", FETCHES)))
    said = []
    built = netty.build(driver, tmp_path / "cache", said.append)
    assert said == [f"fetching Netty {netty.version()} (3 MB) by Maven, once"]
    called = (built.archives / "called").read_text()
    assert "pom.xml dependency:copy-dependencies" in called
    library = built.archives / "libnetty_transport_native_epoll_x86_64.so"
    assert library.read_text() == "code"
    monkeypatch.setenv("PATH", "/nowhere")
    assert netty.why_not(tmp_path / "cache") == ""
    assert netty.build(driver, tmp_path / "cache", said.append) == built
    assert len(said) == 1


def test_what_maven_says_is_passed_on(tmp_path, driver, monkeypatch):
    monkeypatch.setenv("PATH", str(maven(tmp_path / "bin", "sys.exit('no Java')")))
    with pytest.raises(NotPreparedError, match=r"could not fetch Netty .*: no Java: connect"):
        netty.build(driver, tmp_path / "cache", print)
    assert not netty.is_in(tmp_path / "cache")
    assert [*(tmp_path / "cache" / "netty").iterdir()] == []


def test_without_maven_there_is_a_reason(tmp_path, driver, monkeypatch):
    monkeypatch.setenv("PATH", "/nowhere")
    with pytest.raises(NotPreparedError, match=r"apt-get install maven$"):
        netty.build(driver, tmp_path, print)


def test_without_netty_everything_else_goes_on(tmp_path, payload, driver, monkeypatch):
    """Also what Java performs without it."""
    monkeypatch.setenv("PATH", "/nowhere")
    monkeypatch.setenv("ZCTRACE_CACHE", str(tmp_path / "cache"))
    names = ["sendfile", *(() if why_not() else ("java-mmap",)), "netty-file-region"]
    made = Runner({"": payload}, sizes=[MIB], controls=False)
    try:
        *others, last = [made.run(strategy_named(name)) for name in names]
    finally:
        made.close()
    assert [outcome.received for outcome in others] == [MIB] * len(others)
    assert last.received == 0
    assert "apt-get install" in last.unavailable


def options(*names):
    return job.Options(settings=(Setting(names),), sizes=(MIB,))


def test_who_does_not_need_it_does_not_fetch_it(driver, monkeypatch):
    monkeypatch.setattr(netty, "build", None)
    monkeypatch.setattr(java, "build", lambda cache: driver)
    assert job._prepared(options("sendfile"), print) == {}
    assert job._prepared(options("sendfile", "java-mmap"), print).keys() == {"java"}

    def none(cache):
        raise NotPreparedError("there is no Java")

    # Without Java there is a reason already.
    monkeypatch.setattr(java, "build", none)
    assert str(job._prepared(options("netty-tls"), print)["netty"]) == "there is no Java"


def test_why_it_could_not_be_had_is_staged(tmp_path, driver, monkeypatch):
    monkeypatch.setenv("PATH", "/nowhere")
    monkeypatch.setattr(java, "build", lambda cache: driver)
    monkeypatch.setattr(kernels, "trusted_cache", lambda: tmp_path / "cache")
    code = staging.stage(tmp_path, job._prepared(options("netty-tls"), print))
    with pytest.raises(NotPreparedError, match="apt-get install maven"):
        read_staged(code / "zctrace/workloads/staged/netty")
    monkeypatch.setattr(kernels, "trusted_cache", lambda: Path("/proc/none"))
    monkeypatch.setenv("PATH", str(maven(tmp_path / "bin", FETCHES)))
    reason = job._prepared(options("netty-tls"), print)["netty"]
    assert str(reason).startswith("Netty cannot be prepared: ")


def test_evidence_has_the_version(tmp_path, driver, monkeypatch):
    for name in ("classes", "archives"):
        (tmp_path / name).mkdir()
    monkeypatch.setattr(prepared, "_HERE", tmp_path)
    assert describe._performer_versions() == {}
    stage(driver.prepared, tmp_path / "staged" / "java")
    assert describe._performer_versions() == {"java": "17.0.1"}
    stage(NotPreparedError("no such luck"), tmp_path / "staged" / "netty")
    assert describe._performer_versions() == {"java": "17.0.1"}
    shutil.rmtree(tmp_path / "staged")
    library = netty.Library(tmp_path / "archives", tmp_path / "classes")
    stage(library.prepared(driver), tmp_path / "staged" / "netty")
    assert describe._performer_versions() == {"java": "17.0.1", "netty": "4.2.18.Final"}


def test_the_list_says_whether_it_is_possible(tmp_path, driver, monkeypatch):
    monkeypatch.setattr(java, "find", lambda: driver.jdk)
    monkeypatch.setattr(kernels, "cache_folder", lambda: tmp_path / "cache")

    def last():
        console = Console(file=io.StringIO(), width=200)
        listing.show(console)
        return console.file.getvalue().splitlines()[-1]

    monkeypatch.setenv("PATH", "/nowhere")
    assert re.search(
        "Strategies of Netty are not possible here: .*apt-get install maven$", last()
    )
    monkeypatch.setenv("PATH", str(maven(tmp_path / "bin", FETCHES)))
    assert "Netty 4.2.18.Final, which Maven fetches" in last()
    netty.build(driver, tmp_path / "cache", print)
    assert last().endswith(f"Netty 4.2.18.Final, which is in {tmp_path}/cache.")
