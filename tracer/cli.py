"""The command line. The only module that imports typer, and the only one that exits."""

from __future__ import annotations

import signal
import sys
from pathlib import Path
from typing import Annotated, NoReturn

import typer
from rich.console import Console
from rich.text import Text

from zctrace import errors
from zctrace._version import __version__
from zctrace.commands import choices, common
from zctrace.commands import compare as compare_command
from zctrace.commands import doctor as doctor_command
from zctrace.commands import kernels as kernels_command
from zctrace.commands import plan as plan_command
from zctrace.commands import report as report_command
from zctrace.commands import run as run_command
from zctrace.commands import serve as serve_command
from zctrace.commands import strategies as strategies_command
from zctrace.commands import trace as trace_command
from zctrace.evidence.schema import USER_COPIES, Subject
from zctrace.machine.job import Options
from zctrace.machine.places import AUTO
from zctrace.machine.program_job import Wanted
from zctrace.machine.progress import BOOT_SECONDS
from zctrace.signals import Terminated, raise_terminated
from zctrace.sizes import parse_size

_HELP = """Measure how often the CPU really copies data, and how often a program enters
the kernel, for each way of moving a file to a socket."""

app = typer.Typer(
    help=_HELP,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    add_completion=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
_kernels = typer.Typer(
    help="Kernels at hand: list, fetch, remove.", invoke_without_command=True
)
app.add_typer(_kernels, name="kernels")

_Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="No progress on stderr.")]
_Force = Annotated[bool, typer.Option("--force", help="Overwrite output files.")]


_Keep = Annotated[bool, typer.Option("--keep", help="Keep the logs of a run that fails.")]
_BootTimeout = Annotated[
    float, typer.Option(help="Seconds that a virtual machine may take to boot.")
]
_Sabotage = Annotated[list[str] | None, typer.Option(hidden=True)]
_Mechanism = Annotated[
    str,
    typer.Option(
        help="How user copies are watched: callsite, breakpoint, or auto: both, which "
        "must agree."
    ),
]
_Json = Annotated[Path | None, typer.Option(help="Everything; zctrace report reads it.")]
_Command = Annotated[
    list[str] | None, typer.Argument(help="After --, with its arguments.", show_default=False)
]
_Duration = Annotated[
    float | None,
    typer.Option("--duration", "-d", help="Seconds, after which a command is terminated."),
]
_NoFollow = Annotated[
    bool, typer.Option("--no-follow", help="Do not count what the program starts.")
]
_User = Annotated[
    str, typer.Option(help="Whom a command runs as; whoever called sudo, or root.")
]
_Kernel = Annotated[str, typer.Option(help="auto, host, a version such as 6.1, or a path.")]


def _version(wanted: bool) -> None:
    if wanted:
        print(f"zctrace {__version__}")
        raise typer.Exit


@app.callback()
def _main(
    version: Annotated[
        bool,
        typer.Option("--version", callback=_version, is_eager=True, help="Print the version."),
    ] = False,
) -> None:
    pass


