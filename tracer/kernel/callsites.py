"""Where kernel code calls a function: found by disassembling its text."""

from __future__ import annotations

import re
import struct
from collections.abc import Container, Iterable, Iterator

from zctrace.kernel.symbols import SymbolTable, text_stretches
from zctrace.kernel.text import Symbol, Text, TextError
from zctrace.probes.model import Call, plain

_BLOCK = 1 << 18
CALL_BYTES = 5
"""Length of a direct call: from its address to the instruction it returns to."""
_CALL, _JUMP, _PROBED = 0xE8, 0xE9, 0xCC
"""The last is what somebody else's probe has put in the place of either."""
_BEHIND_JUMP = re.compile(rb"\xcc\xcc|\x90|\x0f\x1f|\x66+(?:\x90|\x2e|\x0f\x1f)")
"""What may follow a jump to another function: padding, up to the next one. One byte of a
breakpoint alone is another probe: of a call, as a zctrace has them."""
_PADDING, _PADDING_BYTES = "__pfx_", 16
"""With call depth tracking calls go to somewhere in the padding before the function, which
has a symbol of its own then. Without that symbol another function may be there: calls of
skb_free_datagram were taken for those of simple_copy_to_iter, which follows it on 6.1.
Functions in assembly have no such symbol: there what the padding was filled with tells."""
_COUNTS_DEPTH = re.compile(rb"\x65\x48\xc1(?:\x3d|\x3c\x25)....\x05$", re.S)
"""sarq $5, __x86_call_depth: how that ends (arch/x86/kernel/callthunks.c)."""
_ENTRY_BYTES = 9
_ENTRY = re.compile(
    rb"(?:\xf3\x0f\x1e\xfa|\x66\x0f\x1f\x00|\x0f\x1f\x40.)?"
    rb"(?:\x0f\x1f\x44\x00\x00|\x66\x66\x66\x66\x90|\xe8)",
    re.S,
)
"""How a function that can be traced begins: a five-byte nop, or a call where it is being
traced; possibly behind the mark of a target of indirect calls, or what became of that."""


def find_calls(
    wanted: dict[str, tuple[str, ...]],
    symbols: SymbolTable,
    text: Text,
    only: Container[str] | None = None,
) -> dict[str, tuple[Call, ...]]:
    """Direct calls of, and jumps to, each function; of those with callers only from there.

    ``wanted`` maps the functions' names to those of callers, empty for all of them. What
    the compiler made of one function (``name.part.0``, ``name.cold``) has its name. With
    ``only``, names of modules, no others are searched; the kernel's own is empty.
    """
    callers = {caller for names in wanted.values() for caller in names}
    pads = [_PADDING + name for name in wanted]
    symbols.look_up([*wanted, *pads, *callers])
    targets, padding = symbols.addresses(wanted), symbols.addresses(pads)
    everywhere = {a: name for a, name in targets.items() if not wanted[name]}
    limited = {a: name for a, name in targets.items() if wanted[name]}
    found: dict[str, dict[int, Call]] = {name: {} for name in targets.values()}
    stretches = [(*stretch, everywhere) for stretch in text_stretches(symbols)]
    stretches += [(*stretch, limited) for stretch in symbols.stretches(callers)]
    for module, start, size, functions in stretches:
        if only is not None and module not in only:
            continue
        for address, jump, name in _branches(text, start, size, functions, padding):
            caller, begin = symbols.function_at(address, module)
            if wanted[name] and plain(caller) not in wanted[name]:
                continue
            traced = is_traceable(text, begin)
            call = Call(address, caller, address - begin, module, jump, traced)
            found[name].setdefault(address, call)
    return {name: tuple(calls[a] for a in sorted(calls)) for name, calls in found.items()}


def _branches(
    text: Text,
    start: int,
    size: int,
    functions: dict[int, str],
    padding: Container[int],
) -> Iterator[tuple[int, bool, str]]:
    targets = dict(functions)
    before: dict[int, int] = dict.fromkeys(functions, 0)
    for address, name in functions.items():
        if address - _PADDING_BYTES in padding or _counts_depth(text, address):
            padded = range(address - _PADDING_BYTES, address)
            targets |= dict.fromkeys(padded, name)
            before |= {at: address - at for at in padded}
    # What somebody's probe may have replaced goes where calls on this kernel go: padding looks
    # like it, too (7.3 has an int3 and a nop behind shmem_swap_usage).
    seen, doubtful = {0}, []
    for base in range(start, start + size, _BLOCK):
        length = min(_BLOCK, start + size - base)
        try:
            block = text.read(Symbol(base, min(length + CALL_BYTES, start + size - base)))
        except TextError:
            return  # a module has been unloaded
        for match in _pattern(base, targets).finditer(block):
            at = match.start()
            if at < length and at + CALL_BYTES <= len(block):
                (distance,) = struct.unpack_from("<i", block, at + 1)
                target = base + at + CALL_BYTES + distance
                if target not in targets:
                    continue
                branch = base + at, _is_jump(block, at), targets[target]
                if block[at] == _PROBED and before[target] not in seen:
                    doubtful.append((before[target], branch))
                    continue
                seen.add(before[target])
                yield branch
    yield from (branch for distance, branch in doubtful if distance in seen)


def _counts_depth(text: Text, function: int) -> bool:
    """Whether how deep calls are is counted right before the function, by who calls that."""
    try:
        before = text.read(Symbol(function - _PADDING_BYTES, _PADDING_BYTES))
    except TextError:
        return False
    return bool(_COUNTS_DEPTH.search(before))


def _is_jump(block: bytes, at: int) -> bool:
    """Whether the branch there is a jump, and no call.

    Under a probe only what is behind it tells; a call at the end of a function that is taken
    for a jump is one that cannot be watched, which is said.
    """
    if block[at] != _PROBED:
        return block[at] == _JUMP
    behind = block[at + CALL_BYTES : at + 2 * CALL_BYTES]
    return not behind or bool(_BEHIND_JUMP.match(behind))


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
    return re.compile(rb"[\xe8\xe9\xcc](?=[\s\S]{2}(?:" + alternatives + rb"))")


def is_traceable(text: Text, function: int) -> bool:
    """Whether the function at this address begins with room for a call of the tracer's."""
    return bool(_ENTRY.match(text.read(Symbol(function, _ENTRY_BYTES))))


def branch_at(text: Text, address: int) -> tuple[bool, int] | None:
    """Whether the direct branch there is a jump, and where it leads; None if there is none."""
    code = text.read(Symbol(address, CALL_BYTES))
    if len(code) < CALL_BYTES or code[0] not in (_CALL, _JUMP):
        return None
    (distance,) = struct.unpack_from("<i", code, 1)
    return code[0] == _JUMP, address + CALL_BYTES + int(distance)
