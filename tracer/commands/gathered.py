"""Options that several commands have in place of one parameter of their functions."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple, TypeVar

_T = TypeVar("_T")


class Option(NamedTuple):
    """How typer reads it, and what it is where it is not given."""

    annotation: Any
    default: Any = None


def gathered(
    parameter: str, options: Mapping[str, Option], gather: Callable[[dict[str, Any]], Any]
) -> Callable[[Callable[..., _T]], Callable[..., _T]]:
    """Give a command ``options``, by their names, in place of its ``parameter``.

    ``gather`` makes the parameter's value of what they are.
    """

    def decorate(function: Callable[..., _T]) -> Callable[..., _T]:
        def command(**given: Any) -> _T:
            values = {name: given.pop(name) for name in options}
            return function(**given, **{parameter: gather(values)})

        kind = inspect.Parameter.KEYWORD_ONLY
        added = [
            inspect.Parameter(name, kind, default=one.default, annotation=one.annotation)
            for name, one in options.items()
        ]
        parameters: list[inspect.Parameter] = []
        for one in inspect.signature(function, eval_str=True).parameters.values():
            parameters += added if one.name == parameter else [one.replace(kind=kind)]
        functools.update_wrapper(command, function)
        command.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
        return command

    return decorate
