"""Functions that tell for whom, and whether by DMA. To add one, add a row."""

from __future__ import annotations

from zctrace.probes import operations
from zctrace.probes.model import Hook

ZEROCOPY_BEGUN = "zero-copy send begun"
MERGE = "buffers merged"
CAPTURE_CALLERS = frozenset({"dev_queue_xmit_nit"})
"""Functions that have a zero-copy send's pages copied because a packet capture wants them."""
LIST_MAPPED = "list mapped for DMA"
PAGE_MAPPED = "page mapped for DMA"

HOOKS: tuple[Hook, ...] = (
    Hook(
        quantity=ZEROCOPY_BEGUN,
        function="msg_zerocopy_realloc",
        at_return=True,
        handler="on_zerocopy_begun",
        why="a send with MSG_ZEROCOPY; found on 6.1, 6.12 and 7.3",
    ),
    Hook(
        quantity=ZEROCOPY_BEGUN,
        function="sock_zerocopy_realloc",
        at_return=True,
        handler="on_zerocopy_begun",
        why="a send with MSG_ZEROCOPY; found on 5.10",
    ),
    Hook(
        quantity="zero-copy send filled",
        function="skb_zerocopy_iter_stream",
        handler="on_zerocopy_filled",
        why="a zero-copy send over TCP, also by io_uring, which brings its own ubuf_info",
    ),
    Hook(
        quantity="TCP socket sent to",
        function="tcp_sendmsg",
        handler="on_socket_used",
        why="whose the packets of a socket are",
    ),
    # Not tcp_sendpage, which it calls for each page.
    Hook(
        quantity="pages spliced into a socket",
        function="generic_splice_sendpage",
        handler="on_spliced_to_socket",
        why="whose the packets of a socket are; found on 5.10 and 6.1",
    ),
    Hook(
        quantity="TCP socket received from",
        function="tcp_recvmsg",
        handler="on_socket_used",
        why="whose the packets are that wait for a socket",
    ),
    Hook(
        quantity="socket gone",
        function="inet_sock_destruct",
        handler="on_socket_gone",
        called="on_fentry_socket_gone",
        why="whose a socket was that is given back",
    ),
    Hook(
        quantity=MERGE,
        function="skb_try_coalesce",
        handler="on_merge",
        called="on_fentry_merge",
        why="for whom small packets are merged",
    ),
    Hook(
        quantity="packet put into a backlog",
        function="tcp_add_backlog",
        handler="on_backlog",
        called="on_fentry_backlog",
        why="for whom small packets are merged while their socket is in use",
    ),
    Hook(
        quantity="packet is in the backlog",
        function="tcp_add_backlog",
        handler="on_backlog_done",
        called="on_fexit_backlog",
        at_return=True,
        why="the same",
    ),
    # First the return: what is noted at the entry is taken back there.
    *(
        row
        for function in ("tpacket_rcv", "packet_rcv")
        for row in (
            Hook(
                quantity=f"{function} has its packet",
                function=function,
                handler="on_tapped",
                called="on_fexit_tapped",
                at_return=True,
                why="copies for a packet capture, as tcpdump's, are its own",
            ),
            Hook(
                quantity=f"{function} gets a packet",
                function=function,
                handler="on_tap",
                called="on_fentry_tap",
                why="the same",
            ),
        )
    ),
    Hook(
        quantity="packet capture set up",
        function="packet_setsockopt",
        handler="on_tap_set_up",
        why="whose a packet capture is",
    ),
    Hook(
        quantity="packet capture waited for",
        function="packet_poll",
        handler="on_tap_awaited",
        why="whose a packet capture is that runs already",
    ),
    Hook(
        quantity=PAGE_MAPPED,
        function="dma_map_phys",
        handler="on_address_mapped",
        called="on_fentry_address_mapped",
        why="what a driver maps for DMA; found on 7.3, where the next row calls it",
    ),
    Hook(
        quantity=PAGE_MAPPED,
        function="dma_map_page_attrs",
        handler="on_page_mapped",
        called="on_fentry_page_mapped",
        why="what a driver maps for DMA; found on 5.10, 6.1 and 6.12",
    ),
    # All the ways to map a list meet in the first; on 5.10 there is only the second.
    Hook(
        quantity=LIST_MAPPED,
        function="__dma_map_sg_attrs",
        handler="on_list_mapped",
        called="on_fentry_list_mapped",
        why="what a driver maps for DMA, as a list of pieces; found on 6.1, 6.12 and 7.3",
    ),
    Hook(
        quantity=LIST_MAPPED,
        function="dma_map_sg_attrs",
        handler="on_list_mapped",
        called="on_fentry_list_mapped",
        why="what a driver maps for DMA, as a list of pieces; found on 5.10",
    ),
)

_REQUEST = tuple(f"io_kiocb.{member}" for member in ("file", "opcode", "flags", "ctx"))
RING_HOOKS: tuple[Hook, ...] = (
    # First the returns: what is noted at the entry is taken back there.
    *(
        Hook(
            quantity=f"{operations.RING_DONE}{again}",
            function=function,
            handler="on_operation_done",
            called="on_fexit_operation_done",
            at_return=True,
            why="what is copied until here is for an operation of io_uring",
        )
        for function, again in (("io_issue_sqe", ""), ("io_poll_issue", " again"))
    ),
    Hook(
        quantity=operations.RING_BEGUN,
        function="io_issue_sqe",
        handler="on_ring_begun",
        called="on_fentry_ring_begun",
        members=_REQUEST,
        # Before Linux kernel commit 3bfe6106693b ("io-wq: fork worker threads from original
        # task") (in v5.12) operations were also performed by threads of the kernel's own, which
        # belong to no program. This function makes the threads that do.
        beside="create_io_thread",
        why="what is copied from here on is for an operation of io_uring",
    ),
    # Found on 7.3: another shot of an operation does not pass through the former.
    Hook(
        quantity=operations.RING_BEGUN_AGAIN,
        function="io_poll_issue",
        handler="on_ring_begun",
        called="on_fentry_ring_begun",
        members=_REQUEST,
        why="the same, for a further shot of an operation",
    ),
    *(
        Hook(
            quantity=quantity,
            function=function,
            handler="on_operation_done",
            called="on_fexit_operation_done",
            at_return=True,
            why="what is copied until here is for an operation of io_submit(2)",
        )
        for quantity, function in (
            (operations.AIO_READ_DONE, "aio_read"),
            (operations.AIO_WRITE_DONE, "aio_write"),
        )
    ),
    *(
        Hook(
            quantity=quantity,
            function=function,
            handler="on_aio_begun",
            called="on_fentry_aio_begun",
            members=("kiocb.ki_filp",),
            why="what is copied from here on is for an operation of io_submit(2)",
        )
        for quantity, function in (
            (operations.AIO_READ_BEGUN, "aio_read"),
            (operations.AIO_WRITE_BEGUN, "aio_write"),
        )
    ),
    Hook(
        quantity=operations.AIO_COMPLETED,
        function="aio_complete_rw",
        handler="on_aio_completed",
        called="on_fentry_aio_completed",
        why="how much an operation of io_submit(2) has moved",
    ),
)
"""Of a traced program: what it hands to the kernel by a ring."""
