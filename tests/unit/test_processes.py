"""Processes, and our own priority among them."""

import os
import socket
import subprocess
import threading
from collections import namedtuple
from types import SimpleNamespace

import pytest

from tests.conftest import or_skip, recorded_evidence
from zctrace.collect import launcher, processes, subjects, threads
from zctrace.collect.program import Tracer
from zctrace.errors import WorkloadError
from zctrace.evidence.schema import Subject

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


def test_a_thread_is_no_process():
    go = threading.Event()
    thread = threading.Thread(target=go.wait)
    thread.start()
    try:
        found = processes.numbers()
        # The kernel answers for it all the same, as if it were one.
        assert processes.alive(thread.native_id)
        assert os.getpid() in found
        assert thread.native_id not in found
    finally:
        go.set()
        thread.join()


def test_a_thread_of_a_program_in_its_cgroup_is_not_outside_of_it(tmp_path):
    (tmp_path / "cgroup.procs").write_text(f"{os.getpid()}\n")
    go = threading.Event()
    thread = threading.Thread(target=go.wait)
    thread.start()
    try:
        assert threads.outside({os.getpid(), thread.native_id}, tmp_path) == 0
        assert threads.outside({os.getpid(), os.getppid()}, tmp_path) == 1
    finally:
        go.set()
        thread.join()


Key = namedtuple("Key", "value")


class Windows(dict):
    """The meter's, of which a process that is counted starts another one while it is read."""

    started = None

    def items(self):
        found = list(super().items())
        if self.started:
            self[Key(self.started)] = SimpleNamespace(opener=0)
            self.started = None
        return found


def test_windows_are_not_open_before_they_are_gone():
    """A window that a fork adds meanwhile is told, too. One that was never open is not."""
    windows = Windows()
    windows.started = 13
    for number, opener in ((11, 0), (12, threads.ABOUT_TO_OPEN)):
        windows[Key(number)] = SimpleNamespace(opener=opener)
    assert threads.not_open(windows) == {11, 13}
    assert [window.opener for window in windows.values()] == [threads.ABOUT_TO_OPEN] * 3


def test_controls_without_loopback_say_what_to_do():
    """As in a network namespace in which nobody has configured anything."""
    near, far = socket.socketpair()
    with near, far, subprocess.Popen(["true"]) as process:
        far.sendall(b'{"error": "[Errno 101] Network is unreachable"}\n')
        with pytest.raises(WorkloadError, match="the self-tests failed") as caught:
            launcher.Launcher(process, near).control()
    assert caught.value.hint == "ip link set lo up"


def test_a_program_that_starts_others_faster_than_we_look_is_traced(monkeypatch):
    """Those it starts have its window: only who was started before needs one of its own."""
    request = recorded_evidence("6.1").request
    windows, looks = {}, []
    meter = SimpleNamespace(
        has_window=lambda pid: pid > 100 or pid in windows,
        open_window=lambda pid, role, scope: windows.update({pid: scope}),
    )

    def there(subject):
        looks.append(101 + len(looks))
        assert len(looks) < 10
        return {7, *([8] if windows else []), looks[-1]}

    tracer = Tracer(request, meter, "/ours", [], {}, lambda: False, lambda step: None)
    monkeypatch.setattr(subjects, "there", there)
    monkeypatch.setattr(tracer, "_wait", lambda *_: "exited")
    monkeypatch.setattr(tracer, "_close", lambda: None)
    monkeypatch.setattr(subjects, "rights", lambda pids: {})
    assert tracer._opened(Subject(), None, "scope", {7}).ended == "exited"
    assert windows == {7: "scope", 8: "scope"}


def test_a_window_that_is_about_to_open_is_not_open():
    class Windows(dict):
        Key = int

    open_, later = SimpleNamespace(opener=3), SimpleNamespace(opener=threads.ABOUT_TO_OPEN)
    windows = Windows({1: open_, 2: later})
    assert [threads.is_open(windows, pid) for pid in (1, 2, 3)] == [True, False, False]
