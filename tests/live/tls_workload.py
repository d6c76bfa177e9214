"""A program that sends to itself over kernel TLS, which makes the kernel load ``tls``.

Each round is one record, put together of pieces that the kernel copies, and read in parts that
are too small for the record to be decrypted into them, so that the kernel copies them, too.
"""

import socket

ROUNDS, PIECES, PIECE, LAST, PART = 8, 16, 997, 101, 4096
COPIED_IN = ROUNDS * PIECES * PIECE
MOVED = COPIED_IN + ROUNDS * LAST
_TCP_ULP, _SOL_TLS, _TX, _RX = 31, 282, 1, 2
_AES_GCM_128 = b"\x03\x03\x33\x00" + bytes(8 + 16 + 4 + 8)
"""struct tls12_crypto_info_aes_gcm_128: version, cipher, iv, key, salt, record number."""


def main():
    with socket.create_server(("127.0.0.1", 0)) as server:
        sender = socket.create_connection(server.getsockname())
        receiver, _ = server.accept()
    for end, direction in ((sender, _TX), (receiver, _RX)):
        end.setsockopt(socket.IPPROTO_TCP, _TCP_ULP, b"tls")
        end.setsockopt(_SOL_TLS, direction, _AES_GCM_128)
    for _ in range(ROUNDS):
        for _ in range(PIECES):
            sender.send(bytes(PIECE), socket.MSG_MORE)
        sender.send(bytes(LAST))
        left = PIECES * PIECE + LAST
        while left:
            left -= len(receiver.recv(PART))


if __name__ == "__main__":
    main()
