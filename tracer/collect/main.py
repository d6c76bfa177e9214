"""The collecting half's entry point: ``collector REQUEST EVIDENCE PROGRESS [STREAMS]``.

Reads a request, writes evidence, an error or, where windows were served, a command's
status, all JSON. Appends a line of JSON to PROGRESS at every step, for every line of progress,
and for signs of life (``life.py``). Runs in an isolated interpreter as root,
on a host or in a guest.
STREAMS are the numbers of the descriptors that a traced command has as its standard input,
output and error. Without them, as in a guest, its output goes to files in the request's
folder, and its input comes from there (``standard_input.py``).
"""

from __future__ import annotations

import dataclasses
import json
import shutil
import signal
import sys
import threading
import time
import traceback
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Any

from zctrace import errors
from zctrace.collect import life, modules, open_files, standard_input
from zctrace.collect.describe import (
    ENVIRONMENT,
    OUTPUTS,
    STOP,
    TAKEN_OUT,
    request_from,
    write_json,
)
from zctrace.collect.program import Show, trace
from zctrace.collect.strategies import collect
from zctrace.collect.windows import serve
from zctrace.evidence.account import Look
from zctrace.evidence.schema import Request, Subject
from zctrace.notices import Say


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
            source = stack.enter_context(standard_input.opened(folder))
            say = _both(say, source.step)
            files = [stack.enter_context((folder / name).open("w")) for name in OUTPUTS]
            descriptors = [source.descriptor, *(file.fileno() for file in files)]
        subject = request.subject
        if subject and request.machine != "host":
            stack.callback(_take_out, subject, folder)
        if subject and subject.marked:
            status = serve(request, descriptors, environment, stop.exists, say, folder)
            return {"status": status}
        return trace(request, descriptors, environment, stop.exists, say, show).to_json()


def _take_out(subject: Subject, folder: Path) -> None:
    """Copy what is to be taken out of a virtual machine to where the host finds it."""
    for number, file in enumerate(subject.copy_out):
        with suppress(OSError):  # the command has not written it
            shutil.copyfile(Path(subject.folder, file), folder / TAKEN_OUT.format(number))


def _both(*listeners: Say) -> Say:
    def say(step: str) -> None:
        for listener in listeners:
            listener(step)

    return say


def main(arguments: list[str]) -> int:
    """Returns the exit code of ``zctrace.errors``."""
    request, evidence, progress = map(Path, arguments[:3])
    errors.raise_terminated()
    began = time.monotonic()
    one_at_a_time = threading.Lock()

    def tell(**line: Any) -> None:
        with one_at_a_time, progress.open("a") as file:
            file.write(json.dumps({**line, "at": time.monotonic() - began}) + "\n")

    def say(step: str) -> None:
        tell(step=step)

    def show(seconds: float, look: Look) -> None:
        tell(seconds=seconds, look=dataclasses.asdict(look))

    say("collector started")
    open_files.raise_limit()
    try:
        wanted = request_from(request)
        with life.watched(lambda: tell(alive=True)) as noted:
            step = _both(say, noted)
            if wanted.modules and wanted.machine != "host":
                step("loading modules")
                modules.load(wanted.modules)
            if wanted.subject:
                found = _program(wanted, request.parent, arguments[3:], step, show)
            else:
                found = collect(wanted, step).to_json()
        write_json(evidence, found)
    except errors.ZctraceError as error:
        write_json(evidence, error.to_json())
        return error.exit_code
    except KeyboardInterrupt:
        return errors.INTERRUPTED
    except errors.Terminated as terminated:
        return terminated.status
    except Exception as error:
        traceback.print_exc()
        unforeseen = errors.exhausted(error) or errors.ZctraceError(
            f"{type(error).__name__}: {error}",
            "a fault in zctrace, or a kernel that behaves in a way not seen before",
            "run again with --keep and read the log",
        )
        write_json(evidence, unforeseen.to_json())
        return unforeseen.exit_code
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
