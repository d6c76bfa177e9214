"""What a thread does between two markers, as strace sees it."""

import json
import os
import re
import shutil
import subprocess
import sys
from collections import Counter
from pathlib import Path

from zctrace.workloads.marker import OPTION, Operation, Role

ROOT = Path(__file__).parents[2]
_MOVING = ("read", "write", "writev", "sendfile")
_SECONDS = 120


def why_not():
    return "" if shutil.which("strace") else "needs strace: apt-get install strace"


def performed(folder, names, *options, cache):
    """The processes' numbers by role, and all windows, of strategies that move ``payload``.

    It is in ``folder``; every strategy moves all of it.
    """
    size = (folder / "payload").stat().st_size
    command = ["strace", "-ff", "-qq", "-s", "1", "-o", folder / "log"]
    command += [sys.executable, "-m", "zctrace.workloads", *names, "--file", folder / "payload"]
    result = subprocess.run(
        [*command, *options, "--handshake"],
        cwd=ROOT,
        input="go\n" + "go\non\n" * len(names),
        capture_output=True,
        text=True,
        timeout=_SECONDS,
        env={**os.environ, "ZCTRACE_CACHE": str(cache)},
    )
    assert (result.returncode, result.stderr) == (0, "")
    pids, *outcomes = [json.loads(line) for line in result.stdout.splitlines()]
    assert [outcome["received"] for outcome in outcomes] == [size] * len(names)
    windows = [
        window
        for log in folder.glob("log.*")
        for window in windows_of(int(log.suffix[1:]), log.read_text())
    ]
    return pids["pids"], windows


class Window:
    """What a thread did between two markers: lines of strace."""

    def __init__(self, thread, role):
        self.thread, self.role, self.lines = thread, role, []

    @property
    def calls(self):
        return [line.split("(")[0] for line in self.lines]

    @property
    def sizes(self):
        """What the calls returned, by name, where they move something."""
        results = [line.split("= ")[-1].split()[0] for line in self.lines]
        return [
            (call, int(result))
            for call, result in zip(self.calls, results, strict=True)
            if call in _MOVING
        ]

    @property
    def moved(self):
        """Bytes by call: how many calls it took depends on whoever receives."""
        moved = Counter()
        for call, size in self.sizes:
            moved[call] += max(size, 0)
        return dict(moved)


def windows_of(thread, log):
    open_window, found = None, []
    for line in log.splitlines():
        if hex(OPTION) not in line:
            if open_window:
                open_window.lines.append(line)
            continue
        numbers = re.findall(r"0x[0-9a-f]+|\b\d+\b", line.split("=")[0].split(",", 1)[1])
        operation, role = (int(number, 0) for number in numbers[1:3])
        if operation == Operation.OPEN:
            open_window = Window(thread, Role(role))
        elif operation == Operation.CLOSE:
            assert open_window.role is Role(role)
            found.append(open_window)
            open_window = None
    assert open_window is None
    return found
