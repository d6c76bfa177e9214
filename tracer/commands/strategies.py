"""``zctrace strategies``: what there is, and what the textbook claims of each."""

from __future__ import annotations

from collections.abc import Iterator

from rich.console import Console
from rich.table import Table

from zctrace.machine import kernels
from zctrace.reports.text.terminal import Terminal
from zctrace.workloads import catalogue
from zctrace.workloads.prepared import NotPreparedError


def command() -> None:
    """List the strategies, and what the textbook claims about them."""
    show(Terminal())


def show(console: Console) -> None:
    table = Table(box=None, pad_edge=False)
    for column in ("strategy", "how"):
        table.add_column(column)
    for column in ("copies", "switches", "DMA"):
        table.add_column(column, justify="right")
    for strategy in catalogue.STRATEGIES:
        claims = strategy.expected
        table.add_row(
            strategy.name,
            strategy.summary,
            *(
                "–" if claim is None else str(claim)
                for claim in (claims.cpu_copies, claims.switches, claims.dma_copies)
            ),
        )
    console.print(table)
    console.print()
    console.print("copies: of the whole payload, by the CPU; switches: between user and kernel")
    console.print("mode; all as the textbook claims them, from a disk to a network card that")
    console.print("does scatter/gather.")
    for strategy in catalogue.STRATEGIES:
        without = strategy.expected_without_gather
        if without:
            console.print(
                f"To one that does not, {strategy.name}: copies {without.cpu_copies}."
            )
    console.print()
    for system, there, what in performers():
        console.print(
            f"Strategies of {system} are performed by {what}."
            if there
            else f"Strategies of {system} are not possible here: {what}"
        )


def performers() -> Iterator[tuple[str, bool, str]]:
    """Systems that have strategies, whether these are possible here, and by what or why not."""
    cache = kernels.cache_folder()
    for performer in catalogue.performers():
        try:
            yield performer.name, True, performer.describe(cache)
        except NotPreparedError as error:
            yield performer.name, False, str(error)
        except OSError as error:
            yield performer.name, False, f"the cache {cache} cannot be used: {error.strerror}"
