"""In a guest, as root: trace programs, one after the other, with one meter.

``tracing_guest CODE ANSWER STEPS SUITE…``: each suite is a module beside this one whose
``everything`` is called with a :class:`Programs`. The first two disks have an ext4 and an
xfs. Answers with a piece of evidence for each program, by name; with what the suites have
found out beside; and with how long each took.
"""

import dataclasses
import importlib
import json
import os
import resource
import subprocess
import sys
import threading
import time
import traceback
from contextlib import ExitStack
from pathlib import Path

SHARED, ANSWER, STEPS = map(Path, sys.argv[1:4])
SUITES = sys.argv[4:]
CODE = Path("/run/code")


def say(step):
    with STEPS.open("a") as file:
        file.write(json.dumps({"step": step}) + "\n")


# Some programs have many files open; what the tracer starts gets the limit found at import.
resource.setrlimit(resource.RLIMIT_NOFILE, (65536, 65536))
subprocess.run(["tar", "-xf", f"{SHARED}.tar", "-C", str(CODE.parent)], check=True)
sys.path.insert(0, str(CODE))

from zctrace.collect import cgroups, flows, meter, payload
from zctrace.collect.describe import (
    MEMORY,
    TRACING,
    Locator,
    Stopwatch,
    evidence_of,
)
from zctrace.collect.program import Tracer
from zctrace.evidence.schema import (
    Request,
    Subject,
)
from zctrace.kernel import facts as kernel
from zctrace.machine import qemu
from zctrace.plan.attachments import Choice
from zctrace.plan.plan import plan, settled
from zctrace.probes.catalogue import PROGRAM_CATALOGUE

from suites import ENVIRONMENT, ROOT, SIZE  # isort: skip


def mounted(number, kind):
    folder = ROOT / kind
    folder.mkdir(parents=True)
    disk = payload.find_disk(qemu.disk_name(number))
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


class Programs:
    """Traces one after the other, and keeps the evidence.

    ``folders`` are the file systems, each with a payload in its page cache. ``say`` is for
    steps of a suite's own that take long.
    """

    say = staticmethod(say)

    def __init__(self, facts, folders):
        self._facts, self.folders = facts, folders
        self._request = Request(
            run_id="programs", settings=(), sizes=(), chunk=None, pipe_size=None, repeat=1,
            uid=65534, gid=65534, groups=(), user="nobody", machine="qemu-tcg", images={},
            mount="", nonce=314159,
        )  # fmt: skip
        self._tracing, self._done = threading.Event(), threading.Event()
        self.meter = self._tracer = self.look = None
        self.answer = {"evidence": {}, "found": {}, "failures": {}, "seconds": {}}

    def everything(self, suites, room, choice, *, last):
        """All that ``suites`` have, with one meter, of so much ``room``, as ``choice`` says."""
        choice = settled(PROGRAM_CATALOGUE, self._facts, choice)
        self._plan = plan(PROGRAM_CATALOGUE, self._facts, choice)
        with cgroups.cgroup("programs", own_machine=True) as cgroup, ExitStack() as stack:
            self.meter = meter.Meter(
                self._plan, self._request.nonce, (), Locator(), follow_flows=True, room=room
            )
            say("loading")
            self.meter.load(CODE / "zctrace" / "probes", SHARED.parent / MEMORY)
            stack.enter_context(self.meter)
            say("attaching")
            self.meter.attach(cgroup)
            null = os.open(os.devnull, os.O_RDWR)
            self._tracer = Tracer(
                self._request, self.meter, cgroup, [null] * 3, ENVIRONMENT,
                self._done.is_set, self._heard, self._shown,
            )  # fmt: skip
            for suite in suites:
                try:
                    suite.everything(self)
                except Exception:
                    self.answer["failures"][suite.__name__] = traceback.format_exc()
            if last:
                stack.pop_all()  # for the machine's end

    def trace(self, name, subject):
        say(name)
        began = time.monotonic()
        watch = Stopwatch(lambda step: None)
        try:
            with watch.phase("trace"):
                traced = self._tracer.run(subject)
        except Exception:
            self.answer["failures"][name] = traceback.format_exc()
            return
        evidence = evidence_of(
            dataclasses.replace(self._request, subject=subject),
            self._facts, self._plan, self.meter.refused, watch, self.meter.bcc_version,
            rights=self._tracer.rights, trace=traced,
        )  # fmt: skip
        self.answer["evidence"][name] = evidence.to_json()
        self.answer["seconds"][name] = time.monotonic() - began

    def command(self, name, *words, **options):
        self.trace(name, Subject(command=tuple(map(str, words)), **options))

    def attached(self, name, work, **options):
        """``work`` is done by this process, meanwhile; the tracing ends with it."""
        self._tracing.clear()
        self._done.clear()
        worker = threading.Thread(target=self._work, args=(name, work))
        worker.start()
        self.trace(name, Subject(**options))
        self._tracing.set()
        worker.join()
        self._done.clear()

    def _work(self, name, work):
        self._tracing.wait()
        try:
            work()
        except Exception:
            self.answer["failures"][name] = traceback.format_exc()
        finally:
            self._done.set()

    def _shown(self, _, look):
        self.look = look

    def _heard(self, step):
        """Whatever the tracer says."""
        say(f"  {step}")
        if step == TRACING:
            self._tracing.set()


def main():
    subprocess.run(["ip", "link", "set", "lo", "up"], check=True)
    folders = {kind: mounted(n, kind) for n, kind in enumerate(("ext4", "xfs"))}
    say("observing")
    programs = Programs(kernel.observe(PROGRAM_CATALOGUE, SHARED.parent / MEMORY), folders)
    suites = [importlib.import_module(name) for name in SUITES]
    meters = {}
    for suite in suites:
        wanted = getattr(suite, "ROOM", ()), getattr(suite, "CHOICE", Choice.AUTO)
        meters.setdefault(wanted, []).append(suite)
    try:
        for number, ((room, choice), own) in enumerate(meters.items(), 1):
            programs.everything(own, flows.Room(*room), choice, last=number == len(meters))
    except Exception:
        programs.answer["failures"]["all"] = traceback.format_exc()
    finally:
        partial = ANSWER.with_suffix(".partial")
        partial.write_text(json.dumps(programs.answer))
        partial.rename(ANSWER)


if __name__ == "__main__":
    main()
