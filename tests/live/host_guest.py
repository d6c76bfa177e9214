"""In a guest, as root: measure the guest's own kernel, as ``--kernel host`` does.

A guest is the host here, so that the path without a virtual machine is tested on a
machine whose own kernel cannot be probed.
"""

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

CODE, ANSWER, STEPS = map(Path, sys.argv[1:4])
PYTHON, ROOT = sys.argv[4:6]
sys.path.insert(0, str(CODE))

import traces

from zctrace.collect import cgroups, payload
from zctrace.collect.describe import MEMORY
from zctrace.machine import qemu

OWN_BYTES, FED_BYTES, NOBODY = 300_007, 70_001, 65534
ZCTRACE, HOST = [PYTHON, "-m", "zctrace"], ["--kernel", "host"]
OUT, CACHE = Path("/run/out"), Path("/run/cache")
MEASURES_ITSELF = """
import os, sys, zctrace
with zctrace.Session() as session:
    print("a session", file=sys.stderr, flush=True)
    with session.window() as window:
        os.write(1, b"x" * 4099)
    print(os.geteuid(), window.copied_bytes, window.delivered_bytes, flush=True)
    if sys.argv[1:] == ["dies"]:
        with session.window():
            os.kill(os.getpid(), 9)
"""
MEASURING = ["env", f"PYTHONPATH={CODE}", PYTHON, "-P", "-c", MEASURES_ITSELF]


def say(step):
    with STEPS.open("a") as file:
        file.write(json.dumps({"step": step}) + "\n")


def trace_running(pid, signal_number, work):
    """``zctrace trace -p``, until the signal, which comes after ``work``.

    Returns its status and standard output.
    """
    process = start("-p", str(pid), stdout=subprocess.PIPE, command="trace")
    said = []
    for line in process.stderr:
        said.append(line)
        say(line.strip())
        if "tracing; Ctrl-C" in line:
            break
    work()
    process.send_signal(signal_number)
    stdout, stderr = process.communicate()
    return process.returncode, stdout, "".join(said) + stderr


def settled(before, seconds=120.0):
    """What is left. The kernel frees programs when none of its processors can be in one any
    more, which takes it a while where it is emulated and busy."""
    deadline = time.monotonic() + seconds
    while (after := traces.snapshot()) != before and time.monotonic() < deadline:
        time.sleep(0.2)
    return {
        key: without_the_same(before[key], after[key])
        for key in before
        if before[key] != after[key]
    }


def without_the_same(one, other):
    if not isinstance(one, list):
        return [one, other]
    return [[a for a in one if a not in other], [b for b in other if b not in one]]


def swallow(listener):
    """Throw away what comes, connection by connection."""
    while True:
        connection, _ = listener.accept()
        with connection:
            while connection.recv(1 << 16):
                pass


def start(*arguments, stdout=subprocess.DEVNULL, command="run", stdin=None, **environment):
    return subprocess.Popen(
        [*ZCTRACE, command, *HOST, *arguments],
        cwd=ROOT,
        env={**os.environ, **environment},
        text=True,
        stdin=stdin,
        stdout=stdout,
        stderr=subprocess.PIPE,
    )


def run(*arguments, **options):
    """To its end; its progress is ours. Returns the status and both outputs."""
    said = []
    with tempfile.TemporaryFile("w+") as stdout:
        process = start(*arguments, stdout=stdout, **options)
        for line in process.stderr:
            said.append(line)
            say(line.strip())
        process.wait()
        stdout.seek(0)
        return process.returncode, stdout.read(), "".join(said)


os.environ["TMPDIR"] = "/run"
OUT.mkdir()
# Taking hundreds of probes away waits for as many grace periods of RCU.
Path("/sys/kernel/rcu_expedited").write_text("1")
# As on a machine that has measured before. What is compiled anew takes a minute here.
os.environ["ZCTRACE_CACHE"] = str(CACHE)
shutil.copytree(CODE.parent / MEMORY, CACHE / "observed" / "host")
(CACHE / "observed" / "host").chmod(0o700)
subprocess.run(["modprobe", "-q", "loop"])
say("a run on a machine that nobody has configured")
status, _, complaint = run()
answer = {"killed": [], "bare": [complaint, status]}
# What systemd does at boot.
cgroups.enable_perf_event(Path("/sys/fs/cgroup"))
before = traces.snapshot()
say("a whole run")
answer["status"], answer["stdout"], answer["stderr"] = run("--json", str(OUT / "whole.json"))
answer["result"] = (
    json.loads((OUT / "whole.json").read_text()) if not answer["status"] else None
)
answer["left"] = settled(before)

