"""The command line: the table of commands, and how each of them ends.

The only module that exits.
"""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable
from contextlib import suppress
from typing import Annotated, NoReturn

import typer
from rich.text import Text

from zctrace import errors, trust
from zctrace._version import version as own_version
from zctrace.commands import (
    check,
    compare,
    doctor,
    example,
    kernels,
    metrics,
    panels,
    plan,
    report,
    run,
    serve,
    strategies,
    streams,
    top,
    trace,
)
from zctrace.commands.options import TAKES_A_COMMAND, Commands, Once
from zctrace.printable import printable
from zctrace.reports.text.terminal import Terminal

_HELP = """Measure how often the CPU really copies data, and how often a program enters
the kernel, for each way of moving a file to a socket."""

app = typer.Typer(
    cls=Commands,
    help=_HELP,
    epilog="\n\n".join(panels.FIRST),
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    add_completion=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
_COMMANDS: dict[str, dict[str, Callable[..., object]]] = {
    panels.MEASURE: {
        "trace": trace.command,
        "run": run.command,
        "check": check.command,
        "serve": serve.command,
        "top": top.command,
        "metrics": metrics.command,
    },
    panels.SAVED: {
        "report": report.command,
        "compare": compare.command,
        "example": example.command,
    },
    panels.MACHINE: {
        "doctor": doctor.command,
        "plan": plan.command,
        "strategies": strategies.command,
    },
}
_TAKING_A_COMMAND = ("trace", "check", "serve", "top", "metrics")
for _panel, _commands in _COMMANDS.items():
    for _name, _command in _commands.items():
        _settings = TAKES_A_COMMAND if _name in _TAKING_A_COMMAND else None
        app.command(_name, cls=Once, context_settings=_settings, rich_help_panel=_panel)(
            _command
        )
app.add_typer(kernels.app, name="kernels", rich_help_panel=panels.MACHINE)


def _version(wanted: bool) -> None:
    if wanted:
        print(f"zctrace {own_version()}")
        raise typer.Exit


@app.callback()
def _main(
    version: Annotated[
        bool,
        typer.Option("--version", callback=_version, is_eager=True, help="Print the version."),
    ] = False,
) -> None:
    pass


def main() -> NoReturn:
    """Run the command line and exit with a code of ``zctrace.errors``."""
    trust.close_to_others()
    streams.prepare()
    errors.raise_terminated()
    # A reader may close the pipe: SIGPIPE then ends us, as it ends other programs.
    signal.signal(signal.SIGPIPE, signal.SIG_DFL)
    sys.exit(_status())


def _status() -> int:
    streams.forget_sizes()
    try:
        # Typer turns an interrupt into its status itself.
        result = app(standalone_mode=False)
        sys.stdout.flush()
    except errors.ZctraceError as error:
        if isinstance(error, errors.UsageError) and not error.hint:
            error.hint = _help_of_command()
        _complain(error)
        return error.exit_code
    except typer.TyperException as error:
        what = error.format_message().replace("Value error, ", "")
        if what:  # none where the help was shown instead: zctrace alone
            _complain(errors.UsageError(what, hint=_help_for(error)))
        return errors.UsageError.exit_code
    except FileNotFoundError:
        if _has_folder():
            raise
        what = "the working folder does not exist any more"
        _complain(errors.UsageError(what, hint="cd to a folder that exists"))
        return errors.UsageError.exit_code
    except KeyboardInterrupt:  # before Typer takes them, and behind it
        result = errors.INTERRUPTED
    except (MemoryError, OSError, ImportError, RuntimeError) as error:
        exhausted = errors.exhausted(error)
        if not exhausted:
            raise
        _complain(exhausted)
        return exhausted.exit_code
    except errors.Terminated as terminated:
        with suppress(OSError):  # the terminal may be gone
            _complain(errors.ZctraceError("terminated; everything was cleaned up"))
        return terminated.status
    status = result if isinstance(result, int) else 0
    if status == errors.INTERRUPTED:
        _complain(errors.ZctraceError("interrupted; everything was cleaned up"))
    return status


def _has_folder() -> bool:
    try:
        os.getcwd()
    except FileNotFoundError:
        return False
    return True


def _help_of_command() -> str:
    named = [info.name for info in app.registered_commands if info.name in sys.argv[1:2]]
    return " ".join(("zctrace", *filter(None, named), "--help"))


def _help_for(error: typer.TyperException) -> str:
    context = getattr(error, "ctx", None)
    return f"{context.command_path if context else 'zctrace'} --help"


def _complain(error: errors.ZctraceError) -> None:
    console = Terminal(stderr=True)
    console.print(
        Text("zctrace: ").append(printable(error.what), style="bold red"), soft_wrap=True
    )
    if error.why:
        console.print(Text(f"    why: {printable(error.why)}"), soft_wrap=True)
    if error.hint:
        console.print(Text(f"    try: {printable(error.hint)}"), soft_wrap=True)


if __name__ == "__main__":
    main()
