"""bpf(2) for the programs that BCC does not manage well.

To load a program for a function's entry (*fentry*: a trampoline that the function calls, since
Linux kernel commit fec56f5890d9 ("bpf: Introduce BPF trampoline") (in v5.5)), BCC goes by the
program's name, which differs from version to version. And it does not ask what became of
programs. Source: bpf(2), include/uapi/linux/bpf.h. x86-64.
"""

from __future__ import annotations

import ctypes
import errno
import os
import struct

from zctrace.kernel import btf

_SYS_BPF = 321
_PROG_LOAD, _PROG_RUN, _OBJ_GET_INFO_BY_FD, _RAW_TRACEPOINT_OPEN = 5, 10, 15, 17
_ATTRIBUTES_BYTES = 128
PROBE, TRACEPOINT, BREAKPOINT, RAW_TRACEPOINT, _TRACING = 2, 5, 7, 17, 26
"""enum bpf_prog_type; a breakpoint's programs are those of perf events."""
_TRACE_FENTRY, _TRACE_FEXIT = 24, 25
_INSTRUCTION_BYTES = 8
_NOTHING = struct.pack("=BBhi", 0xB7, 0, 0, 0) + struct.pack("=BBhi", 0x95, 0, 0, 0)
"""A program: r0 = 0; exit."""
_LICENSE = b"GPL\0"
_LOG_BYTES = 1 << 20
_EXPECTED_ATTACH_TYPE, _ATTACH_BTF_ID = 68, 108
"""Where union bpf_attr has them for a program to be loaded."""
_CONTEXT_SIZE, _CONTEXT = 40, 48
"""The same for a program that is run: ``ctx_size_in`` and ``ctx_in``."""
_INFO_BYTES, _RECURSION_MISSES = 256, 208
"""Size asked for of struct bpf_prog_info, and where recursion_misses stands (Since Linux kernel
commit 9ed9e9ba2337 ("bpf: Count the number of times recursion was prevented") (in v5.12))."""

_libc = ctypes.CDLL(None, use_errno=True)


def load(kind: int, instructions: bytes) -> int:
    """Load a program for a probe, tracepoint or breakpoint; returns its descriptor.

    The maps that ``instructions`` name are open. Raises ``OSError``: the kernel's own, with
    the end of what its verifier says.
    """
    return _load(kind, instructions, 0, 0)


def load_at_entry(function: str, instructions: bytes, *, at_return: bool = False) -> int:
    """The same for the entry or the return of a kernel function, which calls it.

    Also raises ``OSError``: ENOENT where the kernel describes no such function, ENOSYS where
    that cannot be looked up.
    """
    when = _TRACE_FEXIT if at_return else _TRACE_FENTRY
    return _load(_TRACING, instructions, when, _type_number(function))


