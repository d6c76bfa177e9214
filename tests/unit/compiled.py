"""The meter's C, compiled here for a recorded kernel and a mode.

Nothing is attached: BCC compiles without any right to probe.
"""

import dataclasses
import functools
import os
import tempfile
from pathlib import Path

from tests.conftest import or_skip, recorded_kernel
from tests.live import verifier
from zctrace.plan.plan import plan

PROBES = Path(__file__).parents[2] / "probes"
C = {path.name: path.read_text() for path in (PROBES / "bpf").iterdir()}
LIFE = {"sched:sched_process_exec": {"old_pid": 16}, "sched:sched_process_exit": {}}
"""Not among the tracepoints that were recorded."""
MODES = list(verifier.MODES)


@functools.cache
def cannot_compile():
    try:
        import bcc
    except ImportError:
        return "compiling the meter needs bcc: apt-get install python3-bpfcc"
    os.environ["BCC_KERNEL_SOURCE"] = str(PROBES)
    try:
        bcc.BPF(text=b"BPF_ARRAY(one, u64, 1);").cleanup()
    except Exception as error:
        return f"compiling the meter needs to make a BPF map: {error}"
    return None


@functools.cache
def meter(line, mode):
    """Compiled once, and what the compiler said; it stays to the end."""
    if reason := cannot_compile():
        or_skip(reason)
    from zctrace.collect import meter as attach

    catalogue, options = verifier.MODES[mode]
    facts = recorded_kernel(line)
    facts = dataclasses.replace(facts, tracepoints=LIFE | facts.tracepoints)
    compiled = attach.Meter(plan(catalogue, facts), 1, **options)
    kept = os.dup(2)
    with tempfile.TemporaryFile() as file:
        os.dup2(file.fileno(), 2)
        try:
            compiled.load(PROBES)
        finally:
            os.dup2(kept, 2)
            os.close(kept)
        file.seek(0)
        compiled.said = file.read().decode()
    return compiled
