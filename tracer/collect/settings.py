"""Numbers that are put into the meter's programs when they are loaded, not when compiled.

What was compiled once serves every run, then, and one program every place that it is loaded
for. In the C (probes/bpf/settings.h) a setting is an instruction that loads a constant.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping

from zctrace.probes.catalogue import CATALOGUE, PROGRAM_CATALOGUE

_MARK = 0x7A637472
_INSTRUCTION = struct.Struct("=BBhi")
_LOAD_CONSTANT = 0x18
"""BPF_LD | BPF_IMM | BPF_DW: a constant in two halves, each of an instruction of its own."""

OF_PLACE = (
    *("PLACE_SITE", "PLACE_AMOUNT", "PLACE_FIRST", "PLACE_SECOND", "PLACE_MEMBER"),
    *("PLACE_FROM", "PLACE_TO", "PLACE_DIRECTION", "PLACE_SKB", "PLACE_START", "PLACE_SIZE"),
    *("PLACE_LARGE", "PLACE_NESTS", "PLACE_AFTER_ROUTINE"),
    *("PLACE_PUSHED", "PLACE_ON_STACK", "PLACE_UNIT", "PLACE_SLOT"),
)
"""What there is to know of one place, for the program that is loaded for it."""
OF_EVENTS = tuple(
    dict.fromkeys(
        site.parameter
        for catalogue in (CATALOGUE, PROGRAM_CATALOGUE)
        for site in catalogue.events
        if site.parameter
    )
)
"""Numbers of event sites."""
NAMES = (
    *("NONCE", "MERGE_START", "MERGE_SIZE", "ROUTINE_SITE", "USER_COPIES_FROM"),
    *OF_PLACE,
    *OF_EVENTS,
)
"""All, in the order of their numbers."""


def parameters() -> dict[str, str]:
    """For the meter's ``-D``."""
    numbered = {name: f"SETTING({number})" for number, name in enumerate(NAMES)}
    return {"SETTING_MARK": f"{_MARK:#x}ULL", **numbered}


def put_in(instructions: bytes, values: Mapping[str, int]) -> bytes:
    """The program with ``values`` in it.

    Raises ``KeyError`` where one of its settings has none.
    """
    program = bytearray(instructions)
    for at in range(0, len(program) - _INSTRUCTION.size, _INSTRUCTION.size):
        code, registers, offset, number = _INSTRUCTION.unpack_from(program, at)
        *nothing, mark = _INSTRUCTION.unpack_from(program, at + _INSTRUCTION.size)
        # With a number in its upper four bits, it would be the descriptor of a map.
        if code == _LOAD_CONSTANT and registers >> 4 == 0 and mark == _MARK:
            value = values[NAMES[number]] & (1 << 64) - 1
            low, high = struct.unpack("=ii", struct.pack("=Q", value))
            _INSTRUCTION.pack_into(program, at, code, registers, offset, low)
            _INSTRUCTION.pack_into(program, at + _INSTRUCTION.size, *nothing, high)
    return bytes(program)
