"""In a guest, as root: watch a program beside this one, answer with what the meter counted.

``meter_guest CODE ANSWER STEPS PROGRAM``: the program is run as nobody, with the nonce, a
file, a copy of busybox and CODE as its arguments, and waits for a line.
"""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

CODE, ANSWER, STEPS = map(Path, sys.argv[1:4])
PROGRAM = sys.argv[4]
sys.path.insert(0, str(CODE))

from probes.catalogue import COPY_SITES, EVENT_SITES  # noqa: E402
from tracer import attach, kernel, target  # noqa: E402
from tracer.plan import plan  # noqa: E402

NONCE, NOBODY = 271828, 65534


def say(step):
    with STEPS.open("a") as file:
        file.write(json.dumps({"step": step}) + "\n")


say("observing")
attach_plan = plan(COPY_SITES, EVENT_SITES, kernel.observe(COPY_SITES, EVENT_SITES))
folder = Path("/run/watched")
folder.mkdir(mode=0o755)
(folder / "input").write_bytes(bytes(100_000))
busybox = shutil.copy("/bin/busybox", folder / "busybox")
(folder / "busybox").chmod(0o755)
with (
    target.cgroup("watched", own_machine=True) as cgroup,
    attach.Meter(attach_plan, NONCE) as meter,
):
    say("loading")
    meter.load(CODE / "probes")
    meter.attach(cgroup)
    meter.activate()
    say("running")
    program = subprocess.Popen(
        [sys.executable, "-I", str(CODE / PROGRAM), str(NONCE), str(folder / "input"),
         str(busybox), str(CODE)],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        user=NOBODY, group=NOBODY, extra_groups=[], env={"PATH": os.defpath},
    )  # fmt: skip
    (cgroup / "cgroup.procs").write_text(str(program.pid))
    skipped = meter.skipped()
    out, err = program.communicate("go\n")
    skips = {name: count - skipped[name] for name, count in meter.skipped().items()}
    meter.deactivate()
    answer = {
        "status": out.strip(),
        "stderr": err,
        "counts": [vars(count) for count in meter.counts()],
        "hits": {name: vars(hits) for name, hits in meter.hits().items()},
        "lost": meter.lost() | skips,
    }
partial = ANSWER.with_suffix(".partial")
partial.write_text(json.dumps(answer))
partial.rename(ANSWER)
