"""Tell the meter what the system calls of 32-bit programs are. Part of collecting."""

from __future__ import annotations

import ctypes
from collections.abc import Mapping
from typing import Any

from zctrace.probes import compat

PARAMETERS = {
    "COMPAT_CALLS": str(compat.MAX_NUMBER + len(compat.SOCKETCALLS)),
    "COMPAT_BEHIND": str(compat.MAX_NUMBER),
    "COMPAT_MARK": f"{compat.MARK:#x}",
    "COMPAT_SOCKETCALL": str(compat.SOCKETCALL),
}
"""For the meter's ``-D``."""


def prepare(tables: Any, by_name: Mapping[str, int]) -> None:
    """Fill the meter's table of them; ``by_name`` are the numbers of 64-bit calls."""
    calls = tables["compat_calls"]
    for number, same in compat.numbers(by_name).items():
        calls[ctypes.c_int(number)] = ctypes.c_uint32(same)
