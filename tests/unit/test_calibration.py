"""What zctrace costs on a machine: timed, and said."""

import dataclasses
import json
import os

import pytest

from tests.conftest import HERE
from tests.unit.altering import count
from zctrace.analysis.lines import Line
from zctrace.collect import calibration
from zctrace.collect.calibration import Calibration
from zctrace.evidence.schema import Evidence, Price
from zctrace.reports import costs
from zctrace.workloads.marker import Role, Scope


class Meter:
    """Notes what it is asked, and who the cgroup has by then."""

    def __init__(self, cgroup):
        self.cgroup, self.asked, self.process = cgroup, [], 0

    def open_window(self, process, role, scope):
        self.process = process
        member = int((self.cgroup / "cgroup.procs").read_text())
        os.kill(process, 0)
        self.asked.append(("open", process == member, role, scope))

    def __getattr__(self, name):
        return lambda: self.asked.append(name)


@pytest.fixture
def timed(monkeypatch):
    """What calls are said to take: without the meter, in a window and outside of any."""
    values = iter([(100.0, 300.0), (140.0, 390.0)])
    monkeypatch.setattr(calibration, "_timed", lambda: next(values))
    monkeypatch.setattr(calibration, "_nanoseconds_of_a_byte", lambda: 0.25)


@pytest.mark.parametrize(
    ("inside", "expected"),
    [
        ((1100.0, 2300.0), Price(1000.0, 1000.0, 40.0, 0.25)),
        ((90.0, 310.0), Price(0.0, 20.0, 40.0, 0.25)),
    ],
)
def test_what_calls_take_longer_is_the_price(monkeypatch, timed, tmp_path, inside, expected):
    """No less than nothing: on a busy machine less is an accident."""
    monkeypatch.setattr(calibration, "_in_window", lambda meter, cgroup: inside)
    assert Calibration().price(None, tmp_path) == expected


def test_a_process_in_the_cgroup_times_its_calls_in_a_window(tmp_path):
    meter = Meter(tmp_path)
    call, copy = calibration._in_window(meter, tmp_path)
    assert 0 < call < copy
    first, *rest = meter.asked
    assert first == ("open", True, Role.PROGRAM, Scope.PROCESS)
    assert rest == ["activate", "deactivate", "close_windows"]
    with pytest.raises(ChildProcessError):
        os.waitpid(meter.process, os.WNOHANG)


@pytest.fixture
def recorded_trace():
    text = (HERE / "evidence" / "programs-6.1.json").read_text()
    return Evidence.from_json(json.loads(text)["cat"]).trace


def test_the_price_is_said_of_the_program_s_calls_and_copies(recorded_trace):
    counts = (
        count(
            "program", "raw_syscalls:sys_enter", 0, quantity="syscall-enter", calls=2_000_000
        ),
        count("program", "a", 9, quantity="user-copy-routine", calls=1_000_000),
        count("neighbour", "a", 9, quantity="user-copy-routine", calls=1_000_000),
    )
    run = dataclasses.replace(recorded_trace.run, counts=counts)
    trace = dataclasses.replace(recorded_trace, run=run, seconds=10.0)
    said = costs.of_tracing(trace, Price(250.0, 500.0, 90.0), "host")
    assert said == (
        "Overhead, estimated from timings before the trace: 1 s, 10.0 % of one CPU. Each "
        "system call of the program takes 0.25 µs longer, each copy 0.50 µs. Each system call "
        "of another program takes 0.09 µs longer."
    )
    own = costs.of_tracing(trace, Price(250.0, 500.0, 90.0, own_copy=1500.0), "host")
    assert own == (
        f"{said} Each call of a function that is watched in programs' own memory takes 1.50 µs "
        "longer, in every program."
    )
    emulated = costs.of_tracing(trace, Price(250.0, 500.0, 90.0), "qemu-tcg")
    assert emulated == f"{said} Times of an emulated machine do not apply to real hardware."


def test_a_call_in_our_own_memory_is_timed():
    assert 0 < calibration.of_own_copy() < 1e6


def test_a_byte_is_timed():
    assert 0 < calibration._nanoseconds_of_a_byte() < 1000


@pytest.mark.parametrize(
    ("cpu", "share"), [(8.0, ", 25% of the program's 8 s"), (None, ""), (1.0, ""), (0.0, "")]
)
def test_what_copies_took_is_said(recorded_trace, cpu, share):
    """Of CPU time that is not known, or is less than that, no share is said."""
    trace = dataclasses.replace(recorded_trace, cpu_seconds=cpu)
    price = Price(250.0, 500.0, 90.0, 0.5)
    said = costs.of_copies(trace, price, 4_000_000_000, "host")
    assert said == (
        "Copies, estimated from a timing before the trace: 2 s of CPU time (0.5 ns per byte)"
        f"{share}."
    )
    lines = [Line("write"), Line("read"), Line("close")]
    for one, size in zip(lines, (3_000_000_000, 1_000_000_000, 7), strict=True):
        one.copied[None] = size
    by_call = costs.of_copies(trace, price, 4_000_000_000, "host", lines)
    assert " s by write(2), " in by_call
    assert "close" not in by_call
    emulated = costs.of_copies(trace, price, 4_000_000_000, "qemu-tcg")
    assert emulated.startswith(said)
    assert emulated.endswith("do not apply to real hardware.")


def test_what_was_not_timed_is_not_said(recorded_trace):
    """Results that were saved before have no time of a byte."""
    assert costs.of_copies(recorded_trace, Price(1.0, 1.0, 1.0), 1000, "host") == ""
    assert costs.of_copies(recorded_trace, Price(1.0, 1.0, 1.0, 1.0), 0, "host") == ""
