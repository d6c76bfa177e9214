"""The table of everything the meter can count. To add a copy site, add a row.

``COPY_SITES`` is in order of preference: breakpoints are handed out from the top, and among
rows with the same quantity the first that the kernel has is used. What is probed in callers
stands in :mod:`zctrace.probes.callsites` and :mod:`zctrace.probes.memory_copies`. A quantity
that no row has yet is a member of :class:`~zctrace.probes.model.Quantity` first.
"""

from __future__ import annotations

from zctrace.probes.callsites import CALL_TARGETS
from zctrace.probes.hooks import HOOKS, LIST_MAPPED, PAGE_MAPPED, RING_HOOKS
from zctrace.probes.life import LIFE_SITES
from zctrace.probes.memory_copies import MEMORY_COPIES
from zctrace.probes.model import (
    AT_ENTRY,
    Catalogue,
    CopySite,
    Direction,
    EventSite,
    Kind,
    Mechanism,
    Member,
    Path,
    Quantity,
    Register,
    Where,
    Within,
)
from zctrace.probes.transforms import TRANSFORM_HOOKS, TRANSFORM_SITES

_ANY_PATH = frozenset(Path)
_ON_RETURN = (Mechanism.BREAKPOINT_RETURN, Mechanism.BREAKPOINT_ENTRY)

