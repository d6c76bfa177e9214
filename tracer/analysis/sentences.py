"""The verdict on a traced program, in one sentence."""

from __future__ import annotations

from collections.abc import Sequence

from zctrace.analysis import by_process, transformed
from zctrace.analysis.border import LITTLE, RECEIVED, ZERO_COPY
from zctrace.analysis.lines import Line
from zctrace.analysis.program import Answer
from zctrace.analysis.transformed import Transform
from zctrace.evidence.account import NO_CALL
from zctrace.probes import operations
from zctrace.probes.model import Direction, Purpose, Quantity

_MANY = 10
"""More copies for each byte than this, and the bytes themselves say more."""
_MUCH = 0.1
"""From which share of the bytes on pages copied on write, and checksums, are worth saying."""
_NAMED, _SHOWN = 3, 0.005
"""How many calls a sentence names, and from which share of the bytes on."""


_WHERE = {
    Direction.USER_TO_KERNEL: "on the way out",
    Direction.KERNEL_TO_USER: "on the way in",
    Direction.KERNEL_TO_KERNEL: "inside the kernel",
    None: "in an unknown direction",
}


def sentence(found: Answer) -> str:
    """The verdict, in one sentence; where processes differ, first what each of them does."""
    several = by_process.of(found)
    together = _together(found)
    if not by_process.differ(several):
        return together
    each = "; ".join(dict.fromkeys(f"{p.name} {p.words}" for p in several if p.is_large))
    return f"by process: {each}. Together {together}"


def _together(found: Answer) -> str:
    return _on_copies(found) + _on_transforms(found) + _on_pages(found) + _on_own(found)


def _on_own(found: Answer) -> str:
    """What was copied in the program's own memory, where that was watched; empty if little."""
    _, many = found.basis
    size = found.within_bytes
    if not size or size < many * _SHOWN or found.copied is None:
        return ""
    names = ", ".join(line.name for line in found.within[:_NAMED])
    share = f" ({size / many:.2f} copies per byte)" if many >= LITTLE else ""
    return f". In addition, {size} B{share} were copied in its own memory, by {names}"


def _on_pages(found: Answer) -> str:
    """Pages copied on write, where little else was copied; empty if they are few."""
    _, many = found.basis
    pages = found.beside.get(Purpose.COPY_ON_WRITE, 0)
    zero_copy = found.copies is not None and found.copies < ZERO_COPY
    if not zero_copy or pages < max(LITTLE, many * _MUCH):
        return ""
    return f". In addition, {pages} B of pages were copied on write"


def _on_transforms(found: Answer) -> str:
    """What the CPU did with the bytes instead of copying them; empty where that is little."""
    _, many = found.basis
    clauses = []
    for quantity, done in transformed.DONE.items():
        parts = found.transformed.of(quantity)
        size = sum(part.bytes for part in parts)
        # File systems have checksums of their own, of a few bytes for each page.
        least = _MUCH if quantity is Quantity.CHECKSUM else _SHOWN
        if size and size >= many * least:
            clauses.append(f"{_times(size, many)} {done} by the CPU ({_by(parts, many)})")
    perhaps = found.transformed.unassigned
    if perhaps and perhaps >= many * _SHOWN:
        clauses.append(
            f"possibly {_times(perhaps, many)} transformed by kernel threads or other programs"
        )
    if over := found.transformed.handed_over:
        clauses.append(f"{over} B were passed to an asynchronous cipher")
    if found.transformed.blind:
        clauses.append("encryption by the CPU could not be measured")
    return f"; but {', '.join(clauses)}" if clauses else ""


def _times(size: int, many: int) -> str:
    return f"{size / many:.2f} ×" if many else f"{size} B"


def _by(parts: Sequence[Transform], many: int) -> str:
    """Who did most of it and for whom; the most bytes come first."""
    largest = [part for part in parts if part.bytes >= many * _SHOWN] or parts[:1]
    words = list(dict.fromkeys(part.words for part in largest))
    more = [f"and {len(words) - _NAMED} more"] if len(words) > _NAMED else []
    return "; ".join(words[:_NAMED] + more)


