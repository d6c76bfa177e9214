"""Stacks for flame graphs, as wide as the bytes that were copied in them.

Folded stacks are what flamegraph.pl and its relatives read: a line per stack, frames from the
outermost on, ``;`` between them, then a number. speedscope's own form is described at
https://www.speedscope.app/file-format-schema.json.
"""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Iterable, Sequence
from typing import Any

from zctrace._version import version
from zctrace.analysis.program import Answer
from zctrace.evidence.account import NO_CALL, Stack
from zctrace.printable import printable
from zctrace.probes.model import plain

_KERNEL = "_[k]"
"""What the names of kernel functions end with, so that flamegraph.pl can colour them."""
_SCHEMA = "https://www.speedscope.app/file-format-schema.json"


def folded(answers: Sequence[Answer]) -> str:
    """A line per stack; the number is of bytes."""
    lines: dict[str, int] = defaultdict(int)
    for found in answers:
        for stack in found.stacks:
            lines[";".join(map(_escaped, frames(stack)))] += stack.bytes
    return "".join(f"{line} {size}\n" for line, size in sorted(lines.items()))


def speedscope(answers: Sequence[Answer]) -> str:
    """A profile for each kernel and direction, and one of all directions."""
    numbers: dict[str, int] = {}
    profiles = []
    for found in answers:
        release = found.evidence.kernel["release"]
        profiles.append(_profile(f"all copies, Linux {release}", found.stacks, numbers))
        ways = sorted({str(stack.direction) for stack in found.stacks})
        profiles += [
            _profile(
                f"{way}, Linux {release}",
                [stack for stack in found.stacks if str(stack.direction) == way],
                numbers,
            )
            for way in ways
        ]
    return (
        json.dumps(
            {
                "$schema": _SCHEMA,
                "exporter": f"zctrace {version()}",
                "name": "bytes copied by the CPU",
                "activeProfileIndex": 0,
                "shared": {"frames": [{"name": name} for name in numbers]},
                "profiles": profiles,
            }
        )
        + "\n"
    )


def frames(stack: Stack) -> list[str]:
    """From the outermost: the thread, its functions, the system call, the kernel's."""
    # A call is counted where it was made: what was called is not on the stack.
    called = [] if stack.kernel[:1] == (stack.function,) else [stack.function]
    inside = [f"{plain(name)}{_KERNEL}" for name in (*reversed(stack.kernel), *called)]
    return [
        stack.name or "softirqs",
        *reversed(stack.user),
        f"{stack.syscall}(2)" if stack.syscall else NO_CALL,
        *inside,
    ]


def bare(frame: str) -> tuple[str, bool]:
    """The name of one of :func:`frames`, and whether it is a function of the kernel's."""
    return frame.removesuffix(_KERNEL), frame.endswith(_KERNEL)


def _escaped(frame: str) -> str:
    return printable(frame).replace(";", ":")


def _profile(name: str, stacks: Iterable[Stack], numbers: dict[str, int]) -> dict[str, Any]:
    samples, weights = [], []
    for stack in stacks:
        samples.append([numbers.setdefault(f, len(numbers)) for f in frames(stack)])
        weights.append(stack.bytes)
    return {
        "type": "sampled",
        "name": name,
        "unit": "bytes",
        "startValue": 0,
        "endValue": sum(weights),
        "samples": samples,
        "weights": weights,
    }
