"""What the kernel's text says of the functions that a catalogue names."""

from __future__ import annotations

from collections.abc import Container
from dataclasses import dataclass

from zctrace.kernel import callsites
from zctrace.kernel import symbols as call_sites
from zctrace.kernel import text as kernel_text
from zctrace.kernel.text import Exits, LiveText, Symbol
from zctrace.probes.model import Call, Catalogue, Mechanism

COUNTS_SKIPS, RUNS_PROGRAMS = "bpf_prog_inc_misses_counter", "trace_call_bpf"
"""Who counts that a program was skipped, and who runs those of probes and tracepoints, or
skips them. The one calls the other since Linux kernel commit dd8657894c11 ("bpf: Count missed
stats in trace_call_bpf") (in v6.7); before, a kernel may have both, and the count stays 0."""


@dataclass(frozen=True)
class Wanted:
    """Names of functions: all, those whose exits are wanted, and those whose calls are.

    ``calls`` has the only callers of interest, empty for all of them.
    """

    functions: tuple[str, ...]
    exits: tuple[str, ...]
    calls: dict[str, tuple[str, ...]]


@dataclass(frozen=True)
class TextFacts:
    """Where functions are, how control leaves them, where they are called.

    ``trouble`` is why some of it is not known. ``own`` is whether all whose calls are wanted
    are the kernel's own, none a module's.
    """

    symbols: dict[str, Symbol]
    exits: dict[str, Exits]
    calls: dict[str, tuple[Call, ...]]
    trouble: str | None = None
    own: bool = False


def wanted_by(catalogue: Catalogue) -> Wanted:
    """Beside the catalogue's, what the kernel calls to count skipped programs."""
    copies = {site.function for site in catalogue.copies}
    calls = {target.function: target.callers for target in catalogue.calls}
    return Wanted(
        functions=tuple(sorted(copies | {hook.function for hook in catalogue.hooks})),
        exits=tuple(
            sorted(
                site.function
                for site in catalogue.copies
                if Mechanism.BREAKPOINT_RETURN in site.mechanisms
            )
        ),
        calls={**calls, COUNTS_SKIPS: (RUNS_PROGRAMS,)},
    )


def look(wanted: Wanted) -> TextFacts:
    """Search the kernel's symbols and text.

    Making the list of symbols takes the kernel half a second where it is emulated: it is
    read once.
    """
    try:
        kallsyms = kernel_text.KALLSYMS.read_bytes()
        symbols = kernel_text.find_symbols(wanted.functions, kallsyms)
    except (OSError, kernel_text.TextError) as error:
        return TextFacts({}, {}, {}, str(error))
    if not symbols:
        return TextFacts({}, {}, {})
    exits: dict[str, Exits] = {}
    calls: dict[str, tuple[Call, ...]] = {}
    own, trouble = False, None
    try:
        text = LiveText()
    except kernel_text.TextError as error:
        return TextFacts(symbols, exits, calls, str(error))
    try:
        for name in wanted.exits:
            if name in symbols:
                try:
                    exits[name] = kernel_text.find_exits(name, symbols, text)
                except kernel_text.TextError as error:
                    trouble = str(error)
        calls, own = find_calls(wanted, kallsyms, text)
    except kernel_text.TextError as error:
        trouble = str(error)
    except ImportError:
        trouble = "no disassembler (Debian: apt-get install python3-capstone)"
    finally:
        text.close()
    return TextFacts(symbols, exits, calls, trouble, own)


def find_calls(
    wanted: Wanted, kallsyms: bytes, text: LiveText, only: Container[str] | None = None
) -> tuple[dict[str, tuple[Call, ...]], bool]:
    """Those of :func:`call_sites.find_calls`; whether all that are called are the kernel's."""
    table = call_sites.SymbolTable(kallsyms)
    calls = callsites.find_calls(wanted.calls, table, text, only)
    own = all(table.start <= at < table.end for at in table.addresses(wanted.calls))
    return calls, own
