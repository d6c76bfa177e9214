"""``zctrace strategies``: what there is, and what the textbook claims of each."""

from __future__ import annotations

from rich.console import Console
from rich.table import Table

from tracer import kernels
from workloads.catalogue import STRATEGIES
from workloads.jvm import java, netty


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
    try:
        jdk = java.find()
    except java.NoJavaError as error:
        console.print(f"Not possible here, those of Java: {error}")
    else:
        console.print(f"Those of Java are performed by Java {jdk.version} in {jdk.home}.")
        console.print(_of_netty())


def _of_netty() -> str:
    cache = kernels.cache_folder()
    if reason := netty.why_not(cache):
        return f"Not possible here, those of Netty: {reason}"
    if netty.is_in(cache):
        return f"Those of Netty are performed by Netty {netty.version()}, which is in {cache}."
    return (
        f"Those of Netty are performed by Netty {netty.version()}, which Maven fetches when it "
        "is first needed."
    )
