"""What explains that bytes moved and no copy of them was seen. To add a path, add a row.

A function that moves bytes and is in no row here may have copied them where no probe is. So a
row needs evidence: the kernel's own code, and a measurement on the kernels that it names. In
the measurement an emulator or a counter saw that there was no copy, or zctrace counted all
copies that there are.
"""

from __future__ import annotations

from dataclasses import dataclass

DISKS = frozenset({"nvme", "virtio_blk", "virtio_scsi", "ahci"})
"""Drivers that have the device itself move the bytes, by DMA."""
ON_DISKS = frozenset({"ext4", "xfs"})
"""File systems that hand the page cache's own pages on, and programs' own to the driver. Not
those that may have to decompress or decrypt a page, like btrfs."""
IN_MEMORY = frozenset({"tmpfs", "shmem", "ramfs", "devtmpfs"})
_SHARED = frozenset({"9p", "9pnet_virtio"})
SHARING = frozenset({"xfs", "btrfs"})
"""File systems whose files can share blocks (FICLONE)."""
_SPLICING = frozenset({"splice", "IORING_OP_SPLICE"})
_BY_PAGE = _SPLICING | {"sendfile"}
_PIPES = _BY_PAGE | {"tee", "vmsplice", "IORING_OP_TEE"}
_RING_READING = frozenset({"IORING_OP_READ", "IORING_OP_READV", "IORING_OP_READ_FIXED"})
_RING_WRITING = frozenset({"IORING_OP_WRITE", "IORING_OP_WRITEV", "IORING_OP_WRITE_FIXED"})
_SENDING = (
    _RING_WRITING
    | _BY_PAGE
    | {
        *("write", "writev", "sendto", "sendmsg", "sendmmsg"),
        *("IORING_OP_SEND", "IORING_OP_SENDMSG", "IORING_OP_SEND_ZC", "IORING_OP_SENDMSG_ZC"),
    }
)
_RECEIVING = _RING_READING | {
    *("read", "readv", "recvfrom", "recvmsg", "recvmmsg", "IORING_OP_RECV", "IORING_OP_RECVMSG")
}
_READING = _RING_READING | {
    *("read", "readv", "pread64", "preadv", "preadv2", "IOCB_CMD_PREAD", "IOCB_CMD_PREADV")
}
_WRITING = _RING_WRITING | {
    *("write", "writev", "pwrite64", "pwritev", "pwritev2"),
    *("IOCB_CMD_PWRITE", "IOCB_CMD_PWRITEV"),
}
IN, OUT = "in", "out"


@dataclass(frozen=True)
class Reference:
    """Bytes that ``calls`` move, one way, through a thing of some kind.

    ``types`` are the file systems, drivers or protocols that it holds for, ``beneath`` what the
    thing may lie on: everything that it does must be in it. ``direct`` is whether it holds for
    descriptors with O_DIRECT only. ``why`` is a sentence, ``shown`` the kernels.
    """

    calls: frozenset[str]
    way: str
    kind: str
    types: frozenset[str]
    why: str
    shown: str
    beneath: frozenset[str] = frozenset()
    direct: bool = False


