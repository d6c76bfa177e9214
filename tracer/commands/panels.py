"""What ``--help`` shows in addition to each option's words: panels and examples."""

from __future__ import annotations

MEASURE, SAVED, MACHINE = "Measure", "Saved results", "Kernels and this machine"
"""Panels of commands."""
_OPTIONS = {
    "What to measure": (
        *("pid", "name", "unit", "container", "cgroup", "thread", "client"),
        *("port", "file", "fd", "syscall", "duration", "no_follow", "user", "max_copies"),
        *("every", "skip", "size", "chunk", "pipe_size", "repeat", "nic", "cache", "file"),
        *("to", "fs"),
    ),
    "Kernel and virtual machine": ("kernel", "cpus", "module", "boot_timeout"),
    "How to count": ("mechanism", "stacks", "user_copies"),
    "Output": (
        *(
            "csv",
            "evidence",
            "json",
            "jsonl",
            "html",
            "markdown",
            "svg",
            "parquet",
            "folded",
            "speedscope",
            "force",
        ),
        *("interval", "quiet", "verbose", "dry_run", "keep", "copy_out"),
        "period",
    ),
}
PANEL_OF = {name: panel for panel, names in _OPTIONS.items() for name in names}
"""By the name of a command's parameter."""
FIRST = (
    "Type first:",
    "sudo zctrace trace -- cp FILE COPY      does cp copy, and how often?",
    "sudo zctrace run                        the textbook's four ways, measured",
    "zctrace example                         what such an answer looks like",
)
_EXAMPLES = {
    "run": (
        "sudo zctrace run",
        "sudo zctrace run sendfile splice --kernel 5.10 --kernel 7.3 --html page.html",
        "sudo zctrace run --nic e1000 --cache cold",
    ),
    "trace": (
        "sudo zctrace trace -- cp big.iso /srv",
        "sudo zctrace trace -p 1234 -d 10 --json nginx.json",
        "sudo zctrace trace --unit nginx.service -d 10",
        "sudo zctrace trace --client 'curl -so /dev/null localhost:8000/big' -- ./server",
        "sudo zctrace trace --kernel 6.1 --stacks --folded stacks.txt -- ./server",
    ),
    "check": ("sudo zctrace check --max-copies 0.01 -- ./server --self-test",),
    "top": (
        "sudo zctrace top",
        "sudo zctrace top --name nginx",
        "sudo zctrace top -- cp big.iso /srv",
    ),
    "metrics": ("sudo zctrace metrics --unit nginx.service",),
    "serve": ("sudo zctrace serve -- .venv/bin/pytest",),
    "strategies": ("zctrace strategies",),
    "plan": ("sudo zctrace plan --kernel 6.1",),
    "doctor": ("sudo zctrace doctor",),
    "report": ("zctrace report result.json --html page.html",),
    "compare": ("zctrace compare before.json after.json",),
    "example": (
        "zctrace example textbook --html page.html",
        "zctrace example web-server --json before.json",
    ),
    "fetch": ("sudo zctrace kernels fetch 6.12",),
    "rm": ("sudo zctrace kernels rm 6.16.12+deb13-amd64",),
}


def examples(command: str) -> str | None:
    """The end of a command's help."""
    lines = _EXAMPLES.get(command)
    # Each is a paragraph: typer joins the lines of one.
    return "\n\n".join(("Examples:", *lines)) if lines else None
