"""zctrace top in a real terminal: tmux, at two widths."""

import os
import re
import shutil
import subprocess
import sys
import time

import pytest

from tests.live.conftest import ROOT

PROGRAM = (
    "head -c 4000037 /dev/zero >/tmp/f; "
    "while true; do cat /tmp/f | wc -c >/dev/null; sleep 0.2; done"
)


@pytest.fixture
def tmux(live, unpacked, tmp_path):
    """What runs tmux with its own server; without one here, that of Debian's package."""
    here = shutil.which("tmux")
    folder = None if here else unpacked("tmux")
    environment = {**os.environ, "LANG": "C.UTF-8"}
    if folder:
        environment["LD_LIBRARY_PATH"] = f"{folder}/usr/lib/x86_64-linux-gnu"
    program = here or f"{folder}/usr/bin/tmux"

    def run(*arguments):
        return subprocess.run(
            [program, "-S", tmp_path / "tmux", "-f", os.devnull, *map(str, arguments)],
            env=environment, capture_output=True, text=True, check=True,
        ).stdout  # fmt: skip

    yield run
    subprocess.run([program, "-S", tmp_path / "tmux", "kill-server"], env=environment)


def until(screen, pattern, seconds=240):
    deadline = time.monotonic() + seconds
    while not re.search(pattern, text := screen(), re.MULTILINE):
        assert time.monotonic() < deadline, text
        time.sleep(0.5)
    return text


def test_the_screen_and_its_keys(tmux, tmp_path):
    command = [
        *("env", "-u", "LD_LIBRARY_PATH", sys.executable, "-m", "zctrace", "top"),
        *("--kernel", "6.1", "--", "sh", "-c", PROGRAM),
    ]
    status = tmp_path / "status"
    (tmp_path / "run.sh").write_text(
        f'cd {ROOT}\n{subprocess.list2cmdline([])}"$@"\necho $? >{status}\nsleep 600\n'
    )
    tmux("new-session", "-d", "-x", 80, "-y", 24, "sh", tmp_path / "run.sh", *command)

    def screen():
        return tmux("capture-pane", "-p")

    text = until(screen, r"^cat \d+ .* [12]\.\d\d$")
    assert "process" in text
    assert max(map(len, text.splitlines())) <= 80
    assert text.splitlines()[0].startswith("sh -c ")
    tmux("send-keys", "f")
    text = until(screen, r"^pipe:\[\d+\] +0,1 .* 2\.\d\d$")
    assert "/tmp/f" in text
    tmux("send-keys", "c")
    until(screen, r"^system call .*copied/s")
    tmux("send-keys", "t")
    until(screen, r"^write .*M .* 1\.00$")
    tmux("resize-window", "-x", 120, "-y", 30)
    text = until(screen, r"^system call {50,}in +out")
    assert max(map(len, text.splitlines())) > 100
    tmux("send-keys", "q")
    until(lambda: status.read_text() if status.exists() else "", "^0$")
    # The report stands on the page that was there before.
    assert "Self-tests: " in tmux("capture-pane", "-p", "-S", "-200")
