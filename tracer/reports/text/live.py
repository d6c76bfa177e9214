"""A line for every interval of a program that is being traced. Eighty columns.

What it shows is provisional: pipes and connections inside the program count as received and
delivered, and nothing has been checked yet.
"""

from __future__ import annotations

import dataclasses
import json
from collections import Counter

from zctrace.evidence.account import Look
from zctrace.reports.text.layout import size

_HEADING = (
    f"{'time':>9} {'received':>11} {'delivered':>11} {'copied':>11} {'per byte':>9}  most by"
)
_REPEATED = 20
"""After so many lines the heading comes again."""


def as_json(seconds: float, look: Look) -> str:
    """What there is after ``seconds``, since the beginning: an object on one line."""
    values = dataclasses.asdict(look)
    del values["busy"], values["units"]
    return json.dumps({"seconds": round(seconds, 3), **values})


class Lines:
    """Turns what there was up to now into what there was since the last time."""

    def __init__(self) -> None:
        self._before = Look({}, {}, {}, 0)
        self._count = 0

    def next(self, seconds: float, look: Look) -> list[str]:
        """What to print after ``seconds``."""
        before, self._before = self._before, look
        received = sum(look.received.values()) - sum(before.received.values())
        delivered = sum(look.delivered.values()) - sum(before.delivered.values())
        copied = Counter(look.copied)
        copied.subtract(before.copied)
        basis = max(delivered, received)
        ratio = f"{copied.total() / basis:.2f}" if basis else ""
        if ratio == "0.00" and copied.total():
            ratio = "<0.01"
        most = ", ".join(f"{name} {size(many)}" for name, many in copied.most_common(2) if many)
        figures = " ".join(f"{size(b):>11}" for b in (received, delivered, copied.total()))
        lines = [f"{seconds:>7.1f} s {figures} {ratio:>9}  {most}"]
        if look.overflow > before.overflow:
            lines.append(
                f"{'':>9} {look.overflow - before.overflow} B of these have no row of "
                "their own: a table is full"
            )
        if self._count % _REPEATED == 0:
            lines.insert(0, _HEADING)
        self._count += 1
        return lines
