"""What a run keeps in its folder is root's: others can neither change it nor read it."""

import json
import os
import socket
import stat
import subprocess
import tempfile
from pathlib import Path

import pytest

from zctrace import trust
from zctrace.collect.describe import ENVIRONMENT
from zctrace.errors import UsageError
from zctrace.evidence.schema import Subject
from zctrace.machine import collector_process, job, places, program_job
from zctrace.machine.guardian import guarded, write_private

STRANGER, CALLER = 61234, 61235
as_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a folder away")
PLACE = places.Place(None)


@pytest.fixture
def umask(request):
    before = os.umask(request.param)
    trust.close_to_others()
    yield
    os.umask(before)


def may(uid, *paths):
    """Which of the paths a user may read. None may be written to."""
    script = (
        "import os, sys\n"
        "for path in sys.argv[1:]:\n"
        "    assert not os.access(path, os.W_OK)\n"
        "    print(int(os.access(path, os.R_OK)))\n"
    )
    answer = subprocess.run(
        ["/usr/bin/python3", "-I", "-c", script, *map(str, paths)],
        user=uid, group=uid, extra_groups=[], cwd="/", stdout=subprocess.PIPE, check=True,
    ).stdout  # fmt: skip
    return [line == b"1" for line in answer.split()]


@pytest.fixture
def temporary(monkeypatch):
    """A folder for temporary files as /tmp is."""
    with tempfile.TemporaryDirectory(prefix="private-") as folder:
        Path(folder).chmod(0o1777)
        monkeypatch.setattr(tempfile, "tempdir", folder)
        yield Path(folder)


@as_root
@pytest.mark.parametrize(
    ("umask", "marked"), [(0o000, False), (0o077, True)], indirect=["umask"]
)
def test_of_a_program_s_run_others_see_only_the_code(umask, temporary, marked):
    subject = Subject(command=("true",), folder="/", marked=marked)
    with program_job._prepared(PLACE, program_job.Wanted(subject), print) as ready:
        request = ready.share / "request.json"
        # As a guest does, for what a command prints there.
        (ready.share / "stdout").write_text("secret")
        write_private(request, "{}")
        code = ready.code / "zctrace" / "collect" / "isolated.py"
        seen = may(STRANGER, code, ready.share / ENVIRONMENT, request)
        assert seen == [True, False, False]
        reached = stat.S_IMODE(ready.share.stat().st_mode)
        assert reached == (0o711 if marked else 0o700)
        if not marked:
            assert may(STRANGER, ready.share / "stdout") == [False]


@as_root
@pytest.mark.parametrize("umask", [0o077], indirect=True)
def test_a_run_of_strategies_is_as_private(umask, temporary):
    options = job.Options((), (4096,), file_systems=("tmpfs",))
    with job.prepared(PLACE, options, print) as ready:
        share = ready.run_folder.path / collector_process.SHARE
        assert may(STRANGER, ready.code / "zctrace" / "__init__.py", share) == [True, False]


@as_root
@pytest.mark.parametrize(
    ("owner", "mode"), [(STRANGER, 0o755), (STRANGER, 0o1777), (0, 0o777), (0, 0o775)]
)
def test_no_run_begins_where_its_folder_can_be_replaced(monkeypatch, tmp_path, owner, mode):
    folder = tmp_path / "temporary"
    folder.mkdir()
    os.chown(folder, owner, owner)
    folder.chmod(mode)
    monkeypatch.setattr(tempfile, "tempdir", str(folder))
    with pytest.raises(UsageError, match="temporary files") as refused, guarded("some-run"):
        pass
    assert str(folder) in refused.value.why
    assert list(folder.iterdir()) == []


@as_root
def test_a_folder_of_whoever_called_sudo_will_do(monkeypatch, tmp_path):
    """Who may call sudo is root already."""
    monkeypatch.setenv("SUDO_UID", str(CALLER))
    monkeypatch.setenv("SUDO_GID", str(CALLER))
    os.chown(tmp_path, CALLER, CALLER)
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    with guarded("some-run") as run_folder:
        assert run_folder.path.stat().st_uid == 0


@as_root
def test_kept_logs_are_the_caller_s_and_nobody_else_s(monkeypatch, tmp_path, temporary):
    monkeypatch.setenv("SUDO_UID", str(CALLER))
    monkeypatch.setenv("SUDO_GID", str(CALLER))
    share = tmp_path / collector_process.SHARE
    (share / "input").mkdir(parents=True)
    (tmp_path / "collector.log").write_text("a log")
    (share / "progress").write_text("steps")
    (share / ENVIRONMENT).write_text(json.dumps({"PASSWORD": "secret"}))
    (share / "link").symlink_to("/etc/shadow")
    os.mkfifo(share / "pipe")
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(share / "socket"))
        kept = collector_process._keep(tmp_path, "some-run")
    assert sorted(path.name for path in kept.iterdir()) == ["collector.log", "progress"]
    assert stat.S_IMODE(kept.stat().st_mode) == 0o700
    assert {path.stat().st_uid for path in (kept, *kept.iterdir())} == {CALLER}


def test_what_is_written_in_private_is_private_from_the_first_moment(tmp_path):
    modes = []

    def watched(path, flags, mode):
        modes.append(mode)
        return opened(path, flags, mode)

    opened, os.open = os.open, watched
    try:
        write_private(tmp_path / "a", "secret")
    finally:
        os.open = opened
    assert modes == [0o600]
    assert stat.S_IMODE((tmp_path / "a").stat().st_mode) == 0o600
