"""``zctrace run``: perform strategies, measure them, put the result beside the claims."""

from __future__ import annotations

import os
import shlex
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Console

from tracer import kernels, machine, output, vm
from tracer.commands.progress import notice, shown
from tracer.errors import ControlError, OutputError, RightsError, UsageError, ZctraceError
from tracer.evidence import Evidence
from tracer.machine import Options, Place
from tracer.plan import Choice
from workloads.catalogue import STRATEGIES, TEXTBOOK, strategy_named

if TYPE_CHECKING:
    from tracer.summary import Judged


@dataclass(frozen=True)
class Outputs:
    """Where results go, ``None`` for nowhere."""

    csv: Path | None = None
    evidence: Path | None = None
    json: Path | None = None
    force: bool = False

    def chosen(self) -> list[tuple[str, Path]]:
        every = (("--csv", self.csv), ("--evidence", self.evidence), ("--json", self.json))
        return [(option, path) for option, path in every if path is not None]

    @property
    def on_stdout(self) -> bool:
        return any(path == output.STDOUT for _, path in self.chosen())

    def check(self) -> None:
        """Raise :class:`OutputError` for what could not be written later."""
        paths = [path for _, path in self.chosen()]
        if len(set(paths)) < len(paths):
            raise OutputError(
                "two outputs would go to the same place",
                ", ".join(f"{option} {path}" for option, path in self.chosen()),
                "a path of its own for each",
            )
        for option, path in self.chosen():
            output.check(path, option, force=self.force)


def choose_strategies(names: Sequence[str], *, every: bool = False) -> tuple[str, ...]:
    """The named ones, each once; without names the textbook's, or ``every`` one.

    Raises :class:`UsageError`.
    """
    known = [strategy.name for strategy in STRATEGIES]
    if names and every:
        raise UsageError("--all and names of strategies", "either of them says it", "one only")
    for name in names:
        if name not in known:
            raise UsageError(
                f"no strategy {name}", f"there are {', '.join(known)}", "zctrace strategies"
            )
    chosen = STRATEGIES if every else TEXTBOOK
    return tuple(dict.fromkeys(names)) or tuple(strategy.name for strategy in chosen)


def choose_file_systems(name: str | None, strategies: Sequence[str]) -> tuple[str, ...]:
    """The one that was asked for; or the default one, and one for whom that will not do."""
    if name is not None:
        if name not in machine.FILE_SYSTEMS:
            raise UsageError(
                f"--fs {name}: no such file system",
                f"there are {', '.join(machine.FILE_SYSTEMS)}",
            )
        return (name,)
    default = Options.file_systems
    needed = [
        strategy.file_systems[0]
        for strategy in map(strategy_named, strategies)
        if strategy.file_systems and not set(strategy.file_systems) & set(default)
    ]
    others = [s for s in strategies if not strategy_named(s).file_systems]
    return tuple(dict.fromkeys((*(default if others else ()), *needed)))


def check_mechanism(name: str) -> str:
    """Raise :class:`UsageError` for one that there is not."""
    names = [choice.value for choice in Choice]
    if name not in names:
        raise UsageError(
            f"--mechanism {name}: no such mechanism", f"there are {', '.join(names)}"
        )
    return name


def check_options(options: Options) -> None:
    """Raise :class:`UsageError` for arguments that make no sense together."""
    if options.chunk is not None and options.chunk > min(options.sizes):
        raise UsageError(
            f"--chunk {options.chunk} is larger than --size {min(options.sizes)}",
            "a chunk is the part of the payload that one call is asked to move",
            "a smaller --chunk, or none",
        )
    if options.repeat < 1:
        raise UsageError(f"--repeat {options.repeat}: at least 1")
    if options.boot_seconds <= 0:
        raise UsageError(f"--boot-timeout {options.boot_seconds:g}: more than 0 seconds")


def require_root(why: str) -> None:
    if os.geteuid() != 0:
        raise RightsError(
            "zctrace needs root for this",
            why,
            "sudo zctrace …; the strategies themselves run as you, not as root",
        )


