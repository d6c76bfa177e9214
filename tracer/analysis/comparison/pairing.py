"""Two results side by side: what can be compared with what, and under which circumstances."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from typing import TypeVar

from zctrace.analysis.comparison import programs
from zctrace.analysis.comparison import runs as compared_runs
from zctrace.analysis.comparison.model import NOTHING, Change, Comparison, Result, Value
from zctrace.analysis.program import Answer
from zctrace.analysis.runs import Judged
from zctrace.analysis.saved import Saved
from zctrace.errors import UsageError
from zctrace.evidence.schema import Evidence, Subject

_Thing = TypeVar("_Thing")
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
    return Result(_headline(comparisons), comparisons, only_before, only_after)


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
    before: Sequence[_Thing],
    after: Sequence[_Thing],
    keys: Sequence[Callable[[_Thing], Hashable]],
) -> tuple[list[tuple[_Thing, _Thing]], list[_Thing], list[_Thing]]:
    """Those with the same key, by the first key at first; and what is left on both sides.

    A key that several on one side have says nothing of any of them.
    """
    pairs: list[tuple[_Thing, _Thing]] = []
    left, right = list(before), list(after)
    for key in keys:
        ours, theirs = [key(one) for one in left], [key(one) for one in right]
        alike = [k for k in ours if ours.count(k) == theirs.count(k) == 1]
        pairs += [(left[ours.index(k)], right[theirs.index(k)]) for k in alike]
        left = [one for one, k in zip(left, ours, strict=True) if k not in alike]
        right = [one for one, k in zip(right, theirs, strict=True) if k not in alike]
    return pairs, left, right


def _only_one(_: object) -> Hashable:
    """The last key: whatever it is, if there is just one."""
    return ""


def _programs(before: Saved, after: Saved) -> tuple[list[Comparison], list[str], list[str]]:
    def release(found: Answer) -> str:
        return str(found.evidence.kernel["release"])

    def asked(found: Answer) -> Subject:
        assert found.evidence.request.subject is not None
        return found.evidence.request.subject

    def what(found: Answer) -> Hashable:
        # Another time the same program has another number.
        return asked(found).command, asked(found).cgroup

    def named(found: Answer) -> str:
        return f"{asked(found).words}, on {release(found)}"

    pairs, left, right = paired(
        before.programs,
        after.programs,
        (
            lambda found: (what(found), release(found)),
            lambda found: (what(found), _line(release(found))),
            what,
            *([_only_one] if len(before.programs) == len(after.programs) == 1 else []),
        ),
    )
    comparisons = [
        programs.compare(named(second), first, second, _circumstances(first, second))
        for first, second in pairs
    ]
    return comparisons, [named(found) for found in left], [named(found) for found in right]


def _circumstances(before: Answer, after: Answer) -> list[Change]:
    ended = Change("ended", before.trace.ended, after.trace.ended)
    status = Change("exit status", before.trace.status, after.trace.status)
    own = [ended] if None in (status.before, status.after) else [ended, status]
    found = (*circumstances(before.evidence, after.evidence), *own)
    return [change for change in found if change.differs]


def _line(release: str) -> str:
    """The kernel's line: 6.1 of 6.1.0-56-amd64."""
    return ".".join(release.split(".")[:2])


def _runs(before: Saved, after: Saved) -> tuple[list[Comparison], list[str], list[str]]:
    ours, theirs = (list(_by_kernel(saved.runs).items()) for saved in (before, after))
    keys: list[Callable[[tuple[str, list[Judged]]], Hashable]] = [
        lambda kernel: kernel[0],
        lambda kernel: _line(kernel[0]),
    ]
    if len(ours) == len(theirs) == 1:
        keys.append(_only_one)
    kernels, left, right = paired(ours, theirs, keys)
    comparisons = []
    only_before, only_after = ([j for _, runs in side for j in runs] for side in (left, right))
    for (release, first), (other, second) in kernels:
        pairs, alone, also_alone = paired(first, second, (compared_runs.key,))
        only_before += alone
        only_after += also_alone
        if pairs:
            subject = f"on {release}" if release == other else f"on {release} → {other}"
            differ = circumstances(pairs[0][0].evidence, pairs[0][1].evidence)
            comparisons.append(compared_runs.compare(subject, pairs, differ))
    return comparisons, _named(only_before), _named(only_after)


def _by_kernel(runs: Sequence[Judged]) -> dict[str, list[Judged]]:
    found: dict[str, list[Judged]] = {}
    for judged in runs:
        found.setdefault(str(judged.evidence.kernel["release"]), []).append(judged)
    return found


def _named(runs: Sequence[Judged]) -> list[str]:
    return [f"{compared_runs.name(j)}, on {j.evidence.kernel['release']}" for j in runs]


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
    if subject:
        facts |= {
            "traced": subject.words,
            "folder": subject.folder,
            "seconds at most": subject.seconds,
            "children followed": "yes" if subject.follow else "no",
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