def _load(kind: int, instructions: bytes, attach_type: int, attach_to: int) -> int:
    for level in (0, 1):  # once more, only for the reason
        log = ctypes.create_string_buffer(_LOG_BYTES * level or 1)
        code, terms = ctypes.c_char_p(instructions), ctypes.c_char_p(_LICENSE)
        attributes = ctypes.create_string_buffer(_ATTRIBUTES_BYTES)
        struct.pack_into(
            "=IIQQIIQ",
            attributes,
            0,
            *(kind, len(instructions) // _INSTRUCTION_BYTES),
            *(_address(code), _address(terms)),
            *(level, _LOG_BYTES * level, ctypes.addressof(log) * level),
        )
        struct.pack_into("=I", attributes, _EXPECTED_ATTACH_TYPE, attach_type)
        struct.pack_into("=I", attributes, _ATTACH_BTF_ID, attach_to)
        program: int = _libc.syscall(_SYS_BPF, _PROG_LOAD, attributes, _ATTRIBUTES_BYTES)
        if program >= 0:
            return program
    error = ctypes.get_errno()
    said = log.value.decode(errors="replace").strip().splitlines()
    raise OSError(error, "; ".join((os.strerror(error), *said[-2:-1])))


def attach_at_entry(program: int) -> int:
    """Have it run where it was loaded for, until the returned descriptor is closed.

    Raises ``OSError``.
    """
    return _open(program, 0)


def attach_to_raw_tracepoint(program: int, name: str) -> int:
    """Have a program get the arguments of a tracepoint, until the descriptor is closed.

    Raises ``OSError``.
    """
    tracepoint = ctypes.c_char_p(name.encode())
    return _open(program, _address(tracepoint))


def _open(program: int, name: int) -> int:
    attributes = ctypes.create_string_buffer(
        struct.pack("=QI", name, program), _ATTRIBUTES_BYTES
    )
    link: int = _libc.syscall(_SYS_BPF, _RAW_TRACEPOINT_OPEN, attributes, 16)
    if link < 0:
        error = ctypes.get_errno()
        raise OSError(error, os.strerror(error))
    return link


def try_at_entry(function: str) -> None:
    """Have a program that does nothing run at the function's entry, for a moment.

    Raises ``OSError`` as :func:`load_at_entry` and :func:`attach_at_entry`.
    """
    program = load_at_entry(function, _NOTHING)
    try:
        os.close(attach_at_entry(program))
    finally:
        os.close(program)


def run(program: int, *arguments: int) -> int:
    """Run a raw tracepoint's program once, with ``arguments``; returns what it returns.

    Raises ``OSError``. Since Linux kernel commit 1b4d60ec162f ("bpf: Enable BPF_PROG_TEST_RUN
    for raw_tracepoint") (in v5.10).
    """
    context = (ctypes.c_uint64 * len(arguments))(*arguments)
    attributes = ctypes.create_string_buffer(_ATTRIBUTES_BYTES)
    struct.pack_into("=I", attributes, 0, program)
    struct.pack_into("=I", attributes, _CONTEXT_SIZE, ctypes.sizeof(context))
    struct.pack_into("=Q", attributes, _CONTEXT, ctypes.addressof(context))
    if _libc.syscall(_SYS_BPF, _PROG_RUN, attributes, _ATTRIBUTES_BYTES):
        error = ctypes.get_errno()
        raise OSError(error, os.strerror(error))
    (result,) = struct.unpack_from("=I", attributes, 4)
    return int(result)


def recursion_misses(program: int) -> int | None:
    """How often the kernel skipped the program because one was running; None if untold.

    Of probes' and tracepoints' programs not every kernel that has the figure counts in it
    (``KernelFacts.tells_skips``); of others it stays 0.
    """
    info = _program_info(program)
    if len(info) < _RECURSION_MISSES + 8:
        return None
    (misses,) = struct.unpack_from("=Q", info, _RECURSION_MISSES)
    return int(misses)


def _program_info(program: int) -> bytes:
    """struct bpf_prog_info, as far as the kernel fills it in; empty if it does not."""
    info = ctypes.create_string_buffer(_INFO_BYTES)
    attributes = ctypes.create_string_buffer(
        struct.pack("=IIQ", program, _INFO_BYTES, ctypes.addressof(info)), _ATTRIBUTES_BYTES
    )
    if _libc.syscall(_SYS_BPF, _OBJ_GET_INFO_BY_FD, attributes, 16):
        return b""
    (length,) = struct.unpack_from("=I", attributes.raw, 4)
    return info.raw[:length]


def _address(text: ctypes.c_char_p) -> int:
    return ctypes.cast(text, ctypes.c_void_p).value or 0


def _type_number(function: str) -> int:
    """The function's number in the running kernel's type information."""
    try:
        number = btf.vmlinux().function(function)
    except btf.BtfError as error:
        raise OSError(
            errno.ENOSYS, f"the kernel's type information was not read: {error}"
        ) from error
    if number < 0:
        raise OSError(-number, "the kernel's type information has no such function")
    return number
