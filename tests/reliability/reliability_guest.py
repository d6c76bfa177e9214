"""In a guest that plays the host, as root: zctrace where it is killed, starved or confined.

``reliability_guest CODE ANSWER STEPS OPTIONS``. OPTIONS, as JSON: how many ``tries`` of which
function here, after how many ``seconds`` of each none is begun any more, the ``seed``. Answers,
by function, with the tries, with what was seen beside, and with what failed; STEPS gets that
as soon as a function is done.
"""

import contextlib
import json
import os
import random
import resource
import shutil
import subprocess
import sys
import threading
import time
import traceback
from pathlib import Path

CODE, ANSWER, STEPS = map(Path, sys.argv[1:4])
OPTIONS = json.loads(sys.argv[4])
sys.path.insert(0, str(CODE))

import bpf_rows
import churn
import scale_workload
import tries
from tries import COPYING, OUT, PYTHON, SITE, SIZE, SOURCE, Command

from zctrace.collect import cgroups

SMALL, CACHE = Path("/run/small"), Path("/var/cache/zctrace")
CGROUP, MIB = Path("/sys/fs/cgroup/small"), 1 << 20
DOCKER = (
    "chown,dac_override,fowner,fsetid,kill,setgid,setuid,setpcap,net_bind_service,net_raw,"
    "sys_chroot,mknod,audit_write,setfcap"
)
"""The capabilities of its containers."""
beside, case, began = {}, "", 0.0


def note(**line):
    with STEPS.open("a") as file:
        file.write(json.dumps(line) + "\n")


def say(step):
    note(step=step)


def trace(what, *then, expected=tries.COPIED, words=(), **options):
    command = Command("trace", *words, then=("--", *(then or COPYING)), **options)
    return command.ended(what, say, expected)


def in_time(many):
    """Those, as long as it is not too late to begin another."""
    for one in many:
        if OPTIONS["seconds"] and time.monotonic() - began > OPTIONS["seconds"]:
            late = f"all from {one} on: {OPTIONS['seconds']} s were over"
            beside.setdefault("not tried", late)
            return
        yield one


def turns():
    return in_time(range(OPTIONS["tries"][case]))


def kills():
    """The tool or its collector, at random moments of a run and a trace."""
    seeded, phases = random.Random(OPTIONS["seed"]), {}
    lasts = {}
    ways = {"run": ("run", ()), "trace": ("trace", ("--", *COPYING))}
    # The first of each compiles its programs.
    for way in ("run", "run", "trace"):
        at, (word, then) = time.monotonic(), ways[way]
        Command(word, then=then).ended(f"whole {way}", say)
        lasts[way] = round(time.monotonic() - at, 1)
    for number in turns():
        way = seeded.choice(("trace", "trace", "run"))
        victim = seeded.choice(("tool", "tool", "collector"))
        word, then = ways[way]
        command = Command(word, then=then)
        time.sleep(seeded.uniform(0, lasts[way]))
        said = command.said().splitlines() or ["nothing said yet"]
        last = said[-1].rpartition(" s] ")[2].strip()[:60]
        phases[last] = phases.get(last, 0) + 1
        pid = command.collector() if victim == "collector" else None
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid or command.process.pid, 9)
        command.ended(f"{way}, {'collector' if pid else 'tool'} killed", say)
        if (number + 1) % OPTIONS["check"] == 0:
            trace("trace after a kill")
    beside.update(phases=phases, seconds=lasts)
    beside["killed"] = f"{sum(phases.values())} of these; the first 3 lived"


@contextlib.contextmanager
def tmpfs(folder, kib):
    folder.mkdir(parents=True, exist_ok=True)
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={kib}k", "none", folder], check=True)
    try:
        yield
        if kept := [str(p) for p in SMALL.iterdir() if "zctrace" in p.name]:
            tries.done[-1]["left"]["on the full disk"] = kept
    finally:
        subprocess.run(["umount", "-l", folder], check=True)


def disk():
    """The disk of the output, of the temporary files or of the cache is full."""
    for kib in in_time((4, 32, 128)):
        with tmpfs(SMALL, kib):
            trace(f"output, {kib} KiB", result=SMALL / "result.json")
    for kib in in_time((64, 1024, 3072, 4096, 4608, 5120, 8192)):
        with tmpfs(SMALL, kib):
            trace(f"TMPDIR, {kib} KiB", environment={"TMPDIR": str(SMALL)})
    fill = f"cat /dev/zero >{SMALL}/fill 2>/dev/null; exec {' '.join(COPYING)}"
    with tmpfs(SMALL, 16 << 10):
        trace("TMPDIR, meanwhile", "sh", "-c", fill, environment={"TMPDIR": str(SMALL)})
    with tmpfs(CACHE, 64):
        trace("cache, 64 KiB")


def memory():
    """The tool and its collector have so little memory: by their limit, by their cgroup."""
    for mib in in_time((50, 75, 100, 150, 300)):
        limit = (mib * MIB, mib * MIB)
        trace(
            f"RLIMIT_AS, {mib} MiB",
            preexec_fn=lambda limit=limit: resource.setrlimit(resource.RLIMIT_AS, limit),
        )
    (CGROUP.parent / "cgroup.subtree_control").write_text("+memory")
    CGROUP.mkdir()
    into = f'echo $$ >{CGROUP}/cgroup.procs; exec "$@"'
    for mib in in_time((10, 20, 30, 40, 60, 100)):
        (CGROUP / "memory.max").write_text(str(mib * MIB))
        trace(f"memory.max, {mib} MiB", prefix=("sh", "-c", into, "sh"))


