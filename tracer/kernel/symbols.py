"""Who calls the functions that copy: call instructions, found in the kernel's live text.

A direct call is the byte E8 (a jump: E9) and the distance to its target, from the end of
the instruction. Text is searched for distances that lead to a target; that some five bytes
in the middle of other instructions look like one is possible and harmless, because the
kernel takes probes at the beginnings of instructions only.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from zctrace.kernel.text import TextError, address_before, understood

_MODULES = Path("/proc/modules")
_OF_MODULES = Path("/proc/sys/kernel/modules_disabled")
"""There wherever the kernel can load modules (CONFIG_MODULES)."""


class _Place(NamedTuple):
    """Where a function is; ``end`` is 0 of a module's, ``variant`` what its name ends with."""

    start: int
    end: int
    variant: str
    module: str


class SymbolTable:
    """All functions of the kernel and its modules, by name and by address.

    ``kallsyms`` is the content of the file of that name, which is in order of addresses
    for the kernel proper.
    """

    def __init__(self, kallsyms: bytes) -> None:
        self._text = kallsyms
        first, last = (self._line_of(name) for name in ("_stext", "_etext"))
        self._core = range(first, last)
        self.start, self.end = (int(self._text[at : at + 16], 16) for at in (first, last))
        if not self.start:
            raise TextError("the kernel hides its addresses (sysctl kernel.kptr_restrict)")
        self._modules: dict[str, list[tuple[int, str]]] = {}
        self._known: dict[str, list[_Place]] = {}

    def look_up(self, names: Iterable[str]) -> None:
        """Find all of these at once: passing through the whole text is what takes time."""
        wanted = set(names) - self._known.keys()
        alternatives = "|".join(re.escape(name) for name in wanted)
        # Without the address in front: an expression that begins with one certain letter
        # is searched for, any other is tried at every place of the text.
        line = re.compile(rf" [tTwW] ({alternatives})(\.\S+)?(?:\t\[(.*)\])?$".encode(), re.M)
        self._known |= {name: [] for name in wanted}
        if wanted:
            for m in line.finditer(self._text):
                start = address_before(self._text, m.start())
                variant, module = (m[2] or b"").decode(), (m[3] or b"").decode()
                end = 0 if module else self._end(start, m.end())
                self._known[m[1].decode()].append(_Place(start, end, variant, module))

    def addresses(self, names: Iterable[str]) -> dict[int, str]:
        """Where functions of these names begin; several may share one name.

        Also what the compiler made of them (``name.isra.0``), under the plain name, but not
        the unlikely parts that it has moved elsewhere.
        """
        names = tuple(names)
        self.look_up(names)
        return {
            place.start: name
            for name in names
            for place in self._known[name]
            if ".cold" not in place.variant
        }

    def existing(self, names: Iterable[str]) -> dict[str, frozenset[str]]:
        """Those of the names that functions have, by module; the kernel's own is empty."""
        names = tuple(names)
        self.look_up(names)
        found: dict[str, set[str]] = {}
        for name in names:
            for place in self._known[name]:
                found.setdefault(place.module, set()).add(name)
        return {module: frozenset(those) for module, those in found.items()}

    def stretches(self, names: Iterable[str]) -> list[tuple[str, int, int]]:
        """Module, first address and size of the functions of these names, all parts."""
        names = tuple(names)
        self.look_up(names)
        places = {place for name in names for place in self._known[name]}
        ends = {
            module: start + size
            for module, start, size in text_stretches(self)
            if any(place.module == module for place in places)
        }
        return sorted(
            {
                (place.module, place.start, self._end_of(place, ends) - place.start)
                for place in places
                if place.module in ends
            }
        )

    def _end_of(self, place: _Place, ends: dict[str, int]) -> int:
        """A module's functions are in no order of addresses in the text."""
        if not place.module:
            return place.end
        behind = (at for at, _ in self._functions(place.module) if at > place.start)
        return next(behind, ends[place.module])

    def function_at(self, address: int, module: str = "") -> tuple[str, int]:
        """Name and first address of the function around ``address``."""
        if module:
            return self._in_module(address, module)
        low, high = self._core.start, self._core.stop
        while True:
            middle = self._text.rfind(b"\n", low, (low + high) // 2) + 1
            if middle <= low:
                break
            if int(self._text[middle : middle + 16], 16) <= address:
                low = middle
            else:
                high = middle
        # The last line of those that are not behind the address; then its first alias.
        line = low
        while (at := self._text.index(b"\n", line) + 1) < self._core.stop:
            if int(self._text[at : at + 16], 16) > address:
                break
            line = at
        start = self._text[line : line + 16]
        while line > self._core.start:
            before = self._text.rfind(b"\n", 0, line - 1) + 1
            if self._text[before : before + 16] != start:
                break
            line = before
        return self._name(line), int(start, 16)

    def locate(self, address: int) -> str:
        """The function around ``address`` and the place in there, as ``name+0x12``."""
        module = ""
        if not self.start <= address < self.end:
            module = next(
                (
                    m
                    for m, start, size in text_stretches(self)
                    if m and 0 <= address - start < size
                ),
                "",
            )
            if not module:
                return hex(address)
        name, begin = self.function_at(address, module)
        return f"{name}+{address - begin:#x}"

    def _functions(self, module: str) -> list[tuple[int, str]]:
        """First addresses and names of a module's, in order of addresses."""
        if module not in self._modules:
            line = re.compile(
                rf"^([0-9a-f]+) [tTwW] (\S+)\t\[{re.escape(module)}\]$".encode(), re.M
            )
            self._modules[module] = sorted(
                (int(m[1], 16), m[2].decode())
                for m in line.finditer(self._text, self._core.stop)
            )
        return self._modules[module]

    def _in_module(self, address: int, module: str) -> tuple[str, int]:
        around = [s for s in self._functions(module) if s[0] <= address]
        if not around:
            return module, address
        start, name = around[-1]
        return name, start

    def _end(self, start: int, line_end: int) -> int:
        """Where the function at ``start`` ends: at the next higher address."""
        following = start
        while following == start and line_end + 1 < len(self._text):
            following = int(self._text[line_end + 1 : line_end + 17], 16)
            line_end = self._text.index(b"\n", line_end + 1)
        return max(following, start)

    def _line_of(self, name: str) -> int:
        found = self._text.find(f" T {name}\n".encode())
        if found < 0:
            raise TextError(f"the kernel has no symbol {name}")
        return self._text.rfind(b"\n", 0, found) + 1

    def _name(self, line: int) -> str:
        return self._text[line : self._text.index(b"\n", line)].split()[2].decode()


@dataclass(frozen=True)
class Module:
    """A loaded module: where its text begins, and how large all that it has is, in bytes."""

    name: str
    start: int
    size: int


@understood(_MODULES)
def modules() -> list[Module]:
    """Those that are loaded, in order of addresses; raises :class:`TextError`, ``OSError``."""
    if not _MODULES.exists():
        if _OF_MODULES.exists():
            raise TextError(f"{_MODULES} is not there, so that modules' text is not found")
        return []
    found = []
    for line in _MODULES.read_text().splitlines():
        name, size, *_, address = line.split()[:6]
        found.append(Module(name, int(address, 16), int(size)))
    return sorted(found, key=lambda module: module.start)


def text_stretches(symbols: SymbolTable) -> Iterator[tuple[str, int, int]]:
    """Module (empty: the kernel itself), first address and size of all kernel text.

    Where modules have their data elsewhere, the next one's text may be behind their text.
    """
    yield "", symbols.start, symbols.end - symbols.start
    loaded = modules()
    for module, following in itertools.zip_longest(loaded, loaded[1:]):
        end = module.start + module.size
        if following:
            end = min(end, following.start)
        yield module.name, module.start, end - module.start