COPY_SITES: tuple[CopySite, ...] = (
    CopySite(
        quantity=Quantity.COPY_TO_ITER,
        function="_copy_to_iter",
        kind=Kind.COPY,
        direction=Direction.KERNEL_TO_USER,
        mechanisms=_ON_RETURN,
        at_return=Register("ax"),
        at_entry=Register("si"),
        paths=_ANY_PATH,
        why="every read and receive through an iterator: files, pipes, sockets",
        since='Since Linux kernel commit aa28de275a24 ("iov_iter/hardening: move object '
        'size checks to inlined part") (in v4.13) the copying half has this name.',
    ),
    CopySite(
        quantity=Quantity.COPY_FROM_ITER,
        function="_copy_from_iter",
        kind=Kind.COPY,
        direction=Direction.USER_TO_KERNEL,
        mechanisms=_ON_RETURN,
        at_return=Register("ax"),
        at_entry=Register("si"),
        paths=_ANY_PATH,
        why="every send through an iterator, and writes to pipes",
        since='Since Linux kernel commit aa28de275a24 ("iov_iter/hardening: move object '
        'size checks to inlined part") (in v4.13) the copying half has this name.',
    ),
    # The page-cache side of write(2), splice into a file and copy_file_range. It asks for
    # a whole folio and gets less when the source page is not present, so the return value
    # is the only truth.
    CopySite(
        quantity=Quantity.COPY_FROM_ITER_ATOMIC,
        function="copy_folio_from_iter_atomic",
        kind=Kind.COPY,
        direction=Direction.USER_TO_KERNEL,
        mechanisms=_ON_RETURN,
        at_return=Register("ax"),
        at_entry=Register("dx"),
        paths=_ANY_PATH,
        why="writes to files through the page cache",
        since='Since Linux kernel commit d9736929445e ("iov: remove '
        'copy_page_from_iter_atomic()") (in v6.16) this is the function itself; before, '
        "an inline wrapper of the next row.",
    ),
    CopySite(
        quantity=Quantity.COPY_FROM_ITER_ATOMIC,
        function="copy_page_from_iter_atomic",
        kind=Kind.COPY,
        direction=Direction.USER_TO_KERNEL,
        mechanisms=_ON_RETURN,
        at_return=Register("ax"),
        at_entry=Register("dx"),
        paths=_ANY_PATH,
        why="writes to files through the page cache",
        since='Since Linux kernel commit f0b65f39ac50 ("iov_iter: replace '
        'iov_iter_copy_from_user_atomic() with iterator-advancing variant") (in v5.14).',
    ),
    CopySite(
        quantity=Quantity.COPY_FROM_ITER_ATOMIC,
        function="iov_iter_copy_from_user_atomic",
        kind=Kind.COPY,
        direction=Direction.USER_TO_KERNEL,
        mechanisms=_ON_RETURN,
        at_return=Register("ax"),
        at_entry=Register("cx"),
        paths=_ANY_PATH,
        why="writes to files through the page cache",
        since="In kernels before the previous row's commit.",
    ),
    # The processor's own loop under every ordinary user copy. It sees the same bytes as
    # the iterator functions and the small copies of structures besides.
    CopySite(
        quantity=Quantity.USER_COPY_ROUTINE,
        function="rep_movs_alternative",
        kind=Kind.CROSS_CHECK,
        direction=None,
        mechanisms=(Mechanism.BREAKPOINT_ENTRY,),
        at_entry=Register("cx"),
        source=Register("si"),
        destination=Register("di"),
        paths=_ANY_PATH,
        dead_with_cpu_flag="fsrm",
        why="the routine under user copies on processors without FSRM",
        since="Since Linux kernel commit 577e6a7fd50d (\"x86: inline the 'rep movs' in user "
        'copies for the FSRM case") (in v6.4) it is called only without FSRM.',
    ),
    CopySite(
        quantity=Quantity.USER_COPY_ROUTINE,
        function="copy_user_enhanced_fast_string",
        kind=Kind.CROSS_CHECK,
        direction=None,
        mechanisms=(Mechanism.BREAKPOINT_ENTRY,),
        at_entry=Register("dx", bits=32),
        source=Register("si"),
        destination=Register("di"),
        paths=_ANY_PATH,
        needs_cpu_flag="erms",
        why="the routine under user copies on processors with ERMS",
        since="Not used since Linux kernel commit adfcf4231b8c (\"x86: don't use REP_GOOD "
        'or ERMS for user memory copies") (in v6.4).',
    ),
    # Where the routine is inlined: who copies user memory without an iterator.
    *(
        CopySite(
            quantity=quantity,
            function=function,
            kind=Kind.CROSS_CHECK,
            direction=direction,
            mechanisms=(Mechanism.BREAKPOINT_ENTRY,),
            at_entry=Register("dx"),
            paths=_ANY_PATH,
            instead_of=Quantity.USER_COPY_ROUTINE,
            why="user copies without an iterator, where processors with FSRM have no routine",
            since="Under this name on all.",
        )
        for quantity, function, direction in (
            (Quantity.COPY_TO_USER, "_copy_to_user", Direction.KERNEL_TO_USER),
            (Quantity.COPY_FROM_USER, "_copy_from_user", Direction.USER_TO_KERNEL),
        )
    ),
    # Verifying a datagram's checksum while it is copied: through a pointer, in lib/ before
    # Linux kernel commit 6d0d41991428 (see probes.calls), with a flag that only this has.
    CopySite(
        quantity=Quantity.CSUM_AND_COPY_TO_ITER,
        function="__skb_datagram_iter",
        kind=Kind.COPY,
        direction=Direction.KERNEL_TO_USER,
        # Of more arguments than an older kernel's trampoline can pass on; and never called in
        # an interrupt, where a probe could be passed over.
        mechanisms=(Mechanism.KPROBE,),
        at_entry=Where("r8", "cx"),
        paths=frozenset({Path.UDP}),
        why="receiving datagrams whose checksum was not verified",
        since="Found on all.",
    ),
    # In-kernel copiers: the places where a transfer that should have passed references
    # falls back to moving bytes.
    CopySite(
        quantity=Quantity.SKB_COPY_UBUFS,
        function="skb_copy_ubufs",
        kind=Kind.COPY,
        direction=Direction.KERNEL_TO_KERNEL,
        mechanisms=AT_ENTRY,
        at_entry=Member("di", "sk_buff", "data_len"),
        skb=Register("di"),
        paths=frozenset({Path.TCP, Path.UDP}),
        why="MSG_ZEROCOPY given up: looped back, tapped, or queued too long",
        since='Since Linux kernel commit a6686f2f382b ("skbuff: skb supports zero-copy '
        'buffers") (in v3.1).',
    ),
    CopySite(
        quantity=Quantity.SKB_COPY_BITS,
        function="skb_copy_bits",
        kind=Kind.COPY,
        direction=Direction.KERNEL_TO_KERNEL,
        mechanisms=AT_ENTRY,
        at_entry=Within("di", "si", "cx"),
        skb=Register("di"),
        paths=frozenset({Path.TCP, Path.UDP}),
        why="socket buffers flattened or pulled together",
        since="Under this name in every kernel with BTF.",
    ),
    CopySite(
        quantity=Quantity.SKB_COPY_AND_CSUM_BITS,
        function="skb_copy_and_csum_bits",
        kind=Kind.COPY,
        direction=Direction.KERNEL_TO_KERNEL,
        mechanisms=AT_ENTRY,
        at_entry=Within("di", "si", "cx"),
        skb=Register("di"),
        paths=frozenset({Path.TCP, Path.UDP}),
        why="segmentation or checksumming in software, for devices without scatter/gather",
        since="Under this name in every kernel with BTF.",
    ),
)

