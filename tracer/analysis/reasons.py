"""Why the kernel copied what it could have passed by reference: in words, from who called.

A table of what was seen on real kernels; where a caller is not in it, the caller is named
and nothing is guessed.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

from zctrace.probes.model import Quantity, plain


@dataclass(frozen=True)
class _Reason:
    """``caller`` and ``syscall`` empty: any."""

    quantity: Quantity
    caller: str
    words: str
    syscall: str = ""


_PLAIN_COPIES = {
    "another process's memory is read and written through a page of the kernel's; "
    "process_vm_readv(2) copies it once": (
        *("mem_rw", "environ_read", "get_mm_cmdline", "proc_pid_cmdline_read"),
    ),
    "AF_XDP in copy mode: the driver, or the socket's flags, allow no other": (
        *("xsk_copy_xdp", "__xsk_rcv", "xsk_rcv"),
        *("xsk_build_skb", "xsk_generic_xmit", "__xsk_generic_xmit", "__xsk_sendmsg"),
    ),
    "FUSE: what its daemon reads and writes is copied; splice(2) can pass whole pages": (
        *("fuse_copy_page", "fuse_copy_folio"),
    ),
    "a disk that is memory: reading and writing it is copying": (
        *("brd_submit_bio", "brd_rw_bvec", "brd_rw_page"),
        *("read_pmem", "pmem_do_read", "pmem_do_bvec", "pmem_submit_bio"),
        *("write_pmem", "pmem_do_write"),
        *("null_transfer", "null_handle_data_transfer", "null_process_cmd"),
    ),
    "io_uring's zero-copy receive gave up: the bytes were not in its memory": (
        *("io_zcrx_copy_chunk", "io_copy_page"),
    ),
    "SCTP puts packets together of chunks": ("sctp_packet_transmit",),
    "what btrfs has decompressed is copied into pages of the page cache": (
        "btrfs_decompress_buf2page",
    ),
}
"""Of plain copies in the kernel, by what they are for: who makes them."""
_REASONS = (
    _Reason(
        Quantity.SKB_COPY_UBUFS,
        "__netif_receive_skb_core",
        "loopback: the receiver is on this machine and may keep the pages for ever",
    ),
    # Seen on 7.3.
    _Reason(
        Quantity.SKB_COPY_UBUFS,
        "ip_local_deliver_finish",
        "loopback: the receiver is on this machine and may keep the pages for ever",
    ),
    _Reason(
        Quantity.SKB_COPY_UBUFS,
        "dev_queue_xmit_nit",
        "a packet tap on the device wants the packets for itself",
    ),
    _Reason(
        Quantity.SKB_COPY_UBUFS,
        "",
        "zero-copy packets were handed to somebody who may keep them",
    ),
    _Reason(
        Quantity.COPY_FROM_ITER_ATOMIC,
        "",
        "a file's page cache takes no pages of others: bytes are copied from page to page",
    ),
    _Reason(
        Quantity.COPY_TO_ITER,
        "filemap_read",
        "into a registered buffer, which the kernel reaches by an address of its own",
        "io_uring_enter",
    ),
    _Reason(
        Quantity.COPY_TO_ITER,
        "",
        "the file system, or the kind of file, gives no pages to a pipe: it is read into "
        "fresh ones",
    ),
    _Reason(Quantity.COPY_FROM_ITER, "", "the socket takes no references to pages"),
    _Reason(
        Quantity.SKB_COPY_AND_CSUM_BITS,
        "skb_segment",
        "no scatter/gather: packets are put together from pages before the device",
    ),
    _Reason(
        Quantity.SKB_COPY_BITS, "skb_segment", "no scatter/gather: packets are put together"
    ),
    _Reason(
        Quantity.SKB_COPY_BITS,
        "__pskb_pull_tail",
        "a packet's pages were pulled into one piece for code that reads packets in one",
    ),
    _Reason(Quantity.SKB_COPY_BITS, "skb_try_coalesce", "the receiver merged small packets"),
    _Reason(
        Quantity.BOUNCE,
        "",
        "the device cannot reach the memory where the bytes are: through bounce buffers",
    ),
    _Reason(
        Quantity.LINEAR_TO_PAGE,
        "",
        "bytes of a socket that are in no page of their own, as of small messages, are copied "
        "into one for the pipe",
    ),
    *(
        _Reason(Quantity.MEMORY_COPY, caller, words)
        for words, callers in _PLAIN_COPIES.items()
        for caller in callers
    ),
    _Reason(Quantity.COPY_PAGE, "", "copy-on-write: a page that others share was written to"),
)


class Why(NamedTuple):
    """A sentence on bytes that were copied inside the kernel, without the full stop.

    ``function`` is who called, empty where that is not known. Kernels differ in that for the
    same reason.
    """

    words: str
    function: str

    def __str__(self) -> str:
        return f"{self.words} ({self.function})" if self.function else self.words


def reason(quantity: Quantity, caller: str | None, syscall: str | None) -> Why:
    """Why bytes were copied inside the kernel."""
    function = plain((caller or "").partition("+")[0])
    for row in _REASONS:
        if (
            row.quantity == quantity
            and row.caller in ("", function)
            and row.syscall in ("", syscall)
        ):
            return Why(row.words, function)
    by = f" for {syscall}" if syscall else ""
    return Why(f"copied by {quantity}{by}", function)
