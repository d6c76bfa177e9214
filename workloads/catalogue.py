"""All strategies, in the order in which they are run and shown."""

from __future__ import annotations

from workloads.mmap_write import MmapWrite
from workloads.read_write import ReadWrite
from workloads.sendfile import Sendfile
from workloads.splice import Splice
from workloads.strategy import Strategy

STRATEGIES: tuple[Strategy, ...] = (ReadWrite(), MmapWrite(), Sendfile(), Splice())


def strategy_named(name: str) -> Strategy:
    """The strategy called ``name``; raises ``KeyError`` where there is none."""
    for strategy in STRATEGIES:
        if strategy.name == name:
            return strategy
    raise KeyError(name)
