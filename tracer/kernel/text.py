"""The running kernel's machine code: where its functions are and where they return.

Live text is read, not the image on disk: at boot the kernel patches its own
instructions (alternatives, return thunks), and only live text has them as executed.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

KALLSYMS = Path("/proc/kallsyms")
KCORE = Path("/proc/kcore")
_ELF_HEADER, _PT_LOAD = 64, 1
_RETURN_THUNK = r"\w*_return_thunk"


class TextError(Exception):
    """Kernel text cannot be read or understood."""


@contextmanager
def understood(path: Path) -> Iterator[None]:
    """Raise :class:`TextError` where what ``path`` says is not in the form that it has."""
    try:
        yield
    except (ValueError, IndexError) as error:
        raise TextError(f"{path} is cut off or damaged") from error


@dataclass(frozen=True)
class Symbol:
    """A function's first address and its size in bytes, up to the next symbol."""

    address: int
    size: int


@understood(KALLSYMS)
def find_symbols(names: Iterable[str], kallsyms: bytes) -> dict[str, Symbol]:
    """Those of ``names`` that the kernel has, with their ``.cold`` halves and thunks.

    Raises :class:`TextError` where addresses are hidden (kernel.kptr_restrict), and for a list
    that is damaged.
    """
    wanted = "|".join(re.escape(name) for name in names)
    line = re.compile(rf" [tTwW] ((?:{wanted})(?:\.cold)?|{_RETURN_THUNK})$".encode(), re.M)
    symbols: dict[str, Symbol] = {}
    for match in line.finditer(kallsyms):
        address = address_before(kallsyms, match.start())
        if not address:
            raise TextError("the kernel hides its addresses (sysctl kernel.kptr_restrict)")
        # Aliases stand at the same address; the next higher one ends the function.
        at, following = match.end() + 1, address
        while following == address and at < len(kallsyms):
            following = int(kallsyms[at : kallsyms.index(b" ", at)], 16)
            at = kallsyms.index(b"\n", at) + 1
        symbols.setdefault(match[1].decode(), Symbol(address, max(following - address, 0)))
    return symbols


def text_start() -> int:
    """Where the kernel's text begins; 0 where the kernel hides that.

    The list of symbols begins with few others, and making all of it takes long.
    """
    with suppress(OSError), KALLSYMS.open("rb") as kallsyms:
        for line in kallsyms:
            if line.endswith(b" T _stext\n"):
                return address_before(line, 16)
    return 0


def address_before(kallsyms: bytes, at: int) -> int:
    """The address that the line begins with whose first blank is ``at``."""
    return int(kallsyms[kallsyms.rfind(b"\n", 0, at) + 1 : at], 16)


class Text(Protocol):
    """What kernel memory can be read from."""

    def read(self, symbol: Symbol) -> bytes:
        """What is there; raises :class:`TextError`."""

    def close(self) -> None: ...


class LiveText:
    """Kernel memory through /proc/kcore; raises :class:`TextError` where it is locked."""

    def __init__(self, path: Path = KCORE) -> None:
        try:
            self._file = path.open("rb", buffering=0)
            header = self._file.read(_ELF_HEADER)
            (table,) = struct.unpack_from("<Q", header, 32)
            size, count = struct.unpack_from("<HH", header, 54)
            self._file.seek(table)
            entries = self._file.read(size * count)
            headers = [
                struct.unpack_from("<IIQQQQQQ", entries, at)
                for at in range(0, size * count, size)
            ]
        except OSError as error:
            raise TextError(f"{path}: {error.strerror}") from error
        except (struct.error, ValueError) as error:
            self._file.close()
            hidden = "something else is mounted over it, as in containers"
            raise TextError(f"{path} does not show the kernel's memory: {hidden}") from error
        self._segments = [
            (address, length, offset)
            for kind, _, offset, address, _, _, length, _ in headers
            if kind == _PT_LOAD
        ]

    def read(self, symbol: Symbol) -> bytes:
        for address, length, offset in self._segments:
            left = address + length - symbol.address
            if 0 < left <= length:
                try:
                    self._file.seek(offset + symbol.address - address)
                    return self._file.read(min(symbol.size, left))
                except (OSError, OverflowError, MemoryError) as error:
                    raise TextError(f"{symbol.address:#x} cannot be read: {error}") from error
        raise TextError(f"{symbol.address:#x} is in no segment of {self._file.name}")

    def close(self) -> None:
        self._file.close()


@dataclass(frozen=True)
class Exits:
    """How control leaves a function: offsets of its returns and of jumps to elsewhere.

    ``code`` has the instructions there: first those of all returns, then of all jumps.
    """

    returns: tuple[int, ...]
    jumps: tuple[int, ...]
    code: tuple[bytes, ...] = field(default=(), compare=False)


def find_exits(name: str, symbols: dict[str, Symbol], text: Text) -> Exits:
    """Disassemble ``name`` and its cold half.

    A jump to one of the return thunks is a return; a jump between the function and its
    cold half is neither. A return in the cold half has an offset as seen from the
    function's beginning (negative or large).
    """
    import capstone  # late: only where breakpoints are planned

    disassembler = capstone.Cs(capstone.CS_ARCH_X86, capstone.CS_MODE_64)
    start = symbols[name]
    halves = [start] + ([symbols[cold]] if (cold := f"{name}.cold") in symbols else [])
    inside = [range(half.address, half.address + half.size) for half in halves]
    thunks = {
        symbol.address
        for other, symbol in symbols.items()
        if re.fullmatch(_RETURN_THUNK, other)
    }
    returns: dict[int, bytes] = {}
    jumps: dict[int, bytes] = {}
    for half in halves:
        code, decoded = text.read(half), 0
        for address, size, mnemonic, operands in disassembler.disasm_lite(code, half.address):
            instruction = code[decoded : decoded + size]
            decoded += size
            offset = address - start.address
            plain = mnemonic.rpartition(" ")[2]  # behind prefixes that are part of it
            if plain.startswith("ret"):
                returns[offset] = instruction
            elif plain.startswith("j"):
                target = int(operands, 16) if operands.startswith("0x") else None
                if target in thunks:
                    returns[offset] = instruction
                elif target is None or not any(target in half_ for half_ in inside):
                    jumps[offset] = instruction
        if decoded < len(code):
            raise TextError(f"{name}: cannot disassemble beyond byte {decoded}")
    return Exits(tuple(returns), tuple(jumps), (*returns.values(), *jumps.values()))
