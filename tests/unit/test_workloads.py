"""The strategies run alone, without a tracer and without root."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from workloads.catalogue import STRATEGIES, strategy_named
from workloads.exercise import stimuli
from workloads.peers import total

ROOT = Path(__file__).parents[2]
NAMES = [strategy.name for strategy in STRATEGIES]


@pytest.fixture
def payload(tmp_path):
    file = tmp_path / "payload"
    file.write_bytes(bytes(range(251)) * 4178)
    return file


def workload(*arguments, **options):
    return subprocess.run(
        [sys.executable, "-m", "workloads", *map(str, arguments)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=60,
        **options,
    )


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("extra", [(), ("--chunk", "4099"), ("--size", "1")])
def test_every_byte_arrives(payload, name, extra):
    result = workload(name, "--file", payload, *extra)
    assert result.stderr == ""
    size = 1 if "1" in extra else payload.stat().st_size
    assert json.loads(result.stdout)["received"] == size


def test_a_larger_pipe(payload):
    assert workload("splice", "--file", payload, "--pipe-size", "256K").returncode == 0


def test_repeated_with_controls(payload):
    result = workload(*NAMES, "--file", payload, "--controls", "--repeat", 2)
    lines = [json.loads(line) for line in result.stdout.splitlines()]
    assert [line["strategy"] for line in lines] == [n for n in NAMES for _ in range(2)]
    assert all(line["expected"] == total(stimuli()) for line in lines)


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
    assert set(json.loads(result.stdout)["pids"]) == {"sender", "sink"}


def test_no_process_is_left(payload):
    result = workload(
        "sendfile", "--file", payload, "--handshake", "--controls", input="go\ngo\n"
    )
    pids = json.loads(result.stdout.splitlines()[0])["pids"]
    assert set(pids) == {"sender", "sink", "neighbour"}
    assert not [pid for pid in pids.values() if Path(f"/proc/{pid}").exists()]


def test_nothing_to_move(tmp_path):
    (tmp_path / "empty").touch()
    result = workload("sendfile", "--file", tmp_path / "empty")
    assert (result.returncode, "nothing to move" in result.stderr) == (1, True)


def test_a_neighbour_that_fails_ends_the_run(payload, monkeypatch, capfd):
    from workloads import exercise
    from workloads.run import Runner

    def broken(self):
        raise OSError("no such luck")

    monkeypatch.setattr(exercise.FileWrite, "run", broken)
    runner = Runner(payload, size=100)
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
    from workloads import exercise

    sizes = [
        *exercise.PipeWriteAndRead._SIZES,
        *exercise.FileWrite._SIZES,
        exercise.FilteredDatagram._SIZE,
        exercise.FilteredDatagram.expected["skb-copy-bits"],
        exercise.RefusedDatagram.expected["skb-copy-and-csum-bits"],
        exercise.LoopedZerocopy._SIZE,
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
    ],
)
def test_the_window_holds_the_transfer_and_nothing_else(payload, tmp_path, name, calls):
    """An independent tracer sees the same system calls between the markers."""
    log = tmp_path / "strace"
    command = [sys.executable, "-m", "workloads", name, "--file", str(payload)]
    subprocess.run(
        ["strace", "-qq", "-o", log, *command], cwd=ROOT, check=True, stdout=subprocess.DEVNULL
    )
    lines = [line.split("(")[0] for line in log.read_text().splitlines()]
    marks = [i for i, t in enumerate(log.read_text().splitlines()) if "0x7a637472" in t]
    first, last = marks[0], marks[1]
    assert lines[first + 1 : last] == calls


def test_the_environment_is_not_needed(payload):
    isolated = [sys.executable, "-I", str(ROOT / "tracer" / "isolated.py"), "workloads"]
    result = subprocess.run(
        [*isolated, "sendfile", "--file", payload],
        cwd="/",
        env={"PATH": os.defpath},
        capture_output=True,
        text=True,
    )
    assert json.loads(result.stdout)["strategy"] == "sendfile"


def test_a_mapping_begins_behind_a_multiple_of_64_kib(payload):
    from workloads.mmap_write import MmapWrite
    from workloads.strategy import Task

    with payload.open() as file, open(os.devnull, "wb") as sink:
        transfer = MmapWrite().prepare(Task(file.fileno(), sink.fileno(), 1_000_000))
        transfer.run()
        assert transfer._address % 65536 == 4096
        transfer.close()
