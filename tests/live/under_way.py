"""A suite of tracing_guest: copies that are under way when tracing begins, and when it ends.

By both mechanisms: where the one begins to count a copy, the other may have it behind it. The
collector waits between saying that windows are not open and telling threads so: a counter that
does not go by what the thread knows is found then.
"""

import time
from contextlib import ExitStack
from unittest import mock

import suites
from several_processors import started

from zctrace.collect import threads
from zctrace.plan.attachments import Choice

CHOICE = Choice.BOTH
BUSY = f"""
import os, threading
file = os.open({{path!r}}, os.O_RDONLY)
def read():
    into = [bytearray({suites.PIECE})]
    while True:
        os.preadv(file, into, 0)
for _ in range({suites.READERS}):
    threading.Thread(target=read, daemon=True).start()
print(flush=True)
input()
"""
"""Almost always in the middle of a copy."""
_UNTOLD_SECONDS = 0.3


def _slowly(windows, not_open=threads.not_open):
    keys = not_open(windows)
    time.sleep(_UNTOLD_SECONDS)
    return keys


def everything(programs):
    payload = programs.folders["ext4"] / "payload"
    with ExitStack() as stack:
        pids = tuple(stack.enter_context(started(BUSY, payload)).pid for _ in range(2))
        for number in range(suites.ATTACHED):
            with mock.patch.object(threads, "not_open", _slowly):
                programs.attached(f"busy {number}", lambda: None, pids=pids, seconds=1)
