"""Two results side by side: what can be compared with what, and under which circumstances."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Sequence
from typing import Any

import pandas as pd

from zctrace.analysis import frames, only
from zctrace.analysis.comparison import increases, programs
from zctrace.analysis.comparison import runs as compared_runs
from zctrace.analysis.comparison.model import NOTHING, Change, Comparison, Result, Value
from zctrace.analysis.program import Answer
from zctrace.analysis.runs import Judged
from zctrace.analysis.saved import Saved
from zctrace.errors import UsageError
from zctrace.evidence.schema import Evidence

_BUILD = "kernel's build"
"""Of one release there are several; of two releases it says nothing."""


def compare(before: Saved, after: Saved) -> Result:
    """Everything that has its like on the other side.

    Raises :class:`UsageError` for a trace and a run, and where nothing has.
    """
    kinds = [_kind(saved) for saved in (before, after)]
    if kinds[0] != kinds[1]:
        raise UsageError(
            f"{before.path} has {kinds[0]}, {after.path} has {kinds[1]}",
            "they have no figures in common",
            "two results of zctrace run, or two of zctrace trace or check",
        )
    compared = _programs if before.programs else _runs
    comparisons, only_before, only_after = compared(before, after)
    if not comparisons:
        raise UsageError(
            f"{before.path} and {after.path} have nothing in common",
            f"before: {', '.join(only_before)}; after: {', '.join(only_after)}",
            "results of the same strategies, or of the same programs",
        )
    comparisons.sort(key=lambda comparison: comparison.weight, reverse=True)
    headline, sides = _headline(comparisons), map(_evidence, (before, after))
    return Result(headline, comparisons, only_before, only_after, *sides)


def _evidence(saved: Saved) -> list[Evidence]:
    found = [run.evidence for run in saved.runs]
    found += [program.evidence for program in saved.programs]
    return list({id(evidence): evidence for evidence in found}.values())


def _kind(saved: Saved) -> str:
    parts = [
        what
        for what, found in (("runs of strategies", saved.runs), ("traces", saved.programs))
        if found
    ]
    return " and ".join(parts)


def _headline(comparisons: Sequence[Comparison]) -> str:
    first = comparisons[0]
    if len(comparisons) == 1:
        return first.headline
    changed = sum(comparison.changed for comparison in comparisons)
    if not changed:
        return f"{NOTHING}, in {len(comparisons)} comparisons"
    largest = next(comparison for comparison in comparisons if comparison.changed)
    return (
        f"{changed} of {len(comparisons)} comparisons changed; the most {largest.subject}: "
        f"{largest.headline}"
    )


def paired(
    before: pd.DataFrame, after: pd.DataFrame, keys: Iterable[list[str]]
) -> tuple[list[tuple[Any, Any]], list[str], list[str]]:
    """What was ``found`` with the same key, by the first key at first; and names of the rest.

    A key that several on one side have says nothing of any of them.
    """
    pairs: list[tuple[Any, Any]] = []
    for key in keys:
        ours, theirs = (
            side.drop_duplicates(key, keep=False).reset_index() for side in (before, after)
        )
        alike = ours.merge(theirs, on=key)
        before, after = before.drop(alike["index_x"]), after.drop(alike["index_y"])
        pairs += zip(alike["found_x"], alike["found_y"], strict=True)
    return pairs, list(before["name"]), list(after["name"])


def _programs(before: Saved, after: Saved) -> tuple[list[Comparison], list[str], list[str]]:
    ours, theirs = (_asked(saved.programs) for saved in (before, after))
    keys = [["what", "kernel"], ["what", "line"], ["what"]]
    if len(ours) == len(theirs) == 1:
        keys.append(["any"])
    pairs, left, right = paired(ours, theirs, keys)
    return [_compared(*pair) for pair in pairs], left, right


def _compared(before: Answer, after: Answer) -> Comparison:
    circumstances = _circumstances(before, after)
    compared = programs.compare(_named(after), before, after, circumstances)
    assert compared.basis is not None
    increase = increases.of_traces(before, after, compared.basis)
    return dataclasses.replace(compared, increase=increase)


def _asked(found: Sequence[Answer]) -> pd.DataFrame:
    subjects = [one.evidence.request.subject for one in found]
    # Another time the same program has another number.
    what = [one and (one.command, one.called or one.cgroup) for one in subjects]
    return _table(found).join(pd.DataFrame({"what": what, "any": ""}))


def _circumstances(before: Answer, after: Answer) -> list[Change]:
    ended = Change("ended", before.trace.ended, after.trace.ended)
    status = Change("exit status", before.trace.status, after.trace.status)
    own = [ended] if None in (status.before, status.after) else [ended, status]
    found = (*circumstances(before.evidence, after.evidence), *own)
    return [change for change in found if change.differs]


def _runs(before: Saved, after: Saved) -> tuple[list[Comparison], list[str], list[str]]:
    ours, theirs = (_performed(saved.runs) for saved in (before, after))
    what = [*compared_runs.IDENTITY]
    keys = [[*what, "kernel"], [*what, "line"]]
    if ours["kernel"].nunique() == theirs["kernel"].nunique() == 1:
        keys.append(what)
    pairs, left, right = paired(ours, theirs, keys)
    kernels: dict[tuple[str, str], list[compared_runs.Pair]] = {}
    for first, second in pairs:
        releases = _release(first), _release(second)
        kernels.setdefault(releases, []).append((first, second))
    comparisons = []
    for (release, other), same in kernels.items():
        subject = f"on {release}" if release == other else f"on {release} → {other}"
        differ = circumstances(same[0][0].evidence, same[0][1].evidence)
        comparisons.append(compared_runs.compare(subject, same, differ))
    return comparisons, left, right


def _performed(runs: Sequence[Judged]) -> pd.DataFrame:
    # From file to file there are runs with different devices, too.
    what = frames.summary(runs).assign(nic=[judged.run.nic for judged in runs])
    return _table(runs).join(what[[*compared_runs.IDENTITY]])


def _table(found: Sequence[Answer | Judged]) -> pd.DataFrame:
    """A row each, with its name, its kernel, and the kernel's line: 6.1 of 6.1.0-56-amd64."""
    columns = {
        "found": found,
        "name": [_named(one) for one in found],
        "kernel": [_release(one) for one in found],
        "line": [".".join(_release(one).split(".")[:2]) for one in found],
    }
    return pd.DataFrame(columns)


