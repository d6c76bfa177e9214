"""Where BPF programs are attached, which says more than the tags of programs without names.

Source: bpf(2), include/uapi/linux/bpf.h: BPF_TASK_FD_QUERY (Since Linux kernel commit
41bdc4b40ed6 ("bpf: introduce bpf subcommand BPF_TASK_FD_QUERY") (in v4.18)). x86-64.
"""

import ctypes
import os
import struct
from contextlib import suppress
from pathlib import Path

_SYS_BPF, _TASK_FD_QUERY = 321, 20
_PROG_GET_FD_BY_ID, _OBJ_GET_INFO_BY_FD = 13, 15
_ATTRIBUTES_BYTES, _NAME_BYTES, _INFO_BYTES = 128, 256, 16
_SHORT = 6
"""Digits of a tag that tell programs apart."""
_KINDS = {0: "raw tracepoint", 1: "tracepoint", 2: "kprobe", 3: "kretprobe"}
"""enum bpf_task_fd_type, as far as the kernel's own functions are concerned."""

_libc = ctypes.CDLL(None, use_errno=True)


def places():
    """By tag, of everybody's programs at probes and tracepoints: where they are attached."""
    found = {}
    for link in Path("/proc").glob("[0-9]*/fd/*"):
        with suppress(OSError):
            if "anon_inode" in str(link.readlink()):
                program, place = _queried(int(link.parts[2]), int(link.name))
                found.setdefault(program, []).append(place)
    tags = {program: _tag(program) for program in found}
    return {tag: together(sorted(found[program]), tag) for program, tag in tags.items()}


def together(places, tag):
    """One name for all places of a program; several programs may have as many places."""
    if len(places) == 1:
        return places[0]
    kinds = sorted({place.split()[0] for place in places})
    return f"{' and '.join(kinds)}, {len(places)} places, {tag[:_SHORT]}"


def _bpf(command, attributes, length):
    result = _libc.syscall(_SYS_BPF, command, attributes, length)
    if result < 0:
        raise OSError(ctypes.get_errno(), "bpf")
    return result


def _queried(pid, fd):
    """Number of the program behind a descriptor, and its place; raises ``OSError``."""
    name = ctypes.create_string_buffer(_NAME_BYTES)
    attributes = ctypes.create_string_buffer(
        struct.pack("=IIIIQ", pid, fd, 0, _NAME_BYTES, ctypes.addressof(name)),
        _ATTRIBUTES_BYTES,
    )
    _bpf(_TASK_FD_QUERY, attributes, 48)
    program, kind, offset = struct.unpack_from("=IIQ", attributes.raw, 24)
    at = f"+{offset:#x}" if offset else ""
    return program, f"{_KINDS.get(kind, 'probe')} {name.value.decode()}{at}"


def _tag(program):
    number = struct.pack("=I", program)
    fd = _bpf(_PROG_GET_FD_BY_ID, ctypes.create_string_buffer(number, _ATTRIBUTES_BYTES), 12)
    try:
        info = ctypes.create_string_buffer(_INFO_BYTES)
        attributes = ctypes.create_string_buffer(
            struct.pack("=IIQ", fd, _INFO_BYTES, ctypes.addressof(info)), _ATTRIBUTES_BYTES
        )
        _bpf(_OBJ_GET_INFO_BY_FD, attributes, 16)
        return info.raw[8:16].hex()
    finally:
        os.close(fd)
