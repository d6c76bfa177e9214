"""Processes, and our own priority among them."""

import os

import pytest

from tests.conftest import or_skip
from zctrace.collect import processes

CHEAP = os.SCHED_BATCH


def test_nobody_is_before_us_meanwhile_and_all_is_as_it_was_then():
    os.sched_setscheduler(0, CHEAP, os.sched_param(0))
    try:
        with processes.before_others():
            inside = os.sched_getscheduler(0)
        assert os.sched_getscheduler(0) == CHEAP
    finally:
        os.sched_setscheduler(0, os.SCHED_OTHER, os.sched_param(0))
    if inside != os.SCHED_FIFO:
        or_skip("threads of a fixed priority need root")


def test_where_it_is_not_allowed_it_is_done_all_the_same(monkeypatch):
    def refuse(*_):
        raise PermissionError

    monkeypatch.setattr(os, "sched_setscheduler", refuse)
    with processes.before_others():
        reached = True
    assert reached


def test_an_error_leaves_nothing_behind():
    with pytest.raises(KeyError), processes.before_others():
        raise KeyError
    assert os.sched_getscheduler(0) == os.SCHED_OTHER
