"""Functions in which the CPU transforms bytes instead of copying them. To add one, add a row.

Encryption reads every byte and writes it, changed, to another place. An answer of "zero-copy"
must say that, too. All encryption by the kernel's crypto API passes one of these functions.
They are in the kernel itself, whatever modules the cipher and its user are in. What calls a
cipher by itself (WireGuard, the kernel's library of ciphers) and
ciphers in user space are not seen.

Algorithms are put together of others, which are asked through the same functions: the meter
counts the outermost call (probes/bpf/transforms.c), by its return. A request's length is that
of its ``cryptlen``: the plain text of an encryption; of a decryption by an AEAD cipher the tag,
too, 16 bytes for each record. With kTLS 1.3 a record has one byte more, its type.
"""

from __future__ import annotations

from zctrace.probes.model import (
    AT_ENTRY,
    CopySite,
    Direction,
    Hook,
    Kind,
    Length,
    Member,
    Quantity,
    Register,
)

TRANSFORMED = frozenset({Quantity.ENCRYPTION, Quantity.DECRYPTION, Quantity.CHECKSUM})
"""Quantities of bytes that the CPU transforms; no copies."""
_AEAD = Member("di", "aead_request", "cryptlen")
_SKCIPHER = Member("di", "skcipher_request", "cryptlen")
_AHASH = Member("di", "ahash_request", "nbytes")
_SHASH = Register("dx", bits=32)
_STEPS = (
    ("update", "AF_ALG, file systems, iSCSI; only read"),
    ("finup", "the last bytes; only read"),
    ("digest", "all bytes at once; only read"),
)
_SINCE = "Under this name in every kernel with BTF."


def _site(
    function: str, quantity: Quantity, length: Length, why: str, *inline_over: str
) -> CopySite:
    return CopySite(
        quantity=quantity,
        function=function,
        kind=Kind.TRANSFORM,
        direction=Direction.KERNEL_TO_KERNEL,
        mechanisms=AT_ENTRY,
        at_entry=length,
        paths=frozenset(),
        why=why,
        since=_SINCE,
        nests=True,
        inline_over=inline_over,
    )


TRANSFORM_SITES: tuple[CopySite, ...] = (
    _site("crypto_aead_encrypt", Quantity.ENCRYPTION, _AEAD, "kernel TLS, IPsec, AF_ALG"),
    _site("crypto_aead_decrypt", Quantity.DECRYPTION, _AEAD, "kernel TLS, IPsec, AF_ALG"),
    _site("crypto_skcipher_encrypt", Quantity.ENCRYPTION, _SKCIPHER, "dm-crypt, AF_ALG"),
    _site("crypto_skcipher_decrypt", Quantity.DECRYPTION, _SKCIPHER, "dm-crypt, AF_ALG"),
    # Of 6.1: all of a request's update is inline there, where a hash is done by the CPU.
    _site("shash_async_update", Quantity.CHECKSUM, _AHASH, "AF_ALG", "crypto_shash_finup"),
    # In pieces it is inline on some: of requests found on 5.10 and 6.1, of others on 7.3.
    *(
        _site(f"crypto_ahash_{step}", Quantity.CHECKSUM, _AHASH, why, "crypto_shash_finup")
        for step, why in _STEPS
    ),
    *(
        _site(f"crypto_shash_{step}", Quantity.CHECKSUM, _SHASH, why, "crypto_shash_finup")
        for step, why in _STEPS
    ),
)

TRANSFORM_HOOKS: tuple[Hook, ...] = tuple(
    Hook(
        quantity=f"{site.function} has returned",
        function=site.function,
        handler="on_transform_done",
        called=(
            "on_fexit_transform_done"
            if isinstance(site.at_entry, Member)
            else "on_fexit_checksum_done"
        ),
        at_return=True,
        why="until when calls of ciphers and hashes are parts of this one",
    )
    for site in TRANSFORM_SITES
)
