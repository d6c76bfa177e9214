"""Functions that copy within a program's own memory. To add one, add a row.

The kernel's meter cannot see these copies: they are the program's own instructions. Probes
in user space see those that are made by calling a function, and no others: not what the
compiler has made of a short copy, and not what a JVM's own compiler puts into its code.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class UserCopy:
    """One function, by its names.

    ``library`` is how the name of the file begins. The third argument, or that of another
    number, is a number of units of ``unit`` bytes. ``chosen_at_start`` is whether the names
    stand for one of several functions, which the loader chooses by the processor
    (``STT_GNU_IFUNC``). ``pushes`` is whether its first instruction is ``push %rbp``: the
    probe is behind that one, because a probe on it would push in its place, which is a copy
    to user memory by the kernel.
    """

    function: str
    library: str
    names: tuple[str, ...]
    unit: int
    why: str
    chosen_at_start: bool = False
    argument: int = 3
    pushes: bool = False
    register: str = "dx"
    """That has the third argument."""
    pattern: str = ""
    """A regular expression for further names."""


_ARRAYS = "what a JVM moves from one array to another (System.arraycopy)"

USER_COPIES: tuple[UserCopy, ...] = (
    UserCopy(
        "memmove",
        "libc.so",
        # With a name of its own for the last: it enters the others behind their beginning.
        # What checks the size before (__memcpy_chk) runs into them from above.
        ("memmove", "memcpy", "mempcpy"),
        1,
        "the C library's, which a JVM calls for bytes (SetByteArrayRegion)",
        chosen_at_start=True,
    ),
    UserCopy(
        "Unsafe_CopyMemory0",
        "libjvm.so",
        ("Unsafe_CopyMemory0",),
        1,
        "what a JVM moves between its arrays and memory outside of them, as buffers do "
        "(Unsafe.copyMemory)",
        argument=7,
        pushes=True,
    ),
    UserCopy(
        "_Copy_arrayof_conjoint_bytes",
        "libjvm.so",
        ("_Copy_arrayof_conjoint_bytes",),
        1,
        _ARRAYS,
    ),
    UserCopy(
        "_Copy_arrayof_conjoint_jshorts",
        "libjvm.so",
        ("_Copy_arrayof_conjoint_jshorts",),
        2,
        _ARRAYS,
    ),
    UserCopy(
        "_Copy_arrayof_conjoint_jints",
        "libjvm.so",
        ("_Copy_arrayof_conjoint_jints",),
        4,
        _ARRAYS,
    ),
    UserCopy(
        "_Copy_arrayof_conjoint_jlongs",
        "libjvm.so",
        ("_Copy_arrayof_conjoint_jlongs",),
        8,
        _ARRAYS,
    ),
)
"""Sources: glibc 2.36, sysdeps/x86_64/multiarch/memmove-vec-unaligned-erms.S; OpenJDK 17,
src/hotspot/os_cpu/linux_x86/linux_x86_64.S, copy_linux_x86.inline.hpp and
src/hotspot/share/prims/unsafe.cpp, whose function jumps to code that is made when the JVM
starts. Every copy passes one of them once."""

GO = UserCopy(
    "runtime.memmove",
    "",
    ("runtime.memmove",),
    1,
    "Go's, which its compiler calls for what is not of a small constant size",
    register="cx",
)
LINKED_IN = UserCopy(
    "memmove (linked in)",
    "",
    (),
    1,
    "glibc's in a program that is linked statically, all of its variants",
    pattern=r"__(memmove|memcpy|mempcpy)_(?!chk|ifunc)\w+",
)
OWN_COPIES: tuple[UserCopy, ...] = (GO, LINKED_IN)
"""In a program's own file, where that has symbols. Sources: Go 1.26, runtime/memmove_amd64.s
(ABIInternal: the length is in the third register of cmd/compile/abi-internal.md); glibc 2.36,
sysdeps/x86_64/multiarch/."""
PROGRAM_COPIES = (*USER_COPIES, *OWN_COPIES)
"""What is watched of a traced program."""