@app.command()
def run(
    strategies: Annotated[
        list[str] | None,
        typer.Argument(
            help="Which strategies; the textbook's four, if none is named.", show_default=False
        ),
    ] = None,
    every: Annotated[
        bool,
        typer.Option(
            "--all",
            help="Every strategy on loopback; and the textbook's from a disk to a network "
            "card, with and without scatter/gather.",
        ),
    ] = False,
    skip: Annotated[
        list[str] | None,
        typer.Option(
            help="Strategies to leave out, by name or pattern: 'netty-*'. Can be repeated.",
            show_default=False,
        ),
    ] = None,
    size: Annotated[
        list[str] | None,
        typer.Option(
            help="Payload, 1M or the whole --file if not set; K, M, G are powers of 1024. "
            "Repeatable."
        ),
    ] = None,
    chunk: Annotated[
        str | None, typer.Option(help="The most that one call is asked to move.")
    ] = None,
    pipe_size: Annotated[
        str | None,
        typer.Option(help="Capacity of splice's pipe; the kernel's default if not set."),
    ] = None,
    user_copies: Annotated[
        str,
        typer.Option(
            help="Copies of so many bytes or more within a JVM's own memory count; up to 64K."
        ),
    ] = str(USER_COPIES),
    repeat: Annotated[int, typer.Option(help="How often; a row each.")] = 1,
    kernel: Annotated[
        list[str] | None,
        typer.Option(help="auto, host, a version such as 6.1, or a path. Repeatable."),
    ] = None,
    nic: Annotated[
        list[str] | None,
        typer.Option(
            help="lo, veth, veth-nosg, e1000, e1000-nosg or virtio; -nosg is without "
            "scatter/gather. Repeatable."
        ),
    ] = None,
    cache: Annotated[
        list[str] | None,
        typer.Option(
            help="warm: the payload is in the page cache before; cold: it is on the disk. "
            "Repeatable."
        ),
    ] = None,
    file: Annotated[
        Path | None,
        typer.Option(
            help="A file of yours to move, on your own disk. This machine's kernel only."
        ),
    ] = None,
    to: Annotated[
        str,
        typer.Option(
            help="HOST:PORT to send to, through your own network card; something must accept "
            "connections there and read to the end. This machine's kernel only."
        ),
    ] = "",
    fs: Annotated[
        str | None,
        typer.Option(
            help="File system of the payload: ext4, xfs, btrfs, tmpfs. Default: ext4, and "
            "xfs for what ext4 cannot do."
        ),
    ] = None,
    mechanism: _Mechanism = "auto",
    csv: Annotated[
        Path | None, typer.Option(help="Summary, a row per run; - for stdout.")
    ] = None,
    evidence: Annotated[
        Path | None, typer.Option(help="Tidy rows, one per run, role and site, as CSV.")
    ] = None,
    json: _Json = None,
    html: Annotated[
        Path | None, typer.Option(help="A page with drawings that needs no network.")
    ] = None,
    markdown: Annotated[
        Path | None, typer.Option(help="Tables and reasons, as GitHub shows them.")
    ] = None,
    force: _Force = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Say what would be done, and do nothing.")
    ] = False,
    keep: _Keep = False,
    boot_timeout: _BootTimeout = BOOT_SECONDS,
    verbose: Annotated[
        bool, typer.Option("--verbose", "-v", help="Where the time went, on stderr.")
    ] = False,
    quiet: _Quiet = False,
    sabotage: _Sabotage = None,
) -> None:
    """Perform strategies on a real kernel and put measured beside claimed.

    Needs root for the probes; the strategies run as the user who called sudo.
    """
    chosen = choices.choose_strategies(strategies or [], every=every, skip=skip or [])
    names = list(dict.fromkeys(kernel or [AUTO]))
    options = Options(
        settings=choices.choose_settings(
            chosen,
            choices.choose_device(to, nic or [], chosen),
            cache or [],
            every=every,
            to=to,
        ),
        everything=every and not (nic or cache or to),
        file_systems=choices.choose_file_systems(fs, chosen),
        mechanism=common.check_mechanism(mechanism),
        sizes=choices.choose_file(
            file, list(dict.fromkeys(parse_size(one, "--size") for one in size or []))
        ),
        file=None if file is None else file.absolute(),
        to=to,
        chunk=None if chunk is None else parse_size(chunk, "--chunk"),
        pipe_size=None if pipe_size is None else parse_size(pipe_size, "--pipe-size"),
        user_copies=choices.choose_user_copies(parse_size(user_copies, "--user-copies")),
        repeat=repeat,
        sabotage=tuple(sabotage or ()),
        keep=keep,
        boot_seconds=boot_timeout,
    )
    outputs = common.Outputs(csv, evidence, json, force, html, markdown)
    if dry_run:
        run_command.dry_run(options, names, outputs)
    else:
        run_command.run(options, names, outputs, verbose=verbose, quiet=quiet)


