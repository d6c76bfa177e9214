"""Who moves the most right now: what is shown while a program is traced. Part of collecting."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import astuple, dataclass, field

from zctrace.evidence.account import Account, Busy, FlowWay

_SHOWN, _DESCRIPTORS = 50, 3
"""Of processes, and of things; more descriptors of one thing, and their number says more."""


@dataclass
class _Sums:
    calls: int = 0
    received: int = 0
    delivered: int = 0
    copied: int = 0
    descriptors: set[int] = field(default_factory=set)


class Busiest:
    """Those that moved or copied the most since the last time, with all that they ever have."""

    def __init__(self) -> None:
        self._before: dict[tuple[bool, int | None], int] = {}

    def rows(self, account: Account) -> tuple[Busy, ...]:
        """Processes and things of ``account``, the busiest first."""
        sums: dict[tuple[bool, int | None], _Sums] = defaultdict(_Sums)
        for flow in account.flows:
            for key in ((True, flow.process), (False, flow.thing)):
                own = sums[key]
                own.calls += flow.calls
                if flow.way is FlowWay.OUT:
                    own.delivered += flow.bytes
                else:
                    own.received += flow.bytes
            if flow.descriptor is not None:
                sums[False, flow.thing].descriptors.add(flow.descriptor)
        for booking in account.bookings:
            for key in ((True, booking.process or 0), (False, booking.thing)):
                sums[key].copied += booking.bytes
        now = {key: own.received + own.delivered + own.copied for key, own in sums.items()}
        names = {worker.process: worker.name for worker in account.workers if worker.name}
        found = []
        for is_process in (True, False):
            most = sorted(
                (key for key in now if key[0] is is_process),
                key=lambda key: (now[key] - self._before.get(key, 0), now[key]),
                reverse=True,
            )
            found += [_busy(account, names, key, sums[key]) for key in most[:_SHOWN]]
        self._before = now
        return tuple(found)


def _busy(
    account: Account, names: dict[int, str], key: tuple[bool, int | None], own: _Sums
) -> Busy:
    is_process, number = key
    several = sorted(own.descriptors)
    descriptors = ",".join(map(str, several))
    if is_process:
        name = f"{names.get(number or 0, 'process')} {number}" if number else "kernel"
    else:
        name = "no descriptor" if number is None else account.things[number].name
    return Busy(
        is_process,
        name,
        descriptors if len(several) <= _DESCRIPTORS else f"{len(several)} fds",
        *astuple(own)[:4],
    )
