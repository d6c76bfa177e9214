"""In a guest: what is found in the kernel's text while somebody else has probes there.

``foreign_guest CODE ANSWER STEPS``. Answers with the calls that were found without probes and
with one on each of them, and with how many of the latter hide an instruction.
"""

import json
import sys
from pathlib import Path

CODE, ANSWER, STEPS = map(Path, sys.argv[1:4])
sys.path.insert(0, str(CODE))

from zctrace.kernel import callsites, remembered, text_facts
from zctrace.kernel.live_text import live_text
from zctrace.probes.catalogue import CATALOGUE

TRACING = Path("/sys/kernel/tracing")

with STEPS.open("a") as file:
    file.write(json.dumps({"step": "observing"}) + "\n")
wanted = text_facts.wanted_by(CATALOGUE)


def found():
    calls = text_facts.look(wanted).calls
    return {
        f"{function}, {call.name}": call
        for function, those in calls.items()
        for call in those
        if call.traced and not call.jump
    }


before = found()
with (TRACING / "kprobe_events").open("w") as events:
    for number, call in enumerate(before.values()):
        events.write(f"p:foreign/e{number} {call.address:#x}\n")
        events.flush()
(TRACING / "events/foreign/enable").write_text("1")
text = live_text()
hidden = [c for c in before.values() if callsites.branch_at(text, c.address) is None]
answer = {
    "before": sorted(before),
    "while": sorted(found()),
    "hidden": len(hidden),
    "untouched": remembered.is_untouched(),
}
partial = ANSWER.with_suffix(".partial")
partial.write_text(json.dumps(answer))
partial.rename(ANSWER)
