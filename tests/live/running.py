"""A suite of tracing_guest: what runs already, by its unit, container, name and thread.

A systemd of its own runs the unit, in namespaces and a cgroup of its own, as in a container.
"""

import dataclasses
import json
import secrets
import shutil
import subprocess
import sys
from contextlib import contextmanager

from programs import NGINX, fetch
from suites import ENVIRONMENT, PACKAGES, ROOT, THREAD_BYTES

from zctrace.collect import cgroups
from zctrace.machine import subjects

PYTHON = "/usr/bin/python3"
FOLDER = ROOT / "running"
UNIT_PORT, CONTAINER_PORT = 8301, 8302
CONTAINER = secrets.token_hex(32)
LIBRARIES = f"{ENVIRONMENT['LD_LIBRARY_PATH']}:{PACKAGES}/usr/lib/x86_64-linux-gnu/systemd"
NAMESPACES = ("--mount", "--pid", "--uts", "--ipc", "--fork", "--mount-proc")
SYSTEMD = f"""
mkdir -p /etc/systemd/system
mount -t tmpfs none /etc/systemd/system
cat > /etc/systemd/system/nginx.service <<END
[Unit]
DefaultDependencies=no
[Service]
Environment=LD_LIBRARY_PATH={LIBRARIES}
ExecStart={PACKAGES}/usr/sbin/nginx -c {FOLDER}/{UNIT_PORT}/conf -e {FOLDER}/{UNIT_PORT}/error
END
cat > /etc/systemd/system/only.target <<END
[Unit]
Requires=nginx.service
DefaultDependencies=no
END
export container=zctrace
exec {PACKAGES}/lib/systemd/systemd --system --unit=only.target --log-target=console
"""
THREADS = f"""
import os, sys, threading
zero = open("/dev/zero", "rb", buffering=0)
go, ready, done = threading.Event(), threading.Barrier(3), threading.Barrier(3)
numbers = [0, 0]
def read(index, size):
    numbers[index] = threading.get_native_id()
    ready.wait()
    go.wait()
    while size:
        size -= len(os.read(zero.fileno(), min(size, 65536)))
    done.wait()
for index, size in enumerate({THREAD_BYTES!r}):
    threading.Thread(target=read, args=(index, size), daemon=True).start()
ready.wait()
print(*numbers, flush=True)
sys.stdin.readline()
go.set()
done.wait()
print("done", flush=True)
sys.stdin.readline()
"""


def settings(port, sendfile, root):
    """A folder with a server's settings."""
    own = FOLDER / str(port)
    own.mkdir()
    (own / "conf").write_text(
        "user root;\n"
        + NGINX.format(folder=own, port=port, root=root, sendfile=sendfile, tls="", ssl="")
    )
    return own


@contextmanager
def below(cgroup, command, port):
    """Run a command in a new cgroup, until the port serves."""
    folder = cgroups.hierarchy() / cgroup
    folder.mkdir()
    process = subprocess.Popen(
        [*map(str, command)],
        env={**ENVIRONMENT, "LD_LIBRARY_PATH": LIBRARIES},
        preexec_fn=lambda: (folder / "cgroup.procs").write_text("0"),
    )
    try:
        for _ in range(600):
            try:
                get(port)
                break
            except OSError:
                assert process.poll() is None, command
                subprocess.run(["sleep", "0.1"])
        yield
    finally:
        process.kill()
        process.wait()
        cgroups.remove(folder)


def get(port):
    fetch(f"http://127.0.0.1:{port}/payload")


def found(running):
    """A subject's part that says who is meant."""
    return {
        "pids": running.pids, "cgroup": running.cgroup, "threads": running.threads,
        "called": running.called,
    }  # fmt: skip


def named(name):
    """As zctrace finds them in a process of its own: what this one has started is not its."""
    text = (
        f"import sys, dataclasses, json; sys.path.insert(0, {sys.path[0]!r}); "
        "from zctrace.machine import subjects; "
        f"print(json.dumps(dataclasses.asdict(subjects.by_name({name!r}))))"
    )
    printed = subprocess.run([PYTHON, "-I", "-c", text], capture_output=True, check=True)
    values = json.loads(printed.stdout)
    return subjects.Running(tuple(values["pids"]), called=values["called"])


def everything(programs):
    payload = programs.folders["ext4"]
    FOLDER.mkdir()
    settings(UNIT_PORT, "on", payload)
    own = settings(CONTAINER_PORT, "off", payload)
    (FOLDER / "systemd.sh").write_text(SYSTEMD)
    manager = "unshare", *NAMESPACES, "sh", FOLDER / "systemd.sh"
    contained = (
        "unshare", *NAMESPACES, shutil.which("nginx", path=ENVIRONMENT["PATH"]),
        "-c", own / "conf", "-e", own / "error",
    )  # fmt: skip
    docker = f"docker-{CONTAINER}.scope"
    with (
        below("zc-machine", manager, UNIT_PORT),
        below(docker, contained, CONTAINER_PORT),
    ):
        programs.attached("a unit", lambda: get(UNIT_PORT), **found(subjects.by_unit("nginx")))
        programs.attached(
            "a container",
            lambda: get(CONTAINER_PORT),
            **found(subjects.by_container(CONTAINER[:12])),
        )
        programs.attached("this machine", lambda: get(UNIT_PORT), **found(subjects.everybody()))
        programs.attached(
            "by unit",
            lambda: (get(UNIT_PORT), get(CONTAINER_PORT)),
            by_unit=True,
            interval=0.2,
            **found(subjects.everybody()),
        )
        programs.answer["found"]["units"] = [
            dataclasses.asdict(row) for row in programs.look.units
        ]
        programs.attached(
            "by name",
            lambda: (get(UNIT_PORT), get(CONTAINER_PORT)),
            **found(named("nginx")),
        )
    with subprocess.Popen(
        [PYTHON, "-c", THREADS], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        first = int(process.stdout.readline().split()[0])

        def both_read():
            process.stdin.write("\n")
            process.stdin.flush()
            process.stdout.readline()

        programs.attached("a thread", both_read, **found(subjects.by_thread([first])))
        process.kill()
