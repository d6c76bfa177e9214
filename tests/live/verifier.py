"""How much the kernel's verifier walks of each of the meter's programs, in each of its modes.

A kernel refuses a program of which it walks more than ``LIMIT`` instructions, and how far it
walks a loop differs from one kernel to the next. Nothing is attached.
"""

import ctypes
import os
import re
import struct

from zctrace.kernel import bpf_syscall
from zctrace.probes.catalogue import CATALOGUE, PROGRAM_CATALOGUE

LIMIT = 1_000_000
"""BPF_COMPLEXITY_LIMIT_INSNS (include/linux/bpf.h)."""
MODES = {
    "run": (CATALOGUE, {}),
    "trace": (PROGRAM_CATALOGUE, {"follow_flows": True}),
    "trace --stacks": (PROGRAM_CATALOGUE, {"follow_flows": True, "keep_stacks": True}),
    "run --user-copies": (CATALOGUE, {"user_copies_from": 256}),
}
"""Catalogue and options of the meter."""
KPROBE, TRACEPOINT, PERF_EVENT, TRACING = 2, 5, 7, 26
"""enum bpf_prog_type."""
_AT_TRACEPOINTS = {site.handler for table, _ in MODES.values() for site in table.events}
_LOG_BYTES, _STATISTICS, _STEPS = 1 << 24, 4, 1
_libc = ctypes.CDLL(None, use_errno=True)


def programs(meter):
    """Of a meter that has been loaded: type and instructions, by name."""
    from bcc import lib  # which not every machine has

    text = meter._bpf
    names = [
        lib.bpf_function_name(text.module, index)
        for index in range(lib.bpf_num_functions(text.module))
    ]
    return {name.decode(): (_kind(name.decode()), text.dump_func(name)) for name in names}


def _kind(name):
    if name in _AT_TRACEPOINTS:
        return TRACEPOINT
    if name.startswith("on_breakpoint"):
        return PERF_EVENT
    return TRACING if name.startswith("on_fentry") else KPROBE


def walked(kind, instructions, function=None):
    """Instructions that the verifier walks; raises ``OSError`` with its last words.

    ``function`` is what a program that functions call is loaded for; without one it is loaded
    as a probe's, which it could be, too.
    """
    if kind == TRACING and not function:
        kind = KPROBE
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
