"""Captures packets of the loopback device until its input ends: plainly, or into a ring.

``capture.py plain|ring [payload] [itself]``: with ``payload`` a filter reads the packets'
payload, too, as tcpdump's for a word in HTTP; with ``itself`` it captures some datagrams of its
own, and ends. Says ``ready`` once it captures.
"""

import ctypes
import mmap
import select
import socket
import struct
import sys

ETH_P_ALL, SOL_PACKET, PACKET_RX_RING, SO_ATTACH_FILTER = 3, 263, 5, 26
BLOCK, BLOCKS, FRAME = 1 << 20, 4, 1 << 17
DATAGRAMS, BYTES = 10, 1009
CAPTURED = 2 * DATAGRAMS * (14 + 20 + 8 + BYTES)
"""With headers, and each when it is sent and when it comes back."""


def send_some():
    with (
        socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as receiver,
        socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender,
    ):
        receiver.bind(("127.0.0.1", 0))
        for _ in range(DATAGRAMS):
            sender.sendto(bytes(BYTES), receiver.getsockname())
            assert len(receiver.recv(BYTES)) == BYTES


def main():
    with socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0) as capture:
        if "payload" in sys.argv:
            # Words behind the headers of Ethernet, IPv4 and TCP; everything is taken.
            load_word, accept = 0x20, 0x06
            instructions = [(load_word, 0, 0, 14 + 20 + 32 + 4 * n) for n in range(4)]
            instructions.append((accept, 0, 0, 0x40000))
            code = ctypes.create_string_buffer(
                b"".join(struct.pack("=HBBI", *instruction) for instruction in instructions)
            )
            program = struct.pack("@HP", len(instructions), ctypes.addressof(code))
            capture.setsockopt(socket.SOL_SOCKET, SO_ATTACH_FILTER, program)
        if "ring" in sys.argv:
            sizes = struct.pack("=4I", BLOCK, BLOCKS, FRAME, BLOCK * BLOCKS // FRAME)
            capture.setsockopt(SOL_PACKET, PACKET_RX_RING, sizes)
            ring = mmap.mmap(capture.fileno(), BLOCK * BLOCKS)
        capture.bind(("lo", ETH_P_ALL))
        print("ready", flush=True)
        if "itself" in sys.argv:
            send_some()
            return
        while True:
            readable, _, _ = select.select([capture, sys.stdin], [], [], 0.05)
            if sys.stdin in readable:
                break
            if "ring" in sys.argv:
                for frame in range(0, BLOCK * BLOCKS, FRAME):
                    ring[frame : frame + 8] = bytes(8)  # the kernel's again
            elif readable:
                capture.recv(1 << 16)


if __name__ == "__main__":
    main()
