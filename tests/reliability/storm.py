"""A program to be traced: ``storm.py THREADS ROUNDS FILE``.

Each thread forks so often a child that executes dd(1) of FILE into a pipe, and reads it all.
The threads begin together.
"""

import os
import sys
import threading
from pathlib import Path

_PIECE = 1 << 16


def dd(file):
    return ["/bin/dd", f"if={file}", f"bs={_PIECE}", "status=none"]


def main():
    threads, rounds = map(int, sys.argv[1:3])
    file = sys.argv[3]
    size = Path(file).stat().st_size
    together, whole = threading.Barrier(threads), []

    def once():
        reader, writer = os.pipe()
        child = os.fork()
        if not child:
            os.dup2(writer, 1)
            os.execv(dd(file)[0], dd(file))
        os.close(writer)
        got = 0
        while piece := os.read(reader, _PIECE):
            got += len(piece)
        os.close(reader)
        assert os.waitpid(child, 0)[1] == 0
        assert got == size, got

    def work():
        together.wait()
        for _ in range(rounds):
            once()
        whole.append(True)

    started = [threading.Thread(target=work) for _ in range(threads)]
    for thread in started:
        thread.start()
    for thread in started:
        thread.join()
    return len(whole) != threads


if __name__ == "__main__":
    sys.exit(main())
