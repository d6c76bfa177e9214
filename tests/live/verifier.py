"""How much the kernel's verifier walks of each of the meter's programs, in each of its modes.

A kernel refuses a program of which it walks more than ``LIMIT`` instructions, and how far it
walks a loop differs from one kernel to the next. Nothing is attached.
"""

import ctypes
import os
import re
import struct

from zctrace.collect import settings, user_functions
from zctrace.evidence.schema import CALLED
from zctrace.kernel import bpf_syscall
from zctrace.probes.catalogue import CATALOGUE, PROGRAM_CATALOGUE
from zctrace.probes.model import Mechanism
from zctrace.probes.user_functions import USER_COPIES

LIMIT = 1_000_000
"""BPF_COMPLEXITY_LIMIT_INSNS (include/linux/bpf.h)."""
MODES = {
    "run": (CATALOGUE, {}),
    "trace": (PROGRAM_CATALOGUE, {"follow_flows": True}),
    "trace --stacks": (PROGRAM_CATALOGUE, {"follow_flows": True, "keep_stacks": True}),
    "trace --user-copies": (
        PROGRAM_CATALOGUE,
        {"follow_flows": True, "keep_stacks": True, "user_copies_from": 1024},
    ),
    "run --user-copies": (CATALOGUE, {"user_copies_from": 256}),
}
"""Catalogue and options of the meter."""
LARGEST = ("trace --user-copies", "run --user-copies")
"""What the others are parts of."""
TRACING = 26
"""enum bpf_prog_type."""
_AT_TRACEPOINTS = {
    site.handler: site.mechanism for table, _ in MODES.values() for site in table.events
}
_LOG_BYTES, _STATISTICS, _STEPS = 1 << 24, 4, 1
_libc = ctypes.CDLL(None, use_errno=True)


def programs(meter):
    """Of a meter that has been loaded: type and instructions, by name.

    What is loaded for each place is there for each; at entries of functions in both ways.
    """
    text, attach_plan = meter._bpf, meter._plan
    at_entries = [(copy.site.function, dict(copy.place)) for copy in attach_plan.at_entries]
    places = {
        "on_breakpoint": [(c.site.function, dict(c.place)) for c in attach_plan.breakpoints],
        "on_fentry": at_entries,
        "on_kprobe": at_entries,
        "on_user_copy": [
            (copy.function, user_functions.settings(copy, 0, 0, 256)) for copy in USER_COPIES
        ],
    }
    there = {event.site.handler for event in attach_plan.events}
    found = {}
    for name in text:
        kind = _kind(name)
        if name in _AT_TRACEPOINTS and name not in there:
            continue  # where its record has what is not known
        for function, values in places.get(name, [("", {})]):
            known = {"NONCE": 1, **dict(attach_plan.settings), **values}
            instructions = settings.put_in(text.instructions(name), known)
            found[f"{name} {function}".strip()] = kind, instructions
    return found


def _kind(name):
    if name in _AT_TRACEPOINTS:
        raw = _AT_TRACEPOINTS[name] is Mechanism.RAW_TRACEPOINT
        return bpf_syscall.RAW_TRACEPOINT if raw else bpf_syscall.TRACEPOINT
    if name.startswith("on_breakpoint"):
        return bpf_syscall.BREAKPOINT
    return TRACING if name.startswith(CALLED) else bpf_syscall.PROBE


def walked(kind, instructions, function=None):
    """Instructions that the verifier walks; raises ``OSError`` with its last words.

    ``function`` is what a program that functions call is loaded for; without one it is loaded
    as a probe's, which it could be, too.
    """
    if kind == TRACING and not function:
        kind = bpf_syscall.PROBE
    error, said = _load(kind, instructions, function, _STATISTICS)
    if error:
        _, steps = _load(kind, instructions, function, _STATISTICS | _STEPS)
        raise OSError(error, f"{os.strerror(error)}: {said} {steps[-400:]}")
    return int(re.search(r"processed (\d+) insns", said)[1])


def _load(kind, instructions, function, level):
    """Error, 0 if there is none, and what the verifier says."""
    log = ctypes.create_string_buffer(_LOG_BYTES)
    code, terms = ctypes.c_char_p(instructions), ctypes.c_char_p(b"GPL")
    addresses = [ctypes.cast(text, ctypes.c_void_p).value for text in (code, terms)]
    attributes = ctypes.create_string_buffer(128)
    head = (kind, len(instructions) // 8, *addresses, level, len(log))
    struct.pack_into("=IIQQIIQ", attributes, 0, *head, ctypes.addressof(log))
    if kind == TRACING:
        struct.pack_into("=I", attributes, 68, 24)  # BPF_TRACE_FENTRY
        struct.pack_into("=I", attributes, 108, bpf_syscall._type_number(function))
    program = _libc.syscall(321, 5, attributes, len(attributes))
    error = ctypes.get_errno() if program < 0 else 0
    if not error:
        os.close(program)
    return error, log.value.decode(errors="replace")
