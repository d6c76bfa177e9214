"""A command's options for output files, from the table of formats."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Annotated, Any, TypeVar

import typer

from zctrace.reports.formats import Format, Outputs

_T = TypeVar("_T")
_Force = Annotated[bool, typer.Option("--force", help="Overwrite existing output files.")]
NOWHERE = Outputs()
"""The default of a command's parameter ``outputs``."""


def writes(chosen: Iterable[Format]) -> Callable[[Callable[..., _T]], Callable[..., _T]]:
    """Give a command an option for each format in place of its parameter ``outputs``."""
    options = {
        one.name: Annotated[
            Path | None,
            typer.Option(one.option, metavar="FOLDER" if one.files else "FILE", help=one.help),
        ]
        for one in chosen
    }

    def decorate(function: Callable[..., _T]) -> Callable[..., _T]:
        def command(*, force: bool, **given: Any) -> _T:
            paths = {name: given.pop(name) for name in options}
            paths = {name: path for name, path in paths.items() if path is not None}
            return function(**given, outputs=Outputs(paths, force))

        kind = inspect.Parameter.KEYWORD_ONLY
        added = [
            inspect.Parameter(name, kind, default=None, annotation=option)
            for name, option in options.items()
        ]
        added.append(inspect.Parameter("force", kind, default=False, annotation=_Force))
        parameters: list[inspect.Parameter] = []
        for one in inspect.signature(function, eval_str=True).parameters.values():
            parameters += added if one.name == "outputs" else [one.replace(kind=kind)]
        functools.update_wrapper(command, function)
        command.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
        return command

    return decorate