def _release(found: Answer | Judged) -> str:
    return str(found.evidence.kernel["release"])


def _named(found: Answer | Judged) -> str:
    if isinstance(found, Judged):
        return f"{compared_runs.name(found)}, on {_release(found)}"
    assert found.evidence.request.subject is not None
    return f"{found.evidence.request.subject.words}, on {_release(found)}"


def circumstances(before: Evidence, after: Evidence) -> list[Change]:
    """Those that differ: kernel, machine, versions, what was asked for, rights, devices."""
    first, second = _facts(before), _facts(after)
    # Of a device that only one side has nothing is to be compared.
    names = [name for name in {**first, **second} if name in first and name in second]
    found = [Change(name, first[name], second[name]) for name in names]
    if first["kernel"] != second["kernel"]:
        found = [change for change in found if change.figure != _BUILD]
    return [change for change in found if change.differs]


def _facts(evidence: Evidence) -> dict[str, Value]:
    request, machine = evidence.request, evidence.machine
    subject = request.subject
    facts: dict[str, object] = {
        "kernel": evidence.kernel["release"],
        _BUILD: evidence.kernel["version"],
        "machine": machine["kind"],
        "cpu": machine["cpu"],
        "cpus": machine["cpus"],
        # The kernel keeps some for itself, more or less.
        "memory, GiB": round(machine["memory_bytes"] / (1 << 30), 1),
        **{f"version of {name}": version for name, version in evidence.tool.items()},
        "mechanism": request.mechanism,
        "user": request.user,
        **{f"rights: {name}": value for name, value in (evidence.rights or {}).items()},
    }
    if evidence.origin:
        facts["host"] = evidence.origin.host
    if subject:
        facts |= {
            "traced": subject.words,
            "folder": subject.folder,
            "seconds at most": subject.seconds,
            "children followed": "yes" if subject.follow else "no",
            "part": only.words(subject.only) if subject.only else "all of it",
        }
    else:
        facts |= {"pipe size": request.pipe_size, "file": request.file, "to": request.to}
    for name, nic in evidence.nics.items():
        facts |= {f"{name}: driver": nic.driver, f"{name}: scatter_gather": nic.scatter_gather}
    facts |= {f"{name}: driver": disk.driver for name, disk in evidence.disks.items()}
    return {name: _plain(value) for name, value in facts.items()}


def _plain(value: object) -> Value:
    if value is None or value == "":
        return "not set"
    if isinstance(value, bool):
        return "yes" if value else "no"
    return value if isinstance(value, int | float | str) else str(value)
