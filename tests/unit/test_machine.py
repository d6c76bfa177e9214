"""Which kernels can be measured where they are, and that all who ask are told the same."""

import dataclasses
import os
import subprocess
import sys
from contextlib import contextmanager
from errno import EINVAL, ENOENT, ENOSPC
from pathlib import Path
from types import SimpleNamespace

import pytest

from tests.conftest import recorded_kernel
from zctrace.collect import attached, obstacles
from zctrace.commands import doctor
from zctrace.errors import TraceError
from zctrace.kernel import facts as kernel
from zctrace.kernel import perf_events, switches
from zctrace.machine import places
from zctrace.plan.attachments import Choice
from zctrace.plan.plan import plan
from zctrace.probes.catalogue import CATALOGUE

OFF = switches.Switch("a file", "nothing runs", "switch it on")


@pytest.fixture
def machine(monkeypatch, tmp_path):
    """This machine, with nothing in the way; what is set on it is."""
    state = SimpleNamespace(refused=None, off=[], cgroups=None, events=[], closed=[])

    @contextmanager
    def cgroup(run_id, *, own_machine):
        if state.cgroups:
            raise state.cgroups
        yield tmp_path

    def open_breakpoint(address, *, cgroup, cpu):
        if state.refused and len(state.events) == state.refused[0]:
            raise OSError(state.refused[1], os.strerror(state.refused[1]))
        state.events.append((address, cpu))
        return os.open(tmp_path, os.O_RDONLY)

    monkeypatch.setattr(obstacles.cgroups, "cgroup", cgroup)
    monkeypatch.setattr(perf_events, "open_breakpoint", open_breakpoint)
    monkeypatch.setattr(perf_events, "online_cpus", lambda: [0, 1])
    monkeypatch.setattr(switches, "off", lambda: state.off)
    monkeypatch.setattr(obstacles, "of_rights", lambda: iter(()))
    return state


def test_a_kernel_on_which_nothing_is_blind_can_be_measured(facts, machine):
    """Also where a cross-check, which no figure needs, has to fall back."""
    assert places.why_not_host(facts) == []
    addresses = {copy.address for copy in plan(CATALOGUE, facts).breakpoints}
    assert set(machine.events) == {(at, cpu) for at in addresses for cpu in (0, 1)}


def test_a_count_that_falls_back_cannot_be_had(machine):
    facts = recorded_kernel("5.10")
    facts = dataclasses.replace(facts, iterators={})
    assert "breakpoint@return: 3 returns instead of one" in places.why_not_host(facts)


def test_without_breakpoints_the_callers_are_enough_if_asked_for(facts, machine):
    refused = dataclasses.replace(facts, breakpoint="refused by the kernel: no")
    (reason,) = places.why_not_host(refused)
    assert reason.endswith("refuses breakpoints in its own code: refused by the kernel: no")
    assert places.why_not_host(refused, Choice.CALL_SITE) == []


@pytest.mark.parametrize(
    ("values", "reason"),
    [
        ({"calls": {}, "text": "kcore is locked"}, "kcore is locked"),
        ({"functions": {}}, "this kernel has no such function"),
        ({"tracepoints": {}}, "tracepoints are missing"),
        ({"members": {}}, "does not describe its file structures"),
    ],
)
def test_what_is_missing_is_said(facts, machine, values, reason):
    reasons = places.why_not_host(dataclasses.replace(facts, **values))
    assert any(reason in said for said in reasons)
    assert len(set(reasons)) == len(reasons)


IN_THE_WAY = {
    "no perf_event controller": ({"refused": (0, ENOENT)}, "perf_event controller", "+pids"),
    "a register is taken": ({"refused": (3, ENOSPC)}, "debug registers are in use", "end the"),
    "refused": ({"refused": (1, EINVAL)}, "Invalid argument", "doctor"),
    "no cgroups": (
        {"cgroups": TraceError("no cgroup hierarchy is mounted", "by a cgroup", "mount")},
        "no cgroup hierarchy is mounted",
        "mount",
    ),
    "in a container": (
        {"cgroups": OSError(30, "Read-only file system")},
        "Read-only file system",
        "in a container",
    ),
}


