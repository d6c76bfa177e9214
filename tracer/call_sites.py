"""Who calls the functions that copy: call instructions, found in the kernel's live text.

A direct call is the byte E8 (a jump: E9) and the distance to its target, from the end of
the instruction. Text is searched for distances that lead to a target; that some five bytes
in the middle of other instructions look like one is possible and harmless, because the
kernel takes probes at the beginnings of instructions only.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Container, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from tracer.kernel_text import LiveText, Symbol, TextError, address_before

CALL_BYTES = 5
"""Length of a direct call: what lies between it and the instruction it returns to."""

_MODULES = Path("/proc/modules")
_BLOCK = 1 << 18
_JUMP = 0xE9
_PADDING, _PADDING_BYTES = "__pfx_", 16
"""With call depth tracking calls go to somewhere in the padding before the function, which
has a symbol of its own then. Without that symbol another function may be there: calls of
skb_free_datagram were taken for those of simple_copy_to_iter, which follows it on 6.1."""
_ENTRY_BYTES = 9
_ENTRY = re.compile(
    rb"(?:\xf3\x0f\x1e\xfa|\x66\x0f\x1f\x00|\x0f\x1f\x40.)?"
    rb"(?:\x0f\x1f\x44\x00\x00|\x66\x66\x66\x66\x90|\xe8)",
    re.S,
)
"""How a function that can be traced begins: a five-byte nop, or a call where it is being
traced; possibly behind the mark of a target of indirect calls, or what became of that."""


@dataclass(frozen=True)
class Call:
    """One place that calls, or jumps to, a function.

    ``caller`` is the function around it, ``offset`` the place in there; ``module`` is
    empty in the kernel itself. ``traced`` is whether the caller lets itself be probed.
    """

    address: int
    caller: str
    offset: int
    module: str = ""
    jump: bool = False
    traced: bool = True

    @property
    def name(self) -> str:
        return f"{self.caller}+{self.offset:#x}"


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
        self._known: dict[str, list[tuple[int, int, str]]] = {}

    def look_up(self, names: Iterable[str]) -> None:
        """Find all of these at once: passing through the whole text is what takes time."""
        wanted = set(names) - self._known.keys()
        alternatives = "|".join(re.escape(name) for name in wanted)
        # Without the address in front: an expression that begins with one certain letter
        # is searched for, any other is tried at every place of the text.
        line = re.compile(rf" [tTwW] ({alternatives})(\.\S+)?(?:\t.*)?$".encode(), re.M)
        self._known |= {name: [] for name in wanted}
        if wanted:
            for m in line.finditer(self._text):
                start, variant = address_before(self._text, m.start()), (m[2] or b"").decode()
                size = self._end(start, m.end()) - start
                self._known[m[1].decode()].append((start, size, variant))

    def addresses(self, names: Iterable[str]) -> dict[int, str]:
        """Where functions of these names begin; several may share one name.

        Also what the compiler made of them (``name.isra.0``), under the plain name, but not
        the unlikely parts that it has moved elsewhere.
        """
        names = tuple(names)
        self.look_up(names)
        return {
            start: name
            for name in names
            for start, _, variant in self._known[name]
            if ".cold" not in variant
        }

    def stretches(self, names: Iterable[str]) -> list[tuple[int, int]]:
        """First address and size of the kernel's functions of these names, all parts."""
        names = tuple(names)
        self.look_up(names)
        return sorted({(at, size) for name in names for at, size, _ in self._known[name]})

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
                (m for m, start, size in _stretches(self) if m and 0 <= address - start < size),
                "",
            )
            if not module:
                return hex(address)
        name, begin = self.function_at(address, module)
        return f"{name}+{address - begin:#x}"

    def _in_module(self, address: int, module: str) -> tuple[str, int]:
        if module not in self._modules:
            line = re.compile(
                rf"^([0-9a-f]+) [tTwW] (\S+)\t\[{re.escape(module)}\]$".encode(), re.M
            )
            self._modules[module] = sorted(
                (int(m[1], 16), m[2].decode())
                for m in line.finditer(self._text, self._core.stop)
            )
        around = [s for s in self._modules[module] if s[0] <= address]
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


