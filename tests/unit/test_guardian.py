"""A run leaves nothing behind, however it ends."""

import os
import secrets
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

SLOW_TO_LEAVE = """
import os, time
leave = os.setsid
os.setsid = lambda: (time.sleep(0.5), leave())
"""
TWO_AT_ONCE = """
import sys
from contextlib import ExitStack
from zctrace.machine.guardian import guarded
with ExitStack() as first, ExitStack() as second:
    one = first.enter_context(guarded(sys.argv[1])).path
    other = second.enter_context(guarded(sys.argv[2])).path
    first.close()
    print(one.exists(), other.exists())
"""


@pytest.fixture
def run_id():
    """One that no run of these tests at the same time has."""
    return f"test-{secrets.token_hex(4)}"


def wait_until(condition, seconds=10.0):
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def folder_of(run_id):
    return Path(tempfile.gettempdir()) / f"zctrace-{run_id}"


def test_an_orderly_end(run_id):
    with guarded(run_id) as folder:
        assert folder.path.stat().st_mode & 0o777 == 0o755
        (folder.path / "a").write_text("")
    assert not folder_of(run_id).exists()


def test_an_error(run_id):
    with pytest.raises(ValueError, match="oops"), guarded(run_id):
        raise ValueError("oops")
    assert not folder_of(run_id).exists()


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT])
def test_a_killed_run(run_id, number):
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


@pytest.mark.parametrize("before", ["", SLOW_TO_LEAVE], ids=["at once", "slow to leave"])
def test_killing_the_whole_process_group_spares_the_guardian(run_id, before):
    process = subprocess.Popen(
        [sys.executable, "-c", before + SCRIPT, run_id],
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


def test_other_people_s_processes_live(run_id):
    other = subprocess.Popen(["sleep", "60"], env={**os.environ, "ZCTRACE_RUN": f"{run_id}0"})
    with guarded(run_id):
        pass
    assert other.poll() is None
    other.kill()
    other.wait()


def test_the_first_of_two_runs_ends_while_the_second_goes_on(run_id):
    """The second guardian has inherited the pipe that the first one waits at."""
    result = subprocess.run(
        [sys.executable, "-c", TWO_AT_ONCE, f"{run_id}-1", f"{run_id}-2"],
        cwd=Path(__file__).parents[2], capture_output=True, text=True, timeout=20,
    )  # fmt: skip
    assert result.stdout == "False True\n", result.stderr
