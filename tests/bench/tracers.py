"""What is compared: zctrace, and tools whose answers come near to its own.

Standard library only: the script in the guest imports it, too.
"""

import shlex
from dataclasses import dataclass

COPY_SITES = ("_copy_to_iter", "_copy_from_iter")
"""Where bpftrace counts copies. It takes only the address of a function's entry for a
watchpoint, so that its count is of calls."""
_CALLS = "tracepoint:raw_syscalls:sys_enter { @calls[comm, args->id] = count(); }"
_SUMMED = {
    "vfs_read": "read",
    "vfs_write": "write",
    "__x64_sys_sendfile64": "sendfile",
    "__x64_sys_sendto": "sendto",
}
"""Functions that return bytes, and the name of the call in the script's output."""
_SUMS = " ".join(
    f'kretprobe:{function} /(int64)retval > 0/ {{ @bytes[comm, "{name}"] = sum(retval); }}'
    for function, name in _SUMMED.items()
)


@dataclass(frozen=True)
class Tracer:
    """One configuration. ``mechanism`` is zctrace's, ``words`` start another tool.

    In ``words``, ``{out}`` is a file for the tool's output, ``{command}`` what it traces
    (which otherwise follows), ``{FUNCTION}`` the address of one of COPY_SITES. ``package``
    is what to install.
    """

    key: str
    name: str
    mechanism: str = ""
    words: tuple[str, ...] = ()
    package: str = ""

    @property
    def program(self):
        """The tool's program; empty for zctrace and for no tool."""
        return self.words[0] if self.words else ""

    def command(self, traced, out, addresses):
        """The tool's command line, or without a tool ``traced`` itself.

        ``addresses`` are those of COPY_SITES, in hexadecimal.
        """
        known = {"out": out, "command": shlex.join(traced), **addresses}
        words = list(self.words) if "{command}" in self.words else [*self.words, *traced]
        for name, value in known.items():
            words = [word.replace(f"{{{name}}}", value) for word in words]
        return words


def _bpftrace(key, name, script):
    words = ("bpftrace", "-o", "{out}", "-e", script, "-c", "{command}")
    return Tracer(key, f"bpftrace: {name}", words=words, package="bpftrace")


UNTRACED, ZCTRACE = "untraced", "trace"
TRACERS = (
    Tracer(UNTRACED, "untraced"),
    Tracer(ZCTRACE, "zctrace trace", mechanism="auto"),
    Tracer("callsite", "zctrace trace --mechanism callsite", mechanism="callsite"),
    Tracer("breakpoint", "zctrace trace --mechanism breakpoint", mechanism="breakpoint"),
    _bpftrace(
        "bpftrace-copies",
        "copies, counted by two watchpoints",
        " ".join(f"watchpoint:0x{{{f}}}:8:x {{ @copies = count(); }}" for f in COPY_SITES),
    ),
    _bpftrace("bpftrace-answer", "calls and bytes by command and call", f"{_CALLS} {_SUMS}"),
    _bpftrace(
        "bpftrace-calls",
        "system calls, counted",
        "tracepoint:raw_syscalls:sys_enter { @ = count(); }",
    ),
    Tracer(
        "strace",
        "strace -f -c",
        words=("strace", "-f", "-c", "-o", "{out}"),
        package="strace",
    ),
    Tracer(
        "perf-trace",
        "perf trace -s",
        words=("perf", "trace", "-s", "-o", "{out}"),
        package="linux-perf",
    ),
)
BY_KEY = {tracer.key: tracer for tracer in TRACERS}
