"""Sizes on the command line and for people; K, M and G are powers of 1024."""

from __future__ import annotations

import re

from zctrace.errors import UsageError

_UNITS = {"": 1, "K": 1 << 10, "M": 1 << 20, "G": 1 << 30}
_SIZE = re.compile(r"([0-9]{1,40})([KMG]?)(?:i?B)?", re.IGNORECASE)


def parse_size(text: str, option: str) -> int:
    """Bytes, at least one; raises :class:`UsageError` naming ``option``."""
    match = _SIZE.fullmatch(text.strip())
    size = int(match[1]) * _UNITS[match[2].upper()] if match else 0
    if size < 1:
        raise UsageError(
            f"{option} {text}: not a size",
            "a size is a whole number of bytes, at least 1, with K, M or G for powers of 1024",
            f"{option} 1M",
        )
    return size


def human_size(size: int) -> str:
    """Exact: the largest unit that divides ``size``."""
    for unit in ("G", "M", "K"):
        if size and size % _UNITS[unit] == 0:
            return f"{size // _UNITS[unit]} {unit}iB"
    return f"{size} B"