def run(
    options: Options, names: Sequence[str], outputs: Outputs, *, verbose: bool, quiet: bool
) -> None:
    """Everything; raises ``ZctraceError``."""
    check_options(options)
    outputs.check()
    require_root("only root may attach probes to a kernel")
    machine.require_architecture()
    machine.require_modules()
    began = time.monotonic()
    evidences: list[Evidence] = []
    failure: ZctraceError | None = None
    with shown(quiet=quiet) as say:
        places = [find(name, say) for name in names]
        machine.check_resources(options.size, options.file_systems, places)
        try:
            for place in places:
                evidences.append(machine.collect(place, options, say))
        except ZctraceError as error:
            if not evidences:
                raise
            failure = error  # what the kernels before it have shown is not thrown away
        say("adding up")
        collected = time.monotonic()
        # Late: pandas takes longer to import than everything before the first boot.
        from tracer import summary

        judged = summary.judge(evidences)
    _write(judged, outputs)
    if not outputs.on_stdout:
        from tracer.reports import terminal

        terminal.render(judged, Console(), os.uname().release)
    if verbose:
        _breakdown(evidences, began, collected)
    if failure:
        raise failure
    require_controls(judged)


def require_controls(judged: Sequence[Judged]) -> None:
    """Raise :class:`ControlError` where one failed."""
    if any(j.failed for j in judged):
        raise ControlError(
            "controls failed: the numbers are not to be trusted",
            "a probe that should have counted known bytes did not count exactly those",
            "zctrace doctor; then report it with the --json file",
        )


def find(name: str, say: machine.Say) -> Place:
    """The place for ``--kernel name``, with a notice where it is not the first choice."""
    place = machine.find_place(name, say)
    if place.kernel and place.instead:
        notice(
            f"this machine's kernel {os.uname().release} cannot be measured: {place.instead}"
        )
        notice(f"using the stock kernel {place.kernel.release} in a virtual machine instead")
    return place


def dry_run(options: Options, names: Sequence[str], outputs: Outputs) -> None:
    """Print what would be done, and do nothing."""
    check_options(options)
    outputs.check()
    folder = Path("RUN_FOLDER")
    for name in names:
        if name == machine.HOST or (name == machine.AUTO and _host_is_fine()):
            print(f"{name}: this machine's own kernel, {os.uname().release}")
            print("    zctrace plan --kernel host shows the probes")
            continue
        kernel = _without_fetching(name)
        if kernel is None:
            print(f"{name}: a kernel that is not at hand: it would be fetched first")
            continue
        guest = vm.Guest(
            kernel,
            bool(vm.kvm_known(kernel)),
            vm.memory_for(options.size * len(options.file_systems)),
            folder,
            tuple(folder / f"payload.{kind}" for kind in options.file_systems),
        )
        print(f"{name}: Linux {kernel.release} in a virtual machine")
        print(f"    {shlex.join(vm.command(guest, folder / 'guest.sh'))}")
        print(f"    zctrace plan --kernel {kernel.release} shows the probes")
    print(f"strategies: {', '.join(options.strategies)}")
    for kind in options.file_systems:
        image = machine.image_size(options.size, kind)
        print(f"payload: {options.size} B on an image of {image} B of {kind}")


def _host_is_fine() -> bool:
    require_root("only root can ask the kernel whether it can be probed")
    return not machine.why_not_host()


def _without_fetching(name: str) -> kernels.Kernel | None:
    if name == machine.AUTO:
        return next((k for k in reversed(kernels.cached()) if k.stock), None)
    kernels.check_name(name)
    return kernels.at_hand(name)


def _write(judged: Sequence[Judged], outputs: Outputs) -> None:
    from tracer.reports import files

    forms = {
        "--csv": files.summary_csv,
        "--evidence": files.evidence_csv,
        "--json": files.result_json,
    }
    for option, path in outputs.chosen():
        output.write(path, forms[option](judged))


def _breakdown(evidences: Sequence[Evidence], began: float, collected: float) -> None:
    done = time.monotonic()
    for evidence in evidences:
        phases = ", ".join(f"{name} {spent:.1f}" for name, spent in evidence.timings.items())
        notice(f"{evidence.kernel['release']}, seconds: {phases}")
    notice(f"seconds: total {done - began:.1f}, of which summarise {done - collected:.1f}")
