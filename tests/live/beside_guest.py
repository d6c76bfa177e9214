"""In a guest that plays the host, as root: measure while something else is at work beside it.

``beside_guest CODE ANSWER STEPS PYTHON ROOT PACKAGES CASE…``: each case is a function here, and
PACKAGES where Python finds zctrace if it is not installed. Answers with
what became of ``zctrace``, by case: the status, what it said, and the evidence.
"""

import contextlib
import json
import os
import resource
import subprocess
import sys
import time
import traceback
from pathlib import Path

CODE, ANSWER, STEPS = map(Path, sys.argv[1:4])
PYTHON, ROOT, PACKAGES = sys.argv[4:7]
sys.path.insert(0, str(CODE))

from beside_work import SIZE

from zctrace.collect import cgroups, payload
from zctrace.machine import qemu

ZCTRACE, HOST = [PYTHON, "-m", "zctrace"], ["--kernel", "host"]
OUT, FILES = Path("/run/out"), Path("/run/files")
TRACING, DEBUG = Path("/sys/kernel/tracing"), Path("/sys/kernel/debug")
WORK = [PYTHON, "-I", str(CODE / "beside_work.py"), str(FILES / "payload")]
TO_RUN = ("read-write", "sendfile", "msg-zerocopy", "--size", str(SIZE))
CAPTURE = [PYTHON, "-I", str(CODE / "capture.py")]
WATCHED = ("tcp_sendmsg", "skb_copy_bits", "skb_copy_ubufs")
"""Functions that zctrace probes, too."""


def say(step):
    with STEPS.open("a") as file:
        file.write(json.dumps({"step": step}) + "\n")


def zctrace(command, *arguments, **options):
    """To its end; its progress is ours. What became of it."""
    result = OUT / "result.json"
    result.unlink(missing_ok=True)
    said = []
    with (OUT / "stdout").open("w+") as stdout:
        words = [*ZCTRACE, command, *HOST, "--json", str(result), *map(str, arguments)]
        process = subprocess.Popen(
            words, cwd=ROOT, text=True, stdout=stdout, stderr=subprocess.PIPE, **options
        )
        for line in process.stderr:
            said.append(line)
            say(line.strip())
        status = process.wait()
        stdout.seek(0)
        printed = stdout.read()
        say(f"status {status}\n{printed[:2000]}")
        found = json.loads(result.read_text()) if result.exists() else None
        return {
            "status": status,
            "stdout": printed,
            "stderr": "".join(said),
            "result": found,
        }


def trace(*command, **options):
    return zctrace("trace", "--", *(command or WORK), **options)


def run(**options):
    return zctrace("run", *TO_RUN, **options)


@contextlib.contextmanager
def written(path, value, before=None):
    """A file of the kernel's with another value, meanwhile."""
    path = Path(path)
    was = before if before is not None else path.read_text().strip()
    path.write_text(value)
    try:
        yield
    finally:
        path.write_text(was)


@contextlib.contextmanager
def beside(*command, ready="", **options):
    """A program at work meanwhile, from when it has said ``ready`` on."""
    process = subprocess.Popen(
        list(map(str, command)),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        **options,
    )
    try:
        for line in process.stdout if ready else ():
            say(f"{command[0]}: {line.strip()}")
            if ready in line:
                break
        assert process.poll() is None, command
        yield process
    finally:
        process.stdin.close()
        process.terminate()
        process.wait()


def alone():
    return trace()


def _captured(*how):
    with beside(*CAPTURE, *how, ready="ready"):
        return {"trace": trace(), "run": run()}


def capture():
    return _captured("plain")


def traced_beside_capture():
    with beside(*CAPTURE, "ring", ready="ready"):
        return {"trace": trace()}


def capture_into_ring():
    return _captured("ring")


def capture_by_payload():
    return _captured("ring", "payload")


def captures_itself():
    return trace(*CAPTURE, "ring", "itself")


def _beside_a_trace():
    """One that waits."""
    return beside(*ZCTRACE, "trace", *HOST, "--", "sleep", "1000", ready="tracing", cwd=ROOT)


def two_traces():
    with _beside_a_trace():
        return {"trace": trace(), "run": run()}


def call_sites_beside_a_trace():
    """These need no debug register."""
    with _beside_a_trace():
        return zctrace("trace", "--mechanism", "callsite", "--", *WORK)


