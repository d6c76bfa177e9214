"""A suite of tracing_guest: copies that are under way when tracing begins, and when it ends.

By both mechanisms: where the one begins to count a copy, the other may have it behind it.
"""

from contextlib import ExitStack

import suites
from several_processors import started

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


def everything(programs):
    payload = programs.folders["ext4"] / "payload"
    with ExitStack() as stack:
        pids = tuple(stack.enter_context(started(BUSY, payload)).pid for _ in range(2))
        for number in range(suites.ATTACHED):
            programs.attached(f"busy {number}", lambda: None, pids=pids, seconds=1)
