"""In a guest, as root: what must not be as it was when the guest's machine was saved."""

import json
import os
import sys
import time
from pathlib import Path

CODE, ANSWER, STEPS = map(Path, sys.argv[1:4])
sys.path.insert(0, str(CODE))

from zctrace.collect import payload
from zctrace.machine import qemu

disks = [Path(payload.find_disk(qemu.disk_name(number))) for number in range(2)]
answer = {
    "random": [os.urandom(16).hex(), Path("/proc/sys/kernel/random/uuid").read_text()],
    "now": time.time(),
    "up": time.monotonic(),
    "disks": [
        int(Path("/sys/class/block", disk.name, "size").read_text()) * 512 for disk in disks
    ],
    "environment": dict(os.environ),
    "folder": str(Path.cwd()),
}
partial = ANSWER.with_suffix(".partial")
partial.write_text(json.dumps(answer))
partial.rename(ANSWER)