def bpftrace():
    probes = " ".join(f"kprobe:{function} {{ @[probe] = count(); }}" for function in WATCHED)
    probes += " tracepoint:raw_syscalls:sys_enter { @calls = count(); }"
    program = f'BEGIN {{ printf("ready\\n"); }} {probes}'
    with beside("bpftrace", "-e", program, ready="ready"):
        return trace()


def _address(function):
    with open("/proc/kallsyms") as symbols:
        return next(f"0x{line.split()[0]}" for line in symbols if line.split()[2] == function)


def perf_breakpoint():
    with beside(
        "perf", "stat", "-a", "-e", f"mem:{_address('tcp_sendmsg')}:x", "sleep", "1000"
    ):
        time.sleep(2)
        return {"trace": trace(), "run": run()}


def perf_record():
    with beside(
        "perf",
        "record",
        "-q",
        "-a",
        "-o",
        str(OUT / "perf.data"),
        "-e",
        "cpu-clock",
        "sleep",
        "1000",
    ):
        time.sleep(2)
        return trace()


def debugger():
    """That holds a debug register of another process."""
    with beside(
        "gdb",
        "-q",
        "-nx",
        "-ex",
        "set pagination off",
        "-ex",
        "set breakpoint always-inserted on",
        "-ex",
        "starti",
        "-ex",
        "hbreak *$pc+64",
        "-ex",
        "echo ready\\n",
        "--args",
        "/bin/sleep",
        "1000",
        ready="ready",
    ):
        return trace()


def debugged():
    """The program itself is under a debugger, with a breakpoint of the processor's."""
    return trace(
        "gdb",
        "-q",
        "-nx",
        "-batch",
        "-ex",
        "set pagination off",
        "-ex",
        "starti",
        "-ex",
        "hbreak *$pc+64",
        "-ex",
        "continue",
        "-ex",
        "delete",
        "-ex",
        "continue",
        "--args",
        *WORK,
    )


def function_tracer():
    with (
        written(TRACING / "set_ftrace_filter", "\n".join(WATCHED), ""),
        written(TRACING / "current_tracer", "function", "nop"),
    ):
        return trace()


def kprobe_events():
    events = TRACING / "kprobe_events"
    with events.open("w") as file:
        for function in WATCHED:
            file.write(
                f"p:beside/at_{function} {function}\nr:beside/of_{function} {function}\n"
            )
            file.flush()
    enable = TRACING / "events/beside/enable"
    try:
        with written(enable, "1", "0"):
            return trace()
    finally:
        events.write_text("")


def kprobes_disabled():
    with written(DEBUG / "kprobes/enabled", "0", "1"):
        return {"trace": trace(), "run": run()}


def ftrace_disabled():
    with written("/proc/sys/kernel/ftrace_enabled", "0"):
        return {"trace": trace(), "run": run()}


def paranoid():
    with written("/proc/sys/kernel/perf_event_paranoid", "4"):
        return trace()


def few_samples():
    with written("/proc/sys/kernel/perf_event_max_sample_rate", "1"):
        return trace()


def no_locked_memory():
    def limit():
        resource.setrlimit(resource.RLIMIT_MEMLOCK, (0, 0))

    return trace(preexec_fn=limit)


def main():
    os.environ["TMPDIR"] = "/run"
    os.environ["PYTHONPATH"] = PACKAGES
    OUT.mkdir()
    FILES.mkdir()
    subprocess.run(["modprobe", "-q", "loop"])
    subprocess.run(["mount", "-t", "debugfs", "none", DEBUG], stderr=subprocess.DEVNULL)
    # What systemd does at boot.
    cgroups.enable_perf_event(Path("/sys/fs/cgroup"))
    subprocess.run(["mount", payload.find_disk(qemu.disk_name(0)), FILES], check=True)
    (FILES / "payload").write_bytes(os.urandom(SIZE))
    answer = {}
    for case in sys.argv[7:]:
        say(f"=== {case}")
        began = time.monotonic()
        try:
            answer[case] = globals()[case]()
        except Exception:
            answer[case] = traceback.format_exc()
            say(answer[case])
        say(f"{case} took {time.monotonic() - began:.0f} s")
    partial = ANSWER.with_suffix(".partial")
    partial.write_text(json.dumps(answer))
    partial.rename(ANSWER)


main()