def find_calls(
    wanted: dict[str, tuple[str, ...]], symbols: SymbolTable, text: LiveText
) -> dict[str, tuple[Call, ...]]:
    """Direct calls of, and jumps to, each function; of those with callers only from there.

    ``wanted`` maps the functions' names to those of callers, empty for all of them. What
    the compiler made of one function (``name.part.0``, ``name.cold``) has its name.
    """
    callers = {caller for names in wanted.values() for caller in names}
    pads = [_PADDING + name for name in wanted]
    symbols.look_up([*wanted, *pads, *callers])
    targets, padding = symbols.addresses(wanted), symbols.addresses(pads)
    everywhere = {a: name for a, name in targets.items() if not wanted[name]}
    limited = {a: name for a, name in targets.items() if wanted[name]}
    found: dict[str, dict[int, Call]] = {name: {} for name in targets.values()}
    stretches = [(*stretch, everywhere) for stretch in _stretches(symbols)]
    stretches += [("", *stretch, limited) for stretch in symbols.stretches(callers)]
    for module, start, size, functions in stretches:
        for address, jump, name in _branches(text, start, size, functions, padding):
            caller, begin = symbols.function_at(address, module)
            if wanted[name] and plain(caller) not in wanted[name]:
                continue
            traced = bool(_ENTRY.match(text.read(Symbol(begin, _ENTRY_BYTES))))
            call = Call(address, caller, address - begin, module, jump, traced)
            found[name].setdefault(address, call)
    return {name: tuple(calls[a] for a in sorted(calls)) for name, calls in found.items()}


def plain(function: str) -> str:
    """The name in the source: without what the compiler appends to parts and variants."""
    return function.partition(".")[0]


def _stretches(symbols: SymbolTable) -> Iterator[tuple[str, int, int]]:
    """Module (empty: the kernel itself), first address and size of all kernel text."""
    yield "", symbols.start, symbols.end - symbols.start
    for line in _MODULES.read_text().splitlines():
        name, size, *_, address = line.split()[:6]
        yield name, int(address, 16), int(size)


def _branches(
    text: LiveText,
    start: int,
    size: int,
    functions: dict[int, str],
    padding: Container[int],
) -> Iterator[tuple[int, bool, str]]:
    targets = dict(functions)
    for address, name in functions.items():
        if address - _PADDING_BYTES in padding:
            targets |= dict.fromkeys(range(address - _PADDING_BYTES, address), name)
    for base in range(start, start + size, _BLOCK):
        length = min(_BLOCK, start + size - base)
        try:
            block = text.read(Symbol(base, min(length + CALL_BYTES, start + size - base)))
        except TextError:
            return  # a module has gone meanwhile
        for match in _pattern(base, targets).finditer(block):
            at = match.start()
            if at < length and at + CALL_BYTES <= len(block):
                (distance,) = struct.unpack_from("<i", block, at + 1)
                target = base + at + CALL_BYTES + distance
                if target in targets:
                    yield base + at, block[at] == _JUMP, targets[target]


def _pattern(base: int, targets: Iterable[int]) -> re.Pattern[bytes]:
    """What a branch from this block to one of the targets looks like.

    Of the distance's four bytes the upper two take few values within a block; the regular
    expression throws out nearly everything else at the speed of C.
    """
    uppers: dict[int, set[int]] = {}
    for target in targets:
        first = (target - base - _BLOCK - CALL_BYTES) >> 16
        for upper in range(first, ((target - base) >> 16) + 1):
            uppers.setdefault(upper >> 8 & 0xFF, set()).add(upper & 0xFF)
    alternatives = b"|".join(
        b"["
        + b"".join(re.escape(bytes([low])) for low in sorted(lows))
        + b"]"
        + re.escape(bytes([high]))
        for high, lows in sorted(uppers.items())
    )
    # Looked ahead, so that what only looks like a branch hides nothing behind it.
    return re.compile(rb"[\xe8\xe9](?=[\s\S]{2}(?:" + alternatives + rb"))")