@app.command(context_settings={"ignore_unknown_options": False})
def trace(
    command: _Command = None,
    pid: Annotated[
        list[int] | None,
        typer.Option(
            "--pid",
            "-p",
            help="A process that runs, with its threads and children. Repeatable.",
        ),
    ] = None,
    cgroup: Annotated[
        str, typer.Option(help="All processes of a cgroup: a service, a container.")
    ] = "",
    duration: _Duration = None,
    no_follow: _NoFollow = False,
    user: _User = "",
    kernel: _Kernel = AUTO,
    mechanism: _Mechanism = "auto",
    csv: Annotated[
        Path | None,
        typer.Option(help="A row for each descriptor and call, and for what was copied."),
    ] = None,
    json: _Json = None,
    interval: Annotated[
        float | None,
        typer.Option("--interval", "-i", help="A line on what happens every so many seconds."),
    ] = None,
    stacks: Annotated[
        bool, typer.Option("--stacks", help="Who was on the stack, in the kernel and outside.")
    ] = False,
    folded: Annotated[
        Path | None, typer.Option(help="Stacks and bytes for flamegraph.pl; implies --stacks.")
    ] = None,
    speedscope: Annotated[
        Path | None, typer.Option(help="The same for speedscope.app; implies --stacks.")
    ] = None,
    force: _Force = False,
    keep: _Keep = False,
    boot_timeout: _BootTimeout = BOOT_SECONDS,
    quiet: _Quiet = False,
    sabotage: _Sabotage = None,
) -> int | None:
    """Is this program really zero-copy, and if not, who copies?

    Traces a command from its first instruction, or what runs already from now on. A command
    keeps its input, output and exit status, and runs with the rights of whoever called.
    """
    wanted = Wanted(
        trace_command.subject_of(
            command or [],
            pid or [],
            cgroup,
            duration,
            follow=not no_follow,
            stacks=stacks or folded is not None or speedscope is not None,
            interval=interval,
        ),
        user,
        common.check_mechanism(mechanism),
        tuple(sabotage or ()),
        keep,
        boot_timeout,
    )
    outputs = common.Outputs(
        csv=csv, json=json, folded=folded, speedscope=speedscope, force=force
    )
    return trace_command.trace(wanted, kernel, outputs, quiet=quiet)


@app.command()
def check(
    command: _Command = None,
    max_copies: Annotated[
        float, typer.Option(help="How many bytes may be copied for each byte delivered.")
    ] = 0.01,
    duration: _Duration = None,
    no_follow: _NoFollow = False,
    user: _User = "",
    kernel: _Kernel = AUTO,
    json: _Json = None,
    force: _Force = False,
    boot_timeout: _BootTimeout = BOOT_SECONDS,
    quiet: _Quiet = False,
) -> int | None:
    """Fail, with status 12, if a command copies more than it is allowed to.

    As trace does; a command that fails itself ends with its own status.
    """
    if max_copies < 0:
        raise errors.UsageError(f"--max-copies {max_copies:g}: at least 0")
    wanted = Wanted(
        trace_command.subject_of(command or [], [], "", duration, follow=not no_follow),
        user,
        boot_seconds=boot_timeout,
    )
    outputs = common.Outputs(json=json, force=force)
    return trace_command.trace(wanted, kernel, outputs, quiet=quiet, most=max_copies)


@app.command()
def serve(
    command: _Command = None,
    user: _User = "",
    kernel: _Kernel = AUTO,
    mechanism: _Mechanism = "auto",
    keep: _Keep = False,
    boot_timeout: _BootTimeout = BOOT_SECONDS,
    quiet: _Quiet = False,
    sabotage: _Sabotage = None,
) -> int | None:
    """Let a command measure itself: pytest with the fixture zctrace, say.

    The command keeps its input, output and exit status, and runs with the rights of whoever
    called; every process of that user below it may ask for windows.
    """
    wanted = Wanted(
        Subject(command=tuple(command or ()), folder=str(Path.cwd()), marked=True),
        user,
        common.check_mechanism(mechanism),
        tuple(sabotage or ()),
        keep,
        boot_timeout,
    )
    return serve_command.serve(wanted, kernel, quiet=quiet)


@app.command()
def strategies() -> None:
    """What there is to run, and what the textbook claims of each."""
    strategies_command.show(Console())


