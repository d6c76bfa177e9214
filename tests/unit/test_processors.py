"""Processors that go off and come back; and how many files may be open for them."""

import errno
import json
import subprocess
import sys
from types import SimpleNamespace

import pytest

from zctrace.collect import attaching
from zctrace.collect.processors import Processors
from zctrace.errors import ResourceError, TraceError
from zctrace.kernel import perf_events


class Table(dict):
    """The meter's: keys are told as ctypes has them."""

    def __iter__(self):
        return (SimpleNamespace(value=key) for key in self.keys())


@pytest.fixture
def online(monkeypatch):
    """Which processors are; a test changes it."""
    now = [0, 1, 2, 3]
    monkeypatch.setattr(perf_events, "online_cpus", lambda: list(now))
    return now


def test_nothing_has_changed(online):
    processors = Processors(Table())
    processors.note()
    assert (processors.have_changed(), processors.unwatched) == (False, set())


def test_one_that_went_off_and_came_back_has_lost_its_events(online):
    changes = Table()
    processors = Processors(changes)
    changes[2] = 1
    processors.note()
    assert processors.unwatched == {2}
    assert processors.have_changed()
    assert not processors.have_changed()
    assert processors.online == {0, 1, 2, 3}


@pytest.mark.parametrize(("now", "changed"), [([0, 1], {2, 3}), ([0, 1, 2, 3, 4], {4})])
def test_others_than_those_that_are_watched_are_noted(online, now, changed):
    processors = Processors(Table())
    online[:] = now
    processors.note()
    assert processors.unwatched == changed
    assert processors.have_changed()
    assert processors.online == set(now)


def test_what_changed_before_it_counts_is_no_loss(online):
    changes = Table()
    processors = Processors(changes)
    changes[1] = 1
    assert processors.have_changed()
    processors.note()
    assert processors.unwatched == set()


LIMITS = """
import json, resource, subprocess, sys
before = (64, resource.getrlimit(resource.RLIMIT_NOFILE)[1])
resource.setrlimit(resource.RLIMIT_NOFILE, before)
from zctrace.collect import open_files
open_files.raise_limit()
child = subprocess.Popen(["sleep", "60"])
open_files.limit_as_found(child.pid)
found = resource.prlimit(child.pid, resource.RLIMIT_NOFILE)
child.kill()
child.wait()
open_files.limit_as_found(child.pid)
print(json.dumps([before, resource.getrlimit(resource.RLIMIT_NOFILE), found]))
"""


def test_the_collector_may_open_more_and_what_it_starts_no_more_than_before():
    said = subprocess.run([sys.executable, "-c", LIMITS], capture_output=True, check=True)
    before, ours, childs = json.loads(said.stdout)
    assert ours[0] >= before[1]
    assert childs == before


@pytest.mark.parametrize(
    ("number", "said"),
    [
        (errno.EMFILE, "so many open files"),
        (errno.ENFILE, "so many open files on this machine"),
    ],
)
def test_too_few_open_files_are_no_word_on_the_place(number, said):
    """Taken for a place that the kernel lets nobody probe, it would leave copies uncounted."""
    error = OSError(number, "too many")

    def probe(*_):
        raise error

    programs = SimpleNamespace(load=lambda *_: 3, probe=probe, is_sabotaged=lambda *_: False)
    sites = attaching.CallSites.__new__(attaching.CallSites)
    sites._programs, sites.names, sites.refused = programs, [], {}
    sites._describe = lambda *_: None
    call = SimpleNamespace(name="vfs_read+0x12", address=4096)
    attachment = SimpleNamespace(target=SimpleNamespace(function="f"), calls=(call,), number=1)
    with pytest.raises(TraceError, match=r"vfs_read\+0x12") as refused:
        sites.add((attachment,))
    assert said in refused.value.why
    error = OSError(errno.EINVAL, "not there")
    sites.add((attachment,))
    assert sites.refused == {1: ["vfs_read+0x12"]}


def test_a_probe_for_which_memory_is_lacking_was_not_refused():
    def lacking():
        raise RuntimeError("can't start new thread")

    with pytest.raises(ResourceError, match="no memory left"):
        attaching.attempt("f", lacking)
    with pytest.raises(TraceError, match="refused the probe on f"):
        attaching.attempt("f", int, "no number")