def _on_copies(found: Answer) -> str:
    basis, many = found.basis
    copied, ratio = found.copied_bytes, found.copies
    if copied is None:
        return "not measured: a self-test failed"
    if ratio is None:
        return (
            "it moved no bytes through system calls that report how many; the CPU copied "
            f"{copied} B"
        )
    open_ended = found.doubts or (found.most_copies or 0) - ratio >= _SHOWN
    unknown = found.unexplained_bytes / many
    only = unknown >= _SHOWN and not found.doubts and found.unassigned < many * _SHOWN
    seen = "as far as observed, " if open_ended and not only else ""
    parts = [line for line in found.calls if line.copied_bytes]
    sizes = ", ".join(f"{line.copied_bytes} by {called(line.name)}" for line in parts[:_NAMED])
    least = "at least " if open_ended else ""
    if many < LITTLE:
        return f"{seen}it moved only {many} B" + _of_little(found, f"{least}{copied} B", sizes)
    if ratio < ZERO_COPY:
        said = f"{seen}zero-copy: the CPU copied none of the {many} B {basis}"
        if unknown >= _SHOWN:
            known = max(_uncopied(found) - unknown, 0)
            said = f"{seen}zero-copy for {_percent(known)} of the bytes {basis}"
            said += f"; unknown for {_percent(min(unknown, 1))}: {_unknown(found)}"
            if known < _SHOWN:
                said = f"unknown whether it is zero-copy: {_unknown(found)}"
        elif copied:
            said = f"{seen}zero-copy for {_percent(_uncopied(found))} of the bytes {basis}"
        if copied:
            said += f"; {_ways(found)}, most by {called(parts[0].name)}"
        return said
    if ratio > _MANY:
        return f"not zero-copy: {least}{copied} B were copied for {many} B {basis}: {sizes}"
    on_the_way = [(line.name, _on_the_way(found, line)) for line in parts]
    shares = ", ".join(
        f"{size / many:.2f} by {called(name)}"
        for name, size in sorted(on_the_way, key=lambda part: -part[1])[:_NAMED]
        if size >= many * _SHOWN
    )
    said = f"not zero-copy: {least}{ratio:.2f} copies per byte {basis}"
    if shares:
        said += f": {shares}"
    if found.kept >= many * _SHOWN:
        said += f"; another {found.kept} B were copied on the way in and not delivered"
    return said


def _on_the_way(found: Answer, line: Line) -> float:
    """Bytes copied in a call, without its part of those that were kept."""
    copied_in = line.copied.get(Direction.KERNEL_TO_USER, 0)
    total = (found.copied or {}).get(Direction.KERNEL_TO_USER, 0)
    return line.copied_bytes - (found.kept * copied_in / total if total else 0)


def _ways(found: Answer) -> str:
    """What was copied into the program and out of it: the share above is about one of these."""
    copied = found.copied or {}
    parts = [(size, where) for way, where in _WHERE.items() if (size := copied.get(way))]
    return ", ".join(
        f"{size} B {'' if number else 'were copied '}{where}"
        for number, (size, where) in enumerate(parts)
    )


def _of_little(found: Answer, copied: str, sizes: str) -> str:
    """What became of so few bytes that a ratio says nothing."""
    said = f": {copied} were copied: {sizes}" if sizes else ""
    if found.unexplained:
        many = found.unexplained_bytes
        return f"{said}; unknown whether {many} B were copied: {_unknown(found)}"
    return said or ", and the CPU copied none of them"


def _unknown(found: Answer) -> str:
    """Through what most of the bytes went that nothing explains, and why nothing does."""
    most = found.unexplained[0]
    return f"{most.bytes} B through {found.name_of(most.thing)}: {most.why}"


def _uncopied(found: Answer) -> float:
    """The share of what copies are related to that was not copied on its way."""
    basis, many = found.basis
    copied = 0
    for line in found.calls:
        way = sum(
            size
            for direction, size in line.copied.items()
            if (direction is Direction.KERNEL_TO_USER) == (basis == RECEIVED)
        )
        moved = line.received if basis == RECEIVED else line.delivered
        copied += min(way, moved) if moved else way
    return max(many - copied, 0) / many


def called(name: str) -> str:
    """A system call by the name of one of :attr:`Answer.calls`, as a sentence has it."""
    if name == NO_CALL:
        return "the kernel outside system calls"
    return name if operations.is_operation(name) else f"{name}(2)"


def _percent(share: float) -> str:
    """One decimal, and never 100 for less."""
    return f"{int(share * 1000) / 10:g} %"
