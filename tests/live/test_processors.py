"""Programs on several processors at once, on a real kernel; and processors that go off."""

import pytest

from tests.live import scale_workload, suites
from tests.live.test_programs import copied, moved, thing

LINES = ("6.1",)


@pytest.fixture(params=LINES, scope="module")
def traced(request, traced_on):
    """The answers of one kernel, by program."""
    return traced_on(
        request.param, ("under_way", "several_processors"), processors=suites.MORE_PROCESSORS
    ).answers


def test_the_controls_of_all_pass(traced):
    assert {name: found.failed for name, found in traced.items() if found.failed} == {}


def test_threads_that_run_at_once_are_counted_to_the_byte(traced):
    found, many = traced["threads"], scale_workload.total(*suites.THREADS)
    assert moved(found, "socket") == {"in": many, "out": many}
    assert copied(found, "socket") == {"u2k": many, "k2u": many}
    assert found.doubts == ()


def test_a_copy_under_way_when_tracing_begins_or_ends_is_counted_wholly_or_not_at_all(traced):
    most = 2 * suites.READERS * suites.PIECE
    for number in range(suites.ATTACHED):
        found = traced[f"busy {number}"]
        assert found.doubts == ()
        payload = thing(found, "/ext4/payload")
        assert set(payload.copied) == {"k2u"}
        # Of calls that end later there are copies; of those that began before, neither.
        assert 0 <= payload.copied["k2u"] - payload.received <= most
        assert payload.received >= suites.PIECE


def test_a_storm_of_forks_is_counted(traced):
    found = traced["storm"]
    calls = sum(
        c.calls
        for c in found.trace.run.counts
        if (c.role, c.syscall, c.quantity) == ("program", "exit_group", "syscall-enter")
    )
    assert calls == suites.FORKS + 1
    assert found.doubts == ()


def test_a_processor_that_goes_off_and_on_is_told(traced):
    found = traced["off and on"]
    assert any("a CPU went offline or online" in doubt for doubt in found.doubts)


def test_what_comes_back_is_watched_again(traced):
    found = traced["on again"]
    assert thing(found, "/ext4/payload").copied == {"k2u": suites.PIECE}
    assert found.doubts == ()
