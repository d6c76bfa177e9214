"""What a kernel offers, observed in a guest: ``facts_guest CODE ANSWER STEPS KIND…``.

With the file systems mounted that the tests use, and with the modules that the catalogue
names: they have call sites of their own.
"""

import dataclasses
import json
import subprocess
import sys
from pathlib import Path

CODE, ANSWER, STEPS = map(Path, sys.argv[1:4])
sys.path.insert(0, str(CODE))

from zctrace.collect import payload
from zctrace.kernel import facts as kernel
from zctrace.machine import qemu
from zctrace.probes.catalogue import CATALOGUE, LIFE_SITES

FOLDER = Path("/run/record")

with STEPS.open("a") as file:
    file.write(json.dumps({"step": "observing"}) + "\n")
for number, kind in enumerate(sys.argv[4:]):
    (FOLDER / kind).mkdir(parents=True)
    disk = payload.find_disk(qemu.disk_name(number))
    subprocess.run(["mount", "-t", kind, disk, FOLDER / kind], check=True)
for module in sorted({target.module for target in CATALOGUE.calls} - {""}):
    subprocess.run(["modprobe", module], check=False)  # some are built in
everything = dataclasses.replace(CATALOGUE, events=(*CATALOGUE.events, *LIFE_SITES))
partial = ANSWER.with_suffix(".partial")
partial.write_text(json.dumps({"kernel": kernel.observe(everything).to_json()}))
partial.rename(ANSWER)