@pytest.mark.parametrize("case", IN_THE_WAY)
def test_doctor_and_the_collector_give_the_same_answer(
    machine, monkeypatch, tmp_path, facts, case
):
    """What the collector would end with after minutes is known, and said, before."""
    state, why, remedy = IN_THE_WAY[case]
    vars(machine).update(state)
    (reason,) = places.why_not_host(facts)
    assert why in reason
    machine.events.clear()
    choice, planned = Choice.AUTO, plan(CATALOGUE, facts)
    found = attached.Survey(CATALOGUE, choice, facts, planned, frozenset())
    with pytest.raises(TraceError) as caught:
        found.require(SimpleNamespace(run_id="1", machine="host"))
    assert places.reason(caught.value) == reason
    assert remedy in caught.value.hint

    machine.events.clear()
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    monkeypatch.setattr(kernel, "observe", lambda *_: facts)
    finding = next(f for f in doctor._host() if f.topic == "this machine's kernel")
    assert not finding.fine
    assert finding.what.endswith(f"cannot be measured: {reason}")
    assert finding.remedy == caught.value.hint


def test_a_kernel_that_runs_no_probes_is_not_asked_for_any(machine, monkeypatch):
    machine.off = [OFF]

    def observe(*_):
        raise AssertionError("probes were tried")

    monkeypatch.setattr(kernel, "observe", observe)
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    assert places.why_not_host() == [
        "the kernel accepts probes but does not run them: nothing runs"
    ]
    (finding,) = doctor._host()
    assert (finding.fine, finding.remedy) == (False, "switch it on")
    with pytest.raises(TraceError, match="does not run them"):
        attached.survey(CATALOGUE, None, None)


def test_only_a_file_that_says_so_is_off(tmp_path):
    files = {"0\n": tmp_path / "off", "1\n": tmp_path / "on"}
    for text, path in files.items():
        path.write_text(text)
    paths = [*files.values(), tmp_path / "missing"]
    found = switches.off(tuple(switches.Switch(path, "", "") for path in paths))
    assert [switch.path for switch in found] == [tmp_path / "off"]


ALL_USERS = "         0          0 4294967295\n"


@pytest.mark.parametrize(
    ("capabilities", "users", "why"),
    [
        ("000001ffffffffff", ALL_USERS, None),
        ("000001ffffffffff", None, None),
        ("000001ffffdfffff", ALL_USERS, "no CAP_SYS_ADMIN"),
        ("000001ffffffffff", "         0       1000          1\n", "user namespace"),
    ],
)
def test_root_without_its_rights_is_told_so(tmp_path, capabilities, users, why):
    (tmp_path / "status").write_text(f"Name:\tpython\nCapEff:\t{capabilities}\n")
    if users:
        (tmp_path / "uid_map").write_text(users)
    reasons = [error.why for error in obstacles.of_rights(tmp_path)]
    assert len(reasons) == (why is not None)
    assert all(why in reason for reason in reasons)


def test_processes_are_followed_by_number_only_where_the_kernel_has_the_same_numbers(tmp_path):
    assert [*obstacles.of_numbers(tmp_path / "a kernel without PID namespaces")] == []
    (tmp_path / "pid").touch()  # of another inode, as a namespace's is
    (obstacle,) = obstacles.of_numbers(tmp_path / "pid")
    assert "PID namespace" in obstacle.what
    assert "--pid=host" in obstacle.hint


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can make PID namespaces")
@pytest.mark.parametrize("own", [False, True], ids=["here", "in its own"])
def test_a_pid_namespace_is_known_by_its_inode(own):
    asks = "from zctrace.collect import obstacles; print(len([*obstacles.of_numbers()]))"
    unshare = ["unshare", "--pid", "--fork", "--mount-proc"] if own else []
    command = [*unshare, sys.executable, "-c", asks]
    ended = subprocess.run(command, capture_output=True, text=True, check=True)
    here = Path("/proc/self/ns/pid").stat().st_ino != 0xEFFFFFFC
    assert int(ended.stdout) == (own or here)
