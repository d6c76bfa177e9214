"""In a guest, as root: what the kernel's verifier walks of each program, or its last words.

``verifier_guest CODE ANSWER STEPS``
"""

import json
import sys
from pathlib import Path

CODE, ANSWER, STEPS = map(Path, sys.argv[1:4])
sys.path.insert(0, str(CODE))

import verifier

from zctrace.collect import compiled
from zctrace.collect import meter as attach
from zctrace.collect.describe import MEMORY
from zctrace.kernel import facts
from zctrace.plan.plan import plan

MEMORY_FOLDER = CODE.parent / MEMORY
SOME_FUNCTION = "skb_copy_bits"


def say(step):
    with STEPS.open("a") as file:
        file.write(json.dumps({"step": step}) + "\n")


def walked(mode):
    catalogue, options = verifier.MODES[mode]
    say(f"observing for {mode}")
    attach_plan = plan(catalogue, facts.observe(catalogue, MEMORY_FOLDER))
    found = {}
    with attach.Meter(attach_plan, nonce=1, **options) as meter:
        say(f"compiling for {mode}")
        meter.load(CODE / "zctrace" / "probes", MEMORY_FOLDER)
        for name, (kind, instructions) in verifier.programs(meter).items():
            try:
                found[name] = verifier.walked(kind, instructions, SOME_FUNCTION)
            except OSError as error:
                found[name] = str(error)
    return found


if MEMORY_FOLDER.is_dir():
    # Each is compiled outside of this machine, or not at all.
    compiled._compile = None
    for kept in MEMORY_FOLDER.glob("programs-*"):
        kept.unlink()
answer = {mode: walked(mode) for mode in verifier.LARGEST}
partial = ANSWER.with_suffix(".partial")
partial.write_text(json.dumps(answer))
partial.rename(ANSWER)
