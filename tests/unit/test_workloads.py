"""The strategies run alone, without a tracer and without root."""

import dataclasses
import errno
import gc
import json
import os
import shutil
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from tests.links import link
from tests.unit import forked
from zctrace.analysis.controls import DISK_READ_CONTROL
from zctrace.machine import staging
from zctrace.workloads import cache, libc, ring
from zctrace.workloads.catalogue import STRATEGIES, TEXTBOOK, strategy_named
from zctrace.workloads.control_stimuli import stimuli
from zctrace.workloads.kernel_account import KernelAccount
from zctrace.workloads.known import Known
from zctrace.workloads.marker import Role, Scope
from zctrace.workloads.outcome import Outcome
from zctrace.workloads.peers import total
from zctrace.workloads.runner import PayloadError, Runner
from zctrace.workloads.strategy import Ends, Task

ROOT = Path(__file__).parents[2]
# Those of Java have tests of their own.
NAMES = [strategy.name for strategy in STRATEGIES if not strategy.performer]
SIZE = 251 * 4178
PAGE = libc.PAGE_BYTES


@pytest.fixture(autouse=True, scope="module")
def nothing_of_others_is_collected():
    """A runner collects before every transfer, here everything that pytest has imported."""
    gc.collect()
    gc.freeze()
    yield
    gc.unfreeze()


@pytest.fixture
def payload(tmp_path):
    file = tmp_path / "payload"
    file.write_bytes(bytes(range(251)) * 4178)
    assert file.stat().st_size == SIZE
    return file