def storm():
    """64 threads that fork and execute programs: to the byte and to the number."""
    threads, rounds = 64, 4
    many = threads * rounds
    expected = {
        "things": {str(SOURCE): {"k2u": many * SIZE}},
        "kinds": {"pipe": many * SIZE},
        "calls": {"exit_group": many + 1, "execve": many, "wait4": many},
    }
    for _ in turns():
        program = (PYTHON, "-I", CODE / "storm.py", threads, rounds, SOURCE)
        trace(f"{threads} threads, {many} times fork and execve", *program, expected=expected)
    beside["bytes"] = f"{many * SIZE} B through {many} pipes"


def sockets():
    """10 000 of them, all open at once."""
    threads, pairs = 500, 10
    total = scale_workload.total(threads, pairs)
    for _ in turns():
        program = (PYTHON, "-I", CODE / "scale_workload.py", threads, pairs)
        trace(
            "10 000 sockets",
            *program,
            expected={"kinds": {"socket": total}},
            preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_NOFILE, (11_000, 11_000)),
        )
    beside["bytes"] = f"{total} B sent and received"


def hour():
    """A program that makes threads, sockets and processes all the time, in constant memory."""
    account, lasts = OUT / "churned", OPTIONS["lasts"]
    program = (PYTHON, "-I", CODE / "churn.py", lasts, SOURCE, account)
    command, seen = Command("trace", then=("--", *program)), []
    while command.process.poll() is None:
        pid = command.collector()
        if pid and "tracing" in command.said():
            with contextlib.suppress(OSError):
                status = Path(f"/proc/{pid}/status").read_text()
                (resident,) = [n.split()[1] for n in status.splitlines() if "VmRSS" in n]
                seen.append([round(time.monotonic() - began), int(resident), bpf_rows.total()])
        time.sleep(lasts / 40)
    moved = json.loads(account.read_text())
    read = (moved["turns"] + moved["children"]) * SIZE
    sent = moved["turns"] * churn.SENT
    expected = {"things": {str(SOURCE): {"k2u": read}}, "kinds": {"socket": sent}}
    command.ended(f"{lasts} s", say, expected)
    beside.update(moved, seen=seen)


def container():
    """In namespaces, with less of the kernel to be seen, and with fewer capabilities."""
    own = ("unshare", "--mount", "--pid", "--fork", "--mount-proc")
    tracefs, debugfs = "/sys/kernel/tracing", "/sys/kernel/debug"
    chroot = 'mkdir -p /run/root; mount --rbind / /run/root; exec chroot /run/root "$@"'

    def within(script):
        return (*own, "sh", "-c", script, "sh")

    def unmounted(*folders):
        return within(f'umount -l {" ".join(folders)}; exec "$@"')

    def without(*names):
        return (*own, "setpriv", f"--bounding-set={','.join(f'-{name}' for name in names)}")

    prefixes = {
        "PID and mount namespaces": own,
        "cgroup namespace": (*own, "--cgroup"),
        "network namespace": (*own, "--net"),
        "chroot": within(chroot),
        f"no {tracefs}": unmounted(tracefs),
        f"no {debugfs}": unmounted(debugfs),
        "neither": unmounted(tracefs, debugfs),
        "cgroups read-only": within('mount -o remount,ro,bind /sys/fs/cgroup; exec "$@"'),
        "no CAP_BPF": without("bpf"),
        "no CAP_SYS_ADMIN": without("sys_admin"),
        "no CAP_BPF, CAP_PERFMON, CAP_SYS_ADMIN": without("bpf", "perfmon", "sys_admin"),
        "no CAP_SYS_PTRACE, CAP_SYS_RESOURCE": without("sys_ptrace", "sys_resource"),
        "Docker's capabilities": (
            *(*own, "setpriv", f"--bounding-set=-all,+{DOCKER.replace(',', ',+')}"),
        ),
        "user namespace": (*own, "--user", "--map-root-user"),
    }
    for name in in_time(prefixes):
        trace(name, prefix=prefixes[name])
    reads = f"while :; do dd if={SOURCE} of=/dev/null bs=64k status=none; done"
    attach = f'sh -c "{reads}" & p=$!; sleep 1; "$@" -p $p; s=$?; kill $p; exit $s'
    here = ("sh", "-c", attach, "sh")
    attached = {"-p": here, "-p, PID and mount namespaces": within(attach)}
    for name in in_time(attached):
        command = Command("trace", "-d", "2", prefix=attached[name])
        command.ended(name, say, {"some": [str(SOURCE)]})


def of_case(name):
    global case, began
    case, began, failed = name, time.monotonic(), ""
    tries.done.clear()
    beside.clear()
    try:
        globals()[name]()
    except Exception:
        failed = traceback.format_exc()
        say(failed)
    found = {"tries": tries.done.copy(), "beside": beside.copy(), "failed": failed}
    note(case=name, **found)
    return found


def alive():
    """Whoever waits takes long silence for a hung machine."""
    while True:
        note(alive=True)
        time.sleep(20)


def main():
    threading.Thread(target=alive, daemon=True).start()
    os.environ.update(TMPDIR="/run", PYTHONPATH=str(SITE))
    shutil.copytree(CODE / "site", SITE)
    for folder in (OUT, SMALL):
        folder.mkdir()
    SOURCE.write_bytes(bytes(SIZE))
    subprocess.run(["modprobe", "-q", "loop"])
    # What systemd does at boot.
    cgroups.enable_perf_event(Path("/sys/fs/cgroup"))
    # Some of what is there stays for good once it was first needed.
    trace("first")
    answer = {}
    for name in OPTIONS["tries"]:
        answer[name] = of_case(name)
    partial = ANSWER.with_suffix(".partial")
    partial.write_text(json.dumps(answer))
    partial.rename(ANSWER)


main()
