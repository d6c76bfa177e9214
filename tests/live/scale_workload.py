"""A program to be traced: ``scale_workload.py THREADS PAIRS``.

So many threads, all alive at once, each with so many pairs of sockets, all open at once.
Each thread sends :func:`size` bytes through each of its pairs.
"""

import socket
import sys
import threading


def size(thread):
    return 101 + thread


def total(threads, pairs):
    """Bytes that are sent, and as many received."""
    return pairs * sum(map(size, range(threads)))


def main():
    threads, pairs = map(int, sys.argv[1:3])
    together = threading.Barrier(threads)

    def work(thread):
        try:
            own = [socket.socketpair() for _ in range(pairs)]
        except OSError:
            # The others would wait for this one.
            together.abort()
            raise
        together.wait()
        for near, far in own:
            near.sendall(bytes(size(thread)))
            assert len(far.recv(65536)) == size(thread)
        together.wait()

    threading.stack_size(256 << 10)
    started = [threading.Thread(target=work, args=(thread,)) for thread in range(threads)]
    for thread in started:
        thread.start()
    for thread in started:
        thread.join()


if __name__ == "__main__":
    main()
