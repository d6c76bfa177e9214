"""Events of the kernel's own."""

import os
import time
from pathlib import Path

import pytest

from zctrace.kernel import perf_events

_SECONDS = 30
"""For a thread to have begun to sleep, on a busy machine."""


@pytest.fixture
def opened(monkeypatch):
    """What the kernel is asked for: attributes, thread, processor."""
    asked = []

    def pretend(attributes, thread, cpu, flags):
        asked.append((attributes, thread, cpu))
        return 7

    monkeypatch.setattr(perf_events, "_open", pretend)
    monkeypatch.setattr(perf_events, "_pmu_type", lambda name: 6)
    return asked


def state_of(thread):
    text = Path(f"/proc/self/task/{thread}/stat").read_text()
    return text.rpartition(")")[2].split()[0]


def test_probes_and_tracepoints_are_no_processor_s(opened, monkeypatch, tmp_path):
    """The kernel takes a processor's events off and on at every switch between cgroups."""
    folder = tmp_path / "sched" / "sched_switch"
    folder.mkdir(parents=True)
    (folder / "id").write_text("316\n")
    monkeypatch.setattr(perf_events, "EVENTS", (tmp_path / "missing", tmp_path))
    assert perf_events.open_kprobe(0x1234) == 7
    assert perf_events.open_kprobe(0x1234, at_return=True) == 7
    assert perf_events.open_tracepoint("sched:sched_switch") == 7
    threads = {thread for _, thread, _ in opened}
    assert [cpu for *_, cpu in opened] == [-1, -1, -1]
    assert [found.config for found, *_ in opened] == [0, 1, 316]
    assert len(threads) == 1
    (parked,) = threads
    assert parked != os.getpid()
    deadline = time.monotonic() + _SECONDS
    while state_of(parked) != "S":
        assert time.monotonic() < deadline, "it sleeps"


def test_a_tracepoint_that_is_not_there_is_an_error(monkeypatch, tmp_path):
    monkeypatch.setattr(perf_events, "EVENTS", (tmp_path,))
    with pytest.raises(FileNotFoundError, match="sched_switch"):
        perf_events.open_tracepoint("sched:sched_switch")


@pytest.mark.parametrize(
    "ask",
    [
        lambda: perf_events.open_breakpoint(0x1234, cgroup=3, cpu=1),
        lambda: perf_events.open_breakpoint(0x1234, cpu=1),
        lambda: perf_events.open_kprobe_counter(0x1234, 1),
    ],
)
def test_what_is_read_is_pinned(opened, ask):
    """An event that is not pinned may be left out for a while, and nothing tells."""
    assert ask() == 7
    ((attributes, _, cpu),) = opened
    assert attributes.flags == perf_events._DISABLED | perf_events._PINNED
    assert cpu == 1


@pytest.mark.parametrize(
    ("content", "reading"),
    [
        ((5).to_bytes(8, "little"), perf_events.Reading(5, armed=True)),
        (b"", perf_events.Reading(0, armed=False)),
    ],
)
def test_of_one_that_could_not_be_armed_nothing_can_be_read(monkeypatch, content, reading):
    monkeypatch.setattr(perf_events.os, "read", lambda event, size: content)
    assert perf_events.read(7) == reading
