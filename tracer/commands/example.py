"""``zctrace example``: results that come with zctrace, to be shown without a measurement."""

from __future__ import annotations

import enum
from pathlib import Path
from typing import Annotated

import typer

from zctrace.commands import report
from zctrace.commands.outputs import NOWHERE, writes
from zctrace.reports import formats
from zctrace.reports.formats import Outputs
from zctrace.reports.text.terminal import Terminal

FOLDER = Path(__file__).parents[1] / "reports" / "examples"


class Example(enum.StrEnum):
    """Names of the files, without the ending."""

    CP = "cp"
    WEB_SERVER = "web-server"
    WEB_SERVER_SENDFILE = "web-server-sendfile"
    TEXTBOOK = "textbook"


@writes([one for one in formats.FORMATS if one.again or one.name == "json"])
def command(
    name: Annotated[
        Example,
        typer.Argument(
            help="cp: a copied file. web-server: a web server that reads and sends; "
            "web-server-sendfile: the same by sendfile. textbook: zctrace run on two kernels."
        ),
    ] = Example.CP,
    outputs: Outputs = NOWHERE,
) -> None:
    """Show an example result that comes with zctrace."""
    report.show([FOLDER / f"{name}.json"], Terminal(), outputs)
