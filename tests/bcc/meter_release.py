"""In a guest, in the root file system of some release: load the meter and try it.

Prints BCC's version, the kernel, the programs loaded and the bytes counted, as JSON.
The plan is made for the kernel described in facts.json.
"""

import json
import os
import sys
from pathlib import Path

CODE = Path(__file__).parent
sys.path.insert(0, str(CODE))

from zctrace.collect import cgroups
from zctrace.collect import meter as attach
from zctrace.kernel.facts import KernelFacts
from zctrace.plan.plan import plan
from zctrace.probes.catalogue import CATALOGUE
from zctrace.probes.model import Mechanism
from zctrace.workloads import marker

NONCE, PAYLOAD = 271828, bytes(4999)


def copy_through_pipe(cgroup):
    """Known bytes, into the kernel and out again, in a window, where the meter looks."""
    out, into = os.pipe()
    (cgroup / "cgroup.procs").write_text(str(os.getpid()))
    try:
        with marker.window(NONCE, marker.Role.SENDER, marker.Scope.THREAD):
            os.write(into, PAYLOAD)
            os.read(out, len(PAYLOAD))
    finally:
        (cgroup.parent / "cgroup.procs").write_text(str(os.getpid()))


facts = KernelFacts.from_json(json.loads((CODE / "facts.json").read_text()))
attach_plan = plan(CATALOGUE, facts)
with (
    cgroups.cgroup("bcc", own_machine=True) as cgroup,
    attach.Meter(attach_plan, NONCE) as meter,
):
    meter.load(CODE / "zctrace" / "probes")
    meter.attach(cgroup)
    meter.activate()
    copy_through_pipe(cgroup)
    meter.deactivate()
    programs = meter._programs
    for name, fd in programs.items():
        held = Path(f"/proc/self/fd/{fd}").readlink()
        assert str(held) == "anon_inode:bpf-prog", f"{name}: {held}"
    counts = meter.counts()
    for quantity, syscall in (("copy-from-iter", "write"), ("copy-to-iter", "read")):
        counted = {
            c.mechanism: c.bytes
            for c in counts
            if (c.quantity, c.syscall) == (quantity, syscall)
        }
        assert set(counted.values()) == {len(PAYLOAD)}, f"{quantity}: {counted}"
        assert Mechanism.CALL_SITE.value in counted, f"{quantity}: {counted}"
    assert not any(meter.lost().values()), meter.lost()
answer = {
    "bcc": meter.bcc_version,
    "kernel": facts.release,
    "programs": sorted(programs),
    "counted": 2 * len(PAYLOAD),
}
print(json.dumps(answer))
