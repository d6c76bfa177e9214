"""How many rows the hash maps of the running kernel's BPF programs have. Standard library."""

import ctypes
import os
import struct

_SYS_BPF = 321
_NEXT_KEY, _NEXT_ID, _BY_ID, _ABOUT = 4, 12, 14, 15
_HASHES = (1, 5, 9, 10)
"""BPF_MAP_TYPE_HASH, its form by processor, and both that forget what is oldest."""
_libc = ctypes.CDLL(None, use_errno=True)


def _bpf(command, *values):
    """What bpf(2) returns, and the attributes afterwards; ``values`` have 64 bits each."""
    attributes = ctypes.create_string_buffer(struct.pack(f"={len(values)}Q", *values), 128)
    return _libc.syscall(_SYS_BPF, command, attributes, len(attributes)), attributes.raw


def total():
    """Of all hash maps together."""
    rows = last = 0
    while True:
        ended, raw = _bpf(_NEXT_ID, last)
        if ended:
            return rows
        (last,) = struct.unpack_from("=I", raw, 4)
        fd, _ = _bpf(_BY_ID, last)
        if fd >= 0:
            rows += _of(fd)
            os.close(fd)


def _of(fd):
    told = ctypes.create_string_buffer(256)
    _bpf(_ABOUT, fd | len(told) << 32, ctypes.addressof(told))
    kind, _, key_size = struct.unpack_from("=3I", told.raw)
    if kind not in _HASHES:
        return 0
    here, after = (ctypes.create_string_buffer(key_size) for _ in range(2))
    rows, at = 0, 0
    while not _bpf(_NEXT_KEY, fd, at, ctypes.addressof(after))[0]:
        rows += 1
        here, after = after, here
        at = ctypes.addressof(here)
    return rows
