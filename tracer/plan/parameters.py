"""What the meter is compiled with: offsets and numbers of one kernel, as ``-D``."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from zctrace.evidence.sites import Blind
from zctrace.kernel.facts import KernelFacts
from zctrace.plan.attachments import EventAttachment
from zctrace.probes.model import EventSite, Kind, Quantity

FLOW_MEMBERS = {
    "TASK_FILES": ("task_struct.files",),
    "MEMORY_PROGRAM": ("mm_struct.exe_file",),
    "TASK_SIGNAL": ("task_struct.signal",),
    "SIGNAL_LIVE": ("signal_struct.live",),
    "FILES_TABLE": ("files_struct.fdt",),
    "TABLE_SIZE": ("fdtable.max_fds",),
    "TABLE_FILES": ("fdtable.fd",),
    "FILE_INODE": ("file.f_inode",),
    "FILE_DENTRY": ("file.f_path", "path.dentry"),
    "FILE_MODE": ("file.f_mode",),
    "FILE_PRIVATE": ("file.private_data",),
    "DENTRY_PARENT": ("dentry.d_parent",),
    "DENTRY_NAME": ("dentry.d_name", "qstr.name"),
    "INODE_MODE": ("inode.i_mode",),
    "INODE_NUMBER": ("inode.i_ino",),
    "INODE_SUPER": ("inode.i_sb",),
    "INODE_SIZE": ("inode.i_size",),
    "INODE_DEVICE": ("inode.i_rdev",),
    "SUPER_DEVICE": ("super_block.s_dev",),
    "SUPER_TYPE": ("super_block.s_type",),
    "FILE_SYSTEM_NAME": ("file_system_type.name",),
    "FILE_FLAGS": ("file.f_flags",),
    "SOCKET_SOCK": ("socket.sk",),
    "SOCK_TYPE": ("sock.sk_type",),
    "SOCK_FAMILY": ("sock_common.skc_family",),
    "SOCK_PEER_PORT": ("sock_common.skc_dport",),
    "SOCK_PORT": ("sock_common.skc_num",),
    "SOCK_PEER": ("sock_common.skc_daddr",),
    "SOCK_ADDRESS": ("sock_common.skc_rcv_saddr",),
    "SOCK_PEER6": ("sock_common.skc_v6_daddr",),
    "SOCK_ADDRESS6": ("sock_common.skc_v6_rcv_saddr",),
}
"""Parameters of the meter's flows, and the members whose offsets add up to each: without
all of them it is not known what a program delivers, and no program can be traced."""

STATUS = ("task_struct.thread_info", "thread_info.status")
"""Without these the calls of 32-bit programs cannot be distinguished from others."""


def iterator_type(kernel: KernelFacts) -> tuple[int, int, int] | None:
    """Offset, bytes and mask of an ``iov_iter``'s kind; ``None`` if unknown."""
    if "iov_iter.iter_type" in kernel.members:
        return kernel.members["iov_iter.iter_type"], 1, 0xFF
    if "iov_iter.type" in kernel.members:
        return kernel.members["iov_iter.type"], 4, 0xFFFFFFFE
    return None


def _zerocopy_flag(kernel: KernelFacts) -> tuple[int, int]:
    """Where a socket buffer says that its pages are a zero-copy send's: offset and bit.

    No bit if unknown: then no buffer says so.
    """
    if "skb_shared_info.flags" in kernel.members:
        # SKBFL_ZEROCOPY_ENABLE: since Linux kernel commit 06b4feb37e64 ("net: group
        # skb_shinfo zerocopy related bits together.") (in v5.12).
        return kernel.members["skb_shared_info.flags"], 1 << 0
    if "skb_shared_info.tx_flags" in kernel.members:
        return kernel.members["skb_shared_info.tx_flags"], 1 << 3  # SKBTX_DEV_ZEROCOPY
    return 0, 0


def _of_rings(members: dict[str, int]) -> dict[str, str]:
    """Where an operation of io_uring has its descriptor, and a ring its registered files."""

    def place(*names: str) -> int:
        return sum(members[n] for n in names) if members.keys() >= set(names) else 0

    # In an array, and since Linux kernel commit 7029acd8a950 ("io_uring/rsrc: get rid of
    # per-ring io_rsrc_node list") (in v6.13) each behind a pointer.
    by_node = place("io_ring_ctx.file_table", "io_file_table.data", "io_rsrc_data.nodes")
    return {
        "REQUEST_FD": str(place("io_kiocb.cqe", "io_cqe.fd")),
        "FIXED_FILES": str(by_node or place("io_ring_ctx.file_table", "io_file_table.files")),
        "FIXED_BY_NODE": str(int(bool(by_node))),
        "FIXED_NODE_FILE": str(place("io_rsrc_node.file_ptr")),
        **_of_messages(members),
    }


def _of_messages(members: dict[str, int]) -> dict[str, str]:
    """Where a receiving operation has what it puts in front of each message; 0 if unknown."""
    places = {
        "MESSAGE_DATA": "io_kiocb.async_data",
        "MESSAGE_FLAGS": "io_sr_msg.flags",
        "MESSAGE_NAME": "io_async_msghdr.namelen",
        "MESSAGE_CONTROL": "io_async_msghdr.controllen",
    }
    known = members.keys() >= set(places.values())
    return {name: str(members[place] if known else 0) for name, place in places.items()}


def _status(kernel: KernelFacts) -> int:
    """Where in a task it says that a system call is a 32-bit one; 0 if unknown."""
    members = [kernel.members.get(member) for member in STATUS]
    return 0 if None in members else sum(filter(None, members))


