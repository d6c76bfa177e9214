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
    "another process's memory is copied through a kernel page; process_vm_readv(2) copies "
    "it only once": (*("mem_rw", "environ_read", "get_mm_cmdline", "proc_pid_cmdline_read"),),
    "AF_XDP in copy mode: the driver or the socket's flags allow no zero-copy mode": (
        *("xsk_copy_xdp", "__xsk_rcv", "xsk_rcv"),
        *("xsk_build_skb", "xsk_generic_xmit", "__xsk_generic_xmit", "__xsk_sendmsg"),
    ),
    "FUSE: the daemon's reads and writes are copied; splice(2) can pass whole pages": (
        *("fuse_copy_page", "fuse_copy_folio"),
    ),
    "a disk in memory: the CPU copies to read or write it": (
        *("brd_submit_bio", "brd_rw_bvec", "brd_rw_page"),
        *("read_pmem", "pmem_do_read", "pmem_do_bvec", "pmem_submit_bio"),
        *("write_pmem", "pmem_do_write"),
        *("null_transfer", "null_handle_data_transfer", "null_process_cmd"),
    ),
    "io_uring's zero-copy receive fell back to copying: the bytes were not in its memory": (
        *("io_zcrx_copy_chunk", "io_copy_page"),
    ),
    "SCTP assembles packets from chunks": ("sctp_packet_transmit",),
    "btrfs copies decompressed bytes into the page cache": ("btrfs_decompress_buf2page",),
}
"""Of plain copies in the kernel, by what they are for: who makes them."""
_REASONS = (
    _Reason(
        Quantity.SKB_COPY_UBUFS,
        "__netif_receive_skb_core",
        "the receiver is on the same host, and loopback copies zero-copy sends",
    ),
    # Seen on 7.3.
    _Reason(
        Quantity.SKB_COPY_UBUFS,
        "ip_local_deliver_finish",
        "the receiver is on the same host, and loopback copies zero-copy sends",
    ),
    _Reason(
        Quantity.SKB_COPY_UBUFS,
        "dev_queue_xmit_nit",
        "a packet capture on the device keeps the packets",
    ),
    _Reason(
        Quantity.SKB_COPY_UBUFS,
        "",
        "zero-copy packets were handed to a receiver that may keep the pages",
    ),
    *(
        _Reason(
            Quantity.COPY_FROM_ITER_ATOMIC,
            "",
            "overlayfs copies a file of the lower layer up when it is opened for writing or "
            "truncated",
            call,
        )
        for call in ("open", "openat", "openat2", "truncate", "ftruncate", "creat")
    ),
    _Reason(
        Quantity.COPY_FROM_ITER_ATOMIC,
        "",
        "written into the page cache: pages cannot be moved in, so they are copied",
    ),
    _Reason(
        Quantity.COPY_TO_ITER,
        "filemap_read",
        "read into a registered buffer, which the kernel reaches by a kernel address",
        "io_uring_enter",
    ),
    _Reason(
        Quantity.COPY_TO_ITER,
        "",
        "this file system or file type does not pass on its pages: it is read into new ones",
    ),
    _Reason(Quantity.COPY_FROM_ITER, "", "this socket type takes no page references"),
    _Reason(
        Quantity.SKB_COPY_AND_CSUM_BITS,
        "skb_segment",
        "no scatter/gather: packets are assembled from pages before the device",
    ),
    _Reason(
        Quantity.SKB_COPY_BITS,
        "skb_segment",
        "no scatter/gather: packets are assembled in one buffer",
    ),
    _Reason(
        Quantity.SKB_COPY_BITS,
        "__pskb_pull_tail",
        "packet data was pulled from pages into the linear part for code that needs it there",
    ),
    _Reason(Quantity.SKB_COPY_BITS, "skb_try_coalesce", "the receiver merged small packets"),
    _Reason(
        Quantity.BOUNCE,
        "",
        "the device cannot address this memory: copied through bounce buffers",
    ),
    _Reason(
        Quantity.LINEAR_TO_PAGE,
        "",
        "socket data that is not in pages, as of small messages, is copied into a page for "
        "the pipe",
    ),
    *(
        _Reason(Quantity.MEMORY_COPY, caller, words)
        for words, callers in _PLAIN_COPIES.items()
        for caller in callers
    ),
    _Reason(Quantity.COPY_PAGE, "", "copy-on-write: a shared page was written to"),
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
