"""Options that several commands share, and how their values are read."""

from __future__ import annotations

import math
import os
import re
from collections import Counter
from collections.abc import Sequence
from typing import Annotated, Any

import typer
from typer.core import TyperCommand, TyperGroup, TyperOption

from zctrace.collect import cgroups
from zctrace.commands import panels
from zctrace.errors import UsageError
from zctrace.evidence.schema import Subject
from zctrace.machine import modules
from zctrace.machine.program_job import Wanted
from zctrace.plan.attachments import Choice
from zctrace.reports import step_summary

_NUMBER = re.compile(
    r"[-+]?([0-9]+\.?[0-9]*|\.[0-9]+)(e[-+]?[0-9]+)?|[-+]?(nan|inf(inity)?)", re.I
)


def _name_value(parameter: Any) -> None:
    """Give a parameter's value a name, where typer would show a type of Python's."""
    if not isinstance(parameter, TyperOption):
        # The name stands there already.
        parameter.display_type_rich = lambda ctx: None
    elif parameter.is_flag:
        parameter.metavar = ""


class Commands(TyperGroup):
    """A group of commands, whose own options are named as those of commands are."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        for parameter in self.params:
            _name_value(parameter)

    def get_help_option(self, ctx: Any) -> Any:
        option = super().get_help_option(ctx)
        _name_value(option)
        return option


class Once(TyperCommand):
    """A command that refuses a value that another one would replace without a word.

    Its help has panels and examples.
    """

    def __init__(self, name: str | None, **options: Any) -> None:
        # Typer would break lines where the docstring does.
        text = (options.get("help") or "").split("\n\n")
        options["help"] = "\n\n".join(" ".join(part.split()) for part in text)
        super().__init__(name, **{**options, "epilog": panels.examples(name or "")})
        for parameter in self.params:
            if isinstance(parameter, TyperOption):
                parameter.rich_help_panel = panels.PANEL_OF.get(parameter.name or "")
            _name_value(parameter)

    def get_help_option(self, ctx: Any) -> Any:
        option = super().get_help_option(ctx)
        _name_value(option)
        return option

    def make_parser(self, ctx: Any) -> Any:
        parser: Any = super().make_parser(ctx)
        parse = parser.parse_args

        def parsed(args: list[str]) -> Any:
            values, rest, order = parse(args)
            for option, times in Counter(order).items():
                if times > 1 and not option.multiple and not option.is_flag:
                    name = max(option.opts, key=len)
                    raise UsageError(
                        f"{name} is given {times} times", "it has one value", f"one {name}"
                    )
            return values, rest, order

        parser.parse_args = parsed
        return parser


def seconds(text: str) -> float:
    """A time, more than 0 and finite."""
    value = _number(text)
    if not 0 < value < math.inf:
        raise typer.BadParameter(f"{text}: more than 0 seconds, and not without end.")
    return value


def ratio(text: str) -> float:
    """Copies for each byte, at least 0 and finite."""
    value = _number(text)
    if not 0 <= value < math.inf:
        raise typer.BadParameter(f"{text}: at least 0, and finite.")
    return value


def count(text: str) -> int:
    """A whole number, at least 1."""
    if not (str(text).isascii() and str(text).isdigit() and int(text) >= 1):
        raise typer.BadParameter(f"{text}: a whole number, at least 1.")
    return int(text)


def word(text: str) -> str:
    """Anything but nothing, as where a variable of the shell's is not set."""
    if not text:
        raise typer.BadParameter("empty.")
    return text


def taken_out(files: Sequence[str] | None) -> tuple[str, ...]:
    """Files to take out of a virtual machine: those, and the summary of a workflow's step."""
    summary = os.environ.get(step_summary.VARIABLE)
    return (*(files or ()), *([summary] if summary else ()))


def _number(text: str) -> float:
    # float() takes other scripts' digits, 1_0 for 10, and spaces, too.
    if not _NUMBER.fullmatch(str(text)):
        raise typer.BadParameter(f"{text} is not a number.")
    return float(text)


def wanted(
    subject: Subject,
    user: str | None,
    mechanism: Choice,
    *,
    keep: bool,
    boot_timeout: float,
    sabotage: Sequence[str] | None = None,
    module: Sequence[str] | None = None,
) -> Wanted:
    """What to trace, and how, from what was given for the options below.

    Raises :class:`UsageError` for a user that there is not.
    """
    if user:
        cgroups.caller(user)
    return Wanted(
        subject,
        user or "",
        mechanism.value,
        tuple(sabotage or ()),
        keep,
        boot_timeout,
        modules=modules.chosen(module or ()),
    )


Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="Print no progress.")]
Keep = Annotated[bool, typer.Option("--keep", help="Keep the logs of a failed run.")]
BootTimeout = Annotated[
    float,
    typer.Option(
        parser=seconds, metavar="SECONDS", help="How long a virtual machine may take to boot."
    ),
]
Sabotage = Annotated[list[str] | None, typer.Option(hidden=True)]
Mechanism = Annotated[
    Choice,
    typer.Option(
        metavar="WAY",
        help="How copies to and from user memory are counted. callsite: probes on the callers. "
        "breakpoint: hardware breakpoints. both: both, and they must agree. auto: both for "
        "run; breakpoint for a traced program, since it slows other programs down least.",
    ),
]
Command = Annotated[
    list[str] | None,
    typer.Argument(
        metavar="COMMAND [ARGUMENT]...",
        help="The command to run. Everything after its name belongs to the command.",
        show_default=False,
    ),
]
Duration = Annotated[
    float | None,
    typer.Option(
        "--duration",
        "-d",
        parser=seconds,
        metavar="SECONDS",
        help="Stop tracing after this time; a command is terminated.",
    ),
]
NoFollow = Annotated[bool, typer.Option("--no-follow", help="Do not trace child processes.")]
User = Annotated[
    str | None,
    typer.Option(
        parser=word,
        metavar="NAME",
        help="User to run the command as. Default: who called sudo, or root.",
    ),
]
Cpus = Annotated[
    int | None,
    typer.Option(
        "--cpus",
        parser=count,
        metavar="N",
        help="CPUs of the virtual machine. Default: 1.",
    ),
]
Kernel = Annotated[
    str,
    typer.Option(
        metavar="KERNEL",
        help="Kernel to measure: auto, host, a version such as 6.1, or the path of an image.",
    ),
]
Kernels = Annotated[
    list[str] | None,
    typer.Option(
        metavar="KERNEL",
        help="Kernel to measure: auto, host, a version such as 6.1, or the path of an image. "
        "Can be repeated.",
    ),
]
Modules = Annotated[
    list[str] | None,
    typer.Option(
        "--module",
        metavar="NAME",
        help="Kernel module to load in the virtual machine before probes are attached. Can be "
        "repeated.",
        show_default=False,
    ),
]

UserCopies = Annotated[
    str | None,
    typer.Option(
        metavar="SIZE",
        help="Also count copies of at least SIZE (1K to 64K) in the program's own memory. "
        "Slows down every program on the machine that uses the same C library.",
        show_default=False,
    ),
]

CopyOut = Annotated[
    list[str] | None,
    typer.Option(
        "--copy-out",
        parser=word,
        metavar="FILE",
        help="A file that the command writes in a virtual machine, to be copied to this "
        "machine afterwards. Can be repeated.",
        show_default=False,
    ),
]

TAKES_A_COMMAND = {"allow_interspersed_args": False}
"""Options end at the first word that is none, as those of strace, perf and time do: the rest
is the command's."""
