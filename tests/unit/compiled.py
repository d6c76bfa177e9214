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
from zctrace.collect import compiled
from zctrace.collect.meter import Meter
from zctrace.plan.plan import plan

PROBES = Path(__file__).parents[2] / "probes"
C = {path.name: path.read_text() for path in (PROBES / "bpf").iterdir()}
LIFE = {"sched:sched_process_exec": {"old_pid": 16}, "sched:sched_process_exit": {}}
"""Not among the tracepoints that were recorded."""
MODES = list(verifier.MODES)
TEXT = """
struct row { u64 calls; u32 site; char name[16]; union { u32 small; u64 large; }; };
BPF_HASH(rows, u32, struct row, 16);
BPF_TABLE("percpu_array", int, u64, many, SOME);
BPF_PERCPU_ARRAY(narrow, u32, 2);
BPF_F_TABLE("array", int, u64, mapped, 1000, BPF_F_MMAPABLE);
BPF_F_TABLE("array", int, u32, mapped_narrow, 1000, BPF_F_MMAPABLE);
int tried(void *ctx)
{
	int first = 0;
	u32 key = VALUE;
	struct row row = { .calls = 7 };
	u64 *cell = many.lookup(&first);
	rows.update(&key, &row);
	if (cell)
		*cell += 3;
	return VALUE;
}
"""
PARAMETERS = {"SOME": "1009", "VALUE": "5"}


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
    catalogue, options = verifier.MODES[mode]
    facts = recorded_kernel(line)
    # Where members of typed structures are, the running kernel's verifier knows itself.
    facts = dataclasses.replace(facts, tracepoints=LIFE | facts.tracepoints, typed_task=False)
    loaded = Meter(plan(catalogue, facts), 1, **options)
    kept = os.dup(2)
    with tempfile.TemporaryFile() as file:
        os.dup2(file.fileno(), 2)
        try:
            loaded.load(PROBES)
        finally:
            os.dup2(kept, 2)
            os.close(kept)
        file.seek(0)
        loaded.said = file.read().decode()
    return loaded


def made(stack, text=TEXT, memory=None, **parameters):
    """The maps and programs of a text, closed with ``stack``."""
    programs = compiled.programs(text, PARAMETERS | parameters, PROBES, {1009: 3}, memory)
    stack.callback(programs.close)
    return programs
