"""A suite of tracing_guest: programs that end while zctrace attaches to them.

Each reads a file once, at a moment of its own, and ends. ``ending.json`` beside this has the
file and its size, how many programs, and the seed of the moments.
"""

import json
import random
import subprocess
import threading
from pathlib import Path

from zctrace.evidence.schema import Subject

ASKED = json.loads(Path(__file__).with_name("ending.json").read_text())
READS = f"read x; exec dd if={ASKED['file']} of=/dev/null bs=4099 status=none"
MOST_SECONDS = 2.5
"""From the beginning: the controls run first, then windows open."""


def everything(programs):
    Path(ASKED["file"]).write_bytes(bytes(ASKED["size"]))
    moments = random.Random(ASKED["seed"])
    for number in range(ASKED["tries"]):
        process = subprocess.Popen(["/bin/sh", "-c", READS], stdin=subprocess.PIPE)
        go = threading.Timer(
            moments.uniform(0, MOST_SECONDS), process.communicate, args=(b"\n",)
        )
        go.start()
        programs.trace(f"ending {number}", Subject(pids=(process.pid,), seconds=20.0))
        go.join()
