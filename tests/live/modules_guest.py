"""In a guest, as root: trace programs that load modules, one after the other, with one meter.

``modules_guest CODE ANSWER STEPS``. Answers with a piece of evidence for each, by name. Before
each, what modules have brought that the one before has loaded is attached.
"""

import dataclasses
import json
import os
import sys
import traceback
from pathlib import Path

CODE, ANSWER, STEPS = map(Path, sys.argv[1:4])
sys.path.insert(0, str(CODE))

from zctrace.collect.describe import Stopwatch
from zctrace.collect.program import Tracer, following
from zctrace.evidence.schema import Request, Subject

PATH = "/usr/bin:/bin:/usr/sbin:/sbin"
TLS = ("/usr/bin/python3", "-I", "-S", str(CODE / "tls_workload.py"))
PROGRAMS = {
    "without a copy": ("modprobe", "dummy"),
    "without its hardware": ("sh", "-c", "modprobe padlock_sha; true"),
    "came and went": ("sh", "-c", "modprobe brd && modprobe --remove brd"),
    "loaded": TLS,
    "there before": TLS,
}


def say(step):
    with STEPS.open("a") as file:
        file.write(json.dumps({"step": step}) + "\n")


def traced():
    request = Request(
        run_id="modules", settings=(), sizes=(), chunk=None, pipe_size=None, repeat=1,
        uid=0, gid=0, groups=(), user="root", machine="qemu-tcg", images={}, mount="",
        nonce=314159, subject=Subject(),
    )  # fmt: skip
    null = os.open(os.devnull, os.O_RDWR)
    found = {}
    with following(request, Stopwatch(say)) as (instrument, _):
        for name, words in PROGRAMS.items():
            say(name)
            instrument.renew()
            tracer = Tracer(
                request, instrument.meter, instrument.cgroup, [null] * 3, {"PATH": PATH},
                lambda: False, say,
            )  # fmt: skip
            subject = Subject(command=words)
            trace = tracer.run(subject)
            asked = dataclasses.replace(request, subject=subject)
            evidence = instrument.evidence(
                asked, Stopwatch(say), rights=tracer.rights, trace=trace
            )
            found[name] = evidence.to_json()
    return found


try:
    answer = {"evidence": traced()}
except Exception:
    answer = {"failure": traceback.format_exc()}
partial = ANSWER.with_suffix(".partial")
partial.write_text(json.dumps(answer))
partial.rename(ANSWER)
