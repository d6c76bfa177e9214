"""What units have moved: rows of cgroups, with their names."""

import dataclasses
import json
from pathlib import Path
from types import SimpleNamespace

import pytest

from zctrace.collect import units
from zctrace.collect.mounts import Mount
from zctrace.collect.units import Units
from zctrace.evidence.account import Busy, Look, UnitBytes
from zctrace.machine import program_job

PATHS = [
    ("system.slice/nginx.service", "nginx.service"),
    ("system.slice/nginx.service/worker", "nginx.service"),
    ("user.slice/user-7.slice/user@7.service/app.slice/a.service", "user@7.service/a.service"),
    ("lxc.payload.b.scope/system.slice/nginx.service", "lxc.payload.b.scope/nginx.service"),
    ("user.slice/user-7.slice/session-1.scope", "session-1.scope"),
    ("system.slice/docker-0123.scope", "docker-0123.scope"),
    ("system.slice", "/system.slice"),
    ("machines/one", "/machines/one"),
    ("\udcff.service", "\ufffd.service"),
    (".", "/"),
]


@pytest.mark.parametrize(("path", "unit"), PATHS)
def test_the_unit_that_a_cgroup_is_in(path, unit):
    assert units.unit_of(Path(path)) == unit


CALLS = {0: "read", 1: "write", 69: "msgsnd", 59: "execve", 0xFFFFFFFF: None}
NUMBERS = {name: number for number, name in CALLS.items()}


def row(number, call, received=0, delivered=0, copied=0):
    return (
        SimpleNamespace(cgroup=number, syscall=NUMBERS[call]),
        SimpleNamespace(received=received, delivered=delivered, copied=copied),
    )


class Flag(dict):
    """An array of one number, by what BCC has as its index."""

    def __setitem__(self, index, value):
        super().__setitem__(index.value, value.value)


def looked_at(*found):
    """What there is to know of these rows; the list may change."""
    rows = list(found)
    tables = {"units": SimpleNamespace(items=lambda: rows), "by_unit": Flag()}
    units_ = Units(tables, CALLS.get)
    assert tables["by_unit"] == {0: 1}
    return units_, rows


@pytest.fixture
def hierarchy(tmp_path, monkeypatch):
    """A hierarchy of folders; returns what makes one, and gives its number."""
    mount = Mount(1, "/", tmp_path, "cgroup2", "cgroup2", ())
    monkeypatch.setattr(units, "mounts", lambda: [mount])

    def make(path):
        (tmp_path / path).mkdir(parents=True)
        return (tmp_path / path).stat().st_ino

    return make


def test_rows_by_unit_and_call(hierarchy):
    web, worker = hierarchy("nginx.service"), hierarchy("nginx.service/worker")
    found, _ = looked_at(
        row(web, "read", received=10, copied=10),
        row(worker, "read", received=5),
        row(worker, "write", delivered=7, copied=8),
        row(0, None, copied=3),
        row(1, "write", copied=1),
    )
    assert found.rows() == (
        UnitBytes("gone", "write", 0, 0, 1),
        UnitBytes("kernel", "no call", 0, 0, 3),
        UnitBytes("nginx.service", "read", 15, 0, 10),
        UnitBytes("nginx.service", "write", 0, 7, 8),
    )


def test_calls_that_always_copy_and_those_that_copy_no_payload(hierarchy):
    """As in the answer of a trace: no site counts the copies of the one, and of the other some
    that are structures."""
    web = hierarchy("nginx.service")
    found, _ = looked_at(row(web, "msgsnd", delivered=1000), row(web, "execve", copied=3160))
    assert found.rows() == (
        UnitBytes("nginx.service", "execve", 0, 0, 0),
        UnitBytes("nginx.service", "msgsnd", 0, 1000, 1000),
    )


def test_a_name_is_kept_when_its_cgroup_is_gone(hierarchy, tmp_path):
    found, rows = looked_at(row(hierarchy("a.service"), "read", 1))
    assert [one.unit for one in found.rows()] == ["a.service"]
    # One that came since, before the number could be given again.
    rows.append(row(hierarchy("b.service"), "read", 1))
    (tmp_path / "a.service").rmdir()
    assert [one.unit for one in found.rows()] == ["a.service", "b.service"]


def test_a_look_comes_through_the_collector_s_answer():
    look = Look(
        {"read": 1},
        {"write": 2},
        {"no call": 3},
        4,
        (Busy(True, "cat 7", "3", 1, 2, 3, 4),),
        (UnitBytes("nginx.service", "write", 0, 7, 8),),
    )
    assert program_job._look(json.loads(json.dumps(dataclasses.asdict(look)))) == look
