"""Events in the life of a traced program's processes. To add one, add a row."""

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
)
