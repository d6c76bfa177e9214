"""What is compared: zctrace, and the tools that answer something near to its question.

Standard library only: the script in the guest imports it, too.
"""

from dataclasses import dataclass

COPY_SITES = ("_copy_to_iter", "_copy_from_iter")
"""Where bytes are counted in each of bpftrace's scripts that counts copies."""
_CALLS = "tracepoint:raw_syscalls:sys_enter { @calls[comm, args->id] = count(); }"
_SUMS = " ".join(
    f'kretprobe:{function} /(int64)retval > 0/ {{ @bytes[comm, "{name}"] = sum(retval); }}'
    for function, name in (
        ("vfs_read", "read"),
        ("vfs_write", "write"),
        ("__x64_sys_sendfile64", "sendfile"),
        ("__x64_sys_sendto", "sendto"),
    )
)


@dataclass(frozen=True)
class Tracer:
    """One configuration. ``mechanism`` is zctrace's, ``words`` start another tool.

    In ``words``, ``{out}`` is a file for the tool's output and ``{address}`` that of a
    function of COPY_SITES. ``package`` is what to install.
    """

    key: str
    name: str
    mechanism: str = ""
    words: tuple[str, ...] = ()
    package: str = ""


def _bpftrace(key, name, script):
    words = ("bpftrace", "-o", "{out}", "-e", script, "-c", "{command}")
    return Tracer(key, f"bpftrace: {name}", words=words, package="bpftrace")


TRACERS = (
    Tracer("untraced", "untraced"),
    Tracer("trace", "zctrace trace", mechanism="auto"),
    Tracer("callsite", "zctrace trace --mechanism callsite", mechanism="callsite"),
    Tracer("breakpoint", "zctrace trace --mechanism breakpoint", mechanism="breakpoint"),
    _bpftrace(
        "bpftrace-copies",
        "copies, counted by watchpoints",
        " ".join(
            f"watchpoint:0x{{{site}}}:8:x {{ @copies = count(); }}" for site in COPY_SITES
        ),
    ),
    _bpftrace("bpftrace-answer", "calls and bytes by command and call", f"{_CALLS} {_SUMS}"),
    _bpftrace(
        "bpftrace-calls",
        "system calls, counted",
        "tracepoint:raw_syscalls:sys_enter { @ = count(); }",
    ),
    Tracer(
        "strace", "strace -f -c", words=("strace", "-f", "-c", "-o", "{out}"), package="strace"
    ),
    Tracer(
        "perf-trace",
        "perf trace -s",
        words=("perf", "trace", "-s", "-o", "{out}"),
        package="linux-perf",
    ),
)
BY_KEY = {tracer.key: tracer for tracer in TRACERS}
