"""Recorded evidence, with something in it that did not happen."""

import dataclasses

from zctrace.analysis import runs as summary
from zctrace.evidence import json_form
from zctrace.evidence.schema import Count
from zctrace.probes.model import Kind

CALLS, AT_RETURN, AT_ENTRY = "call sites", "breakpoint@return", "breakpoint@entry"


def run_of(evidence, strategy):
    """The first run of one strategy."""
    return next(run for run in evidence.runs if run.strategy == strategy)


def only(evidence, strategy):
    """The first run of one strategy, judged."""
    run = run_of(evidence, strategy)
    return summary.judge([dataclasses.replace(evidence, runs=(run,))])[0]


def broken(evidence):
    """The evidence with every run's probe on _copy_to_iter dead."""
    runs = tuple(
        dataclasses.replace(
            run, counts=tuple(c for c in run.counts if c.function != "_copy_to_iter")
        )
        for run in evidence.runs
    )
    return dataclasses.replace(evidence, runs=runs)


def altered(evidence, strategy, **values):
    runs = tuple(
        dataclasses.replace(run, **values) if run.strategy == strategy else run
        for run in evidence.runs
    )
    return dataclasses.replace(evidence, runs=runs)


def with_counts(evidence, strategy, change):
    """Every count of a strategy's runs through ``change``; ``None`` drops it."""
    runs = tuple(
        dataclasses.replace(
            run, counts=tuple(c for c in map(change, run.counts) if c is not None)
        )
        if run.strategy == strategy
        else run
        for run in evidence.runs
    )
    return dataclasses.replace(evidence, runs=runs)


def added(evidence, strategy, *counts):
    return altered(evidence, strategy, counts=(*run_of(evidence, strategy).counts, *counts))


def told(evidence, strategy, **account):
    """With another account by the kernel itself."""
    before = run_of(evidence, strategy).account
    return altered(evidence, strategy, account=dataclasses.replace(before, **account))


def on_sites(evidence, wanted):
    """As if only the sites that are ``wanted`` had been attached."""
    gone = {(s.function, s.mechanism) for s in evidence.sites if not wanted(s)}
    runs = tuple(
        dataclasses.replace(
            run, counts=tuple(c for c in run.counts if (c.function, c.mechanism) not in gone)
        )
        for run in evidence.runs
    )
    return dataclasses.replace(evidence, sites=tuple(filter(wanted, evidence.sites)), runs=runs)


def without(known, moved):
    """Known amounts, and none of that."""
    return dataclasses.replace(
        known, moved={m: size for m, size in known.moved.items() if m != moved}
    )


def count(role, function, size, **values):
    """One execution of a copying function, seen at a call site unless said otherwise."""
    defaults = {
        "quantity": "copy-to-iter",
        "mechanism": CALLS,
        "direction": "k2u",
        "syscall": "read",
        "caller": "somebody+0x10",
        "calls": 1,
    }
    values = {"role": role, "function": function, "bytes": size, **defaults, **values}
    return json_form.read(Count, values)


def at_return(role, function, size, **values):
    """The same, seen by the breakpoint."""
    values = {"direction": None, "caller": None, **values}
    return count(role, function, size, mechanism=AT_RETURN, **values)


def at_site(evidence, role, function, size, **values):
    """The same, by whatever mechanism this evidence has for the function."""
    (site,) = [s for s in evidence.sites_of(Kind.COPY) if s.function == function]
    known = {
        "quantity": site.quantity,
        "mechanism": site.mechanism,
        "direction": site.direction,
    }
    return count(role, function, size, **{**known, **values})


def routine(evidence, role, size, **values):
    """What the processor's routine would show for ``size`` bytes."""
    site = next(s for s in evidence.sites if s.quantity == "user-copy-routine")
    values = {
        "quantity": site.quantity,
        "direction": "u2k",
        "syscall": "sendfile",
        **values,
    }
    return count(role, site.function, size, mechanism=site.mechanism, **values)


def by_breakpoints(evidence):
    """As if only breakpoints had been asked for."""
    passed = {s.function: s.breakpoint for s in evidence.sites if s.breakpoint}
    sites = tuple(
        dataclasses.replace(site, kind=Kind.COPY) if site.function in passed.values() else site
        for site in evidence.sites
        if not site.breakpoint
    )
    return dataclasses.replace(
        evidence,
        sites=sites,
        runs=tuple(
            dataclasses.replace(
                run,
                counts=tuple(
                    c for c in run.counts if c.mechanism != CALLS or c.function not in passed
                ),
            )
            for run in evidence.runs
        ),
    )
