"""What the options of ``zctrace run`` mean together, checked before anything is measured."""

from __future__ import annotations

import difflib
import fnmatch
import re
from collections.abc import Sequence
from pathlib import Path

from zctrace.collect import network
from zctrace.errors import UsageError
from zctrace.evidence.devices import LOOPBACK, NICS
from zctrace.evidence.schema import COLD, WARM, Setting
from zctrace.machine import images
from zctrace.machine.job import Options
from zctrace.sizes import parse_size
from zctrace.workloads import catalogue
from zctrace.workloads.catalogue import TEXTBOOK, strategy_named
from zctrace.workloads.strategy import Ends

_DEFAULT_BYTES = 1 << 20
_MOST_USER_COPIES, _LEAST_OWN_COPIES = 64 << 10, 1 << 10
_PORT = re.compile("[0-9]{1,9}")
CARDS = {"e1000": "veth", "e1000-nosg": "veth-nosg"}
"""What stands for the textbook's network card; and on this machine's own kernel, where
zctrace has none."""


def choose_strategies(
    names: Sequence[str], *, every: bool = False, skip: Sequence[str] = ()
) -> tuple[str, ...]:
    """The named ones, each once; without names the textbook's, or ``every`` one.

    Without those that match one of ``skip``, names or patterns as a shell has them. Raises
    :class:`UsageError`.
    """
    known = [strategy.name for strategy in catalogue.STRATEGIES]
    if names and every:
        raise UsageError(
            "--all cannot be combined with strategy names",
            "--all names every strategy",
            "leave one of them out",
        )
    for name in names:
        if name not in known:
            close = difflib.get_close_matches(name.lower().replace("_", "-"), known, 1)
            hint = f"{close[0]}; zctrace strategies" if close else "zctrace strategies"
            raise UsageError(
                f"no strategy {name}", f"known strategies: {', '.join(known)}", hint
            )
    chosen = catalogue.STRATEGIES if every else TEXTBOOK
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
            "the self-tests copy slightly larger amounts",
        )
    return least


def choose_own_copies(text: str | None) -> int | None:
    """The same of a traced program; ``None`` if not asked for. Raises :class:`UsageError`."""
    if text is None:
        return None
    least = parse_size(text, "--user-copies")
    if not _LEAST_OWN_COPIES <= least <= _MOST_USER_COPIES:
        raise UsageError(
            f"--user-copies {text}: from {_LEAST_OWN_COPIES} to {_MOST_USER_COPIES}",
            "zctrace's own self-tests make smaller copies, too",
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
    if every and not nics and not caches:
        textbook = tuple(s.name for s in TEXTBOOK if s.name in strategies)
        cards = CARDS if textbook else ()
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
    if not (host and colon and _PORT.fullmatch(port) and 0 < int(port) < 1 << 16):
        raise UsageError(f"--to {to}: not HOST:PORT", hint="--to 192.0.2.7:9000")
    if nics:
        raise UsageError(
            "--to cannot be combined with --nic",
            "the route to HOST selects the device",
            "leave one of them out",
        )
    for name in strategies:
        if strategy_named(name).ends is not Ends.FILE_TO_SOCKET:
            raise UsageError(
                f"--to with {name}",
                "this strategy sends no file",
                "a strategy that sends, such as sendfile",
            )
    return (network.route(host.strip("[]")),)


def choose_file_systems(name: str | None, strategies: Sequence[str]) -> tuple[str, ...]:
    """The one that was asked for; or the default one, and one for whom that will not do."""
    if name is not None:
        if name not in images.FILE_SYSTEMS:
            raise UsageError(
                f"--fs {name}: no such file system",
                f"there are {', '.join(images.FILE_SYSTEMS)}",
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


def check_options(options: Options) -> None:
    """Raise :class:`UsageError` for arguments that make no sense together."""
    if options.chunk is not None and options.chunk > min(options.sizes):
        raise UsageError(
            f"--chunk {options.chunk} is larger than --size {min(options.sizes)}",
            "a chunk is the part of the payload that one system call moves",
            "a smaller --chunk, or no --chunk",
        )
    if "tmpfs" in options.file_systems and any(s.cache == COLD for s in options.settings):
        raise UsageError(
            "--fs tmpfs cannot be combined with --cache cold",
            "files on tmpfs are in the page cache only",
            "--fs ext4, xfs or btrfs",
        )
