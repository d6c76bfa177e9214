"""A collector for a session that has none: ``session_collector UID CLIENT``.

As root, collects for the user UID until its standard input or the process CLIENT ends,
whichever is first. It says one line of JSON on standard output: where the socket is, or what
went wrong.
"""

from __future__ import annotations

import json
import os
import pwd
import select
import sys
from contextlib import suppress
from pathlib import Path

from zctrace import errors, trust
from zctrace.errors import KernelError


def _attend(uid: int, client: int) -> None:
    # A process that only asks for a window need not import what collecting needs.
    from zctrace.evidence.schema import Subject
    from zctrace.machine import places, program_job

    places.require_architecture()
    places.require_modules()
    if reasons := places.why_not_host():
        raise KernelError(
            f"this machine's kernel {os.uname().release} cannot be measured",
            "; ".join(reasons),
            "in a virtual machine: sudo zctrace serve --kernel 6.1 -- pytest …",
        )
    try:
        user = pwd.getpwuid(uid).pw_name
    except KeyError as error:
        raise errors.UsageError(f"user {uid} has no name") from error
    process = os.pidfd_open(client)

    def ready(path: Path) -> None:
        print(json.dumps({"socket": str(path)}), flush=True)

    def stopped() -> bool:
        # No process writes to our input: it can only end.
        return bool(select.select([0, process], [], [], 0)[0])

    wanted = program_job.Wanted(Subject(marked=True), user)
    program_job.serve(places.Place(None), wanted, lambda step: None, ready, stopped)


def main(arguments: list[str]) -> int:
    """Returns the exit code of ``zctrace.errors``."""
    errors.raise_terminated()
    trust.close_to_others()
    uid, client = map(int, arguments)
    try:
        _attend(uid, client)
    except errors.ZctraceError as error:
        with suppress(BrokenPipeError):
            print(json.dumps(error.to_json()), flush=True)
        return error.exit_code
    except errors.Terminated as terminated:
        return terminated.status
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
