"""A suite of tracing_guest: programs for i386, made of their instructions, without a compiler.

They call the kernel by ``int 0x80``, and take standard input and output.
"""

import struct

_ADDRESS, _HEADERS, _ROOM = 0x0804_8000, 52 + 32, 1 << 18
"""Where a program is in memory, its headers' size, and how much there is for all."""
_BUFFER = _ADDRESS + 0x1000
_EXIT, _READ, _WRITE, _SOCKETCALL, _SENDFILE64 = 1, 3, 4, 102, 239
_SOCKETPAIR, _SEND, _RECV = 8, 9, 10
_AF_UNIX, _SOCK_STREAM = 1, 1
_AT_ONCE = 1 << 16
PART, SENT = 4_194_301, 40_009
"""Bytes of the file that they copy, and that the last of them sends to itself."""

_REGISTERS = {"eax": 0xB8, "ecx": 0xB9, "edx": 0xBA, "ebx": 0xBB, "esi": 0xBE}
_IF_POSITIVE, _IF_NOT, _ALWAYS = b"\x7f", b"\x7e", b"\xeb"


def _call(number, **arguments):
    """A system call with these values in registers; others keep theirs."""
    loads = {"eax": number, **arguments}
    code = b"".join(
        struct.pack("<BI", _REGISTERS[name], value) for name, value in loads.items()
    )
    return code + b"\xcd\x80"


def _jump(condition, distance):
    """From behind the jump; where the last call has returned more than 0, or not."""
    test = b"" if condition == _ALWAYS else b"\x85\xc0"
    return test + condition + struct.pack("<b", distance)


def _program(code, data=b""):
    """An executable; ``data`` is at the address of :data:`_BUFFER`."""
    code += _call(_EXIT, ebx=0)
    identity = b"\x7fELF\x01\x01\x01" + bytes(9)
    header = struct.pack(
        "<HHIIIIIHHHHHH", 2, 3, 1, _ADDRESS + _HEADERS, 52, 0, 0, 52, 32, 1, 0, 0, 0
    )
    size = _BUFFER - _ADDRESS + len(data)
    segment = struct.pack("<IIIIIIII", 1, 0, _ADDRESS, _ADDRESS, size, _ROOM, 7, 0x1000)
    return (identity + header + segment + code).ljust(_BUFFER - _ADDRESS, b"\0") + data


def _copying():
    """read and write until the end."""
    write = b"\x89\xc2" + _call(_WRITE, ebx=1)  # as many as were read: mov %eax, %edx
    read = _call(_READ, ebx=0, ecx=_BUFFER, edx=_AT_ONCE)
    back = 2
    forward = _jump(_IF_NOT, len(write) + back)
    whole = len(read + forward + write) + back
    return _program(read + forward + write + _jump(_ALWAYS, -whole))


def _sending():
    """sendfile64 until the end."""
    send = _call(_SENDFILE64, ebx=1, ecx=0, edx=0, esi=1 << 22)
    return _program(send + _jump(_IF_POSITIVE, -len(send) - 4))


def _connected():
    """socketpair, send and recv, by socketcall: what they take stands in memory."""
    pair, sent, received, buffer = (_BUFFER + at for at in (0, 32, 64, 96))
    ends = sent, received  # the first word of what the other two calls take
    code = b"".join(
        [
            _call(_SOCKETCALL, ebx=_SOCKETPAIR, ecx=pair),
            *(_move(_BUFFER + 16 + 4 * n, end) for n, end in enumerate(ends)),
            _call(_SOCKETCALL, ebx=_SEND, ecx=sent),
            _call(_SOCKETCALL, ebx=_RECV, ecx=received),
        ]
    )
    words = [
        *(_AF_UNIX, _SOCK_STREAM, 0, _BUFFER + 16, 0, 0, 0, 0),
        *(0, buffer, SENT, 0, 0, 0, 0, 0),
        *(0, buffer, SENT, 0, 0, 0, 0, 0),
    ]
    return _program(code, struct.pack("<24I", *words))


def _move(source, destination):
    """A word of memory."""
    return b"\xa1" + struct.pack("<I", source) + b"\xa3" + struct.pack("<I", destination)


def everything(programs):
    folder = programs.folders["ext4"]
    part = folder / "part"
    part.write_bytes(bytes(range(251)) * (PART // 251) + bytes(PART % 251))
    for name, make in (("copying", _copying), ("sending", _sending), ("connected", _connected)):
        program, copy = folder / f"i386-{name}", folder / f"{name}.copy"
        program.write_bytes(make())
        program.chmod(0o755)
        programs.command(f"i386, {name}", "sh", "-c", f"exec {program} <{part} >{copy}")