@app.command()
def plan(
    kernel: Annotated[str, typer.Option(help="As for run.")] = AUTO,
    mechanism: Annotated[str, typer.Option(help="As for run.")] = "auto",
    json: Annotated[
        Path | None, typer.Option(help="Plan and kernel facts, for programs.")
    ] = None,
    quiet: _Quiet = False,
) -> None:
    """What would be attached where on a kernel, why, and what would be blind."""
    plan_command.show(kernel, common.check_mechanism(mechanism), json, Console(), quiet=quiet)


@app.command()
def doctor() -> None:
    """What this machine and its kernel offer, and what to do about the rest."""
    doctor_command.show(Console())


@app.command()
def report(
    results: Annotated[list[Path], typer.Argument(help="Files that run --json has written.")],
    html: Annotated[
        Path | None,
        typer.Option(help="Also as a page with drawings that needs no network; - for stdout."),
    ] = None,
    markdown: Annotated[
        Path | None, typer.Option(help="Also as tables as GitHub shows them; - for stdout.")
    ] = None,
    folded: Annotated[Path | None, typer.Option(help="As for trace; - for stdout.")] = None,
    speedscope: Annotated[Path | None, typer.Option(help="As for trace; - for stdout.")] = None,
    force: _Force = False,
) -> None:
    """Show saved results again."""
    outputs = common.Outputs(
        html=html, markdown=markdown, folded=folded, speedscope=speedscope, force=force
    )
    report_command.show(results, Console(), outputs)


@app.command()
def compare(
    before: Annotated[Path, typer.Argument(help="A file that --json has written.")],
    after: Annotated[Path, typer.Argument(help="Another one, of the same kind.")],
    csv: Annotated[
        Path | None, typer.Option(help="A row for each figure that differs; - for stdout.")
    ] = None,
    json: Annotated[
        Path | None, typer.Option(help="The same, with the sentences; - for stdout.")
    ] = None,
    force: _Force = False,
) -> None:
    """What changed between two saved results, the largest change first.

    Two of run, or two of trace and check.
    """
    outputs = common.Outputs(csv=csv, json=json, force=force)
    compare_command.show(before, after, Console(), outputs)


@_kernels.callback()
def _list_kernels(context: typer.Context) -> None:
    if context.invoked_subcommand is None:
        kernels_command.show(Console())


@_kernels.command("fetch")
def _fetch_kernel(
    version: Annotated[str, typer.Argument(help="A version such as 6.1, or stock.")],
    quiet: _Quiet = False,
) -> None:
    """Get a stock kernel from the package archive into the cache."""
    kernels_command.fetch(version, Console(), quiet=quiet)


@_kernels.command("rm")
def _remove_kernel(
    version: Annotated[str, typer.Argument(help="A release or version in the cache.")],
) -> None:
    """Remove a kernel from the cache."""
    kernels_command.remove(version, Console())


def main() -> NoReturn:
    """Run the command line and exit with a code of ``zctrace.errors``."""
    raise_terminated()
    # Whoever reads our output may stop when it has enough; then we end as others do.
    signal.signal(signal.SIGPIPE, signal.SIG_DFL)
    sys.exit(_status())


def _status() -> int:
    try:
        # Typer turns an interrupt into its status itself.
        result = app(standalone_mode=False)
        sys.stdout.flush()
    except errors.ZctraceError as error:
        _complain(error)
        return error.exit_code
    except typer.TyperException as error:
        _complain(errors.UsageError(error.format_message(), hint="zctrace --help"))
        return errors.UsageError.exit_code
    except Terminated:
        _complain(errors.ZctraceError("terminated; everything was cleaned up"))
        return errors.TERMINATED
    status = result if isinstance(result, int) else 0
    if status == errors.INTERRUPTED:
        _complain(errors.ZctraceError("interrupted; everything was cleaned up"))
    return status


def _complain(error: errors.ZctraceError) -> None:
    console = Console(stderr=True)
    console.print(Text("zctrace: ").append(error.what, style="bold red"), soft_wrap=True)
    if error.why:
        console.print(Text(f"    why: {error.why}"), soft_wrap=True)
    if error.hint:
        console.print(Text(f"    try: {error.hint}"), soft_wrap=True)


if __name__ == "__main__":
    main()