_WHERE_HEADERS_ARE = ("sk_buff.network_header", "sk_buff.transport_header")

EVENT_SITES: tuple[EventSite, ...] = (
    EventSite(
        quantity=Quantity.SYSCALL_ENTER,
        mechanism=Mechanism.TRACEPOINT,
        tracepoint="raw_syscalls:sys_enter",
        handler="on_sys_enter",
        parameter="SITE_SYSCALL_ENTER",
        fields=(("id", "SYSCALL_ENTER_ID"), ("args", "SYSCALL_ENTER_ARGS")),
        why="switches from user to kernel mode",
    ),
    EventSite(
        quantity=Quantity.SYSCALL_EXIT,
        mechanism=Mechanism.TRACEPOINT,
        tracepoint="raw_syscalls:sys_exit",
        handler="on_sys_exit",
        parameter="SITE_SYSCALL_EXIT",
        fields=(("id", "SYSCALL_EXIT_ID"), ("ret", "SYSCALL_EXIT_RESULT")),
        why="switches from kernel to user mode",
    ),
    EventSite(
        quantity=Quantity.PAGE_FAULT_USER,
        mechanism=Mechanism.TRACEPOINT,
        tracepoint="exceptions:page_fault_user",
        handler="on_page_fault_user",
        parameter="SITE_PAGE_FAULT_USER",
        why="faults taken in user mode: two mode switches each, shown apart",
    ),
    EventSite(
        quantity=Quantity.PAGE_FAULT_KERNEL,
        mechanism=Mechanism.TRACEPOINT,
        tracepoint="exceptions:page_fault_kernel",
        handler="on_page_fault_kernel",
        parameter="SITE_PAGE_FAULT_KERNEL",
        why="faults taken inside a system call: no mode switch",
    ),
    EventSite(
        quantity=Quantity.CONTEXT_SWITCH_VOLUNTARY,
        mechanism=Mechanism.TRACEPOINT,
        tracepoint="sched:sched_switch",
        handler="on_sched_switch",
        parameter="SITE_SWITCH_VOLUNTARY",
        fields=(("prev_state", "SWITCH_PREV_STATE"),),
        why="the thread waited and gave up the processor",
    ),
    EventSite(
        quantity=Quantity.CONTEXT_SWITCH_INVOLUNTARY,
        mechanism=Mechanism.TRACEPOINT,
        tracepoint="sched:sched_switch",
        handler="on_sched_switch",
        parameter="SITE_SWITCH_INVOLUNTARY",
        fields=(("prev_state", "SWITCH_PREV_STATE"),),
        why="the processor was taken from the thread",
    ),
    EventSite(
        quantity=Quantity.PROCESS_FORK,
        mechanism=Mechanism.TRACEPOINT,
        tracepoint="sched:sched_process_fork",
        handler="on_process_fork",
        parameter=None,
        fields=(("child_pid", "FORK_CHILD_PID"),),
        why="a process started inside a window belongs to it",
    ),
    EventSite(
        quantity=Quantity.CPU_CHANGED,
        mechanism=Mechanism.TRACEPOINT,
        tracepoint="cpuhp:cpuhp_enter",
        handler="on_cpu_changed",
        parameter=None,
        fields=(("cpu", "HOTPLUG_CPU"),),
        why="a processor that goes off, as in suspend, has lost its breakpoints for good",
    ),
    *(
        EventSite(
            quantity=Quantity.INTERRUPT,
            mechanism=Mechanism.TRACEPOINT,
            tracepoint=tracepoint,
            handler=f"on_interrupt_{kind}",
            parameter=f"SITE_INTERRUPT_{kind.upper()}",
            why=f"interrupts on top of the thread: {words}",
        )
        for kind, tracepoint, words in (
            ("device", "irq:irq_handler_entry", "of devices, one per handler"),
            ("timer", "irq_vectors:local_timer_entry", "of the processor's timer"),
            ("reschedule", "irq_vectors:reschedule_entry", "to have another thread run"),
            ("call", "irq_vectors:call_function_entry", "to call a function, for several"),
            ("call_single", "irq_vectors:call_function_single_entry", "to call a function"),
            ("work", "irq_vectors:irq_work_entry", "of the processor to itself"),
        )
    ),
    EventSite(
        quantity=Quantity.DISK_REQUEST,
        mechanism=Mechanism.TRACEPOINT,
        tracepoint="block:block_rq_issue",
        handler="on_request_issued",
        parameter=None,
        fields=(
            ("dev", "REQUEST_DEVICE"),
            ("sector", "REQUEST_SECTOR"),
            ("bytes", "REQUEST_BYTES"),
            ("rwbs", "REQUEST_OPERATION"),
        ),
        why="the disk driver's read and write requests",
    ),
    EventSite(
        quantity=Quantity.DISK_REQUEST_PUT_BACK,
        mechanism=Mechanism.TRACEPOINT,
        tracepoint="block:block_rq_requeue",
        handler="on_request_put_back",
        parameter=None,
        fields=(
            ("dev", "REQUEUE_DEVICE"),
            ("sector", "REQUEUE_SECTOR"),
            ("nr_sector", "REQUEUE_SECTORS"),
            ("rwbs", "REQUEUE_OPERATION"),
        ),
        why="a request that the driver will be given once more",
    ),
    EventSite(
        quantity=Quantity.TRANSMIT_PAYLOAD,
        mechanism=Mechanism.RAW_TRACEPOINT,
        tracepoint="net:net_dev_start_xmit",
        handler="on_transmit",
        parameter="SITE_TRANSMIT_PAYLOAD",
        members=_WHERE_HEADERS_ARE,
        direction=Direction.KERNEL_TO_DEVICE,
        why="what a network device's driver is given, headers apart",
    ),
    EventSite(
        quantity=Quantity.TRANSMIT_HEADERS,
        mechanism=Mechanism.RAW_TRACEPOINT,
        tracepoint="net:net_dev_start_xmit",
        handler="on_transmit",
        parameter="SITE_TRANSMIT_HEADERS",
        members=_WHERE_HEADERS_ARE,
        direction=Direction.KERNEL_TO_DEVICE,
        why="the headers of those packets",
    ),
    EventSite(
        quantity=Quantity.TRANSMITTED,
        mechanism=Mechanism.RAW_TRACEPOINT,
        tracepoint="net:net_dev_xmit",
        handler="on_transmitted",
        parameter=None,
        why="where a driver's transmit function ends",
    ),
    EventSite(
        quantity=Quantity.BOUNCE,
        mechanism=Mechanism.TRACEPOINT,
        tracepoint="swiotlb:swiotlb_bounced",
        handler="on_bounced",
        parameter="SITE_BOUNCED",
        fields=(("size", "BOUNCED_SIZE"),),
        direction=Direction.KERNEL_TO_KERNEL,
        why="copies for a device that cannot reach the memory",
    ),
)

_CALLS = (*CALL_TARGETS, *MEMORY_COPIES)
CATALOGUE = Catalogue(COPY_SITES, _CALLS, HOOKS, EVENT_SITES)

_FOR_TRANSFERS = {
    Quantity.DISK_REQUEST,
    Quantity.DISK_REQUEST_PUT_BACK,
    Quantity.TRANSMIT_PAYLOAD,
    Quantity.TRANSMIT_HEADERS,
    Quantity.TRANSMITTED,
    Quantity.INTERRUPT,
}
"""Events that only tell something about a transfer from a disk to a network card."""

PROGRAM_CATALOGUE = Catalogue(
    (*COPY_SITES, *TRANSFORM_SITES),
    _CALLS,
    (
        *(hook for hook in HOOKS if hook.quantity not in (PAGE_MAPPED, LIST_MAPPED)),
        *TRANSFORM_HOOKS,
        *RING_HOOKS,
    ),
    (*(site for site in EVENT_SITES if site.quantity not in _FOR_TRANSFERS), *LIFE_SITES),
)
"""For tracing a program: whatever it does, from its exec to its exit."""
