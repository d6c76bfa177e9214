"""What the files of programs and libraries say: how they are linked, and their lines of code.

The only importer of pyelftools, and late: most collectors need nothing of it. Sources: elf(5);
DWARF 5 (https://dwarfstd.org); Go, src/debug/gosym.
"""

from __future__ import annotations

import bisect
import io
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

_OF_GO = ("gopclntab", ".go.buildinfo", ".note.go.buildid")
"""How names of sections end that Go's programs have, stripped or not."""
_C_FUNCTIONS = ("memcpy", "memmove")
_SECTION_BYTES = 64
"""Of a header of a section (Elf64_Shdr)."""
_ADDRESS = "address"
_MOST_BYTES = 256 << 20
"""Of debugging information, unpacked: a browser has gigabytes, which take minutes to read."""


@dataclass(frozen=True)
class Linked:
    """How a program is linked.

    ``interpreter`` is what loads its libraries, empty if it is linked statically. ``go`` is
    whether there is code of Go's in it. ``c`` is whether there are a C library's functions in
    one that has Go's and is linked statically.
    """

    interpreter: str
    go: bool
    c: bool = False


def linked(path: str) -> Linked:
    """Raises ``ImportError`` without pyelftools, ``OSError``, and ``ValueError`` if it is no
    program."""
    from elftools.elf.elffile import ELFFile

    with open(path, "rb") as file:
        try:
            elf = ELFFile(file)
            _require_sane(elf, path)
            loaders = [s.get_interp_name() for s in elf.iter_segments("PT_INTERP")]
            go = any(section.name.endswith(_OF_GO) for section in elf.iter_sections())
            symbols = elf.get_section_by_name(".symtab") if go and not loaders else None
            c = symbols and any(map(symbols.get_symbol_by_name, _C_FUNCTIONS))
        except Exception as error:  # what a file has in it is anything at all
            raise ValueError(f"{path}: {error}") from error
    return Linked(loaders[0] if loaders else "", go=go, c=bool(c))


def _require_sane(elf: Any, path: str) -> None:
    """Raises ``ValueError`` for a file that would keep us for hours, or take all memory.

    The kernel executes one with any section headers: it does not look at them.
    """
    size = Path(path).stat().st_size
    if elf["e_shnum"] and elf["e_shentsize"] != _SECTION_BYTES:
        raise ValueError("its section headers are not of this architecture")
    if elf.num_sections() * _SECTION_BYTES > size:
        raise ValueError("it has more section headers than bytes")
    if any(s["sh_size"] > size for s in elf.iter_sections() if s["sh_type"] != "SHT_NOBITS"):
        raise ValueError("it has sections that are larger than itself")


class Lines:
    """The lines of source code of a program or library, as far as its file has them (DWARF).

    One that is damaged or very large, has none; neither has any without pyelftools.
    """

    def __init__(self, path: str) -> None:
        self._segments: list[tuple[int, int, int]] = []
        self._units: list[tuple[int, int, int]] = []
        self._debug: Any = None
        self._rows = cache(self._table)
        # As above.
        with suppress(Exception):
            from elftools.elf.elffile import ELFFile

            elf = ELFFile(io.BufferedReader(io.FileIO(path)))
            _require_sane(elf, path)
            sizes = [s.data_size for s in elf.iter_sections() if "debug_" in s.name]
            if sum(sizes) > _MOST_BYTES:
                return
            self._segments = [
                (s["p_offset"], s["p_filesz"], s["p_vaddr"])
                for s in elf.iter_segments("PT_LOAD")
            ]
            if elf.has_dwarf_info():
                self._debug = elf.get_dwarf_info(follow_links=False)
                self._units = sorted(self._ranges())

    def address(self, offset: int) -> int | None:
        """Of a place in the file."""
        for begin, size, address in self._segments:
            if begin <= offset < begin + size:
                return offset - begin + address
        return None

    def of(self, address: int) -> str | None:
        """The file's name and the line, as ``main.go:17``; ``None`` if that is not known."""
        at = bisect.bisect(self._units, (address, 1 << 64, 0)) - 1
        if at < 0 or not self._units[at][0] <= address < self._units[at][1]:
            return None
        with suppress(Exception):
            rows = self._rows(self._units[at][2])
            row = bisect.bisect(rows, (address, 1 << 64)) - 1
            return rows[row][2] or None if row >= 0 else None
        return None

    def _ranges(self) -> Iterator[tuple[int, int, int]]:
        """Where code begins and ends, and the offset of its compilation unit."""
        from elftools.dwarf.descriptions import describe_form_class
        from elftools.dwarf.ranges import RangeEntry

        lists = self._debug.range_lists()
        for unit in self._debug.iter_CUs():
            with suppress(Exception):
                about = unit.get_top_DIE().attributes
                low = about["DW_AT_low_pc"].value if "DW_AT_low_pc" in about else 0
                if high := about.get("DW_AT_high_pc"):
                    is_end = describe_form_class(high.form) == _ADDRESS
                    yield low, high.value if is_end else low + high.value, unit.cu_offset
                elif ranges := about.get("DW_AT_ranges"):
                    base = low
                    for entry in lists.get_range_list_at_offset(ranges.value, unit):
                        if not isinstance(entry, RangeEntry):
                            base = entry.base_address
                            continue
                        first = 0 if getattr(entry, "is_absolute", False) else base
                        yield (
                            first + entry.begin_offset,
                            first + entry.end_offset,
                            unit.cu_offset,
                        )

    def _table(self, offset: int) -> list[tuple[int, int, str]]:
        """Where each line of a unit begins; an empty name is where there is no code."""
        program = self._debug.line_program_for_CU(self._debug.get_CU_at(offset))
        files, first = program["file_entry"], 0 if program["version"] >= 5 else 1
        rows = []
        for number, entry in enumerate(program.get_entries()):
            state = entry.state
            if state is None:
                continue
            name = ""
            if not state.end_sequence and state.line:
                name = f"{Path(_text(files[state.file - first].name)).name}:{state.line}"
            rows.append((state.address, number, name))
        return sorted(rows)


def _text(name: Any) -> str:
    return name.decode(errors="replace") if isinstance(name, bytes) else str(name)
