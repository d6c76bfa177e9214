"""``zctrace run``: perform strategies, measure them, put the result beside the claims."""

from __future__ import annotations

import dataclasses
import fnmatch
import os
import shlex
import shutil
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from rich.console import Console

from tracer import kernels, machine, output, vm, wiring
from tracer.commands.progress import notice, shown
from tracer.errors import ControlError, OutputError, RightsError, UsageError, ZctraceError
from tracer.evidence import COLD, WARM, Evidence, Setting
from tracer.machine import Options, Place
from tracer.plan import Choice
from tracer.wiring import LOOPBACK, NICS
from workloads.catalogue import STRATEGIES, TEXTBOOK, strategy_named
from workloads.strategy import Ends

if TYPE_CHECKING:
    from tracer.summary import Judged
    from tracer.traced import Answer

_Found = TypeVar("_Found")
_DEFAULT_BYTES = 1 << 20
_MOST_USER_COPIES = 64 << 10
_CARDS = {"e1000": "veth", "e1000-nosg": "veth-nosg"}
"""What stands for the textbook's network card; and on this machine's own kernel, where
zctrace has none."""


@dataclass(frozen=True)
class Outputs:
    """Where results go, ``None`` for nowhere."""

    csv: Path | None = None
    evidence: Path | None = None
    json: Path | None = None
    force: bool = False
    html: Path | None = None
    markdown: Path | None = None
    folded: Path | None = None
    speedscope: Path | None = None

    def chosen(self) -> list[tuple[str, Path]]:
        every = (
            ("--csv", self.csv),
            ("--evidence", self.evidence),
            ("--json", self.json),
            ("--html", self.html),
            ("--markdown", self.markdown),
            ("--folded", self.folded),
            ("--speedscope", self.speedscope),
        )
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

    def write(self, forms: Mapping[str, Callable[[_Found], str]], found: _Found) -> None:
        """Every form that was asked for, by its option; raises :class:`OutputError`."""
        for option, path in self.chosen():
            output.write(path, forms[option](found))


def choose_strategies(
    names: Sequence[str], *, every: bool = False, skip: Sequence[str] = ()
) -> tuple[str, ...]:
    """The named ones, each once; without names the textbook's, or ``every`` one.

    Without those that match one of ``skip``, names or patterns as a shell has them. Raises
    :class:`UsageError`.
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
    wanted = tuple(dict.fromkeys(names)) or tuple(strategy.name for strategy in chosen)
    for pattern in skip:
        if not fnmatch.filter(wanted, pattern):
            raise UsageError(
                f"--skip {pattern}: none of the strategies",
                f"these would be performed: {', '.join(wanted)}",
                "zctrace strategies",
            )
    left = tuple(w for w in wanted if not any(fnmatch.fnmatchcase(w, p) for p in skip))
    if not left:
        raise UsageError("--skip leaves no strategy", f"there were {', '.join(wanted)}")
    return left


def choose_user_copies(least: int) -> int:
    """From how many bytes on copies in user memory count; raises :class:`UsageError`."""
    if not 1 <= least <= _MOST_USER_COPIES:
        raise UsageError(
            f"--user-copies {least}: from 1 to {_MOST_USER_COPIES}",
            "the controls copy amounts that are a little larger",
        )
    return least


def choose_settings(
    strategies: Sequence[str],
    nics: Sequence[str],
    caches: Sequence[str],
    *,
    every: bool,
    to: str = "",
) -> tuple[Setting, ...]:
    """Every combination of what was named; loopback and a warm page cache if nothing was.

    With ``every`` and nothing named also what the textbook's table speaks of: a disk and a
    network card, with and without scatter/gather. Raises :class:`UsageError`.
    """
    for nic in nics:
        if nic not in NICS and not to:
            raise UsageError(f"--nic {nic}: no such device", f"there are {', '.join(NICS)}")
    for cache in caches:
        if cache not in (WARM, COLD):
            raise UsageError(f"--cache {cache}: no such state", f"there are {WARM}, {COLD}")
    if every and not nics and not caches:
        textbook = tuple(s.name for s in TEXTBOOK if s.name in strategies)
        cards = _CARDS if textbook else ()
        return (
            Setting(tuple(strategies)),
            *(Setting(textbook, nic, COLD) for nic in cards),
        )
    return tuple(
        Setting(tuple(strategies), nic, cache)
        for nic in dict.fromkeys(nics or [LOOPBACK])
        for cache in dict.fromkeys(caches or [WARM])
    )


def choose_file(path: Path | None, size: Sequence[int] | None) -> tuple[int, ...]:
    """The sizes to move of a file of the user's; raises :class:`UsageError`."""
    if path is None:
        return tuple(size or (_DEFAULT_BYTES,))
    try:
        there = path.stat().st_size
    except OSError as error:
        raise UsageError(f"--file {path}: {error.strerror}") from error
    if not path.is_file() or not there:
        raise UsageError(f"--file {path}: no file with anything in it")
    if size and max(size) > there:
        raise UsageError(f"--size {max(size)}: {path} has {there} bytes")
    return tuple(size or (there,))


