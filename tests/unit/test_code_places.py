"""Where in a program's code the call was: of real stacks, the innermost function first."""

import pytest

from zctrace.analysis import code_places
from zctrace.evidence.account import Stack
from zctrace.probes.model import Direction

NODE = (
    "__read [libc.so.6]", "uv_fs_read [libuv.so.1]", "_ZN2v88internal [node]",
    "JS:~readSync node:fs:708:18", "JS:^readAll /srv/sync.js:2:17",
    "JS:~outer /srv/sync.js:3:15", "BytecodeHandler:Call", "node+0x86853f",
)  # fmt: skip
JAVA = (
    "__read [libc.so.6]", "readBytes [libjava.so]",
    "int java.io.FileInputStream.readBytes(byte[], int, int)", "long J.readAll(InputStream)",
    "Interpreter", "JavaMain [libjli.so]",
)  # fmt: skip
GO = (
    "internal/runtime/syscall/linux.Syscall6 [serve]", "syscall.read [serve]",
    "internal/poll.(*FD).Read [serve]", "os.(*File).Read [serve]",
    "go:(*struct { io.Reader }).Read [serve]", "io.copyBuffer [serve]", "main.main [serve]",
)  # fmt: skip


@pytest.mark.parametrize(
    ("frames", "place"),
    [
        (NODE, "JS:^readAll /srv/sync.js:2:17"),
        (JAVA, "long J.readAll(InputStream)"),
        # Interpreted: only what the JVM has compiled has a name.
        (JAVA[:3] + JAVA[4:], "int java.io.FileInputStream.readBytes(byte[], int, int)"),
        (GO, "main.main [serve]"),
        (GO[:4], "internal/runtime/syscall/linux.Syscall6 [serve]"),
        (("__read [libc.so.6]", "copy_file [cp]", "main [cp]"), "copy_file [cp]"),
        (("__read [libc.so.6]", "cp+0x5e10"), "cp+0x5e10"),
        (("__read [libc.so.6]", "[unknown]"), "__read [libc.so.6]"),
        (("[unknown]", "[unknown]"), "[unknown]"),
        (("read [ld-linux-x86-64.so.2]", "[unknown]"), "read [ld-linux-x86-64.so.2]"),
        ((), ""),
    ],
)
def test_the_innermost_that_is_the_program_s(frames, place):
    stack = Stack(1, "it", "_copy_to_iter", "read", Direction.KERNEL_TO_USER, (), frames, 1, 9)
    assert code_places.place(stack) == place
