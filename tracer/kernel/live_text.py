"""The running kernel's text, as far as it lets itself be read at all.

/proc/kcore is the simple way. Containers have something else mounted over it, and kernels can
be built without it (CONFIG_PROC_KCORE); then a BPF program reads.
"""

from __future__ import annotations

import os
import struct
from contextlib import suppress

from zctrace.kernel import bpf_maps, bpf_syscall
from zctrace.kernel.text import LiveText, Symbol, Text, TextError

_CHUNK_BYTES = 1 << 16
_MAP_LOOKUP, _PROBE_READ_KERNEL = 1, 113
"""enum bpf_func_id; the latter since Linux kernel commit 6ae08ae3dea2 ("bpf: Add
probe_read_{user, kernel} and probe_read_{user, kernel}_str helpers") (in v5.5)."""
_MAP = bpf_maps.Description(
    name="text",
    kind=2,
    key_size=4,
    leaf_size=_CHUNK_BYTES,
    entries=1,
    flags=0,
    key="unsigned int",
    leaf=["chunk", [["bytes", "unsigned char", [_CHUNK_BYTES]]]],
)  # an array with one leaf


def live_text() -> Text:
    """Raises :class:`TextError`: why /proc/kcore does not show it, if nothing else does."""
    try:
        return LiveText()
    except TextError:
        with suppress(OSError):
            return ProbedText()
        raise


class ProbedText:
    """Kernel memory as a BPF program reads it; raises ``OSError`` where it may not."""

    def __init__(self) -> None:
        self._table = bpf_maps.Table(_MAP)
        try:
            self._program = bpf_syscall.load(
                bpf_syscall.RAW_TRACEPOINT, _reader(self._table.map_fd)
            )
        except OSError:
            self._table.close()
            raise

    def read(self, symbol: Symbol) -> bytes:
        end = symbol.address + symbol.size
        return b"".join(
            self._chunk(at, min(_CHUNK_BYTES, end - at))
            for at in range(symbol.address, end, _CHUNK_BYTES)
        )

    def _chunk(self, address: int, length: int) -> bytes:
        try:
            failed = bpf_syscall.run(self._program, address, length)
        except OSError as error:
            raise TextError(f"a BPF program was not run: {error.strerror}") from error
        if failed:
            raise TextError(f"{length} B at {address:#x} cannot be read")
        return bytes(self._table[0].bytes)[:length]

    def close(self) -> None:
        os.close(self._program)
        self._table.close()


def _reader(map_fd: int) -> bytes:
    """A program with two arguments, an address and a length; returns 0 if it could read."""
    r0, r1, r2, r3, r6, r7, frame = 0, 1, 2, 3, 6, 7, 10
    begin = [
        (0x79, r6 | r1 << 4, 0, 0),  # r6 = *(u64 *)(r1 + 0)
        (0x79, r7 | r1 << 4, 8, 0),
        (0x62, frame, -4, 0),  # *(u32 *)(r10 - 4) = 0
        (0xBF, r2 | frame << 4, 0, 0),  # r2 = r10
        (0x07, r2, 0, -4),  # r2 += -4
        (0x18, r1 | 1 << 4, 0, map_fd),  # r1 = map
        (0, 0, 0, 0),
        (0x85, 0, 0, _MAP_LOOKUP),
    ]
    read = [
        (0xBF, r1 | r0 << 4, 0, 0),
        (0xBF, r2 | r7 << 4, 0, 0),
        (0xBF, r3 | r6 << 4, 0, 0),
        (0x85, 0, 0, _PROBE_READ_KERNEL),
        (0x95, 0, 0, 0),  # exit
    ]
    checks = [
        (0x15, r0, len(read) + 1, 0),  # if r0 == 0 goto end
        (0x25, r7, len(read), _CHUNK_BYTES),  # if r7 > ... goto end
    ]
    end = [(0xB7, r0, 0, 1), (0x95, 0, 0, 0)]
    return b"".join(struct.pack("=BBhi", *one) for one in (*begin, *checks, *read, *end))
