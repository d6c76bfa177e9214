"""What a traced command inherits of root: nothing but what it is given."""

import json
import os
import re
import signal
import socket
import subprocess
import sys
from contextlib import nullcontext
from pathlib import Path
from types import SimpleNamespace

import pytest

from zctrace.collect import launcher, strategies
from zctrace.errors import WorkloadError
from zctrace.evidence.schema import Request, Setting, Subject

USER, NONCE = 61234, 4711471147
SCRIPT = """
ls -l /proc/self/fd | grep -o '[0-9]* -> .*' | grep -v /proc/
grep -E '^(Uid|Gid|Groups|Cap(Inh|Prm|Eff|Amb)|Sig(Ign|Blk)):' /proc/self/status
env
tr '\\0' '\\n' </proc/$$/environ
"""


def request(**values):
    return Request(
        **{"run_id": "", "settings": (), "sizes": (), "chunk": None, "pipe_size": None,
           "repeat": 1, "uid": USER, "gid": USER, "groups": (USER, USER + 1), "user": "",
           "machine": "host", "images": {}, "mount": "", "nonce": NONCE, "mechanism": "auto",
           **values},
    )  # fmt: skip


PYTHON_IGNORES = 1 << signal.SIGPIPE - 1 | 1 << signal.SIGXFSZ - 1


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can start it as somebody else")
def test_a_command_has_the_rights_of_its_user_and_nothing_of_root(tmp_path, monkeypatch):
    monkeypatch.setenv("ROOTS_SECRET", "1")
    # Where root may not raise limits, there is no limit to give back.
    monkeypatch.setattr(launcher.open_files, "limit_as_found", lambda child: None)
    (tmp_path / "cgroup.procs").write_text("")
    output = tmp_path / "output"
    command = ("sh", "-c", SCRIPT)
    asked = request(subject=Subject(command=command, folder="/"))
    roots = os.open("/etc/passwd", os.O_RDONLY)
    os.set_inheritable(roots, True)
    with open(os.devnull) as null, output.open("w") as file:
        streams = [null.fileno(), file.fileno(), file.fileno()]
        given = {"PATH": os.defpath, "GIVEN": "1"}
        group = launcher.ProgramGroup(asked, tmp_path, streams, given)
        with group.launch("none", asked.subject) as launched:
            # Everybody can read that; who knows the nonce could open windows of this run.
            words = Path(f"/proc/{launched.pid}/cmdline").read_bytes()
            launched.execute()
            launched._process.wait()
    os.close(roots)
    said = output.read_text()
    assert sorted(re.findall(r"(\d+) ->", said)) == ["0", "1", "2"]
    facts, own = (
        dict(re.findall(r"^(\w+):\t(.*?) *$", text, re.M))
        for text in (said, Path("/proc/self/status").read_text())
    )
    assert facts["Uid"].split() == facts["Gid"].split() == [str(USER)] * 4
    assert facts["Groups"].split() == [str(USER), str(USER + 1)]
    assert {int(facts[f"Cap{kind}"], 16) for kind in ("Inh", "Prm", "Eff", "Amb")} == {0}
    # What the tests were started with is ignored, as behind nohup(1), and nothing besides.
    assert int(facts["SigIgn"], 16) & ~int(own["SigIgn"], 16) == int(facts["SigBlk"], 16) == 0
    assert not int(facts["SigIgn"], 16) & PYTHON_IGNORES
    assert "GIVEN=1" in said
    assert "ROOTS_SECRET" not in said
    assert b"zctrace.workloads.launch" in words
    assert str(NONCE) not in said + words.decode()


def test_the_nonce_is_on_no_command_line_of_the_strategies(monkeypatch):
    wire = SimpleNamespace(listen=lambda make: socket.socket(), subject=nullcontext)
    started = []

    def start(command, **options):
        started.append((command, options["env"]))
        raise OSError("enough")

    monkeypatch.setattr(strategies.subprocess, "Popen", start)
    setting = Setting(("sendfile",))
    asked = request(settings=(setting,), sizes=(1,))
    with pytest.raises(WorkloadError, match="enough"):
        strategies._Workload(asked, setting, {}, Path(), wire)
    ((command, environment),) = started
    assert str(NONCE) not in " ".join(command)
    assert str(NONCE) in environment.values()


def test_a_tracer_that_has_died_is_no_traceback_of_what_it_started(tmp_path):
    ours, theirs = socket.socketpair()
    with ours, theirs:
        ours.sendall(b"\n")
        ours.close()
        options = {"channel": theirs.fileno(), "folder": str(tmp_path), "control": "after"}
        done = subprocess.run(
            [sys.executable, "-m", "zctrace.workloads.launch", json.dumps(options)],
            pass_fds=(theirs.fileno(),),
            capture_output=True,
            text=True,
        )
    assert (done.returncode, done.stderr) == (1, "")