# The other combinations of signals and phases are tried where zctrace boots a machine.
for phase, number in (("compiling the probes", signal.SIGINT), ("running", signal.SIGKILL)):
    say(f"{number.name} while {phase}")
    anew = {"ZCTRACE_OBSERVE": "anew"} if phase.startswith("compiling") else {}
    process = start("--repeat", "500", "--csv", str(OUT / "killed.csv"), **anew)
    for line in process.stderr:
        # A guest that says nothing for three minutes is taken for hung.
        say(line.strip())
        if phase in line:
            break
    if phase == "running":
        say("a second run at the same time")
        status, _, complaint = run()
        answer["second"] = [status, complaint]
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
say("a file of one's own, to an address of one's own")
disk = payload.find_disk(qemu.disk_name(0))
own = Path("/run/own")
own.mkdir()
subprocess.run(["mount", disk, own], check=True)
(own / "file").write_bytes(os.urandom(OWN_BYTES))
for path in (own, own / "file"):
    os.chown(path, NOBODY, NOBODY)
drain = socket.create_server(("127.0.0.1", 0))
threading.Thread(target=swallow, args=(drain,), daemon=True).start()
before = traces.snapshot()
answer["own_status"], _, answer["own_stderr"] = run(
    *("sendfile", "--file", str(own / "file"), "--cache", "cold"),
    *("--to", f"127.0.0.1:{drain.getsockname()[1]}", "--json", str(OUT / "own.json")),
)
answer["own"] = json.loads((OUT / "own.json").read_text()) if not answer["own_status"] else None
answer["own_left"] = settled(before)
say("a program of one's own, which reads its standard input")
with subprocess.Popen(
    ["head", "-c", str(FED_BYTES), "/dev/zero"], stdout=subprocess.PIPE
) as writer:
    answer["traced_status"], answer["traced_stdout"], answer["traced_stderr"] = run(
        *("--json", str(OUT / "traced.json")),
        *("--", "sh", "-c", f"cat {own}/file >/dev/null; wc -c; exit 7"),
        command="trace",
        stdin=writer.stdout,
    )
traced = OUT / "traced.json"
answer["traced"] = json.loads(traced.read_text()) if traced.exists() else None
answer["traced_left"] = settled(before)
say("a program that measures itself, below a collector")
answer["served"] = run("--user", "nobody", "--", *MEASURING, command="serve")
answer["served_left"] = settled(before)
say("one that starts its own collector, and is killed in a window")
with tempfile.TemporaryFile("w+") as stdout:
    own = subprocess.Popen(
        [*MEASURING, "dies"], stdout=stdout, stderr=subprocess.PIPE, text=True
    )
    said = []
    for line in own.stderr:
        said.append(line)
        say(line.strip())
    own.wait()
    say("killed")
    stdout.seek(0)
    answer["measured"] = [own.returncode, stdout.read(), "".join(said)]
answer["measured_left"] = settled(before)

say("a program that runs already")
# It reads the file once for each line that it gets.
reader = subprocess.Popen(
    ["sh", "-c", "while read x; do cat /run/own/file | wc -c; done"],
    stdin=subprocess.PIPE,
    stdout=subprocess.PIPE,
)


def read_once():
    reader.stdin.write(b"\n")
    reader.stdin.flush()
    return int(reader.stdout.readline())


before = traces.snapshot()
answer["running"] = []
for number in (signal.SIGINT, signal.SIGKILL):
    read = []
    result = trace_running(reader.pid, number, lambda read=read: read.append(read_once()))
    # It goes on as if nothing had been.
    read.append(read_once())
    answer["running"].append([number.name, *result, read, settled(before)])
reader.communicate()
answer["reader"] = reader.returncode

partial = ANSWER.with_suffix(".partial")
partial.write_text(json.dumps(answer))
partial.rename(ANSWER)
