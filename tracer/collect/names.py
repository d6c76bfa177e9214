"""Names and places of functions in programs' files, which BCC looks up.

Imported only where somebody asks for such names: BCC takes more memory than all the rest.
"""

from __future__ import annotations

import ctypes
import os
from contextlib import suppress
from typing import Any

import bcc

_BUILD_ID_DIGITS = 40


def build_id(path: str) -> str:
    """Of a program or library, in hexadecimal digits; empty if it has none."""
    digits = ctypes.create_string_buffer(_BUILD_ID_DIGITS + 1)
    found = bcc.lib.bcc_elf_get_buildid(os.fsencode(path), digits) == 0
    return digits.value.decode() if found else ""


def offset_of(path: str, name: str) -> int | None:
    """Where in the file a function's code is; ``None`` if there is no such symbol."""
    symbol = bcc.bcc_symbol()
    found = bcc.lib.bcc_resolve_symname(
        os.fsencode(path), name.encode(), 0, 0, None, ctypes.byref(symbol)
    )
    if found < 0:
        return None
    bcc.lib.bcc_procutils_free(symbol.module)
    return int(symbol.offset)


def functions(path: str) -> list[tuple[int, str]]:
    """Addresses and names of all functions of a program or library, as its file has them."""
    found = bcc.BPF.get_user_functions_and_addresses(os.fsencode(path), b".*")
    return [(address, symbol.decode(errors="replace")) for symbol, address in found]


def add_file(path: str) -> None:
    """Have :func:`name` know the functions of a program or library."""
    # BCC takes text alone, and prints a complaint about what is none.
    with suppress(UnicodeEncodeError):
        path.encode()
        bcc.BPF.add_module(path)


def name(place: Any, process: int = -1) -> str:
    """The function at an address in a process, or at an entry of a stack, and its file."""
    found: bytes = bcc.BPF.sym(place, process, show_module=True)
    return found.decode(errors="replace")
