"""In a guest, as root: one workload, untraced and under each tracer, one after the other.

``bench_guest CODE ANSWER STEPS operations KEY…``: the keys of the tracers; the first disk has
an ext4. Answers with, for each tracer, the lines of the workload's result as it was traced,
and as it ran untraced while a traced one slept.

``bench_guest CODE ANSWER STEPS symbols KEY…``: the same, with the kernel's symbols.

``bench_guest CODE ANSWER STEPS growth THREADS,PAIRS…``: zctrace with so many threads, each
with so many pairs of sockets. Answers with a piece of evidence and the memory for each.
"""

import json
import os
import resource
import shutil
import subprocess
import sys
import time
import traceback
from dataclasses import asdict
from pathlib import Path

CODE, ANSWER, STEPS = map(Path, sys.argv[1:4])
WHAT, NAMES = sys.argv[4], sys.argv[5:]
sys.path.insert(0, str(CODE))

import bpf_programs
import tracers

from zctrace.collect import cgroups, payload
from zctrace.collect.describe import ENVIRONMENT, OBSERVED
from zctrace.evidence.schema import Request, Subject
from zctrace.machine import qemu

ROOT = Path("/run/bench")
SHARED, FILE, WORKLOAD = ROOT / "shared", ROOT / "disk" / "file", ROOT / "workload"
POLL_SECONDS = 0.002
SETTINGS = {
    "net/ipv4/tcp_autocorking": "0",
    "net/ipv4/tcp_slow_start_after_idle": "0",
    "net/core/bpf_jit_kallsyms": "1",
}
"""What is sent goes out at once, in every batch alike; compiled BPF programs have symbols."""
MOST_DESCRIPTORS = 20_000


class FailedError(Exception):
    pass


def say(step):
    with STEPS.open("a") as file:
        file.write(json.dumps({"step": step}) + "\n")


def in_cgroup(name):
    """A new cgroup; what puts a process that is being started into it."""
    folder = cgroups.hierarchy() / name
    folder.mkdir()
    return lambda: (folder / "cgroup.procs").write_text(str(os.getpid()))


def performed(result, *release):
    """The workload's command line."""
    return list(map(str, (WORKLOAD, "run", SHARED, FILE, result, *release)))


def lines_of(result):
    return [line.split() for line in result.read_text().splitlines()]


def as_bystander(folder, enter):
    """What the workload takes that is not traced itself."""
    result = folder / "bystander"
    ended = subprocess.run(
        performed(result), preexec_fn=enter, stderr=subprocess.PIPE, text=True
    )
    if ended.returncode:
        raise FailedError(ended.stderr)
    return lines_of(result)


def collector(folder, mechanism, command):
    """The command line of zctrace's collector, as it runs in a guest of zctrace's own."""
    request = Request(
        run_id=folder.name, settings=(), sizes=(), chunk=None, pipe_size=None, repeat=1,
        uid=0, gid=0, groups=(), user="root", machine="qemu-tcg", images={}, mount="",
        nonce=314159, mechanism=mechanism, subject=Subject(command=tuple(command)),
    )  # fmt: skip
    files = [folder / name for name in ("request.json", "evidence.json", "progress")]
    files[0].write_text(json.dumps(asdict(request)))
    (folder / ENVIRONMENT).write_text(json.dumps({"PATH": os.defpath}))
    isolated = CODE / "zctrace" / "collect" / "isolated.py"
    return list(map(str, (qemu.PYTHON, "-I", isolated, "zctrace.collect.main", *files)))


def addresses():
    """Of the functions that copy, in hexadecimal."""
    with open("/proc/kallsyms") as file:
        symbols = (line.split() for line in file)
        return {name: at for at, _, name, *_ in symbols if name in tracers.COPY_SITES}


class Started:
    """A tracer with its command, killed in the end if it has not ended by itself."""

    def __init__(self, folder, command):
        self._folder, self._log = folder, folder / "log"
        self.peak_kib, self.steps, self._read = 0, [], 0
        with self._log.open("wb") as output:
            self._process = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=output, stderr=subprocess.STDOUT
            )

    def __enter__(self):
        return self

    def __exit__(self, *_):
        if self._process.returncode is None:
            self._process.kill()
            self._process.wait()

    def wait_for(self, file):
        """Until it is there; raises FailedError when it never will be."""
        while not file.exists():
            self._hear()
            if self._ended() and not file.exists():
                raise FailedError(f"it ended before the workload: {self.last_words()}")
            time.sleep(POLL_SECONDS)
        self.steps.append(["", self._taken()])

    def wait(self):
        _, status, usage = os.wait4(self._process.pid, 0)
        self._process.returncode = os.waitstatus_to_exitcode(status)
        self.peak_kib = usage.ru_maxrss

    def last_words(self):
        # The second is of zctrace's command.
        files = (self._log, self._folder / "stderr")
        return " ".join(f.read_text(errors="replace")[-2000:] for f in files if f.exists())

    def _hear(self):
        """Each step of a collector, with what it had taken of the processor by then."""
        progress = self._folder / "progress"
        text = progress.read_text() if progress.exists() else ""
        end = text.rfind("\n") + 1
        for line in text[self._read : end].splitlines():
            if step := json.loads(line).get("step"):
                self.steps.append([step, self._taken()])
                say(f"  {step}")
        self._read = end

    def _ended(self):
        """Whether there is nothing left but to wait for it."""
        how = os.WEXITED | os.WNOHANG | os.WNOWAIT
        return os.waitid(os.P_PID, self._process.pid, how) is not None

    def _taken(self):
        """Nanoseconds that it ran, in user space and in the kernel."""
        return int(Path(f"/proc/{self._process.pid}/schedstat").read_text().split()[0])


