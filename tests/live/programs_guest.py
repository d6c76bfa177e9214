"""In a guest, as root: trace real programs, one after the other, with one meter.

``programs_guest CODE ANSWER STEPS FILE_SYSTEM…``: the file systems are on the guest's disks,
in this order. Answers with a piece of evidence for each program, by name.
"""

import dataclasses
import json
import os
import subprocess
import sys
import threading
import time
import traceback
import urllib.request
from contextlib import contextmanager
from pathlib import Path

CODE, ANSWER, STEPS = map(Path, sys.argv[1:4])
FILE_SYSTEMS = sys.argv[4:]
sys.path.insert(0, str(CODE))

from probes.catalogue import PROGRAM_CATALOGUE  # noqa: E402
from tracer import attach, kernel, payload, target, vm  # noqa: E402
from tracer.evidence import Request, Subject  # noqa: E402
from tracer.phases import TRACING, Locator, Stopwatch, evidence_of  # noqa: E402
from tracer.plan import plan  # noqa: E402
from tracer.tracing import Tracer  # noqa: E402

SIZE = 16 << 20
ROOT = Path("/run/programs")
NGINX = """
worker_processes 1;
daemon off;
pid {folder}/pid;
error_log {folder}/error;
events {{ worker_connections 64; }}
http {{
    access_log off;
    client_body_temp_path {folder}/body;
    proxy_temp_path {folder}/proxy;
    fastcgi_temp_path {folder}/fastcgi;
    uwsgi_temp_path {folder}/uwsgi;
    scgi_temp_path {folder}/scgi;
    sendfile {sendfile};
    server {{ listen 127.0.0.1:{port}; root {root}; }}
}}
"""


def say(step):
    with STEPS.open("a") as file:
        file.write(json.dumps({"step": step}) + "\n")


def mounted(number, kind):
    folder = ROOT / kind
    folder.mkdir(parents=True)
    disk = payload.find_disk(vm.disk_name(number))
    subprocess.run(["mount", "-t", kind, disk, str(folder)], check=True)
    file = folder / "payload"
    file.write_bytes(bytes(range(251)) * (SIZE // 251) + bytes(SIZE % 251))
    folder.chmod(0o777)
    file.chmod(0o644)
    with file.open("rb") as opened:
        os.fsync(opened.fileno())
        while opened.read(1 << 20):
            pass
    return folder


def fetch(url):
    got = 0
    with urllib.request.urlopen(url) as answer:
        while piece := answer.read(1 << 16):
            got += len(piece)
    assert got == SIZE, got


@contextmanager
def nginx(folder, port, sendfile, cgroup=None):
    """Serving ``folder``, and warm; in a cgroup of its own, where there is one."""
    own = ROOT / f"nginx-{port}"
    own.mkdir(mode=0o777)
    configuration = own / "conf"
    configuration.write_text(
        NGINX.format(folder=own, port=port, root=folder, sendfile=sendfile)
    )
    process = subprocess.Popen(
        [str(CODE / "nginx"), "-c", str(configuration), "-e", f"{own}/error"],
        preexec_fn=cgroup and (lambda: (cgroup / "cgroup.procs").write_text("0")),
    )
    try:
        for _ in range(600):
            try:
                fetch(f"http://127.0.0.1:{port}/payload")
                break
            except OSError:
                time.sleep(0.1)
        yield process.pid
    finally:
        process.terminate()
        process.wait()


class Programs:
    """Traces one after the other, and keeps the evidence."""

    def __init__(self, request, facts, attach_plan, meter, cgroup):
        self._request, self._facts, self._plan = request, facts, attach_plan
        self._meter = meter
        self.tracing, self.done = threading.Event(), threading.Event()
        null = os.open(os.devnull, os.O_RDWR)
        environment = {"PATH": "/usr/bin:/bin:/usr/sbin", "LANG": "C.UTF-8"}
        self._tracer = Tracer(
            request, meter, cgroup, [null] * 3, environment, self.done.is_set, self.heard
        )
        self.answer = {}

    def trace(self, name, subject):
        say(name)
        watch = Stopwatch(lambda step: None)
        try:
            with watch.phase("trace"):
                traced = self._tracer.run(subject)
        except Exception:
            self.answer[name] = traceback.format_exc()
            return
        evidence = evidence_of(
            dataclasses.replace(self._request, subject=subject),
            self._facts, self._plan, self._meter.refused, watch, attach.BCC_VERSION,
            rights=self._tracer.rights, trace=traced,
        )  # fmt: skip
        self.answer[name] = evidence.to_json()

    def command(self, name, *words, **options):
        self.trace(name, Subject(command=tuple(map(str, words)), **options))

    def attached(self, name, work, **options):
        """``work`` is done by this process, meanwhile; the tracing ends with it."""
        self.tracing.clear()
        self.done.clear()
        worker = threading.Thread(target=self._work, args=(work,))
        worker.start()
        self.trace(name, Subject(**options))
        self.tracing.set()
        worker.join()
        self.done.clear()

    def _work(self, work):
        self.tracing.wait()
        try:
            work()
        finally:
            self.done.set()

    def heard(self, step):
        """Whatever the tracer says."""
        say(f"  {step}")
        if step == TRACING:
            self.tracing.set()


def main():
    subprocess.run(["ip", "link", "set", "lo", "up"], check=True)
    folders = {kind: mounted(n, kind) for n, kind in enumerate(FILE_SYSTEMS)}
    say("observing")
    facts = kernel.observe(PROGRAM_CATALOGUE)
    attach_plan = plan(PROGRAM_CATALOGUE, facts)
    request = Request(
        run_id="programs", settings=(), sizes=(), chunk=None, pipe_size=None, repeat=1,
        uid=65534, gid=65534, groups=(), user="nobody", machine="qemu-tcg", images={},
        mount="", nonce=314159,
    )  # fmt: skip
    with (
        target.cgroup("programs", own_machine=True) as cgroup,
        attach.Meter(attach_plan, request.nonce, (), Locator(), follow_flows=True) as meter,
    ):
        say("loading")
        meter.load(CODE / "probes")
        say("attaching")
        meter.attach(cgroup)
        programs = Programs(request, facts, attach_plan, meter, cgroup)
        try:
            everything(programs, folders)
        finally:
            meter.abandon()
            partial = ANSWER.with_suffix(".partial")
            partial.write_text(json.dumps(programs.answer))
            partial.rename(ANSWER)


def everything(programs, folders):
    ext4, xfs = folders["ext4"], folders["xfs"]
    programs.command("cp", "cp", ext4 / "payload", ext4 / "copy")
    programs.command("cp --reflink", "cp", "--reflink=always", xfs / "payload", xfs / "copy")
    programs.command("cat", "cat", ext4 / "payload")
    programs.command("shell", "sh", "-c", f"cat {ext4}/payload | wc -c; exit 7")
    programs.command("alone", "sh", "-c", f"cat {ext4}/payload >/dev/null; true", follow=False)
    programs.command("time", "sleep", "1000", seconds=0.5)
    for port, sendfile in ((8001, "on"), (8002, "off")):
        with nginx(ext4, port, sendfile) as pid:
            programs.attached(
                f"nginx, sendfile {sendfile}",
                lambda port=port: fetch(f"http://127.0.0.1:{port}/payload"),
                pids=(pid,),
            )
    own = Path("/sys/fs/cgroup/nginx")
    own.mkdir()
    with nginx(ext4, 8003, "off", own):
        programs.attached(
            "nginx, by its cgroup",
            lambda: fetch("http://127.0.0.1:8003/payload"),
            cgroup=str(own),
        )


main()
