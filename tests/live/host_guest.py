"""In a guest, as root: measure the guest's own kernel, as ``--kernel host`` does.

A guest is the host here, so that the path without a virtual machine is tested on a
machine whose own kernel cannot be probed.
"""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

CODE, ANSWER, STEPS = map(Path, sys.argv[1:4])
PYTHON, ROOT = sys.argv[4:6]
sys.path.insert(0, str(CODE))

import traces  # noqa: E402

from tracer import target  # noqa: E402

RUN = [PYTHON, "-m", "tracer", "run", "--kernel", "host"]
OUT = Path("/run/out")


def say(step):
    with STEPS.open("a") as file:
        file.write(json.dumps({"step": step}) + "\n")


def settled(before, seconds=20.0):
    deadline = time.monotonic() + seconds
    while (after := traces.snapshot()) != before and time.monotonic() < deadline:
        time.sleep(0.2)
    return {key: [before[key], after[key]] for key in before if before[key] != after[key]}


def start(*arguments):
    return subprocess.Popen(
        [*RUN, *arguments], cwd=ROOT, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )


os.environ["TMPDIR"] = "/run"
OUT.mkdir()
subprocess.run(["modprobe", "-q", "loop"])
say("a run on a machine that nobody has configured")
bare = start()
answer = {"killed": [], "bare": [bare.communicate()[1], bare.returncode]}
# What systemd does at boot.
target.enable_perf_event(Path("/sys/fs/cgroup"))
before = traces.snapshot()
say("a whole run")
whole = start("--json", str(OUT / "whole.json"))
answer["stdout"], answer["stderr"] = whole.communicate()
answer["status"] = whole.returncode
answer["result"] = (
    json.loads((OUT / "whole.json").read_text()) if not whole.returncode else None
)
answer["left"] = settled(before)

for phase in ("compiling the probes", "running"):
    for number in (signal.SIGKILL, signal.SIGINT):
        say(f"{number.name} while {phase}")
        process = start("--repeat", "500", "--csv", str(OUT / "killed.csv"))
        second = None
        for line in process.stderr:
            if phase in line:
                break
        if phase == "running" and number == signal.SIGKILL:
            say("a second run at the same time")
            second = subprocess.run(RUN, cwd=ROOT, text=True, capture_output=True)
            answer["second"] = [second.returncode, second.stderr]
        process.send_signal(number)
        process.communicate()
        answer["killed"].append(
            {
                "phase": phase,
                "signal": number.name,
                "status": process.returncode,
                "left": settled(before),
                "files": (OUT / "killed.csv").exists(),
            }
        )
partial = ANSWER.with_suffix(".partial")
partial.write_text(json.dumps(answer))
partial.rename(ANSWER)
