"""A suite of tracing_guest: threads that run at once, and processors that go off."""

import subprocess
from contextlib import contextmanager
from pathlib import Path

import suites
from suites import ENVIRONMENT

HERE = Path(__file__).parent
PYTHON = "/usr/bin/python3"
LAST = Path(f"/sys/devices/system/cpu/cpu{suites.MORE_PROCESSORS - 1}/online")
ONCE = f"""
import os, sys
file = os.open({{path!r}}, os.O_RDONLY)
into = [bytearray({suites.PIECE})]
print(flush=True)
for line in sys.stdin:
    os.sched_setaffinity(0, {{{{{suites.MORE_PROCESSORS - 1}}}}})
    os.preadv(file, into, 0)
    print(flush=True)
"""


@contextmanager
def started(text, path):
    """A Python process, once it has said that it is ready."""
    process = subprocess.Popen(
        [PYTHON, "-I", "-c", text.format(path=str(path))],
        env=ENVIRONMENT, stdin=subprocess.PIPE, stdout=subprocess.PIPE,
    )  # fmt: skip
    try:
        process.stdout.readline()
        yield process
    finally:
        process.kill()
        process.communicate()


def online(yes):
    LAST.write_text(str(int(yes)))


def reads(process):
    process.stdin.write(b"\n")
    process.stdin.flush()
    process.stdout.readline()


def off_and_on(programs, payload):
    with started(ONCE, payload) as process:

        def meanwhile():
            reads(process)
            online(False)
            online(True)
            reads(process)

        programs.attached("off and on", meanwhile, pids=(process.pid,))
        online(False)
        try:
            # The one that is off is not among those that breakpoints are opened for.
            programs.attached("off", lambda: None, pids=(process.pid,))
        finally:
            online(True)
        programs.attached("on again", lambda: reads(process), pids=(process.pid,))


def everything(programs):
    payload = programs.folders["ext4"] / "payload"
    workload = HERE / "scale_workload.py"
    programs.command("threads", PYTHON, "-I", workload, *suites.THREADS)
    storm = f"i=0; while [ $i -lt {suites.FORKS} ]; do /bin/true & i=$((i+1)); done; wait"
    programs.command("storm", "/bin/sh", "-c", storm)
    off_and_on(programs, payload)