def workload(*arguments, **options):
    """As a program; from a new interpreter where a call says how it is to be started."""
    if not options:
        return forked.run("zctrace.workloads.__main__", *arguments)
    return subprocess.run(
        [sys.executable, "-m", "zctrace.workloads", *map(str, arguments)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=60,
        **options,
    )


def outcomes(result):
    """One JSON line each; whoever could not run has said why."""
    assert (result.returncode, result.stderr) == (0, "")
    lines = [json.loads(line) for line in result.stdout.splitlines()]
    for line in lines:
        if line["unavailable"]:
            assert (line["received"], line["expected"], line["account"]) == (0, {}, {})
    return lines


def outcome(*arguments, **options):
    """That of the only run; the test is skipped where the strategy cannot run here."""
    [line] = outcomes(workload(*arguments, **options))
    if line["unavailable"]:
        pytest.skip(f"{line['strategy']}: {line['unavailable']}")
    return line


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize(
    ("extra", "size"),
    [
        ((), SIZE),
        (("--chunk", "4099"), SIZE),
        (("--size", "1"), 1),
        (("--size", "70001"), 70001),
    ],
)
def test_every_byte_arrives(payload, name, extra, size):
    assert outcome(name, "--file", payload, *extra)["received"] == size


OF_JAVA = {"java-traditional", "java-mmap", "java-transfer-to"}
"""Those that are said to be one of the textbook's underneath."""
OF_NETTY = {
    "netty-direct-buffer",
    "netty-composite",
    "netty-wrapped",
    "netty-slice",
    "netty-file-region",
    "netty-file-region-epoll",
}
"""Those of which it is said how often they copy."""


def test_what_the_textbook_claims():
    assert STRATEGIES[:4] == TEXTBOOK
    for strategy in STRATEGIES:
        claims = strategy.expected
        silent = {claims.cpu_copies, claims.switches, claims.dma_copies} == {None}
        assert silent == (strategy not in TEXTBOOK and strategy.name not in OF_JAVA | OF_NETTY)
        receives = strategy.ends in (Ends.SOCKET_TO_MEMORY, Ends.SOCKET_TO_FILE)
        assert strategy.role is (Role.RECEIVER if receives else Role.SENDER)


@pytest.mark.parametrize("name", ["splice", "vmsplice", "tee", "recv-splice"])
def test_a_larger_pipe(payload, name):
    assert outcome(name, "--file", payload, "--pipe-size", "256K")["received"] == SIZE


def test_repeated_with_controls(payload):
    lines = outcomes(workload(*NAMES, "--file", payload, "--controls", "--repeat", 2))
    assert [line["strategy"] for line in lines] == [n for n in NAMES for _ in range(2)]
    tried = [line for line in lines if not line["unavailable"]]
    assert all(line["expected"] == total(stimuli()).to_json() for line in tried)


@pytest.mark.parametrize(
    ("name", "given", "used"),
    [
        ("sendfile", ["ext4", "xfs"], "ext4"),
        ("sendfile", ["xfs", "ext4"], "xfs"),
        ("reflink", ["ext4", "btrfs", "xfs"], "btrfs"),
        ("reflink", ["ext4", ""], ""),
        ("reflink", ["ext4"], "ext4"),
    ],
)
def test_the_file_is_chosen_by_file_system(payload, name, given, used):
    files = [f"--file={fs}={payload}" if fs else f"--file={payload}" for fs in given]
    [line] = outcomes(workload(name, *files))
    assert line["file_system"] == used
    if name == "reflink" and used == "ext4":
        assert line["unavailable"] == "needs a file on xfs or btrfs, not on ext4"


@pytest.fixture
def refusing(monkeypatch):
    """Make folders refuse files without a name, whoever asks; returns which are named."""

    def refuse(*folders):
        really = os.open

        def opened(path, flags, *mode, **more):
            if flags & os.O_TMPFILE == os.O_TMPFILE and str(path) in map(str, folders):
                raise OSError(errno.EACCES, os.strerror(errno.EACCES), path)
            return really(path, flags, *mode, **more)

        monkeypatch.setattr(os, "open", opened)

    return refuse


@pytest.fixture
def elsewhere(monkeypatch):
    def be(*folders):
        monkeypatch.setattr("zctrace.workloads.runner._ELSEWHERE", tuple(map(str, folders)))

    return be


@pytest.fixture
def run_once(payload):
    """Perform a strategy once with controls, in this process."""
    runners = []

    def run(name):
        runner = Runner({"": payload}, sizes=[SIZE])
        runners.append(runner)
        return runner.run(strategy_named(name))

    yield run
    for runner in runners:
        runner.close()


def other_disk(tmp_path):
    folder = Path("/dev/shm")
    if folder.stat().st_dev == tmp_path.stat().st_dev or not os.access(folder, os.W_OK):
        pytest.skip("no second file system to write to")
    return folder


def test_controls_go_elsewhere_where_they_may_not_write(
    payload, tmp_path, refusing, elsewhere, run_once
):
    refusing(payload.parent)
    elsewhere(other_disk(tmp_path))
    outcome = run_once("sendfile")
    assert outcome.received == SIZE
    # There is none of the disk then, and everything else is as it was.
    assert outcome.controls.expected == total(stimuli(disk=False))
    assert DISK_READ_CONTROL not in outcome.controls.expected.moved
    assert outcome.controls.neighbour.moved


def test_controls_prefer_the_payload_s_own_disk(
    payload, tmp_path, refusing, elsewhere, run_once
):
    (beside := tmp_path / "beside").mkdir()
    refusing(payload.parent)
    elsewhere(other_disk(tmp_path), beside)
    assert run_once("sendfile").controls.expected == total(stimuli())


@pytest.mark.parametrize("left", [0, PAGE, None])
def test_of_a_cold_payload_it_is_said_what_was_left(payload, monkeypatch, left):
    monkeypatch.setattr(cache, "resident_bytes", lambda file, size: left)
    runner = Runner({"": payload}, sizes=[SIZE], controls=False, cold=True)
    try:
        account = runner.run(strategy_named("sendfile")).to_json()["account"]
    finally:
        runner.close()
    assert account.get("resident_bytes") == left


def test_the_kernel_s_account_is_the_same_on_the_other_side():
    whole = KernelAccount(*range(1, 1 + len(dataclasses.fields(KernelAccount))))
    assert KernelAccount.from_json(json.loads(json.dumps(whole.to_json()))) == whole
    assert KernelAccount.from_json({}) == KernelAccount()
    with pytest.raises(ValueError, match=r"no account of resident_byte$"):
        KernelAccount.from_json({"resident_byte": 1})


def test_what_a_run_did_is_the_same_on_the_other_side(run_once):
    outcome = run_once("sendfile")
    line = json.dumps({"strategy": "sendfile", **outcome.to_json()})
    assert Outcome.from_json(json.loads(line)) == outcome


@pytest.mark.parametrize("name", ["copied:k2u", "copy-to-iter:k2", "copy-to-iter", "read"])
def test_known_amounts_of_what_nobody_knows_are_refused(name):
    with pytest.raises(ValueError, match="is not a valid"):
        Known.from_json({name: 1})


def test_two_accounts_together_say_what_either_does():
    both = KernelAccount(resident_bytes=1) | KernelAccount(retransmitted_bytes=0)
    assert both == KernelAccount(resident_bytes=1, retransmitted_bytes=0)


def test_where_nothing_can_be_written_the_controls_say_so(
    payload, tmp_path, refusing, elsewhere, run_once
):
    refusing(payload.parent)
    elsewhere(tmp_path / "nowhere")
    with pytest.raises(OSError, match=os.strerror(errno.EACCES)):
        run_once("sendfile")


@pytest.mark.parametrize("name", ["sendfile-file", "copy-file-range", "reflink", "recv-splice"])
def test_what_writes_beside_the_payload_is_not_possible_there(
    payload, refusing, run_once, name
):
    refusing(payload.parent)
    assert run_once(name).unavailable == (
        f"makes a file in the payload's folder, {payload.parent}: {os.strerror(errno.EACCES)}"
    )


def test_a_link_s_controls_are_beside_the_file(payload, tmp_path):
    (folder := tmp_path / "links").mkdir()
    (folder / "payload").symlink_to(payload)
    runner = Runner({"": folder / "payload"}, sizes=[SIZE])
    try:
        [at] = runner._payloads.values()
        assert at.workshop == str(payload.parent)
        assert at.same_disk
        assert not at.refused
    finally:
        runner.close()


def test_the_smallest_file_says_how_much(payload, tmp_path):
    (tmp_path / "small").write_bytes(b"x" * 1009)
    files = [f"--file=ext4={payload}", f"--file=xfs={tmp_path / 'small'}"]
    assert outcome("sendfile", *files)["received"] == 1009


@pytest.mark.parametrize("extra", [(), ("--chunk", "4099")])
def test_over_loopback_every_zero_copy_send_is_copied(payload, extra):
    account = outcome("msg-zerocopy", "--file", payload, *extra)["account"]
    sends = -(-SIZE // 4099) if extra else 1
    assert account.pop("retransmitted_bytes") >= 0
    assert account == {"zerocopy_sends": sends, "zerocopy_copied": sends}


def test_sends_wait_where_little_may_be_pinned(payload):
    import resource

    def limit():
        resource.setrlimit(resource.RLIMIT_MEMLOCK, (16 * PAGE, 16 * PAGE))

    for name in ("msg-zerocopy", "io-uring-zc"):
        account = outcome(name, "--file", payload, preexec_fn=limit)["account"]
        # Half of 16 pages, less the two that the kernel adds.
        assert account["zerocopy_sends"] >= SIZE / (6 * PAGE)


def test_a_zero_copy_send_is_refused_for_a_while(payload, monkeypatch):
    """First with nothing to wait for: less is sent. Then with completions outstanding."""
    send, asked = libc.send, []

    def refuse(fd, address, count, flags):
        asked.append(count)
        if len(asked) in (1, 3):
            raise OSError(errno.ENOBUFS, os.strerror(errno.ENOBUFS))
        return send(fd, address, count, flags)

    strategy = strategy_named("msg-zerocopy")
    with (
        socket.create_server(("127.0.0.1", 0)) as listener,
        socket.create_connection(listener.getsockname()) as near,
        payload.open() as file,
    ):
        far, _ = listener.accept()
        transfer = strategy.prepare(Task(file.fileno(), near.fileno(), 10 * PAGE, 4 * PAGE))
        monkeypatch.setattr(libc, "send", refuse)
        transfer.run()
        transfer.close()
        near.close()
        with far, far.makefile("rb") as received:
            assert received.read() == payload.read_bytes()[: 10 * PAGE]
    assert asked == [4 * PAGE, *[2 * PAGE] * 6]
    assert transfer.account() == KernelAccount(zerocopy_sends=5, zerocopy_copied=5)


def test_io_uring_tells_of_copies_where_it_can(payload):
    account = outcome("io-uring-zc", "--file", payload)["account"]
    assert account["zerocopy_sends"] >= 1
    assert account.get("zerocopy_copied") in (None, account["zerocopy_sends"])


def test_most_of_the_payload_is_mapped(payload):
    account = outcome("tcp-zerocopy-receive", "--file", payload)["account"]
    assert sum(account.values()) == SIZE
    assert account["mapped_bytes"] % PAGE == 0
    assert account["mapped_bytes"] > SIZE // 2


def test_a_file_system_that_cannot():
    with open("/proc/self/status") as file:
        assert "refuses O_DIRECT" in strategy_named("direct-io").unavailable(file.fileno())


@pytest.mark.parametrize(
    ("code", "reason"), [(errno.ENOSYS, "has no io_uring"), (errno.EPERM, "io_uring_disabled")]
)
def test_a_kernel_that_refuses_io_uring(monkeypatch, code, reason):
    def refuse(*_):
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(libc, "syscall", refuse)
    for name in ("io-uring", "io-uring-zc"):
        strategy = strategy_named(name)
        assert reason in strategy.unavailable(-1)
        assert strategy.scope is Scope.PROCESS


@pytest.mark.skipif(bool(ring.refusal()), reason=ring.refusal())
def test_a_kernel_without_send_zc(monkeypatch):
    monkeypatch.setattr(ring.Ring, "supports", lambda self, operation: False)
    assert "SEND_ZC" in strategy_named("io-uring-zc").unavailable(-1)
    assert strategy_named("io-uring").unavailable(-1) == ""


@pytest.mark.parametrize("name", NAMES)
def test_a_payload_that_ends_early(tmp_path, name):
    """The transfer says so; through a mapping, the kernel does."""
    file, out = tmp_path / "payload", tmp_path / "out"
    file.write_bytes(b"x" * 5003)
    strategy = strategy_named(name)
    with (
        socket.create_server(("127.0.0.1", 0)) as listener,
        socket.create_connection(listener.getsockname()) as near,
        file.open() as source,
        out.open("wb") as target,
    ):
        far, _ = listener.accept()
        far.sendall(b"x" * 5003)
        far.shutdown(socket.SHUT_WR)
        if reason := strategy.unavailable(source.fileno()):
            pytest.skip(reason)
        source.seek(0)
        task = Task(source.fileno(), near.fileno(), 20011, 4099, out=target.fileno())
        transfer = strategy.prepare(task)
        with far, pytest.raises((EOFError, OSError)) as caught:
            transfer.run()
        transfer.close()
    if "mmap(file)" in strategy.summary:
        assert caught.value.errno == errno.EFAULT
    else:
        assert isinstance(caught.value, EOFError)


@pytest.mark.parametrize("name", ["sendfile", "sendfile-file", "recv", "recv-splice"])
@pytest.mark.parametrize("fault", ["other bytes", "fewer bytes"])
def test_a_payload_that_arrives_damaged(payload, monkeypatch, name, fault):
    strategy = strategy_named(name)
    prepare = type(strategy).prepare

    def damaged(self, task):
        if task.size == 5003 and fault == "other bytes":
            payload.write_bytes(b"y" * SIZE)
        elif task.size == 5003:
            object.__setattr__(task, "size", 5000)
        return prepare(self, task)

    monkeypatch.setattr(type(strategy), "prepare", damaged)
    runner = Runner({"": payload}, sizes=[5003], controls=False)
    with pytest.raises(PayloadError, match="sent 5003 bytes"):
        runner.run(strategy)
    runner.close()


def test_a_file_that_is_too_short(payload):
    result = workload("sendfile", "--file", payload, "--size", "16M")
    assert result.returncode == 1
    assert "shorter" in result.stderr


def test_a_file_that_is_not_there(tmp_path):
    result = workload("sendfile", "--file", tmp_path / "absent")
    assert (result.returncode, result.stdout) == (1, "")


def test_the_tracer_going_away_ends_it(payload):
    result = workload("sendfile", "--file", payload, "--handshake", input="go\n")
    assert result.returncode == 1
    assert set(json.loads(result.stdout)["pids"]) == {"sender", "sink", "source"}


def test_no_process_is_left(payload):
    result = workload(
        "sendfile", "--file", payload, "--handshake", "--controls", input="go\ngo\n"
    )
    pids = json.loads(result.stdout.splitlines()[0])["pids"]
    assert set(pids) == {"sender", "sink", "source", "neighbour"}
    assert not [pid for pid in pids.values() if Path(f"/proc/{pid}").exists()]


def test_nothing_to_move(tmp_path):
    (tmp_path / "empty").touch()
    result = workload("sendfile", "--file", tmp_path / "empty")
    assert (result.returncode, "nothing to move" in result.stderr) == (1, True)


def test_a_neighbour_that_fails_ends_the_run(payload, monkeypatch, capfd):
    from zctrace.workloads import control_stimuli

    def broken(self):
        raise OSError("no such luck")

    monkeypatch.setattr(control_stimuli.FileWriteAndRead, "run", broken)
    runner = Runner({"": payload}, sizes=[100])
    monkeypatch.undo()  # the neighbour has been forked already, with the fault
    with pytest.raises(OSError, match="the neighbouring process failed"):
        runner.run(strategy_named("sendfile"))
    runner.close()
    assert "no such luck" in capfd.readouterr().err


def test_unknown_names():
    with pytest.raises(KeyError):
        strategy_named("nonsense")
    assert workload("nonsense", "--file", "/dev/null").returncode == 2


def test_known_amounts_are_primes_on_both_sides_of_64():
    from zctrace.workloads import control_stimuli

    sizes = [
        *control_stimuli.PipeWriteAndRead._SIZES,
        *control_stimuli.FileWriteAndRead._WRITTEN,
        *control_stimuli.FileWriteAndRead._READ,
        control_stimuli.SpliceIntoFile._SIZE,
        control_stimuli.SpliceOutOfSocket._SIZE,
        *control_stimuli.TcpSendAndReceive._SIZES,
        control_stimuli.FilteredDatagram._SIZE,
        control_stimuli.FilteredDatagram.expected[control_stimuli.PACKET_BITS],
        control_stimuli.RefusedDatagram._PAYLOAD,
        control_stimuli.RefusedDatagram.expected[control_stimuli.CHECKSUMMED],
        control_stimuli.LoopedZerocopy._SIZE,
    ]
    assert all(all(n % d for d in range(2, int(n**0.5) + 1)) for n in sizes)
    assert min(sizes) < 64 < max(sizes)


@pytest.mark.skipif(not shutil.which("strace"), reason="needs strace: apt-get install strace")
@pytest.mark.parametrize(
    ("name", "calls"),
    [
        ("read-write", ["read", "write"]),
        ("mmap-write", ["mmap", "write"]),
        ("sendfile", ["sendfile"]),
        ("msg-zerocopy", ["mmap", "sendto", "poll", "recvmsg"]),
        ("copy-file-range", ["copy_file_range"]),
        ("sendfile-file", ["sendfile"]),
    ],
)
def test_the_window_holds_the_transfer_and_nothing_else(payload, tmp_path, name, calls):
    """An independent tracer sees the same system calls between the markers."""
    log = tmp_path / "strace"
    command = [sys.executable, "-m", "zctrace.workloads", name, "--file", str(payload)]
    subprocess.run(
        ["strace", "-qq", "-o", log, *command], cwd=ROOT, check=True, stdout=subprocess.DEVNULL
    )
    lines = [line.split("(")[0] for line in log.read_text().splitlines()]
    marks = [i for i, t in enumerate(log.read_text().splitlines()) if "0x7a637472" in t]
    first, last = marks[0], marks[1]
    assert lines[first + 1 : last] == calls


@pytest.mark.parametrize("staged", [False, True], ids=["checkout", "staged"])
def test_the_environment_is_not_needed(payload, tmp_path, staged):
    """Nor, in a copy as the tracer makes it, any package that is installed."""
    package = staging.stage(tmp_path) / "zctrace" if staged else ROOT / "tracer"
    result = subprocess.run(
        [
            *(sys.executable, "-I", *(["-S"] if staged else [])),
            *(package / "collect" / "isolated.py", "zctrace.workloads"),
            *("sendfile", "--file", payload),
        ],
        cwd="/",
        env={"PATH": os.defpath},
        capture_output=True,
        text=True,
    )
    assert json.loads(result.stdout)["strategy"] == "sendfile", result.stderr


def test_a_staged_copy_starts_its_modules_without_packages(tmp_path):
    code = staging.stage(tmp_path)
    text = "from zctrace.collect import describe; print(*describe.isolated('a.module'))"
    result = subprocess.run(
        [sys.executable, "-c", f"import sys; sys.path.insert(0, {str(code)!r}); {text}"],
        cwd="/", capture_output=True, text=True,
    )  # fmt: skip
    _, *words = result.stdout.split()
    assert words == ["-I", "-S", f"{code}/zctrace/collect/isolated.py", "a.module"]


def test_a_mapping_begins_behind_a_multiple_of_64_kib(payload):
    from zctrace.workloads.strategies.mmap_write import MmapWrite

    with payload.open() as file, open(os.devnull, "wb") as sink:
        transfer = MmapWrite().prepare(Task(file.fileno(), sink.fileno(), 1_000_000))
        transfer.run()
        assert transfer._mapping._address % 65536 == 4096
        transfer.close()


def test_no_child_reads_a_seed():
    """Where ``random`` is imported, each child that is forked has the kernel copy 2496 B."""
    script = (
        f"import sys; sys.path.insert(0, {str(link())!r}); import zctrace.workloads.__main__; "
        "print('random' in sys.modules)"
    )
    # Without site packages, which import more.
    command = [sys.executable, "-I", "-S", "-c", script]
    result = subprocess.run(command, capture_output=True, text=True)
    assert result.stdout == "False\n", result.stderr