def measured(tracer, enter):
    """Both results under one tracer, and what it took itself; raises FailedError."""
    if tracer.program and not shutil.which(tracer.program):
        return {"missing": tracer.package}
    folder = ROOT / tracer.key
    folder.mkdir()
    result, release = folder / "result", folder / "release"
    os.mkfifo(release)
    command = performed(result, release)
    if tracer.mechanism:
        command = collector(folder, tracer.mechanism, command)
    else:
        command = tracer.command(command, str(folder / "out"), addresses())
    with Started(folder, command) as started:
        started.wait_for(result)
        say(f"{tracer.key}: bystander")
        found = {"traced": lines_of(result), "bystander": as_bystander(folder, enter)}
        if WHAT == "symbols":
            found["symbols"] = Path("/proc/kallsyms").read_text()
            found["programs"] = bpf_programs.places()
        release.write_bytes(b"")
        started.wait()
    # Lent by nobody: the first collector remembers nothing, the second what it has found.
    OBSERVED.mkdir(exist_ok=True)
    output = folder / "out"
    return {
        **found,
        "peak_kib": started.peak_kib,
        "steps": started.steps,
        "said": output.read_text(errors="replace")[-2000:] if output.exists() else "",
        **evidence_in(folder),
    }


def evidence_in(folder):
    file = folder / "evidence.json"
    if not file.exists():
        return {}
    found = json.loads(file.read_text())
    if "error" in found:
        raise FailedError(str(found))
    return {"evidence": found}


def operations():
    """What every tracer costs the workload, by key."""
    FILE.parent.mkdir()
    disk = payload.find_disk(qemu.disk_name(0))
    subprocess.run(["mount", "-t", "ext4", disk, str(FILE.parent)], check=True)
    FILE.write_bytes(bytes(range(256)) * 256)
    shutil.copy(CODE / "workload" / "workload", WORKLOAD)
    WORKLOAD.chmod(0o755)
    cgroups.enable_perf_event(cgroups.hierarchy())
    enter = in_cgroup("bench-bystander")
    with subprocess.Popen(
        [WORKLOAD, "peer", SHARED], preexec_fn=in_cgroup("bench-peer")
    ) as peer:
        # Its second word is the port.
        while not (SHARED.exists() and any(SHARED.read_bytes()[4:8])):
            time.sleep(POLL_SECONDS)
        try:
            return {
                key: attempted(lambda key=key: measured(tracers.BY_KEY[key], enter), key)
                for key in NAMES
            }
        finally:
            peer.kill()


def growth():
    """Evidence and peak memory, by the number of threads and of pairs of sockets for each."""
    resource.setrlimit(resource.RLIMIT_NOFILE, (MOST_DESCRIPTORS, MOST_DESCRIPTORS))
    return {name: attempted(lambda name=name: grown(name), name) for name in NAMES}


def grown(name):
    folder = ROOT / name
    folder.mkdir()
    program = [qemu.PYTHON, CODE / "scale_workload.py", *name.split(",")]
    command = collector(folder, "auto", list(map(str, program)))
    with Started(folder, command) as started:
        started.wait_for(folder / "evidence.json")
        started.wait()
    return {"peak_kib": started.peak_kib, **evidence_in(folder)}


def attempted(work, name):
    """What ``work`` returns, or how it failed: the others are measured all the same."""
    say(name)
    try:
        return work()
    except Exception:
        return {"error": traceback.format_exc()[-3000:]}


def main():
    subprocess.run(["ip", "link", "set", "lo", "up"], check=True)
    for name, value in SETTINGS.items():
        Path("/proc/sys", name).write_text(value)
    ROOT.mkdir()
    answer = {
        "release": os.uname().release,
        "found": growth() if WHAT == "growth" else operations(),
    }
    partial = ANSWER.with_suffix(".partial")
    partial.write_text(json.dumps(answer))
    partial.rename(ANSWER)


if __name__ == "__main__":
    main()
