"""``zctrace run``: perform strategies, measure them, compare with the claims."""

from __future__ import annotations

import dataclasses
import enum
import functools
import os
import shlex
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer

from zctrace.commands import choices
from zctrace.commands.choices import CARDS, check_options
from zctrace.commands.common import (
    find,
    require_collector,
    require_controls,
    require_root,
)
from zctrace.commands.options import (
    BootTimeout,
    Cpus,
    Keep,
    Kernels,
    Mechanism,
    Modules,
    Quiet,
    Sabotage,
    count,
    word,
)
from zctrace.commands.outputs import NOWHERE, writes
from zctrace.commands.progress import Steps, notice, shown
from zctrace.errors import UsageError
from zctrace.evidence.schema import COLD, USER_COPIES, WARM, Evidence
from zctrace.machine import images, job, kernels, kvm, modules, qemu, side_by_side
from zctrace.machine import places as machine_places
from zctrace.machine.job import Options
from zctrace.machine.places import AUTO, Place
from zctrace.machine.progress import BOOT_SECONDS
from zctrace.machine.side_by_side import Job
from zctrace.plan.attachments import Choice
from zctrace.reports import formats
from zctrace.reports.formats import Of, Outputs
from zctrace.reports.text.terminal import Terminal
from zctrace.sizes import parse_size


class PageCache(enum.Enum):
    """Whether the payload is in the page cache when a transfer begins."""

    WARM = WARM
    COLD = COLD


@writes(formats.of(Of.RUN))
def command(
    strategies: Annotated[
        list[str] | None,
        typer.Argument(
            help="Strategies to run. Default: the textbook's four.", show_default=False
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
            metavar="NAME",
            help="Strategies to skip, by name or pattern such as 'netty-*'. Can be repeated.",
            show_default=False,
        ),
    ] = None,
    size: Annotated[
        list[str] | None,
        typer.Option(
            metavar="SIZE",
            help="Payload, 1M or the whole --file if not set; K, M, G are powers of 1024. "
            "Repeatable.",
        ),
    ] = None,
    chunk: Annotated[
        str | None,
        typer.Option(
            metavar="SIZE",
            help="Bytes per system call, at most. Default: one call per transfer.",
        ),
    ] = None,
    pipe_size: Annotated[
        str | None,
        typer.Option(
            metavar="SIZE", help="Capacity of the pipe that splice uses. Default: the kernel's."
        ),
    ] = None,
    user_copies: Annotated[
        str,
        typer.Option(
            metavar="SIZE", help="Count JVM-internal copies of at least SIZE (at most 64K)."
        ),
    ] = str(USER_COPIES),
    repeat: Annotated[
        int,
        typer.Option(
            parser=count, metavar="N", help="Repeat each strategy N times; one row each."
        ),
    ] = 1,
    kernel: Kernels = None,
    cpus: Cpus = None,
    nic: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NIC",
            help="lo, veth, veth-nosg, e1000, e1000-nosg or virtio; -nosg is without "
            "scatter/gather. Repeatable.",
        ),
    ] = None,
    cache: Annotated[
        list[PageCache] | None,
        typer.Option(
            metavar="warm|cold",
            help="warm: the payload is in the page cache before; cold: it is on the disk. "
            "Repeatable.",
        ),
    ] = None,
    file: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="A file of your own to send, on your own disk. Needs --kernel host.",
        ),
    ] = None,
    to: Annotated[
        str | None,
        typer.Option(
            parser=word,
            metavar="HOST:PORT",
            help="HOST:PORT to send to, through your own network card; something must accept "
            "connections there and read to the end. This machine's kernel only.",
        ),
    ] = None,
    fs: Annotated[
        str | None,
        typer.Option(
            metavar="NAME",
            help="File system of the payload: ext4, xfs, btrfs, tmpfs. Default: ext4, and "
            "xfs for what ext4 cannot do.",
        ),
    ] = None,
    mechanism: Mechanism = Choice.AUTO,
    module: Modules = None,
    outputs: Outputs = NOWHERE,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Print what would be done, and exit.")
    ] = False,
    keep: Keep = False,
    boot_timeout: BootTimeout = BOOT_SECONDS,
    verbose: Annotated[
        bool, typer.Option("--verbose", "-v", help="Print how long each phase took.")
    ] = False,
    quiet: Quiet = False,
    sabotage: Sabotage = None,
) -> None:
    """Perform transfers on a real kernel, and compare them with the textbook's claims.

    The probes need root; the strategies run as the user who called sudo.
    """
    chosen = choices.choose_strategies(strategies or [], every=every, skip=skip or [])
    names = list(dict.fromkeys(kernel or [AUTO]))
    wanted = Options(
        settings=choices.choose_settings(
            chosen,
            choices.choose_device(to or "", nic or [], chosen),
            [state.value for state in cache or []],
            every=every,
            to=to or "",
        ),
        everything=every and not (nic or cache or to),
        file_systems=choices.choose_file_systems(fs, chosen),
        mechanism=mechanism.value,
        sizes=choices.choose_file(
            file, list(dict.fromkeys(parse_size(one, "--size") for one in size or []))
        ),
        file=None if file is None else file.absolute(),
        to=to or "",
        chunk=None if chunk is None else parse_size(chunk, "--chunk"),
        pipe_size=None if pipe_size is None else parse_size(pipe_size, "--pipe-size"),
        user_copies=choices.choose_user_copies(parse_size(user_copies, "--user-copies")),
        repeat=repeat,
        modules=modules.chosen(module or ()),
        sabotage=tuple(sabotage or ()),
        keep=keep,
        boot_seconds=boot_timeout,
    )
    if dry_run:
        show_plan(wanted, names, cpus, outputs)
    else:
        run(wanted, names, cpus, outputs, verbose=verbose, quiet=quiet)


