"""Have BCC compile: ``python3 -I compiler.py ANSWER``, a process of its own.

BCC brings LLVM, which takes more memory than all the rest and, where the processor is emulated,
more time; so only this process imports it. It reads from standard input what to compile, as
JSON: ``text``, and ``flags`` for the compiler; writes JSON to the descriptor ANSWER: what was
compiled, or why it was not. What the compiler says goes to stderr. Imports nothing of this
package, and so runs wherever the file is.
"""

from __future__ import annotations

import base64
import ctypes
import json
import os
import struct
import sys
import zlib
from typing import Any

_INSTRUCTION = struct.Struct("=BBhi")
_LOAD_CONSTANT = 0x18
"""BPF_LD | BPF_IMM | BPF_DW."""
_OF_A_MAP = 1
"""BPF_PSEUDO_MAP_FD, in the upper four bits of the instruction's registers."""


def compiled(wanted: dict[str, Any]) -> dict[str, Any]:
    """Maps and functions of a text, and whose they are.

    A function's instructions name a map by its number in the list of maps. Raises
    ``ImportError`` without BCC, and what BCC raises.
    """
    import bcc

    lib = bcc.lib
    for name in ("bpf_table_name", "bpf_table_key_desc_id", "bpf_table_leaf_desc_id"):
        getattr(lib, name).restype = ctypes.c_char_p
    flags = wanted["flags"]
    with bcc.BPF(text=wanted["text"].encode(), cflags=flags) as program:
        module = program.module
        maps = [
            {
                "name": lib.bpf_table_name(module, number).decode(),
                "kind": lib.bpf_table_type_id(module, number),
                "key_size": lib.bpf_table_key_size_id(module, number),
                "leaf_size": lib.bpf_table_leaf_size_id(module, number),
                "entries": lib.bpf_table_max_entries_id(module, number),
                "flags": lib.bpf_table_flags_id(module, number),
                "key": json.loads(lib.bpf_table_key_desc_id(module, number)),
                "leaf": json.loads(lib.bpf_table_leaf_desc_id(module, number)),
            }
            for number in range(lib.bpf_num_tables(module))
        ]
        numbers = {
            lib.bpf_table_fd_id(module, number): number
            for number in range(lib.bpf_num_tables(module))
        }
        names = [
            lib.bpf_function_name(module, number)
            for number in range(lib.bpf_num_functions(module))
        ]
        functions = {
            name.decode(): _portable(program.dump_func(name), numbers) for name in names
        }
    return {"bcc": bcc.__version__, "maps": maps, "functions": functions}


def _portable(instructions: bytes, numbers: dict[int, int]) -> str:
    """With numbers of maps instead of descriptors, as text."""
    program = bytearray(instructions)
    at = 0
    while at < len(program):
        code, registers, offset, number = _INSTRUCTION.unpack_from(program, at)
        if code == _LOAD_CONSTANT:
            kind = registers >> 4
            if kind == _OF_A_MAP:
                _INSTRUCTION.pack_into(program, at, code, registers, offset, numbers[number])
            elif kind:
                raise ValueError(f"an instruction that loads a constant of kind {kind}")
            at += _INSTRUCTION.size
        at += _INSTRUCTION.size
    return base64.b64encode(zlib.compress(bytes(program))).decode()


def main(arguments: list[str]) -> int:
    try:
        answer = compiled(json.load(sys.stdin))
    except ImportError as error:
        answer = {"missing": str(error)}
    except Exception as error:  # BCC raises nothing more precise
        answer = {"refused": str(error)}
    with os.fdopen(int(arguments[0]), "w") as file:
        json.dump(answer, file)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
