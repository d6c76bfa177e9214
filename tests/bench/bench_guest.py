"""In a guest, as root: one workload, untraced and under each tracer, one after the other.

``bench_guest CODE ANSWER STEPS KEY…``: the keys of the tracers. The first disk has an ext4.
Answers with, for each tracer, the lines of the workload's result as it was traced, and as it
ran untraced while a traced one slept.
"""

import json
import os
import shlex
import shutil
import signal
import subprocess
import sys
import time
import traceback
from dataclasses import asdict
from pathlib import Path

CODE, ANSWER, STEPS = map(Path, sys.argv[1:4])
sys.path.insert(0, str(CODE))

import tracers

from zctrace.collect import cgroups, payload
from zctrace.collect.describe import ENVIRONMENT
from zctrace.evidence.schema import Request, Subject
from zctrace.machine import qemu

ROOT = Path("/run/bench")
SHARED, FILE, WORKLOAD = ROOT / "shared", ROOT / "disk" / "file", ROOT / "workload"
POLL_SECONDS = 0.05
SETTINGS = {"tcp_autocorking": "0", "tcp_slow_start_after_idle": "0"}
"""Of TCP: what is sent goes out at once, in every batch alike."""


class FailedError(Exception):
    pass


def say(step):
    with STEPS.open("a") as file:
        file.write(json.dumps({"step": step}) + "\n")


def in_cgroup(name):
    """A new cgroup, for :class:`subprocess.Popen` to start something in."""
    folder = cgroups.hierarchy() / name
    folder.mkdir()
    return lambda: (folder / "cgroup.procs").write_text(str(os.getpid()))


def ran(result, *release):
    """The workload's command line."""
    return list(map(str, (WORKLOAD, "run", SHARED, FILE, result, *release)))


def lines_of(result):
    return [line.split() for line in result.read_text().splitlines()]


def untraced(folder, enter):
    """The workload alone, or beside one that sleeps."""
    result = folder / "bystander"
    ended = subprocess.run(ran(result), preexec_fn=enter, stderr=subprocess.PIPE, text=True)
    if ended.returncode:
        raise FailedError(ended.stderr)
    return lines_of(result)


def command_of(tracer, folder, command):
    """What starts the workload under ``tracer``, and where its last words are."""
    log = folder / "log"
    if tracer.mechanism:
        request = Request(
            run_id=tracer.key, settings=(), sizes=(), chunk=None, pipe_size=None, repeat=1,
            uid=0, gid=0, groups=(), user="root", machine="qemu-tcg", images={}, mount="",
            nonce=314159, mechanism=tracer.mechanism, subject=Subject(command=tuple(command)),
        )  # fmt: skip
        files = [folder / name for name in ("request.json", "evidence.json", "progress")]
        files[0].write_text(json.dumps(asdict(request)))
        (folder / ENVIRONMENT).write_text(json.dumps({"PATH": os.defpath}))
        isolated = CODE / "zctrace" / "collect" / "isolated.py"
        words = [qemu.PYTHON, "-I", isolated, "zctrace.collect.main", *files]
        return list(map(str, words)), log
    words = list(tracer.words)
    known = {"out": str(folder / "out"), "command": shlex.join(command), **addresses()}
    if "{command}" not in words:
        words += command
    return [filled(word, known) for word in words], log


def filled(word, known):
    for name, value in known.items():
        word = word.replace(f"{{{name}}}", value)
    return word


def addresses():
    """Of the functions that copy, in hexadecimal."""
    with open("/proc/kallsyms") as file:
        symbols = (line.split() for line in file)
        return {name: at for at, _, name, *_ in symbols if name in tracers.COPY_SITES}


def waited(process, until, progress):
    """Until there is a file; what a collector says meanwhile is said."""
    told = 0
    while not until.exists():
        if process.poll() is not None:
            raise FailedError("ended before the workload")
        if progress.exists():
            text = progress.read_text()
            for line in text[told : text.rfind("\n") + 1].splitlines():
                say(f"  {json.loads(line).get('step')}")
            told = text.rfind("\n") + 1
        time.sleep(POLL_SECONDS)


def measured(tracer, enter):
    folder = ROOT / tracer.key
    folder.mkdir()
    if tracer.words and not shutil.which(tracer.words[0]):
        return {"missing": tracer.package}
    result, release = folder / "result", folder / "release"
    os.mkfifo(release)
    command, log = command_of(tracer, folder, ran(result, release))
    began = time.monotonic()
    with log.open("wb") as output:
        process = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=output, stderr=subprocess.STDOUT
        )
    try:
        waited(process, result, folder / "progress")
        say(f"{tracer.key}: bystander")
        found = {"traced": lines_of(result), "bystander": untraced(folder, enter)}
        release.write_bytes(b"")
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
    except FailedError as error:
        errors = folder / "stderr"  # of zctrace's command
        said = errors.read_text() if errors.exists() else ""
        raise FailedError(
            f"{error}: {said}{log.read_text(errors='replace')[-2000:]}"
        ) from error
    finally:
        if process.returncode is None:
            process.send_signal(signal.SIGKILL)
            process.wait()
    found |= {"peak_kib": usage.ru_maxrss, "seconds": time.monotonic() - began}
    evidence = folder / "evidence.json"
    if evidence.exists():
        found["evidence"] = json.loads(evidence.read_text())
    return found


def main():
    subprocess.run(["ip", "link", "set", "lo", "up"], check=True)
    for name, value in SETTINGS.items():
        Path("/proc/sys/net/ipv4", name).write_text(value)
    FILE.parent.mkdir(parents=True)
    disk = payload.find_disk(qemu.disk_name(0))
    subprocess.run(["mount", "-t", "ext4", disk, str(FILE.parent)], check=True)
    FILE.write_bytes(bytes(range(256)) * 256)
    shutil.copy(CODE / "workload" / "workload", WORKLOAD)
    WORKLOAD.chmod(0o755)
    cgroups.enable_perf_event(cgroups.hierarchy())
    answer = {}
    peer = subprocess.Popen([WORKLOAD, "peer", SHARED], preexec_fn=in_cgroup("bench-peer"))
    try:
        while not (SHARED.exists() and SHARED.stat().st_size and SHARED.read_bytes()[4]):
            time.sleep(POLL_SECONDS)
        enter = in_cgroup("bench-bystander")
        for key in sys.argv[4:]:
            say(key)
            try:
                answer[key] = measured(tracers.BY_KEY[key], enter)
            except Exception:
                answer[key] = {"error": traceback.format_exc()[-3000:]}
    finally:
        peer.kill()
    partial = ANSWER.with_suffix(".partial")
    partial.write_text(json.dumps(answer))
    partial.rename(ANSWER)


if __name__ == "__main__":
    main()
