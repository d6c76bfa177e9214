"""In a guest, as root: perform every operation, answer with what the meter counted for each.

``operations_guest CODE ANSWER STEPS MECHANISM FILE_SYSTEM…``: the file systems are on the
guest's disks, in this order; tmpfs needs none.
"""

import json
import os
import subprocess
import sys
from pathlib import Path

CODE, ANSWER, STEPS = map(Path, sys.argv[1:4])
MECHANISM, FILE_SYSTEMS = sys.argv[4], sys.argv[5:]
sys.path.insert(0, str(CODE))

from zctrace.collect import cgroups, payload
from zctrace.collect import meter as attach
from zctrace.collect.describe import (
    MEMORY,
    Locator,
    sites,
)
from zctrace.evidence import json_form
from zctrace.evidence.schema import losses
from zctrace.kernel import facts as kernel
from zctrace.machine import qemu
from zctrace.plan.attachments import Choice
from zctrace.plan.plan import plan
from zctrace.probes.catalogue import CATALOGUE

NONCE, NOBODY = 271828, 65534


def say(step):
    with STEPS.open("a") as file:
        file.write(json.dumps({"step": step}) + "\n")


def mounted(number, kind):
    folder = Path("/run/operations") / kind
    folder.mkdir(parents=True, mode=0o755)
    disk = kind if kind == "tmpfs" else payload.find_disk(qemu.disk_name(number))
    subprocess.run(["mount", "-t", kind, disk, str(folder)], check=True)
    os.chown(folder, NOBODY, NOBODY)
    return str(folder)


# Longer datagrams go in several packets, and their checksums are made by copying.
subprocess.run(["ip", "link", "set", "lo", "mtu", "16384"], check=True)
say("mounting")
folders = [mounted(number, kind) for number, kind in enumerate(FILE_SYSTEMS)]
say("observing")
facts = kernel.observe(CATALOGUE)
remembered = [kernel.observe(CATALOGUE, CODE.parent / MEMORY) for _ in range(2)]
attach_plan = plan(CATALOGUE, facts, Choice(MECHANISM))
answer = []
with (
    cgroups.cgroup("watched", own_machine=True) as cgroup,
    attach.Meter(attach_plan, NONCE, locate=Locator()) as meter,
):
    say("loading")
    meter.load(CODE / "zctrace" / "probes")
    meter.attach(cgroup)
    program = subprocess.Popen(
        [sys.executable, "-I", str(CODE / "operations.py"), str(NONCE), str(CODE), *folders],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
        user=NOBODY, group=NOBODY, extra_groups=[], env={"PATH": os.defpath},
    )  # fmt: skip
    (cgroup / "cgroup.procs").write_text(str(program.pid))
    while True:
        meter.reset()
        before, hits = meter.lost(), meter.hits()
        meter.activate()
        skipped = meter.skipped()
        program.stdin.write("go\n")
        program.stdin.flush()
        line = program.stdout.readline()
        skips = {name: count - skipped[name] for name, count in meter.skipped().items()}
        meter.deactivate()
        if line.strip() == "null":
            break
        try:
            operation = json.loads(line)
        except ValueError:
            answer.append({"name": line + program.communicate()[0], "expected": None})
            break
        say(operation["name"])
        lost = {name: count - before[name] for name, count in meter.lost().items()}
        answer.append(
            {
                **operation,
                "counts": [vars(count) for count in meter.counts()],
                "lost": losses(lost | skips),
            }
        )
    described = [json_form.write(site) for site in sites(attach_plan, meter.refused)]
    meter.abandon()
partial = ANSWER.with_suffix(".partial")
partial.write_text(
    json.dumps(
        {
            "kernel": facts.to_json(),
            "remembered": [known.to_json() for known in remembered],
            "sites": described,
            "operations": answer,
        }
    )
)
partial.rename(ANSWER)
