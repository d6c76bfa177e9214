"""A command's options for output files, from the table of formats."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Annotated, Any, TypeVar

import typer

from zctrace.commands.gathered import Option, gathered
from zctrace.reports.formats import Format, Outputs

_T = TypeVar("_T")
_FORCE = Option(
    Annotated[bool, typer.Option("--force", help="Overwrite existing output files.")],
    default=False,
)
NOWHERE = Outputs()
"""The default of a command's parameter ``outputs``."""


def writes(chosen: Iterable[Format]) -> Callable[[Callable[..., _T]], Callable[..., _T]]:
    """Give a command an option for each format in place of its parameter ``outputs``."""
    options = {
        one.name: Option(
            Annotated[
                Path | None,
                typer.Option(
                    one.option, metavar="FOLDER" if one.files else "FILE", help=one.help
                ),
            ]
        )
        for one in chosen
    }

    def gather(given: dict[str, Any]) -> Outputs:
        force = given.pop("force")
        return Outputs({name: path for name, path in given.items() if path is not None}, force)

    return gathered("outputs", {**options, "force": _FORCE}, gather)
