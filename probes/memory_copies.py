"""Functions that copy payload plainly, by no iterator. To add one, add a row.

A row names the callers that move payload with the function; what others do with it is no
payload. Where a compiler puts the copy into the caller as instructions (Debian's up to 6.12
do that where the size is bounded), no call of ``memcpy`` can be watched: such a row is for a
call of the function that has those instructions.

"Found on" is of Debian's kernels 5.10, 6.1, 6.12 and 7.3. Not here:

* because it is no payload, or too little: ``pskb_expand_head`` and its like, which copy
  packets' headers; binary files of sysfs, as large as a table; netlink's taps;
* because it can be watched in part only: terminals, zram and squashfs, whose copies are
  instructions of larger functions on some of these kernels. ``tpacket_rcv`` copies by
  ``skb_copy_bits``, which is watched.
"""

from __future__ import annotations

import functools

from zctrace.probes.model import CallTarget, Direction, Path, Quantity, Returned

_TO_USER, _FROM_USER = Direction.KERNEL_TO_USER, Direction.USER_TO_KERNEL
_INSIDE = Direction.KERNEL_TO_KERNEL

_row = functools.partial(
    CallTarget,
    quantity=Quantity.MEMORY_COPY,
    direction=_INSIDE,
    # Of no strategy's path, but for one: nothing said of strategies depends on these.
    paths=frozenset(),
)
_memcpy = functools.partial(_row, function="memcpy", length=3, returned=Returned.NOTHING)

_READERS_OF_PROGRAMS = ("mem_rw", "environ_read", "get_mm_cmdline", "proc_pid_cmdline_read")
_AF_XDP_SENDERS = ("xsk_build_skb", "xsk_generic_xmit", "__xsk_generic_xmit", "__xsk_sendmsg")
_PERSISTENT_MEMORY_READERS = ("read_pmem", "pmem_do_read", "pmem_do_bvec", "pmem_submit_bio")
_RAM_DISK = ("brd_submit_bio", "brd_rw_bvec", "brd_rw_page")

MEMORY_COPIES: tuple[CallTarget, ...] = (
    # Another process's memory: /proc/PID/mem and ptrace(2).
    _row(
        function="access_remote_vm",
        returned=Returned.COPIED_INT,
        why="between another process's memory and a page of the kernel's",
        since="Found on all.",
    ),
    _row(
        function="__access_remote_vm",
        returned=Returned.COPIED_INT,
        why="the same, for ptrace(2); jumped to by the one without underscores",
        since="Found on all.",
    ),
    _row(
        function="_copy_to_user",
        direction=_TO_USER,
        length=3,
        returned=Returned.LEFT,
        callers=_READERS_OF_PROGRAMS,
        why="reading /proc/PID/mem, environ and cmdline",
        since="Found on all.",
    ),
    _row(
        function="_copy_from_user",
        direction=_FROM_USER,
        length=3,
        returned=Returned.LEFT,
        callers=("mem_rw",),
        why="writing /proc/PID/mem",
        since="Found on all.",
    ),
    # Sockets.
    _memcpy(
        quantity=Quantity.LINEAR_TO_PAGE,
        callers=("linear_to_page", "__splice_segment", "__skb_splice_bits"),
        paths=frozenset({Path.TCP}),
        why="splicing out of a socket whose bytes are in no page of their own",
        since="Found on all, in whichever of them the compiler has put linear_to_page.",
    ),
    _memcpy(
        callers=("xsk_copy_xdp", "__xsk_rcv", "xsk_rcv"),
        why="receiving by AF_XDP in copy mode",
        since="Found on all.",
    ),
    _row(
        function="skb_store_bits",
        length=4,
        int_length=True,
        returned=Returned.ALL_IF_ZERO,
        callers=_AF_XDP_SENDERS,
        why="sending by AF_XDP in copy mode",
        since="Found on all.",
    ),
    _memcpy(
        callers=_AF_XDP_SENDERS,
        why="sending by AF_XDP in copy mode a packet of several pieces",
        since="Found on 6.12 and 7.3.",
    ),
    _memcpy(
        callers=("io_zcrx_copy_chunk", "io_copy_page"),
        optional=True,
        why="io_uring's zero-copy receive giving up: bytes that are not where they should be",
        since="Found on 7.3.",
    ),
    _memcpy(
        callers=("sctp_packet_transmit",),
        module="sctp",
        why="putting SCTP's packets together, of chunks with their headers",
        since="Found on all.",
    ),
    # Files of another process.
    _row(
        function="fuse_copy_do",
        returned=Returned.COPIED_INT,
        callers=("fuse_copy_page", "fuse_copy_folio"),
        module="fuse",
        why="between pages of a FUSE file and of its daemon",
        since="Found on all.",
    ),
    # Disks that are memory.
    _row(
        function="brd_do_bvec",
        length=3,
        int_length=True,
        returned=Returned.ALL_IF_ZERO,
        callers=_RAM_DISK,
        module="brd",
        why="reading and writing a RAM disk; also what was never written, which is made up",
        since="Found on 5.10 and 6.1; 6.12 has neither this call nor one of memcpy.",
    ),
    _memcpy(
        callers=_RAM_DISK,
        module="brd",
        why="reading and writing a RAM disk",
        since="Found on 7.3.",
    ),
    _row(
        function="copy_mc_to_kernel",
        length=3,
        int_length=True,
        returned=Returned.LEFT,
        callers=_PERSISTENT_MEMORY_READERS,
        module="nd_pmem",
        why="reading a disk that is persistent memory",
        since="Found on all.",
    ),
    _row(
        function="__memcpy_flushcache",
        length=3,
        returned=Returned.NOTHING,
        callers=("write_pmem", "pmem_do_write"),
        module="nd_pmem",
        why="writing a disk that is persistent memory",
        since="Found on all.",
    ),
    _memcpy(
        callers=("null_transfer", "null_handle_data_transfer", "null_process_cmd"),
        module="null_blk",
        why="a null block device that keeps what is written",
        since="Found on all.",
    ),
    _memcpy(
        callers=("btrfs_decompress_buf2page",),
        module="btrfs",
        why="what was decompressed into pages of the page cache",
        since="Found on 6.1, 6.12 and 7.3; on 5.10 it is instructions.",
    ),
)
