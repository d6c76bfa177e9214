"""``python -m zctrace.workloads STRATEGY… --file F``: strategies alone, without a tracer.

With ``--handshake`` the program waits for a line on standard input before it starts its
peers and before each run, and answers with JSON lines on standard output; after each run
it waits for another line, ``again`` to repeat it. That is how the tracer drives it.
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import socket
import sys
from pathlib import Path

from zctrace.errors import UsageError
from zctrace.sizes import parse_size
from zctrace.workloads import catalogue
from zctrace.workloads.catalogue import strategy_named
from zctrace.workloads.marker import Scope, given_nonce
from zctrace.workloads.runner import PayloadError, Runner

_AGAIN = "again\n"


def _size(text: str) -> int:
    try:
        return parse_size(text, "--size")
    except UsageError as error:
        raise argparse.ArgumentTypeError(f"{text}: {error.why}") from error


def _file(text: str) -> tuple[str, Path]:
    """By file system: ``ext4=/payload``; a path alone is for every strategy."""
    name, equals, path = text.partition("=")
    return (name, Path(path)) if equals and "/" not in name else ("", Path(text))


def _address(text: str) -> tuple[str, int]:
    host, _, port = text.rpartition(":")
    return host.strip("[]"), int(port)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        "python -m zctrace.workloads", description=__doc__.split("\n")[0]
    )
    names = [strategy.name for strategy in catalogue.STRATEGIES]
    parser.add_argument("strategy", nargs="+", choices=names)
    parser.add_argument(
        "--file",
        type=_file,
        action="append",
        required=True,
        metavar="[FS=]PATH",
        help="the file to move; several by file system: --file ext4=/a --file xfs=/b",
    )
    parser.add_argument(
        "--size",
        type=_size,
        action="append",
        help="bytes to move, repeatable; default: the whole (shortest) file",
    )
    parser.add_argument("--chunk", type=_size, help="the most that one call is asked to move")
    parser.add_argument("--pipe-size", type=_size, help="capacity of a pipe in between")
    parser.add_argument("--repeat", type=int, default=1, help="how often to move it")
    parser.add_argument(
        "--process", action="store_true", help="window over threads and children, always"
    )
    parser.add_argument("--controls", action="store_true", help="copy known amounts around it")
    parser.add_argument(
        "--cold", action="store_true", help="drop the file from the page cache before"
    )
    parser.add_argument(
        "--to", type=_address, metavar="HOST:PORT", help="send to there, not to a sink"
    )
    for peer in ("sink", "source"):
        parser.add_argument(
            f"--{peer}", type=int, metavar="FD", help=f"the {peer}'s listening socket"
        )
    parser.add_argument("--handshake", action="store_true", help="wait for lines on stdin")
    return parser


def _say(**message: object) -> None:
    print(json.dumps(message), flush=True)


def main(arguments: list[str] | None = None) -> int:
    """Returns 0 when every byte arrived, 1 after an error (reported on stderr).

    A strategy that cannot run here is reported on stdout, with the reason.
    """
    options = _parser().parse_args(arguments)
    doing = "preparing"
    try:
        files = dict(options.file)
        sizes = options.size or [min(os.stat(file).st_size for file in files.values())]
        if min(sizes) < 1 or options.repeat < 1:
            raise PayloadError("nothing to move: an empty file, or --repeat below 1")
        if options.handshake and not sys.stdin.readline():
            return 1
        runner = Runner(
            files,
            sizes=sizes,
            chunk=options.chunk,
            pipe_size=options.pipe_size,
            nonce=given_nonce(),
            scope=Scope.PROCESS if options.process else None,
            controls=options.controls,
            cold=options.cold,
            remote=options.to,
            sink=None if options.sink is None else socket.socket(fileno=options.sink),
            source=None if options.source is None else socket.socket(fileno=options.source),
            strategies=[strategy_named(name) for name in options.strategy],
        )
        if options.handshake:
            _say(pids=runner.pids)
        for size, doing in itertools.product(sizes, options.strategy):
            strategy = strategy_named(doing)
            file_system = runner.file_system_for(strategy)
            for _ in range(options.repeat):
                again = True
                while again:
                    if options.handshake and not sys.stdin.readline():
                        return 1
                    outcome = runner.run(strategy, file_system, size).to_json()
                    _say(strategy=doing, size=size, file_system=file_system, **outcome)
                    again = options.handshake and sys.stdin.readline() == _AGAIN
        runner.close()
    except (OSError, EOFError, PayloadError) as error:
        print(f"{doing}: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
