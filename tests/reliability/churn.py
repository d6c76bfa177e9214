"""A program to be traced: ``churn.py SECONDS FILE ACCOUNT``.

For so long there are new threads, each with a pair of sockets and with FILE open, and every so
often a new process that reads it. ACCOUNT gets what was moved, as JSON.
"""

import json
import os
import socket
import sys
import threading
import time

SENT, FORK_EVERY = 1009, 20


def read(path):
    with open(path, "rb", buffering=0) as file:
        while file.read(1 << 16):
            pass


def turn(path):
    near, far = socket.socketpair()
    with near, far:
        near.sendall(bytes(SENT))
        got = 0
        while got < SENT:
            got += len(far.recv(1 << 16))
    read(path)


def main():
    seconds, path, account = float(sys.argv[1]), sys.argv[2], sys.argv[3]
    until, turns, children = time.monotonic() + seconds, 0, 0
    while time.monotonic() < until:
        thread = threading.Thread(target=turn, args=(path,))
        thread.start()
        thread.join()
        turns += 1
        if turns % FORK_EVERY == 0:
            child = os.fork()
            if not child:
                read(path)
                os._exit(0)
            assert os.waitpid(child, 0)[1] == 0
            children += 1
    with open(account, "w") as file:
        json.dump({"turns": turns, "children": children}, file)


if __name__ == "__main__":
    main()
