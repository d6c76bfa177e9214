"""``zctrace strategies``: what there is, and what the textbook claims of each."""

from __future__ import annotations

from collections.abc import Iterator

from rich.console import Console
from rich.table import Table

from zctrace.machine import kernels
from zctrace.workloads.catalogue import STRATEGIES
from zctrace.workloads.jvm import java, netty


def command() -> None:
    """What there is to run, and what the textbook claims of each."""
    show(Console())


def show(console: Console) -> None:
    table = Table(box=None, pad_edge=False)
    for column in ("strategy", "how"):
        table.add_column(column)
    for column in ("copies", "switches", "DMA"):
        table.add_column(column, justify="right")
    for strategy in STRATEGIES:
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
    for strategy in STRATEGIES:
        without = strategy.expected_without_gather
        if without:
            console.print(
                f"To one that does not, {strategy.name}: copies {without.cpu_copies}."
            )
    console.print()
    for system, there, what in performers():
        console.print(
            f"Those of {system} are performed by {what}."
            if there
            else f"Not possible here, those of {system}: {what}"
        )


def performers() -> Iterator[tuple[str, bool, str]]:
    """Systems that have strategies, whether these are possible here, and by what or why not."""
    try:
        jdk = java.find()
    except java.NoJavaError as error:
        for system in ("Java", "Netty"):
            yield system, False, str(error)
        return
    yield "Java", True, f"Java {jdk.version} in {jdk.home}"
    cache = kernels.cache_folder()
    if reason := netty.why_not(cache):
        yield "Netty", False, reason
        return
    where = f"is in {cache}" if netty.is_in(cache) else "Maven fetches when it is first needed"
    yield "Netty", True, f"Netty {netty.version()}, which {where}"
