"""A run leaves nothing behind, however it ends."""

import os
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pytest

from zctrace.machine.guardian import guarded

SCRIPT = """
import os, subprocess, sys, time
from zctrace.machine.guardian import guarded
with guarded(sys.argv[1]) as folder:
    (folder.path / "big").write_text("x")
    env = {**os.environ, **folder.environment}
    child = subprocess.Popen(["setsid", "-f", "sh", "-c", "echo $$; exec sleep 60"], env=env)
    time.sleep(60)
"""


def wait_until(condition, seconds=10.0):
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def folder_of(run_id):
    return Path(tempfile.gettempdir()) / f"zctrace-{run_id}"


def test_an_orderly_end(request):
    with guarded("orderly-test") as folder:
        assert folder.path.stat().st_mode & 0o777 == 0o755
        (folder.path / "a").write_text("")
    assert not folder_of("orderly-test").exists()


def test_an_error():
    with pytest.raises(ValueError, match="oops"), guarded("error-test"):
        raise ValueError("oops")
    assert not folder_of("error-test").exists()


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT])
def test_a_killed_run(number):
    run_id = f"killed-test-{number}"
    process = subprocess.Popen(
        [sys.executable, "-c", SCRIPT, run_id],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        cwd=Path(__file__).parents[2],
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    child = int(process.stdout.readline())
    assert folder_of(run_id).exists()
    process.send_signal(number)
    process.wait()
    process.stdout.close()
    wait_until(lambda: not folder_of(run_id).exists())
    wait_until(lambda: not alive(child))


def alive(pid):
    try:
        return "Z" not in Path(f"/proc/{pid}/stat").read_text().split(")")[1].split()[0]
    except FileNotFoundError:
        return False


def test_killing_the_whole_process_group_spares_the_guardian():
    run_id = "group-test"
    process = subprocess.Popen(
        [sys.executable, "-c", SCRIPT, run_id],
        stdout=subprocess.PIPE,
        text=True,
        cwd=Path(__file__).parents[2],
        start_new_session=True,
    )
    child = int(process.stdout.readline())
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    process.stdout.close()
    wait_until(lambda: not folder_of(run_id).exists())
    wait_until(lambda: not alive(child))


def test_other_people_s_processes_live(tmp_path):
    other = subprocess.Popen(["sleep", "60"], env={**os.environ, "ZCTRACE_RUN": "other-test"})
    with guarded("mine-test"):
        pass
    assert other.poll() is None
    other.kill()
    other.wait()
