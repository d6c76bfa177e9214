"""Events in the life of a traced program's processes, and of modules that it may use.

To add one, add a row.
"""

from __future__ import annotations

from zctrace.probes.model import EventSite, Mechanism, Quantity

LIFE_SITES: tuple[EventSite, ...] = (
    EventSite(
        quantity=Quantity.PROCESS_EXEC,
        mechanism=Mechanism.TRACEPOINT,
        tracepoint="sched:sched_process_exec",
        handler="on_process_exec",
        parameter=None,
        fields=(("old_pid", "EXEC_FORMER_THREAD"),),
        why="where a traced program begins",
    ),
    EventSite(
        quantity=Quantity.PROCESS_EXIT,
        mechanism=Mechanism.TRACEPOINT,
        tracepoint="sched:sched_process_exit",
        handler="on_process_exit",
        parameter=None,
        why="where a thread ends, and what was kept for it can be given back",
    ),
    EventSite(
        quantity=Quantity.CGROUP_LEFT,
        mechanism=Mechanism.TRACEPOINT,
        tracepoint="cgroup:cgroup_attach_task",
        handler="on_cgroup_changed",
        parameter=None,
        fields=(
            ("dst_root", "ATTACH_HIERARCHY"),
            ("dst_id", "ATTACH_ID"),
            ("dst_path", "ATTACH_PATH"),
            ("pid", "ATTACH_PID"),
        ),
        why="a process that leaves the cgroup that breakpoints are limited to",
    ),
    EventSite(
        quantity=Quantity.MODULE_LOADED,
        mechanism=Mechanism.TRACEPOINT,
        tracepoint="module:module_load",
        handler="on_module_loaded",
        parameter=None,
        fields=(("name", "MODULE_LOADED_NAME"),),
        why="a module that was not searched for call sites, and that may be gone at the end",
    ),
    EventSite(
        quantity=Quantity.MODULE_FREED,
        mechanism=Mechanism.TRACEPOINT,
        tracepoint="module:module_free",
        handler="on_module_freed",
        parameter=None,
        fields=(("name", "MODULE_FREED_NAME"),),
        why="a module that could not be initialized has copied nothing",
    ),
    EventSite(
        quantity=Quantity.RING_COMPLETED,
        mechanism=Mechanism.TRACEPOINT,
        tracepoint="io_uring:io_uring_complete",
        handler="on_ring_completed",
        parameter="SITE_RING_COMPLETED",
        fields=(
            ("ctx", "COMPLETED_RING"),
            ("user_data", "COMPLETED_DATA"),
            ("res", "COMPLETED_RESULT"),
            ("cflags", "COMPLETED_FLAGS"),
        ),
        # On 5.10 there is none.
        optional=(("req", "COMPLETED_REQUEST"),),
        why="how much an operation of io_uring has moved",
    ),
)
