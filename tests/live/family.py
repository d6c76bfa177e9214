"""A family of unprivileged processes and threads, each copying a known amount.

Run as nobody: ``family NONCE FILE BUSYBOX CODE``. Waits for a line, opens a window over the
whole process, and inside it starts threads, a child, and a child that becomes another
program.
"""

import os
import sys
import threading

NONCE, FILE, BUSYBOX, CODE = int(sys.argv[1]), sys.argv[2], sys.argv[3], sys.argv[4]
sys.path.insert(0, CODE)

from workloads import libc  # noqa: E402
from workloads.marker import Role, Scope, window  # noqa: E402

THREADS, THREAD_BYTES, CHILD_BYTES = 4, 1009, 4999
BLOCK, BLOCKS = 7919, 3


def through_a_pipe(size):
    buffer = libc.Buffer(size)
    out, into = os.pipe()
    libc.write(into, buffer.address, size)
    libc.read(out, buffer.address, size)


sys.stdin.readline()
with window(NONCE, Role.SENDER, Scope.PROCESS):
    threads = [
        threading.Thread(target=through_a_pipe, args=(THREAD_BYTES,)) for _ in range(THREADS)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if not (child := os.fork()):
        through_a_pipe(CHILD_BYTES)
        if not (grandchild := os.fork()):
            os.execv(
                BUSYBOX,
                [BUSYBOX, "dd", f"if={FILE}", "of=/dev/null", f"bs={BLOCK}", f"count={BLOCKS}"],
            )
        os._exit(os.waitpid(grandchild, 0)[1])
    status = os.waitpid(child, 0)[1]
print(status, flush=True)
