"""Who is meant by a number, a name, a unit or a container."""

import os
import shutil
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import pytest

from zctrace import errors, trust
from zctrace.collect import cgroups, user_functions
from zctrace.collect import subjects as collected
from zctrace.commands.subjects import subject_of
from zctrace.evidence.schema import Subject
from zctrace.machine import subjects
from zctrace.machine.subjects import Running
from zctrace.probes.user_functions import PROGRAM_COPIES

OURS = PROGRAM_COPIES[0]
HEX = "0123456789abcdef" * 4
OTHER = "0123456789abcdee" * 4
POD = "3f2a9c1e-77aa-4b21-9d3e-0a1b2c3d4e5f"


@pytest.fixture
def sleeping(tmp_path):
    """Starts programs, copies of sleep by another name, and ends them."""
    running = []

    def start(name, **options):
        program = tmp_path / name
        if not program.exists():
            shutil.copy(shutil.which("sleep"), program)
        running.append(subprocess.Popen([program, "60"], **options))
        # In the middle of its exec it has no command line yet.
        while not Path(f"/proc/{running[-1].pid}/cmdline").read_bytes():
            time.sleep(0.01)
        return running[-1].pid

    yield start
    for process in running:
        process.kill()
        process.wait()


@pytest.fixture
def not_ours(monkeypatch):
    """Children of these tests count as other programs'."""
    monkeypatch.setattr(subjects.processes, "family", lambda pids: set(pids))


def test_by_name_all_processes_of_the_name(sleeping, not_ours):
    pids = {sleeping("zc-one"), sleeping("zc-one"), sleeping("zc-one-more")}
    found = subjects.by_name("zc-one")
    assert (len(found.pids), found.called) == (2, "zc-one")
    assert set(found.pids) < pids


def test_a_name_that_the_kernel_has_cut(sleeping, not_ours):
    pid = sleeping("a-name-of-more-than-15")
    assert subjects.by_name("a-name-of-more-than-15").pids == (pid,)
    with pytest.raises(errors.UsageError, match="no such process"):
        subjects.by_name("a-name-of-more-than")