def run(
    options: Options,
    names: Sequence[str],
    cpus: int | None,
    outputs: Outputs,
    *,
    verbose: bool,
    quiet: bool,
) -> None:
    """Everything; raises ``ZctraceError``."""
    check_options(options)
    outputs.check()
    require_collector()
    began = time.monotonic()
    with shown(quiet=quiet) as say:
        places = [find(name, say, options.mechanism, cpus) for name in names]
        _check_devices(options, places)
        modules.check(options.modules, places)
        images.check_resources(
            options.size,
            () if options.file else options.file_systems,
            places,
            options.performer_bytes,
        )
        width = job.guests_at_once(options, places)
        jobs = [_job(place, options, say, len(places), width) for place in places]
        evidences, failure = side_by_side.collect(jobs, width)
        if failure and not evidences:
            raise failure
        say("adding up")
        collected = time.monotonic()
        # Late: pandas takes longer to import than everything before the first boot.
        from zctrace.analysis import runs

        judged = runs.judge(evidences)
    outputs.write(Of.RUN, judged)
    if not outputs.on_stdout:
        from zctrace.reports.text import runs as terminal

        terminal.render(judged, Terminal())
    if verbose:
        _breakdown(evidences, began, collected)
    if failure:
        raise failure
    require_controls(judged)


def _job(place: Place, options: Options, say: Steps, places: int, width: int) -> Job:
    """How to report progress from one of several places, ``width`` measured at a time."""
    name = place.kernel.release if place.kernel else machine_places.HOST
    say_of = say.of(name) if width > 1 else say
    return Job(
        name if places > 1 else "",
        functools.partial(job.prepared, place, _at(place, options), say_of),
        say_of,
    )


def _check_devices(options: Options, places: Sequence[Place]) -> None:
    """Raise :class:`UsageError` for devices that a place has not."""
    booted = next((place for place in places if place.kernel), None)
    if (options.file or options.to) and booted:
        raise UsageError(
            f"{'--file' if options.file else '--to'} in a virtual machine",
            booted.instead or "it has neither this machine's disks nor its network",
            "--kernel host, on a kernel that lets itself be probed (zctrace doctor)",
        )
    if options.to:
        return
    emulated = [nic.name for nic in options.nics if nic.emulated]
    if emulated and not options.everything and any(not place.kernel for place in places):
        raise UsageError(
            f"--nic {emulated[0]} cannot be used with this machine's own kernel",
            "zctrace creates such cards in virtual machines only; it never uses the host's",
            "--nic veth or veth-nosg; or a virtual machine, such as --kernel 6.1",
        )


def _at(place: Place, options: Options) -> Options:
    """The options for one place: everything is something else where there are no cards."""
    if place.kernel or not options.everything:
        return options
    settings = tuple(
        dataclasses.replace(setting, nic=CARDS.get(setting.nic, setting.nic))
        for setting in options.settings
    )
    return dataclasses.replace(options, settings=settings)


def show_plan(
    options: Options, names: Sequence[str], cpus: int | None, outputs: Outputs
) -> None:
    """Print what would be done, and do nothing."""
    check_options(options)
    outputs.check()
    folder = Path("RUN_FOLDER")
    for name in names:
        if name == machine_places.HOST or (name == machine_places.AUTO and _host_is_fine()):
            print(f"{name}: this machine's own kernel, {os.uname().release}")
            machine_places.require_own_processors(cpus)
            modules.check(options.modules, [Place(None)])
            print("    zctrace plan --kernel host shows the probes")
            continue
        kernel = _without_fetching(name)
        if kernel is None:
            print(f"{name}: {_fetched_first(name)}")
            continue
        modules.check(options.modules, [Place(kernel)])
        guest = qemu.Guest(
            kernel,
            bool(kvm.kvm_known(kernel)),
            job.guest_memory(options),
            folder,
            tuple(folder / f"payload.{kind}" for kind in options.file_systems),
            nics=job.emulated(options.nics),
            processors=cpus or 1,
        )
        print(f"{name}: Linux {kernel.release} in a virtual machine")
        print(f"    {shlex.join(qemu.command(guest))}")
        if options.modules:
            print(f"    modules loaded before: {', '.join(options.modules)}")
        print(f"    zctrace plan --kernel {kernel.release} shows the probes")
    for setting in options.settings:
        print(
            f"over {setting.nic}, page cache {setting.cache}: {', '.join(setting.strategies)}"
        )
    if options.file:
        print(f"payload: {options.size} B of {options.file}")
        return
    for kind in options.file_systems:
        image = images.image_size(options.size, kind)
        print(f"payload: {options.size} B on an image of {image} B of {kind}")


def _host_is_fine() -> bool:
    require_root("only root can ask the kernel whether it can be probed")
    return not machine_places.why_not_host()


def _without_fetching(name: str) -> kernels.Kernel | None:
    if name == machine_places.AUTO:
        return next((k for k in reversed(kernels.cached()) if k.stock), None)
    kernels.check_name(name)
    return kernels.at_hand(name)


def _fetched_first(name: str) -> str:
    """Which kernel a run would fetch; raises :class:`KernelError` where it could not."""
    wanted = "stock" if name == machine_places.AUTO else name
    found = kernels.fetched_first(wanted, notice)
    return f"Linux {found.release} is not at hand: {found.version} would be fetched first"


def _breakdown(evidences: Sequence[Evidence], began: float, collected: float) -> None:
    done = time.monotonic()
    for evidence in evidences:
        phases = ", ".join(f"{name} {spent:.1f}" for name, spent in evidence.timings.items())
        notice(f"{evidence.kernel['release']}, seconds: {phases}")
    notice(f"seconds: total {done - began:.1f}, including summarise {done - collected:.1f}")
