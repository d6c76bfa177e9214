"""The commands with their options and arguments, read from the command line itself."""

import enum
import inspect
import pathlib
import typing
from dataclasses import dataclass

import typer

from zctrace import cli
from zctrace.workloads.catalogue import STRATEGIES


@dataclass(frozen=True)
class Option:
    """``value`` is what stands for its value, empty for a switch; ``choices`` are all values.

    ``takes`` is what a completion offers: file, user, strategy, or nothing.
    """

    names: tuple[str, ...]
    help: str
    value: str = ""
    choices: tuple[str, ...] = ()
    takes: str = ""
    default: str = ""
    repeatable: bool = False


@dataclass(frozen=True)
class Argument:
    """``takes`` as that of an option, or command: somebody else's, with its arguments."""

    value: str
    help: str
    takes: str
    required: bool
    repeatable: bool


@dataclass(frozen=True)
class Command:
    """``words`` are those after zctrace, none for zctrace itself."""

    words: tuple[str, ...]
    help: str
    options: tuple[Option, ...]
    arguments: tuple[Argument, ...]
    commands: tuple["Command", ...]

    @property
    def summary(self):
        """The first sentence, without its full stop."""
        return self.help.split("\n\n")[0].replace("\n", " ").rstrip(".")

    def all(self):
        """This one and those below."""
        return [self, *(one for below in self.commands for one in below.all())]


HELP = Option(("--help", "-h"), "Show the help and exit.")
_OFFERED = {"strategies": "strategy", "skip": "strategy", "user": "user", "words": "command"}
"""By a parameter's name, where its type does not tell."""


def read():
    return _command(typer.main.get_command(cli.app), ())


def strategies():
    return tuple(strategy.name for strategy in STRATEGIES)


def _command(command, words):
    shown = [p for p in command.params if not getattr(p, "hidden", False)]
    options = [_option(p) for p in shown if p.param_type_name == "option"]
    below = getattr(command, "commands", {})
    return Command(
        words,
        inspect.cleandoc(command.help or ""),
        (*options, HELP),
        tuple(_argument(p) for p in shown if p.param_type_name == "argument"),
        tuple(_command(c, (*words, name)) for name, c in below.items() if not c.hidden),
    )


def _option(parameter):
    names = tuple(parameter.opts) + tuple(parameter.secondary_opts)
    about = " ".join((parameter.help or "").split())
    if getattr(parameter, "is_flag", False):
        return Option(names, about)
    kind = _kind(parameter)
    choices = _choices(kind)
    name = names[0].rpartition("-")[2].upper()
    value = parameter.metavar or "|".join(choices) or ("FILE" if _is_path(kind) else name)
    default, repeatable = _default(parameter), bool(parameter.multiple)
    return Option(names, about, value, choices, _takes(parameter), default, repeatable)


def _argument(parameter):
    name = parameter.metavar or parameter.name.upper().removesuffix("S")
    if parameter.name == "strategies":
        name = "STRATEGY"
    return Argument(
        name,
        " ".join((parameter.help or "").split()),
        _takes(parameter),
        parameter.required,
        parameter.nargs == -1,
    )


def _kind(parameter):
    """The type of a value: Typer from 0.29 on keeps the annotation, before it had its own."""
    described = getattr(parameter, "type_descriptor", None)
    kind = described.annotation if described else parameter.type
    return next(iter(typing.get_args(kind)), kind)


def _is_path(kind):
    return kind is pathlib.Path or getattr(kind, "name", "") == "path"


def _choices(kind):
    if isinstance(kind, type) and issubclass(kind, enum.Enum):
        return tuple(str(member.value) for member in kind)
    return tuple(str(getattr(c, "value", c)) for c in getattr(kind, "choices", ()))


def _takes(parameter):
    return _OFFERED.get(parameter.name) or ("file" if _is_path(_kind(parameter)) else "")


def _default(parameter):
    value = getattr(parameter.default, "value", parameter.default)
    if value in (None, "", False) or callable(value) or not parameter.show_default:
        return ""
    return f"{value:g}" if isinstance(value, float) else str(value)
