"""``zctrace kernels``: list, fetch, remove."""

from __future__ import annotations

from rich.console import Console
from rich.table import Table

from zctrace.commands.progress import shown
from zctrace.machine import kernels


def show(console: Console) -> None:
    at_hand = kernels.cached() + kernels.installed()
    if not at_hand:
        console.print("No kernel at hand. zctrace kernels fetch stock gets one.")
        return
    table = Table(box=None, pad_edge=False)
    for column in ("release", "package", "where"):
        table.add_column(column)
    for kernel in at_hand:
        where = f"{kernel.origin}, used by --kernel auto" if kernel.stock else kernel.origin
        table.add_row(kernel.release, kernel.version or "–", where)
    console.print(table)


def fetch(name: str, console: Console, *, quiet: bool) -> None:
    with shown(quiet=quiet) as say:
        kernel = kernels.fetch(name, say)
    console.print(f"{kernel.release}: {kernel.image}")


def remove(name: str, console: Console) -> None:
    for kernel in kernels.remove(name):
        console.print(f"removed {kernel.release}")
