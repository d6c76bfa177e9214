"""Run the controls, then become the program that is to be traced.

``python -m zctrace.workloads.launch OPTIONS [COMMAND…]``, where the options are JSON, as
:class:`Options` has them: waits for a line on the channel, a socket, before each of two steps:
the controls, after which it answers with what they moved, in JSON; and the exec, after which
the channel is closed, or has the reason why not. Without a command there is only the first
step; with ``control`` ``none`` only the second, and the program is not traced.

It imports little: there are two launchers for each program, and where the processor is
emulated each import takes long.
"""

from __future__ import annotations

import json
import os
import signal
import socket
import sys
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass

from zctrace.workloads import libc
from zctrace.workloads.known import Controls, Known
from zctrace.workloads.marker import Role, Scope, given_nonce, open_at_exec, window
from zctrace.workloads.peers import Neighbour, exercise


@dataclass(frozen=True)
class Options:
    """What a launcher is asked for: which descriptor the ``channel`` is, in which ``folder``
    the self-tests put their files, and which of them, ``before``, ``after`` or ``none``;
    whether also within ``user_memory``; and whether the program is traced ``alone``.
    """

    channel: int
    folder: str
    control: str = "before"
    user_memory: bool = False
    alone: bool = False


_ROLES = {"before": Role.CONTROL_BEFORE, "after": Role.CONTROL_AFTER, "none": None}
_IGNORED = (signal.SIGPIPE, signal.SIGXFSZ, signal.SIGINT)
"""Signals that Python or this module ignores. The program would ignore them, too."""


def _controls(nonce: int, role: Role, folder: str, *, user_memory: bool) -> Controls:
    """What they moved: this process, and another one while this one was idle."""
    neighbour = Neighbour(nonce)
    libc.own_all_memory()
    expected = exercise(nonce, role, folder, disk=False, user_memory=user_memory)
    disturbed = Known()
    if role is Role.CONTROL_BEFORE:

        def idle(let_go: Callable[[], None]) -> None:
            with window(nonce, Role.CONTROL_IDLE, Scope.THREAD):
                let_go()

        disturbed = neighbour.disturb(folder, idle)
    neighbour.close()
    return Controls(expected, disturbed)


def main(arguments: list[str] | None = None) -> int:
    """Returns 0 if there was nothing to become, 1 after an error."""
    about, *command = sys.argv[1:] if arguments is None else arguments
    options = Options(**json.loads(about))
    nonce = given_nonce()
    channel = socket.socket(fileno=options.channel)
    channel.set_inheritable(False)
    # Ctrl-C is for the tracer, until there is a program that may want it.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        role = _ROLES[options.control]
        if role:
            if not channel.recv(1):
                return 1
            answer = _controls(nonce, role, options.folder, user_memory=options.user_memory)
            channel.sendall(json.dumps(answer.to_json()).encode() + b"\n")
        if not command or not channel.recv(1):
            return 0
        for number in _IGNORED:
            signal.signal(number, signal.SIG_DFL)
        if role:
            scope = Scope.ALONE if options.alone else Scope.PROCESS
            open_at_exec(nonce, Role.PROGRAM, scope)
        os.execvp(command[0], command)
    except (OSError, ValueError) as error:
        with suppress(ConnectionError):  # the tracer may have died
            channel.sendall(json.dumps({"error": str(error)}).encode() + b"\n")
        return 1


if __name__ == "__main__":
    sys.exit(main())
