"""What packet captures copied of sent packets, and what they caused others to copy."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from zctrace.evidence.schema import Capture, Run

_NAMED = 3
"""How many captures a sentence names."""


def tapped(run: Run) -> int:
    """Bytes of packets that were copied for captures of others while the run went on."""
    return sum(count.bytes for count in run.counts if count.role is run.role.tapped)


def given_up(run: Run) -> int:
    """Bytes of the run's zero-copy sends that were copied because a capture wanted them."""
    return sum(c.bytes for c in run.counts if c.role is run.role and c.was_captured)


def sentences(runs: Iterable[Run]) -> Iterator[str]:
    """What captures did during these runs, without the full stop; empty if there were none."""
    runs = tuple(runs)
    copied, ended = (sum(map(count, runs)) for count in (tapped, given_up))
    who = _who({capture for run in runs for capture in run.captures})
    if copied:
        yield (
            f"{who} copied {copied} B of packets during the measurement; they are not included "
            "in any figure: end the capture to measure without it"
        )
    if ended:
        yield (
            f"{who} made the kernel copy {ended} B of zero-copy sends; they are included in "
            "the figures: end the capture to measure without it"
        )


def _who(captures: set[Capture]) -> str:
    named = [
        f"{capture.name}, process {capture.process}"
        for capture in sorted(captures, key=lambda capture: capture.process)
    ]
    if not named:
        return "a packet capture that has ended"
    more = f"; and {len(named) - _NAMED} more" if len(named) > _NAMED else ""
    one = "a packet capture" if len(named) == 1 else "packet captures"
    return f"{one} ({'; '.join(named[:_NAMED])}{more})"
