"""Modules that are loaded after the kernel was looked at: what they bring is found here."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable
from contextlib import suppress
from typing import NamedTuple

from zctrace.kernel import remembered, symbols, text_facts
from zctrace.kernel import text as kernel_text
from zctrace.kernel.facts import KernelFacts
from zctrace.kernel.live_text import live_text
from zctrace.kernel.text import TextError
from zctrace.probes.model import Catalogue


class Loading(NamedTuple):
    """One loading of a module: when it is unloaded and loaded again, that is another one."""

    name: str
    start: int
    inode: int


def loadings() -> frozenset[Loading]:
    """Those of all modules that are there now."""
    found = set()
    with suppress(OSError, TextError):  # a kernel without modules
        for module in symbols.modules():
            with suppress(OSError):  # it has been unloaded
                inode = (remembered.SYS_MODULES / module.name).stat().st_ino
                found.add(Loading(module.name, module.start, inode))
    return frozenset(found)


def look_again(
    catalogue: Catalogue, facts: KernelFacts, gone: Iterable[Loading], new: Iterable[Loading]
) -> KernelFacts:
    """The facts without the calls in modules that are gone and with those in new ones.

    Raises :class:`TextError`.
    """
    wanted = text_facts.wanted_by(catalogue)
    left, added = {m.name for m in gone}, {m.name for m in new}
    text = live_text()
    try:
        kallsyms = kernel_text.KALLSYMS.read_bytes()
        calls, callers = text_facts.find_calls(wanted, kallsyms, text, added)
    except OSError as error:
        raise TextError(f"{kernel_text.KALLSYMS}: {error.strerror}") from error
    finally:
        text.close()
    calls.pop(text_facts.COUNTS_SKIPS, None)
    kept = {
        function: tuple(call for call in those if call.module not in left | added)
        for function, those in facts.calls.items()
    }
    for function, those in calls.items():
        kept[function] = (*kept.get(function, ()), *those)
    named = {target.module for target in catalogue.calls}
    callers_left = {c for t in catalogue.calls if t.module in left for c in t.callers}
    return dataclasses.replace(
        facts,
        calls=kept,
        callers=(facts.callers - callers_left).union(*callers.values()),
        modules=(facts.modules - left) | (added & named),
    )