def test_a_script_by_its_name(tmp_path, not_ours):
    """Its program is an interpreter; the kernel's name is the script's, and is cut."""
    script = tmp_path / "a-script-with-a-long-name"
    script.write_text(f"#!{sys.executable}\nprint(flush=True)\ninput()\n")
    script.chmod(0o755)
    with subprocess.Popen([script], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        try:
            # In the middle of its exec it has no command line yet.
            process.stdout.readline()
            assert subjects.by_name("a-script-with-a-long-name").pids == (process.pid,)
        finally:
            process.kill()


def test_a_name_that_a_program_has_given_itself(not_ours):
    """As nginx does for its workers, and Java for its threads."""
    body = "open('/proc/self/comm', 'w').write('zc worker'); print(flush=True); input()"
    with subprocess.Popen(
        [sys.executable, "-c", body], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as process:
        try:
            process.stdout.readline()
            assert subjects.by_name("zc worker").pids == (process.pid,)
        finally:
            process.kill()


def test_nothing_of_that_name():
    with pytest.raises(errors.UsageError, match="--name no-such: there is no such process"):
        subjects.by_name("no-such")


def test_zctrace_does_not_find_itself(sleeping):
    """Nor what it has started."""
    sleeping("zc-our-own")
    with pytest.raises(errors.UsageError):
        subjects.by_name("zc-our-own")


def test_a_thread_by_number():
    body = "import threading,sys,time; t=threading.Thread(target=time.sleep,args=(60,)); "
    body += "t.daemon=True; t.start(); print(t.native_id, flush=True); input()"
    with subprocess.Popen(
        [sys.executable, "-c", body],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
    ) as process:  # fmt: skip
        try:
            thread = int(process.stdout.readline())
            found = subjects.by_thread([thread, thread])
            assert found == Running(pids=(process.pid,), threads=(thread,))
        finally:
            process.kill()


def test_the_files_of_processes():
    assert user_functions.programs_of([os.getpid(), 4194999]) == [
        f"/proc/{os.getpid()}/root{Path('/proc/self/exe').readlink()}"
    ]


@pytest.mark.parametrize("own", [True, False])
def test_a_thread_that_is_not_there_or_is_ours(own):
    with pytest.raises(errors.UsageError, match="--thread"):
        subjects.by_thread([os.getpid() if own else 4194999])


@pytest.fixture
def hierarchy(tmp_path, monkeypatch):
    """A cgroup hierarchy of folders; each cgroup that is made in it has a process."""
    monkeypatch.setattr(cgroups, "hierarchy", lambda: tmp_path)
    monkeypatch.setattr(subjects, "mounts", list)
    monkeypatch.setattr(subjects, "_ENGINES", ())

    def make(*paths, empty=False):
        for path in paths:
            (tmp_path / path).mkdir(parents=True)
            (tmp_path / path / "cgroup.procs").write_text("" if empty else "4711\n")
        return tmp_path

    return make


def test_a_unit_and_what_is_inside_it(hierarchy):
    root = hierarchy("system.slice/nginx.service", "system.slice/nginx.service/nginx.service")
    expected = Running(cgroup=f"{root}/system.slice/nginx.service", called="nginx.service")
    assert subjects.by_unit("nginx") == expected
    assert subjects.by_unit("nginx.service") == expected


def test_a_slice_is_a_unit(hierarchy):
    root = hierarchy("system.slice", "system.slice/nginx.service")
    assert subjects.by_unit("system.slice").cgroup == f"{root}/system.slice"


def test_units_of_one_name_are_shown(hierarchy):
    root = hierarchy("system.slice/a.service", "user.slice/user-1.slice/a.service")
    with pytest.raises(errors.UsageError, match=r"--unit a.service: there are 2") as caught:
        subjects.by_unit("a")
    assert f"{root}/user.slice/user-1.slice/a.service" in caught.value.why


@pytest.mark.parametrize("empty", [True, False])
def test_a_unit_that_does_not_run(hierarchy, empty):
    hierarchy("system.slice/" + ("a.service" if empty else "b.service"), empty=empty)
    with pytest.raises(errors.UsageError, match=r"--unit a.service: no"):
        subjects.by_unit("a")


CONTAINERS = [
    f"system.slice/docker-{HEX}.scope",
    f"docker/{HEX}",
    f"machine.slice/libpod-{HEX}.scope",
    f"system.slice/containerd.service/kubepods-besteffort-pod1.slice:cri-containerd:x/{HEX}",
    f"kubepods.slice/kubepods-besteffort.slice/cri-containerd-{HEX}.scope",
    f"kubepods.slice/crio-{HEX}.scope",
    f"default/{HEX}",
]


@pytest.mark.parametrize("path", CONTAINERS)
@pytest.mark.parametrize("digits", [12, 64])
def test_a_container_by_its_id(hierarchy, path, digits):
    root = hierarchy(path, f"{path}/container", "other.slice", f"docker-{'f' * 64}.scope")
    found = subjects.by_container(HEX[:digits])
    assert found == Running(cgroup=f"{root}/{path}", called=f"container {HEX[:digits]}")


def test_what_watches_over_a_container_is_none(hierarchy):
    root = hierarchy(f"m.slice/libpod-conmon-{HEX}.scope", f"m.slice/libpod-{HEX}.scope")
    assert subjects.by_container(HEX[:12]).cgroup == f"{root}/m.slice/libpod-{HEX}.scope"


@pytest.mark.parametrize(
    "path",
    [
        f"kubepods.slice/kubepods-burstable.slice/kubepods-burstable-pod"
        f"{POD.replace('-', '_')}.slice",
        f"kubepods.slice/kubepods-pod{POD.replace('-', '_')}.slice",
        f"kubepods/burstable/pod{POD}",
    ],
)
def test_a_pod_by_its_uid(hierarchy, path):
    root = hierarchy(path, f"{path}/cri-containerd-{HEX}.scope")
    assert subjects.by_container(POD).cgroup == f"{root}/{path}"


@pytest.mark.parametrize("path", ["machine.slice/machine-web.scope", "lxc.payload.web"])
def test_a_machine_by_its_name(hierarchy, path):
    root = hierarchy(path)
    assert subjects.by_container("web").cgroup == f"{root}/{path}"


@pytest.fixture
def engines(hierarchy, tmp_path, monkeypatch):
    """Commands that answer so, the only ones there are."""
    monkeypatch.setattr(subjects, "_ENGINES", ("docker", "podman", "nerdctl"))
    monkeypatch.setattr(trust, "SYSTEM_PATH", f"{tmp_path}/bin:/usr/bin:/bin")
    (tmp_path / "bin").mkdir()

    def make(**answers):
        for name, script in answers.items():
            command = tmp_path / "bin" / name
            command.write_text(f"#!/bin/sh\n{script}\n")
            command.chmod(0o755)

    return make


NAMED = f'test "$*" = "container inspect --format {{{{.Id}}}} web" && echo {HEX}'


@pytest.mark.parametrize("engine", ["docker", "podman", "nerdctl"])
def test_a_container_by_its_name(hierarchy, engines, engine):
    root = hierarchy(f"docker-{HEX}.scope", f"docker-{OTHER}.scope")
    engines(**{engine: NAMED})
    found = subjects.by_container("web")
    assert found == Running(cgroup=f"{root}/docker-{HEX}.scope", called="container web")


def test_a_name_that_is_also_the_beginning_of_an_id(hierarchy, engines):
    hierarchy(f"docker-{HEX}.scope", f"docker-{OTHER}.scope")
    engines(docker=f"echo {OTHER}")
    with pytest.raises(errors.UsageError, match="--container 0123: there are 2"):
        subjects.by_container("0123")


@pytest.mark.parametrize(
    "answer",
    [
        "exit 1",
        f"echo {HEX}; exit 1",
        "echo /",
        "echo ''",
        "printf '\\377'",
        "exec sleep 9",
        f"echo {'e' * 64}",
    ],
    ids=["none of that name", "fails", "no ID", "nothing", "no text", "stuck", "stopped"],
)
def test_an_engine_that_does_not_help(hierarchy, engines, monkeypatch, answer):
    monkeypatch.setattr(subjects, "_ENGINE_SECONDS", 0.5)
    hierarchy(f"docker-{HEX}.scope")
    engines(docker=answer, podman="exit 1", nerdctl="exit 1")
    with pytest.raises(errors.UsageError, match="--container web: no cgroup"):
        subjects.by_container("web")


@pytest.mark.parametrize("name", ["e" * 12, "e" * 64, POD])
def test_no_engine_is_asked_of_what_is_no_name(hierarchy, engines, tmp_path, name):
    hierarchy(f"docker-{OTHER}.scope")
    engines(docker=f"echo asked > {tmp_path}/asked; echo {OTHER}")
    with pytest.raises(errors.UsageError):
        subjects.by_container(name)
    assert not (tmp_path / "asked").exists()


def test_a_name_is_no_option_of_an_engine(hierarchy, engines, tmp_path):
    hierarchy(f"docker-{HEX}.scope")
    engines(docker=f"echo asked > {tmp_path}/asked; echo {HEX}")
    with pytest.raises(errors.UsageError):
        subjects.by_container("--web")
    assert not (tmp_path / "asked").exists()


@pytest.mark.parametrize("name", [HEX[:12], "0", "012", "nosuch", "docker"])
def test_several_containers_or_none(hierarchy, name):
    hierarchy(f"docker-{HEX}.scope", f"docker-{OTHER}.scope")
    with pytest.raises(errors.UsageError, match="--container"):
        subjects.by_container(name)


def test_another_hierarchy_where_the_first_has_none(tmp_path, monkeypatch, hierarchy):
    """As on version 1: systemd's own has the units, and the one with perf_event has none."""
    hierarchy()
    folder = tmp_path / "systemd/system.slice/a.service"
    folder.mkdir(parents=True)
    (folder / "cgroup.procs").write_text("1\n")
    monkeypatch.setattr(cgroups, "hierarchy", lambda: tmp_path / "perf_event")
    mount = SimpleNamespace(point=tmp_path / "systemd", file_system="cgroup")
    monkeypatch.setattr(subjects, "mounts", lambda: [mount])
    assert subjects.by_unit("a").cgroup == str(folder)
    assert not cgroups.is_scope(str(folder))
    assert cgroups.is_scope(str(tmp_path / "perf_event/a"))


@pytest.mark.parametrize(
    ("subject", "words"),
    [
        (Subject(pids=(1, 2), called="nginx"), "nginx (process 1, 2)"),
        (Subject(cgroup="/c", called="a.service"), "a.service (cgroup /c)"),
        (Subject(pids=(1,), threads=(3, 4)), "thread 3, 4"),
        (Subject(cgroup="/c"), "cgroup /c"),
        (Subject(pids=(7,)), "process 7"),
    ],
)
def test_what_a_report_calls_them(subject, words):
    assert subject.words == words


@pytest.mark.parametrize(
    ("command", "running", "what"),
    [
        ([], {}, "nothing to trace"),
        (["cp"], {"pid": [1]}, "a command and -p together"),
        ([], {"name": "x", "unit": "y"}, "--name and --unit together"),
        ([], {"thread": [1], "cgroup": "/"}, "--thread and --cgroup together"),
    ],
)
def test_one_thing_at_a_time(command, running, what):
    with pytest.raises(errors.UsageError, match=what):
        subject_of(command, running, None, follow=True)


def test_neither_the_collector_nor_what_called_it_is_traced():
    parent, own = os.getppid(), os.getpid()
    there = collected.there(Subject(pids=(parent,), follow=True))
    assert own not in there
    assert parent in there  # it was named
    assert own in collected.there(Subject(pids=(own,)))
