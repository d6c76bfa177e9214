"""Send with MSG_ZEROCOPY over loopback, where the kernel copies after all.

Run as nobody: ``zerocopy NONCE FILE BUSYBOX CODE``. The copies are made when the packets are
looped back, on top of whatever thread the softirq finds: the sender's or the receiver's.
"""

import socket
import sys

NONCE, CODE = int(sys.argv[1]), sys.argv[4]
sys.path.insert(0, CODE)

from workloads import libc  # noqa: E402
from workloads.marker import Role, Scope, settled, window  # noqa: E402
from workloads.peers import Sink  # noqa: E402

SIZE, SO_ZEROCOPY = 4_000_037, 60

sys.stdin.readline()
sink = Sink(NONCE)
buffer = libc.Buffer(SIZE)
with sink.connect(watched=True) as sock:
    sock.setsockopt(socket.SOL_SOCKET, SO_ZEROCOPY, 1)
    sent = 0
    with window(NONCE, Role.SENDER, Scope.THREAD):
        while sent < SIZE:
            sent += libc.send(
                sock.fileno(), buffer.address + sent, SIZE - sent, libc.MSG_ZEROCOPY
            )
received = sink.received().size
settled(NONCE, Role.SENDER)
sink.close()
print(received, flush=True)
