"""``zctrace run``: perform strategies, measure them, put the result beside the claims."""

from __future__ import annotations

import dataclasses
import os
import shlex
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Console

from zctrace.commands.progress import notice, shown
from zctrace.errors import UsageError, ZctraceError
from zctrace.evidence.schema import Evidence
from zctrace.machine import images, job, kernels, kvm, qemu
from zctrace.machine import places as machine_places
from zctrace.machine.job import Options
from zctrace.machine.places import Place

if TYPE_CHECKING:
    pass

from zctrace.commands.choices import CARDS, check_options
from zctrace.commands.common import (
    Outputs,
    find,
    require_collector,
    require_controls,
    require_root,
    write,
)


def run(
    options: Options, names: Sequence[str], outputs: Outputs, *, verbose: bool, quiet: bool
) -> None:
    """Everything; raises ``ZctraceError``."""
    check_options(options)
    outputs.check()
    require_collector()
    began = time.monotonic()
    evidences: list[Evidence] = []
    failure: ZctraceError | None = None
    with shown(quiet=quiet) as say:
        places = [find(name, say) for name in names]
        _check_devices(options, places)
        images.check_resources(
            options.size,
            () if options.file else options.file_systems,
            places,
            options.java_bytes,
        )
        try:
            for place in places:
                evidences.append(job.collect(place, _at(place, options), say))
        except ZctraceError as error:
            if not evidences:
                raise
            failure = error  # what the kernels before it have shown is not thrown away
        say("adding up")
        collected = time.monotonic()
        # Late: pandas takes longer to import than everything before the first boot.
        from zctrace.analysis import runs

        judged = runs.judge(evidences)
    write(judged, outputs)
    if not outputs.on_stdout:
        from zctrace.reports.text import runs as terminal

        terminal.render(judged, Console(), os.uname().release)
    if verbose:
        _breakdown(evidences, began, collected)
    if failure:
        raise failure
    require_controls(judged)


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
            f"--nic {emulated[0]} on this machine's own kernel",
            "zctrace has such devices in virtual machines only, and takes nobody else's",
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


def dry_run(options: Options, names: Sequence[str], outputs: Outputs) -> None:
    """Print what would be done, and do nothing."""
    check_options(options)
    outputs.check()
    folder = Path("RUN_FOLDER")
    for name in names:
        if name == machine_places.HOST or (name == machine_places.AUTO and _host_is_fine()):
            print(f"{name}: this machine's own kernel, {os.uname().release}")
            print("    zctrace plan --kernel host shows the probes")
            continue
        kernel = _without_fetching(name)
        if kernel is None:
            print(f"{name}: a kernel that is not at hand: it would be fetched first")
            continue
        guest = qemu.Guest(
            kernel,
            bool(kvm.kvm_known(kernel)),
            job.guest_memory(options),
            folder,
            tuple(folder / f"payload.{kind}" for kind in options.file_systems),
            nics=job.emulated(options.nics),
        )
        print(f"{name}: Linux {kernel.release} in a virtual machine")
        print(f"    {shlex.join(qemu.command(guest, folder / 'guest.sh'))}")
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


def _breakdown(evidences: Sequence[Evidence], began: float, collected: float) -> None:
    done = time.monotonic()
    for evidence in evidences:
        phases = ", ".join(f"{name} {spent:.1f}" for name, spent in evidence.timings.items())
        notice(f"{evidence.kernel['release']}, seconds: {phases}")
    notice(f"seconds: total {done - began:.1f}, of which summarise {done - collected:.1f}")
