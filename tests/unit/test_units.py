"""What units have moved: rows of cgroups, with their names."""

import dataclasses
import json
from pathlib import Path

import pytest

from zctrace.collect import units
from zctrace.collect.mounts import Mount
from zctrace.collect.units import Units
from zctrace.evidence.account import Account, Booking, Busy, Flow, FlowWay, Look, UnitBytes
from zctrace.machine import program_job
from zctrace.probes.model import Direction

PATHS = [
    ("system.slice/nginx.service", "nginx.service"),
    ("system.slice/nginx.service/worker", "nginx.service"),
    ("user.slice/user-7.slice/user@7.service/app.slice/a.service", "a.service"),
    ("user.slice/user-7.slice/session-1.scope", "session-1.scope"),
    ("system.slice/docker-0123.scope", "docker-0123.scope"),
    ("system.slice", "/system.slice"),
    ("machines/one", "/machines/one"),
    (".", "/"),
]


@pytest.mark.parametrize(("path", "unit"), PATHS)
def test_the_unit_that_a_cgroup_is_in(path, unit):
    assert units.unit_of(Path(path)) == unit


def flow(number, syscall, way, size):
    return Flow(None, number, 3, syscall, way, 1, size)


def booking(number, syscall, size):
    return Booking(None, syscall, Direction.USER_TO_KERNEL, 1, size, number)


@pytest.fixture
def hierarchy(tmp_path, monkeypatch):
    """A hierarchy of folders; returns what makes one, and gives its number."""
    mount = Mount(1, "/", tmp_path, "cgroup2", "cgroup2", ())
    monkeypatch.setattr(units, "mounts", lambda: [mount])

    def make(path):
        (tmp_path / path).mkdir(parents=True)
        return (tmp_path / path).stat().st_ino & 0xFFFFFFFF

    return make


def test_rows_by_unit_and_call(hierarchy):
    web, worker = hierarchy("nginx.service"), hierarchy("nginx.service/worker")
    account = Account(
        flows=(
            flow(web, "read", FlowWay.IN, 10),
            flow(worker, "read", FlowWay.IN, 5),
            flow(worker, "write", FlowWay.OUT, 7),
        ),
        bookings=(
            booking(web, "read", 10),
            booking(worker, "write", 8),
            booking(None, None, 3),
            booking(1, "write", 1),
        ),
    )
    found = Units()
    assert found.rows(account) == (
        UnitBytes("gone", "write", 0, 0, 1),
        UnitBytes("kernel", "no call", 0, 0, 3),
        UnitBytes("nginx.service", "read", 15, 0, 10),
        UnitBytes("nginx.service", "write", 0, 7, 8),
    )


def test_a_name_is_kept_when_its_cgroup_is_gone(hierarchy, tmp_path):
    number = hierarchy("a.service")
    found, account = Units(), Account(flows=(flow(number, "read", FlowWay.IN, 1),))
    assert [row.unit for row in found.rows(account)] == ["a.service"]
    # One that came since, before the number could be given again.
    later = hierarchy("b.service")
    (tmp_path / "a.service").rmdir()
    assert [row.unit for row in found.rows(account)] == ["a.service"]
    account = Account(flows=(flow(later, "read", FlowWay.IN, 1),))
    assert [row.unit for row in found.rows(account)] == ["b.service"]


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