def choose_device(to: str, nics: Sequence[str], strategies: Sequence[str]) -> tuple[str, ...]:
    """The devices: those named, or the one on the way to ``HOST:PORT``.

    Raises :class:`UsageError`.
    """
    if not to:
        return tuple(nics)
    host, colon, port = to.rpartition(":")
    if not (host and colon and port.isdigit() and 0 < int(port) < 1 << 16):
        raise UsageError(f"--to {to}: not HOST:PORT", hint="--to 192.0.2.7:9000")
    if nics:
        raise UsageError("--to and --nic", "the way there decides on the device", "one only")
    for name in strategies:
        if strategy_named(name).ends is not Ends.FILE_TO_SOCKET:
            raise UsageError(
                f"--to with {name}",
                "it sends no file",
                "a strategy that sends, such as sendfile",
            )
    return (wiring.route(host.strip("[]")),)


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
    if "tmpfs" in options.file_systems and any(s.cache == COLD for s in options.settings):
        raise UsageError(
            "--fs tmpfs --cache cold: that cannot be",
            "tmpfs lives in the page cache, and nowhere else",
            "another --fs",
        )
    if options.boot_seconds <= 0:
        raise UsageError(f"--boot-timeout {options.boot_seconds:g}: more than 0 seconds")


def require_collector() -> None:
    """Raise ``ZctraceError`` for the first thing without which nothing can be counted."""
    require_root("only root may attach probes to a kernel")
    machine.require_architecture()
    machine.require_modules()


def require_command(command: Sequence[str]) -> None:
    """Raise :class:`UsageError` where a command to start is not there."""
    if command and not shutil.which(command[0]):
        raise UsageError(f"{command[0]}: there is no such command")


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
    require_collector()
    began = time.monotonic()
    evidences: list[Evidence] = []
    failure: ZctraceError | None = None
    with shown(quiet=quiet) as say:
        places = [find(name, say) for name in names]
        _check_devices(options, places)
        machine.check_resources(
            options.size,
            () if options.file else options.file_systems,
            places,
            options.java_bytes,
        )
        try:
            for place in places:
                evidences.append(machine.collect(place, _at(place, options), say))
        except ZctraceError as error:
            if not evidences:
                raise
            failure = error  # what the kernels before it have shown is not thrown away
        say("adding up")
        collected = time.monotonic()
        # Late: pandas takes longer to import than everything before the first boot.
        from tracer import summary

        judged = summary.judge(evidences)
    write(judged, outputs)
    if not outputs.on_stdout:
        from tracer.reports import terminal

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
        dataclasses.replace(setting, nic=_CARDS.get(setting.nic, setting.nic))
        for setting in options.settings
    )
    return dataclasses.replace(options, settings=settings)


def require_controls(results: Sequence[Judged] | Sequence[Answer]) -> None:
    """Raise :class:`ControlError` where one failed."""
    if any(result.failed for result in results):
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
            machine.guest_memory(options),
            folder,
            tuple(folder / f"payload.{kind}" for kind in options.file_systems),
            nics=machine.emulated(options.nics),
        )
        print(f"{name}: Linux {kernel.release} in a virtual machine")
        print(f"    {shlex.join(vm.command(guest, folder / 'guest.sh'))}")
        print(f"    zctrace plan --kernel {kernel.release} shows the probes")
    for setting in options.settings:
        print(
            f"over {setting.nic}, page cache {setting.cache}: {', '.join(setting.strategies)}"
        )
    if options.file:
        print(f"payload: {options.size} B of {options.file}")
        return
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


def write(judged: Sequence[Judged], outputs: Outputs) -> None:
    """Every form that was asked for; raises :class:`OutputError`."""
    from tracer.reports import files, markdown

    forms = {
        "--csv": files.summary_csv,
        "--evidence": files.evidence_csv,
        "--json": files.result_json,
        "--html": _page,
        "--markdown": markdown.document,
    }
    outputs.write(forms, judged)


def _page(judged: Sequence[Judged]) -> str:
    # Late: only this form needs what draws and what fills in templates.
    from tracer.reports import html

    return html.page(judged, os.uname().release)


def _breakdown(evidences: Sequence[Evidence], began: float, collected: float) -> None:
    done = time.monotonic()
    for evidence in evidences:
        phases = ", ".join(f"{name} {spent:.1f}" for name, spent in evidence.timings.items())
        notice(f"{evidence.kernel['release']}, seconds: {phases}")
    notice(f"seconds: total {done - began:.1f}, of which summarise {done - collected:.1f}")
