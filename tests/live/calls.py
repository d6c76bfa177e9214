"""A suite of tracing_guest: each call that moves bytes, strange execs, and a lot of it all."""

import os
import shutil
import socket
import subprocess
import time
from contextlib import contextmanager
from pathlib import Path

from suites import ENVIRONMENT, LATE_BYTES, PROCESSES, SCALE, SECRET_BYTES

PYTHON = "/usr/bin/python3"
HERE = Path(__file__).parent
TABLES = ("windows", "syscall_of", "claims", "more_threads")


def until(true):
    deadline = time.monotonic() + 60
    while not true():
        assert time.monotonic() < deadline
        time.sleep(0.05)


@contextmanager
def inside(number, text, *streams):
    """A Python process that is in the middle of that system call."""
    process = subprocess.Popen(
        [PYTHON, "-I", "-c", text], env=ENVIRONMENT, stdin=streams[0], stdout=streams[1]
    )
    try:
        until(lambda: Path(f"/proc/{process.pid}/syscall").read_text().startswith(f"{number} "))
        yield process.pid
    finally:
        process.kill()
        process.wait()


def in_the_middle(programs, payload):
    """Calls that have begun before the tracing does."""
    out, into = os.pipe()
    with inside(0, "import os; os.read(0, 65536)", out, None) as pid:
        programs.attached(
            "read in the middle", lambda: os.write(into, bytes(LATE_BYTES)), pids=(pid,)
        )
    with socket.create_server(("127.0.0.1", 0)) as listener:
        near = socket.create_connection(listener.getsockname())
        far, _ = listener.accept()

    def read():
        while far.recv(1 << 18):
            pass

    text = "import os; os.sendfile(1, 0, 0, 1 << 30)"
    with payload.open("rb") as file, inside(40, text, file, near) as pid:
        near.close()
        programs.attached("sendfile in the middle", read, pids=(pid,))
    near, far = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
    text = (
        f"import sys; sys.path.insert(0, {str(HERE)!r}); import calls_workload as c; "
        "array, kept = c.messages((9000,)); c.call('recvmmsg', 0, array, 1, 0, None)"
    )
    with inside(299, text, far, None) as pid:
        programs.attached(
            "recvmmsg in the middle", lambda: near.send(bytes(LATE_BYTES)), pids=(pid,)
        )


def execs(programs, ext4):
    """Programs whose rights are not the caller's, and one that the caller cannot read."""
    secret = ext4 / "secret"
    secret.write_bytes(bytes(SECRET_BYTES))
    secret.chmod(0o600)
    for name, program, mode in (("setuid", "dd", 0o4755), ("unreadable", "cat", 0o111)):
        shutil.copy(f"/usr/bin/{program}", ext4 / name)
        (ext4 / name).chmod(mode)
    own = [ext4 / "setuid", f"if={secret}", "of=/dev/null", "bs=64k"]
    programs.command("setuid", *own)
    programs.command("setuid, by a shell", "sh", "-c", " ".join(map(str, own)) + "; true")
    programs.command("unreadable", ext4 / "unreadable", ext4 / "payload")


def many_processes(programs):
    """What the meter keeps of processes and threads that are gone.

    One process has been replaced by a thread of its own, another had threads, which made a
    system call each, and gave up the processor for good when they had ended.
    """
    loop = f"while [ $i -lt {PROCESSES} ]; do (exit 0); i=$((i+1)); done"
    replaced = (
        "import os, threading, time; "
        "threading.Thread(target=os.execv, args=('/bin/true', ['true'])).start(); "
        "time.sleep(60)"
    )
    threads = (
        "import os, threading; "
        "made = [threading.Thread(target=os.getppid) for _ in range(200)]; "
        "[(one.start(), one.join()) for one in made]"
    )
    others = "; ".join(f'{PYTHON} -I -c "{text}"' for text in (replaced, threads))
    text = f"read x; i=0; {loop}; {others}; echo; read x"
    shell = subprocess.Popen(["sh", "-c", text], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    sizes = programs.answer["found"]["sizes"] = []

    def measure():
        tables = programs.meter._bpf
        sizes.append({name: len(tables[name]) for name in TABLES})

    def work():
        measure()
        shell.stdin.write(b"\n")
        shell.stdin.flush()
        shell.stdout.readline()
        measure()

    programs.attached("many processes", work, pids=(shell.pid,))
    shell.communicate(b"\n")


def everything(programs):
    ext4, xfs = programs.folders["ext4"], programs.folders["xfs"]
    programs.command("calls", PYTHON, "-I", HERE / "calls_workload.py", ext4, xfs)
    in_the_middle(programs, ext4 / "payload")
    execs(programs, ext4)
    many_processes(programs)
    programs.command("scale", PYTHON, "-I", HERE / "scale_workload.py", *SCALE)
