"""Send with MSG_ZEROCOPY over loopback, where the kernel copies after all.

Run as nobody: ``zerocopy NONCE FILE BUSYBOX CODE``. The copies are made when the packets are
looped back, on top of whatever thread the softirq finds: the sender's or the receiver's.
Answers with the bytes received and the segments that TCP has sent a second time.
"""

import socket
import struct
import sys

NONCE, CODE = int(sys.argv[1]), sys.argv[4]
sys.path.insert(0, CODE)

from workloads import libc  # noqa: E402
from workloads.marker import Role, Scope, settled, window  # noqa: E402
from workloads.peers import Sink  # noqa: E402

ROUNDS, SIZE, SO_ZEROCOPY = 4, 4_000_037, 60
TOTAL_RETRANS = 100  # offset of tcpi_total_retrans in struct tcp_info (linux/tcp.h)

sys.stdin.readline()
sink = Sink(NONCE)
buffer = libc.Buffer(SIZE)
received = again = 0
for _ in range(ROUNDS):
    with sink.connect(watched=True) as sock:
        sock.setsockopt(socket.SOL_SOCKET, SO_ZEROCOPY, 1)
        sent = 0
        with window(NONCE, Role.SENDER, Scope.THREAD):
            while sent < SIZE:
                sent += libc.send(
                    sock.fileno(), buffer.address + sent, SIZE - sent, libc.MSG_ZEROCOPY
                )
        sock.shutdown(socket.SHUT_WR)
        received += sink.received().size
        info = sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, TOTAL_RETRANS + 4)
        again += struct.unpack_from("=I", info, TOTAL_RETRANS)[0]
    settled(NONCE, Role.SENDER)
sink.close()
print(received, again, flush=True)
