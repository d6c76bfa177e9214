"""Events of the kernel's own."""

import os
from contextlib import ExitStack

import pytest

from tests.conftest import or_skip
from zctrace.kernel import perf_events


@pytest.fixture
def witnesses():
    """One for each processor."""
    with ExitStack() as stack:
        events = []
        for cpu in perf_events.online_cpus():
            try:
                events.append(perf_events.open_witness(cpu))
            except OSError as error:
                or_skip(f"an event for a whole processor needs root: {error}")
            stack.callback(os.close, events[-1])
        yield events


def test_a_processor_that_stays_online_keeps_its_events(witnesses):
    assert perf_events.stopped(witnesses) == 0


def test_an_event_that_is_enabled_no_longer_is_noticed(witnesses):
    """As the kernel leaves them behind when their processor goes offline."""
    perf_events.disable(witnesses[0])
    assert perf_events.stopped(witnesses) == 1
    perf_events.enable(witnesses[0])
    assert perf_events.stopped(witnesses) == 0
