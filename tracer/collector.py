"""The collecting half's entry point: ``collector REQUEST EVIDENCE PROGRESS``.

Reads a request, writes evidence or an error, both JSON; appends a line of JSON to
PROGRESS at every step. Runs in an isolated interpreter as root, on a host or in a guest.
"""

from __future__ import annotations

import json
import signal
import sys
import time
import traceback
from pathlib import Path

from tracer import errors
from tracer.session import collect, request_from, write_json


class _Terminated(BaseException):
    """SIGTERM, on its way through every context manager."""


def _terminate(*_: object) -> None:
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    raise _Terminated


def main(arguments: list[str]) -> int:
    """Returns the exit code of ``tracer.errors``."""
    request, evidence, progress = map(Path, arguments)
    signal.signal(signal.SIGTERM, _terminate)
    began = time.monotonic()

    def say(step: str) -> None:
        with progress.open("a") as file:
            file.write(json.dumps({"step": step, "at": time.monotonic() - began}) + "\n")

    say("collector started")
    try:
        write_json(evidence, collect(request_from(request), say).to_json())
    except errors.ZctraceError as error:
        write_json(evidence, error.to_json())
        return error.exit_code
    except KeyboardInterrupt:
        return errors.INTERRUPTED
    except _Terminated:
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
