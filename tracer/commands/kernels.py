"""``zctrace kernels``: list, fetch, remove."""

from __future__ import annotations

from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table

from zctrace.commands.options import Commands, Once, Quiet
from zctrace.commands.progress import shown
from zctrace.machine import kernels
from zctrace.reports.text.terminal import Terminal

app = typer.Typer(
    cls=Commands,
    help="List, fetch and remove kernels for virtual machines.",
    invoke_without_command=True,
)


@app.callback()
def _list(context: typer.Context) -> None:
    if context.invoked_subcommand is None:
        show(Terminal())


@app.command("fetch", cls=Once)
def _fetch(
    version: Annotated[str, typer.Argument(help="A version such as 6.1 or 6.1-rt, or stock.")],
    quiet: Quiet = False,
) -> None:
    """Get a stock kernel from the package archive into the cache."""
    fetch(version, Terminal(), quiet=quiet)


@app.command("rm", cls=Once)
def _remove(
    version: Annotated[
        str, typer.Argument(help="The full release or version, as zctrace kernels lists it.")
    ],
) -> None:
    """Remove a kernel from the cache."""
    remove(version, Terminal())


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
