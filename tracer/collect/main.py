"""The collecting half's entry point: ``collector REQUEST EVIDENCE PROGRESS [STREAMS]``.

Reads a request, writes evidence, an error or, where windows were served, a command's
status, all JSON; appends a line of JSON to PROGRESS at every step, and for every look at
what happens meanwhile. Runs in an isolated interpreter as root, on a host or in a guest.
STREAMS are the numbers of the descriptors that a traced command has as its standard input,
output and error; without them its output goes to files beside the request, as in a guest.
"""

from __future__ import annotations

import dataclasses
import json
import os
import signal
import sys
import time
import traceback
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from zctrace import errors
from zctrace.collect import modules
from zctrace.collect.describe import ENVIRONMENT, OUTPUTS, STOP, request_from, write_json
from zctrace.collect.program import Show, trace
from zctrace.collect.strategies import collect
from zctrace.collect.windows import serve
from zctrace.evidence.account import Look
from zctrace.evidence.schema import Request
from zctrace.notices import Say
from zctrace.signals import Terminated, raise_terminated


def _program(
    request: Request, folder: Path, streams: list[str], say: Say, show: Show
) -> dict[str, Any]:
    # Ctrl-C is for the command line, and for a command that is traced.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    environment = json.loads((folder / ENVIRONMENT).read_text())
    stop = folder / STOP
    with ExitStack() as stack:
        if streams:
            descriptors = [int(number) for number in streams[0].split(",")]
        else:
            files = ((Path(os.devnull), "r"), *((folder / name, "w") for name in OUTPUTS))
            descriptors = [
                stack.enter_context(path.open(mode)).fileno() for path, mode in files
            ]
        if request.subject and request.subject.marked:
            status = serve(request, descriptors, environment, stop.exists, say, folder)
            return {"status": status}
        return trace(request, descriptors, environment, stop.exists, say, show).to_json()


def main(arguments: list[str]) -> int:
    """Returns the exit code of ``zctrace.errors``."""
    request, evidence, progress = map(Path, arguments[:3])
    raise_terminated()
    began = time.monotonic()

    def tell(**line: Any) -> None:
        with progress.open("a") as file:
            file.write(json.dumps({**line, "at": time.monotonic() - began}) + "\n")

    def say(step: str) -> None:
        tell(step=step)

    def show(seconds: float, look: Look) -> None:
        tell(seconds=seconds, look=dataclasses.asdict(look))

    say("collector started")
    try:
        wanted = request_from(request)
        if wanted.modules and wanted.machine != "host":
            say("loading modules")
            modules.load(wanted.modules)
        if wanted.subject:
            found = _program(wanted, request.parent, arguments[3:], say, show)
        else:
            found = collect(wanted, say).to_json()
        write_json(evidence, found)
    except errors.ZctraceError as error:
        write_json(evidence, error.to_json())
        return error.exit_code
    except KeyboardInterrupt:
        return errors.INTERRUPTED
    except Terminated:
        return errors.TERMINATED
    except Exception as error:
        traceback.print_exc()
        unforeseen = errors.ZctraceError(
            f"{type(error).__name__}: {error}",
            "a fault in zctrace, or a kernel that behaves in a way not seen before",
            "run again with --keep and read the log",
        )
        write_json(evidence, unforeseen.to_json())
        return unforeseen.exit_code
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
