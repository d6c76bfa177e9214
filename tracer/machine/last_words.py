"""Why a guest ended: what its kernel, or its first program, has said last.

A kernel that gives up prints its reason before registers and a call trace, which are what a
console ends with. So the reason is looked for by the words that the kernel has for it.
"""

from __future__ import annotations

import re
from pathlib import Path

from zctrace.machine import guest_init

_LAST_LINES, _MOST_CHARACTERS = 3, 400
_STAMP = re.compile(r"^\[ *\d+\.\d+\](\[ *[TC]\d+\])? ")
"""The time of a message, and with CONFIG_PRINTK_CALLER who printed it."""
_FAULTS = re.compile(
    r"BUG: |kernel BUG at |Oops: |general protection fault|VFS: Unable to mount|"
    r"Initramfs unpacking failed|Out of memory: "
)
"""What comes before a panic, and is why. Each is printed by the kernel at level 0 to 3."""
_PANIC = re.compile(r"Kernel panic - not syncing(: .*)?$")
_NOISE = re.compile(
    r"(R[A-Z0-9]{2}|E?FLAGS|EFLAGS|[CDEFG]S|CR\d|DR\d|PKRU|ORIG_RAX|Code): |"
    r"-+\[ |Call Trace:|</?(TASK|IRQ)>|\? |Modules linked in|Hardware name:|Kernel Offset:|"
    r"[a-z_][\w.]*\+0x|CPU: \d+ |"
    # A machine that was saved looks for the run's share again and again.
    r"9pnet_virtio: no channels available"
)
"""Of a kernel's last lines, those that say nothing to who has no disassembly of it."""


def last_words(log: Path, console: Path) -> str:
    """The reason in the collector's own log, or on its machine's console; empty without any."""
    lines = _lines(console)
    reason = _of_first_program(lines) or _of_kernel(lines)
    telling = [line for line in lines if not _NOISE.match(line)]
    return reason or _last(_lines(log)) or _last(telling)


def _of_first_program(lines: list[str]) -> str:
    said = [line for line in lines if line.startswith(guest_init.FAILED)]
    return said[-1] if said else ""


def _of_kernel(lines: list[str]) -> str:
    """The panic, and the fault that it is for; or a fault alone."""
    panics = [line for line in lines if _PANIC.match(line)]
    faults = [line for line in lines if _FAULTS.match(line)]
    return " | ".join(dict.fromkeys([*faults[:1], *panics[:1]]))[:_MOST_CHARACTERS]


def _last(lines: list[str]) -> str:
    return " | ".join(lines[-_LAST_LINES:])[-_MOST_CHARACTERS:]


def _lines(path: Path) -> list[str]:
    """Those that say something, without their times."""
    try:
        text = path.read_text(errors="replace")
    except OSError:
        return []
    stripped = (_STAMP.sub("", line.strip()).strip() for line in text.splitlines())
    return [line for line in stripped if line]