def unseen_calls(kernel: KernelFacts) -> tuple[Blind, ...]:
    """System calls of a traced program that would be taken for others."""
    if _status(kernel) or not kernel.runs_32_bit:
        return ()
    missing = next(member for member in STATUS if member not in kernel.members)
    reason = f"they are taken for others, because {missing} is not known"
    what = ("system calls of 32-bit programs",)
    return (Blind(Quantity.SYSCALL_ENTER, what, reason, frozenset(), Kind.COPY),)


def _protocol(kernel: KernelFacts) -> int:
    """Where a socket has its protocol's number, of 16 bits; 0 if that is not known."""
    offset = kernel.members.get("sock.sk_protocol", 0)
    # It had 8, in front of the type's, before Linux kernel commit bf9765145b85 ("sock: Make
    # sk_protocol a 16-bit value") (in v5.6).
    return 0 if kernel.members.get("sock.sk_type") == offset + 1 else offset


def meter_parameters(
    event_sites: Sequence[EventSite], events: Iterable[EventAttachment], kernel: KernelFacts
) -> dict[str, str]:
    parameters = _kernel_parameters(kernel)
    # Handlers of tracepoints that this kernel lacks are compiled too, and never loaded.
    for site in event_sites:
        for _, parameter in (*site.fields, *site.optional):
            parameters[parameter] = "0"
    for event in events:
        record = kernel.tracepoints[event.site.tracepoint]
        for name, parameter in (*event.site.fields, *event.site.optional):
            parameters[parameter] = str(record.get(name, 0))
    return parameters


def _kernel_parameters(kernel: KernelFacts) -> dict[str, str]:
    """Where the meter finds things in the kernel's structures; 0 what is not known.

    A program that needs an unknown place is compiled, and not attached.
    """
    offset, size, mask = iterator_type(kernel) or (0, 1, 0xFF)
    user = [kernel.iterators[n] for n in ("ITER_UBUF", "ITER_IOVEC") if n in kernel.iterators]
    parameters = {
        "ITER_TYPE_OFFSET": str(offset),
        "ITER_TYPE_BYTES": str(size),
        "ITER_TYPE_MASK": f"{mask:#x}U",
        "IS_USER_ITER(kind)": "(" + (" || ".join(f"(kind) == {n}" for n in user) or "1") + ")",
    }
    for kind in ("DISCARD", "PIPE"):
        number = kernel.iterators.get(f"ITER_{kind}")
        parameters[f"IS_{kind}_ITER(kind)"] = "0" if number is None else f"((kind) == {number})"
    for parameter, member in (
        ("TASK_MM", "task_struct.mm"),
        ("SKB_LEN", "sk_buff.len"),
        ("SKB_HEAD", "sk_buff.head"),
        ("SKB_END", "sk_buff.end"),
        ("SKB_DATA", "sk_buff.data"),
        ("SKB_SOCK", "sk_buff.sk"),
        ("SKB_DEVICE", "sk_buff.dev"),
        ("SKB_NETWORK", "sk_buff.network_header"),
        ("SKB_TRANSPORT", "sk_buff.transport_header"),
        ("SHINFO_DESTRUCTOR_ARG", "skb_shared_info.destructor_arg"),
        ("SOCK_NET", "sock_common.skc_net"),
        ("DEVICE_NET", "net_device.nd_net"),
        ("DEVICE_NUMBER", "net_device.ifindex"),
        ("DEVICE_NAME", "kobject.name"),
        ("TAP_SOCK", "packet_type.af_packet_priv"),
        ("SCATTER_LENGTH", "scatterlist.length"),
        ("UNIX_PEER", "unix_sock.peer"),
        ("SOCK_UPPER", "inet_connection_sock.icsk_ulp_ops"),
        ("UPPER_NAME", "tcp_ulp_ops.name"),
        ("REQUEST_FILE", "io_kiocb.file"),
        ("REQUEST_OPCODE", "io_kiocb.opcode"),
        ("REQUEST_FLAGS", "io_kiocb.flags"),
        ("REQUEST_RING", "io_kiocb.ctx"),
        ("REQUEST_DATA", "io_kiocb.user_data"),
        ("SPLICE_FD", "io_splice.splice_fd_in"),
        ("SPLICE_FLAGS", "io_splice.flags"),
        ("KIOCB_FILE", "kiocb.ki_filp"),
    ):
        parameters[parameter] = str(kernel.members.get(member, 0))
    parameters |= _of_rings(kernel.members)
    parameters["SOCK_PROTOCOL"] = str(_protocol(kernel))
    flags, bit = _zerocopy_flag(kernel)
    parameters["SHINFO_FLAGS"], parameters["SHINFO_ZEROCOPY"] = str(flags), f"{bit:#x}U"
    for parameter, members in FLOW_MEMBERS.items():
        parameters[parameter] = str(sum(kernel.members.get(member, 0) for member in members))
    parameters["TASK_STATUS"] = str(_status(kernel))
    parameters["TYPED_TASK"] = str(int(kernel.typed_task))
    # The size of a structure is not asked for; its last member ends where it does.
    last = max(
        kernel.members.get(f"scatterlist.{m}", 0) for m in ("dma_length", "dma_flags", "length")
    )
    parameters["SCATTER_BYTES"] = str((last + 4 + 7) // 8 * 8)
    parameters["NET_INODE"] = str(
        kernel.members.get("net.ns", 0) + kernel.members.get("ns_common.inum", 0)
    )
    return parameters