_ALL = "5.10, 6.1, 6.12, 7.3"
REFERENCES: tuple[Reference, ...] = (
    Reference(
        _BY_PAGE, IN, "file", ON_DISKS, beneath=DISKS, shown=_ALL,
        why="the page cache's pages are handed on, and the disk fills them by DMA",
    ),
    Reference(
        _READING | _BY_PAGE, IN, "file", frozenset({"9p"}), beneath=frozenset({"9pnet_virtio"}),
        shown=_ALL, why="the machine around this one fills the pages; small ones are copied, "
        "and counted",
    ),
    Reference(
        _READING, IN, "file", frozenset({"overlay"}), shown=_ALL,
        beneath=_SHARED | IN_MEMORY,
        why="as from the 9p file system under the overlay",
    ),
    Reference(
        _WRITING, OUT, "file", frozenset({"9p"}), beneath=frozenset({"9pnet_virtio"}),
        shown=_ALL, why="the machine around this one fetches the pages; small ones are copied, "
        "and counted",
    ),
    Reference(
        _BY_PAGE, IN, "file", IN_MEMORY, shown=_ALL,
        why="the file's own pages are handed on",
    ),
    Reference(
        _BY_PAGE, IN, "file", frozenset({"overlay"}), shown=_ALL,
        beneath=DISKS | ON_DISKS | IN_MEMORY | _SHARED,
        why="as from the file systems under the overlay",
    ),
    Reference(
        _READING, IN, "file", ON_DISKS, beneath=DISKS, direct=True, shown=_ALL,
        why="the disk fills the program's own pages by DMA",
    ),
    Reference(
        _WRITING, OUT, "file", ON_DISKS, beneath=DISKS, direct=True, shown=_ALL,
        why="the disk fetches the program's own pages by DMA",
    ),
    Reference(
        _BY_PAGE, IN, "device", DISKS, shown=_ALL,
        why="the page cache's pages are handed on, and the disk fills them by DMA",
    ),
    Reference(
        _READING, IN, "device", DISKS, direct=True, shown=_ALL,
        why="the disk fills the program's own pages by DMA",
    ),
    Reference(
        _WRITING, OUT, "device", DISKS, direct=True, shown=_ALL,
        why="the disk fetches the program's own pages by DMA",
    ),
    Reference(
        frozenset({"ioctl", "copy_file_range"}), IN, "file", SHARING, beneath=DISKS,
        shown=_ALL, why="both files share the same blocks of the disk from then on",
    ),
    Reference(
        frozenset({"ioctl", "copy_file_range"}), OUT, "file", SHARING, beneath=DISKS,
        shown=_ALL, why="both files share the same blocks of the disk from then on",
    ),
    # What is copied into a file by copy_file_range is counted there.
    Reference(
        frozenset({"copy_file_range"}), IN, "file", ON_DISKS, beneath=DISKS, shown=_ALL,
        why="the page cache's pages are handed on, and the disk fills them by DMA",
    ),
    Reference(
        frozenset({"copy_file_range"}), IN, "file", IN_MEMORY, shown=_ALL,
        why="the file's own pages are handed on",
    ),
    Reference(
        _PIPES, IN, "pipe", frozenset({""}), shown=_ALL, why="a pipe holds pages, not bytes",
    ),
    Reference(
        _PIPES, OUT, "pipe", frozenset({""}), shown=_ALL, why="a pipe holds pages, not bytes",
    ),
    Reference(
        _SENDING, OUT, "socket", frozenset({"tcp", "udp", "unix stream", "unix datagram",
        "unix packets"}), shown=_ALL,
        why="socket buffers refer to the pages, and every copy of a socket buffer is counted",
    ),
    Reference(
        _RECEIVING, IN, "socket", frozenset({"tcp", "udp", "unix stream", "unix datagram",
        "unix packets"}), shown=_ALL,
        why="every copy to the program is counted; MSG_TRUNC throws bytes away",
    ),
    Reference(
        _SENDING | _RECEIVING, OUT, "socket", frozenset({"tcp+tls"}), shown=_ALL,
        why="every byte is encrypted into another page, which is counted apart",
    ),
    Reference(
        _SENDING | _RECEIVING, IN, "socket", frozenset({"tcp+tls"}), shown=_ALL,
        why="every byte is decrypted into another page, which is counted apart; what is copied "
        "from there is counted",
    ),
    Reference(
        _SPLICING, IN, "socket", frozenset({"tcp", "udp", "unix stream"}),
        shown=_ALL,
        why="a pipe gets the socket buffers' own pages, and what is copied for it is counted",
    ),
    Reference(
        _READING | _SPLICING, IN, "device", frozenset({"fuse"}), shown=_ALL,
        why="copies of pages are counted; the heads of requests are structures",
    ),
    Reference(
        _WRITING | _SPLICING, OUT, "device", frozenset({"fuse"}), shown=_ALL,
        why="copies of pages are counted; the heads of answers are structures",
    ),
    Reference(
        _READING, IN, "device", frozenset({"zero", "null"}), shown=_ALL,
        why="the kernel makes the bytes up",
    ),
    Reference(
        _WRITING | _BY_PAGE, OUT, "device", frozenset({"null", "zero"}), shown=_ALL,
        why="the bytes are thrown away",
    ),
    Reference(
        _READING, IN, "other", frozenset({"[eventfd]", "[timerfd]", "[signalfd]"}), shown=_ALL,
        why="the kernel makes the number up",
    ),
    Reference(
        _WRITING, OUT, "other", frozenset({"[eventfd]"}), shown=_ALL,
        why="the number is added to the counter",
    ),
)  # fmt: skip

NOT_WATCHED = {
    "loop": "a loop device copies in a kernel thread of its own",
    "nbd": "a network block device copies in kernel threads of its own",
    "zram": "zram compresses and decompresses",
    "dm": "zctrace does not know what a device-mapper target does with the bytes",
    "md": "an array of disks may copy, and computes parity",
    "pmem": "persistent memory is written by the CPU",
    "btrfs": "btrfs may decompress, in kernel threads of its own",
    "f2fs": "f2fs may decompress",
    "ram": "a RAM disk copies, on some kernels by inlined instructions that no probe sees",
    "fuse": "the program behind a FUSE file system copies in a process of its own",
    "virtiofs": "zctrace does not know how virtiofs hands bytes over",
    "nfs": "a network file system copies in kernel threads of its own",
    "nfs4": "a network file system copies in kernel threads of its own",
    "cifs": "a network file system copies in kernel threads of its own",
    "ceph": "a network file system copies in kernel threads of its own",
    "9p": "a network file system copies in kernel threads of its own",
}
"""Why some paths have no row, although readers would expect one."""
