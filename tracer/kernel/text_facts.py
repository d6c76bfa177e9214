"""What the kernel's text says of the functions that a catalogue names."""

from __future__ import annotations

import os
import pickle
import traceback
from collections.abc import Container
from dataclasses import dataclass, field

from zctrace import packages
from zctrace.kernel import callsites
from zctrace.kernel import symbols as call_sites
from zctrace.kernel import text as kernel_text
from zctrace.kernel.live_text import live_text
from zctrace.kernel.text import Exits, Symbol, Text
from zctrace.probes.model import Call, Catalogue, Mechanism, Purpose

COUNTS_SKIPS, RUNS_PROGRAMS = "bpf_prog_inc_misses_counter", "trace_call_bpf"
"""Who counts that a program was skipped, and who runs those of probes and tracepoints, or
skips them. The one calls the other since Linux kernel commit dd8657894c11 ("bpf: Count missed
stats in trace_call_bpf") (in v6.7); before, a kernel may have both, and the count stays 0."""


@dataclass(frozen=True)
class Wanted:
    """Names of functions: all, those whose exits are wanted, and those whose calls are.

    ``calls`` has the only callers of interest, empty for all of them. ``callers`` are those of
    which it is to be known whether they exist at all.
    """

    functions: tuple[str, ...]
    exits: tuple[str, ...]
    calls: dict[str, tuple[str, ...]]
    callers: tuple[str, ...] = ()


@dataclass(frozen=True)
class TextFacts:
    """Where functions are, how control leaves them, where they are called.

    ``trouble`` is why some of it is not known. ``callers`` has the wanted callers that exist,
    by module; the kernel's own is empty.
    """

    symbols: dict[str, Symbol]
    exits: dict[str, Exits]
    calls: dict[str, tuple[Call, ...]]
    trouble: str | None = None
    callers: dict[str, frozenset[str]] = field(default_factory=dict)


def wanted_by(catalogue: Catalogue) -> Wanted:
    """The catalogue's functions, and those that the kernel calls to count skipped programs."""
    copies = {site.function for site in catalogue.copies}
    hooks = {name for hook in catalogue.hooks for name in (hook.function, hook.beside) if name}
    calls: dict[str, tuple[str, ...]] = {}
    for target in catalogue.calls:
        rows = [t.callers for t in catalogue.calls if t.function == target.function]
        # One row without callers wants to know all of them.
        calls[target.function] = tuple(dict.fromkeys(sum(rows, ()))) if all(rows) else ()
    return Wanted(
        functions=tuple(sorted(copies | hooks)),
        exits=tuple(
            sorted(
                site.function
                for site in catalogue.copies
                if Mechanism.BREAKPOINT_RETURN in site.mechanisms
            )
        ),
        calls={**calls, COUNTS_SKIPS: (RUNS_PROGRAMS,)},
        callers=tuple(
            dict.fromkeys(
                caller
                for target in catalogue.calls
                if target.purpose is Purpose.PAYLOAD
                for caller in target.callers
            )
        ),
    )


def look(wanted: Wanted) -> TextFacts:
    """Search the kernel's symbols and text, in a process of its own.

    The list of symbols and the disassembler take 20 MB, which are not needed afterwards.
    """
    answer, question = os.pipe()
    child = os.fork()
    if not child:
        try:
            with open(question, "wb") as file:
                pickle.dump(_look(wanted), file)
        except Exception:
            traceback.print_exc()
        finally:
            os._exit(0)
    os.close(question)
    with open(answer, "rb") as file:
        found = file.read()
    os.waitpid(child, 0)
    try:
        facts: TextFacts = pickle.loads(found)
    except (EOFError, pickle.UnpicklingError):
        return TextFacts({}, {}, {}, "the search of the kernel's text ended early")
    return facts


def _look(wanted: Wanted) -> TextFacts:
    """Here. Making the list of symbols takes the kernel half a second where it is emulated: it
    is read once.
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
    callers: dict[str, frozenset[str]] = {}
    trouble = None
    try:
        text = live_text()
    except kernel_text.TextError as error:
        return TextFacts(symbols, exits, calls, str(error))
    try:
        calls, callers = find_calls(wanted, kallsyms, text)
        del kallsyms  # as many megabytes as the disassembler takes
        for name in wanted.exits:
            if name in symbols:
                try:
                    exits[name] = kernel_text.find_exits(name, symbols, text)
                except kernel_text.TextError as error:
                    trouble = str(error)
    except kernel_text.TextError as error:
        trouble = str(error)
    except OSError as error:
        trouble = f"{error.filename}: {error.strerror}"  # of /proc/modules, as in a sandbox
    except ImportError:
        trouble = f"no disassembler ({packages.remedy('capstone')})"
    finally:
        text.close()
    return TextFacts(symbols, exits, calls, trouble, callers)


@kernel_text.understood(kernel_text.KALLSYMS)
def find_calls(
    wanted: Wanted, kallsyms: bytes, text: Text, only: Container[str] | None = None
) -> tuple[dict[str, tuple[Call, ...]], dict[str, frozenset[str]]]:
    """Those of :func:`callsites.find_calls`, and ``callers`` as :class:`TextFacts` has them.

    With ``only``, names of modules, both are those of these alone. Raises :class:`TextError`.
    """
    table = call_sites.SymbolTable(kallsyms)
    table.look_up([*wanted.calls, *wanted.callers])
    calls = callsites.find_calls(wanted.calls, table, text, only)
    existing = table.existing(wanted.callers)
    return calls, {m: names for m, names in existing.items() if only is None or m in only}
