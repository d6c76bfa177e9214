"""A server with its client, and copies in a program's own memory, by the command line."""

import json
import shutil
import subprocess
import sys

from tests.conftest import or_skip
from tests.live.conftest import zctrace
from zctrace import errors
from zctrace.analysis import advice, program
from zctrace.evidence.schema import Evidence

MIB = 1 << 20
SIZE, PIECES, PIECE = 8 * MIB, 12, 300_007
OWN = f"""
import ctypes
one, other = (ctypes.create_string_buffer({PIECE}) for _ in range(2))
for _ in range({PIECES}):
    ctypes.memmove(one, other, {PIECE})
"""
STATIC = f"""
#include <string.h>
#include <unistd.h>
static char one[{PIECE}], other[{PIECE}];
static void put(void)
{{
	write(1, one, 1);
}}
int main(void)
{{
	for (int i = 0; i < {PIECES}; i++)
		memcpy(one, other, sizeof one - (i > 99));
	put();
	return 0;
}}
"""
SERVER = f"""
import http.server, os
os.chdir("/dev/shm")
with open("payload", "wb") as file:
    os.posix_fallocate(file.fileno(), 0, {SIZE})
http.server.ThreadingHTTPServer(
    ("127.0.0.1", 8000), http.server.SimpleHTTPRequestHandler
).serve_forever()
"""
CLIENT = f"""
import sys, urllib.request
got = len(urllib.request.urlopen("http://127.0.0.1:8000/payload").read())
print(got)
sys.exit(3 if got == {SIZE} else 1)
"""


def traced(tmp_path, *words, status):
    saved = ("--json", tmp_path / "json", "--force")
    result = zctrace("trace", "--kernel", "6.1", *saved, *words)
    assert result.returncode == status, result.stderr
    (evidence,) = json.loads((tmp_path / "json").read_text())["evidence"]
    return result, program.answer(Evidence.from_json(evidence))


def test_a_server_and_its_client(live, tmp_path):
    """The client is not traced, ends the server, and gives its status."""
    (tmp_path / "client.py").write_text(CLIENT)
    client = f"{sys.executable} -I {tmp_path}/client.py"
    result, found = traced(
        *(tmp_path, "--client", client, "--user-copies", "4K"),
        *("--", sys.executable, "-I", "-c", SERVER),
        status=3,
    )
    assert result.stdout.startswith(f"{SIZE}\n")
    assert (found.trace.ended, found.trace.client_status) == ("served", 3)
    assert found.failed == []
    delivered = found.delivered["socket"]
    assert SIZE < delivered < SIZE + 4096
    # What the client received is in no figure of the server's.
    assert found.received["socket"] < 4096
    (given,) = [one for one in advice.of(found) if one.rule == "sendfile"]
    assert given.saves_bytes == 2 * SIZE
    assert "memmove in libc.so.6" in found.trace.watched


def test_copies_in_a_program_s_own_memory(live, tmp_path):
    _, found = traced(
        *(tmp_path, "--user-copies", "64K", "--", sys.executable, "-I", "-c", OWN), status=0
    )
    assert found.failed == []
    assert {c.name for c in found.checked if "user-memory" in c.name}
    (line,) = found.within
    assert line.name == "memmove"
    # Python copies little of that size by itself, and this is all of the program's.
    assert PIECES <= line.calls <= PIECES + 8
    assert PIECES * PIECE <= line.copied_bytes < PIECES * PIECE + MIB


def test_a_program_that_is_linked_statically(live, tmp_path):
    """Exact where its own functions are watched; where a shell starts it, no zero is said."""
    compiler = shutil.which("gcc")
    if not compiler:
        or_skip("gcc is not installed")
    source, program = tmp_path / "own.c", str(tmp_path / "own")
    source.write_text(STATIC)
    subprocess.run([compiler, "-g", "-O0", "-static", "-o", program, source], check=True)
    words = (tmp_path, "--user-copies", "64K", "--stacks")
    _, found = traced(*words, "--", program, status=0)
    assert found.failed == []
    assert [(line.calls, line.copied_bytes) for line in found.within] == [
        (PIECES, PIECES * PIECE)
    ]
    assert found.trace.watched == ("memmove in libc.so.6", "memmove (linked in) in own")
    assert (found.trace.unwatched, found.doubts) == ((), ())
    frames = {frame for stack in found.stacks for frame in stack.user}
    # The C library's function has no frame of its own, so put() is not on the stack.
    assert "main (own.c:13) [own]" in frames
    # Its library's function is another one, by the user's wish.
    alone = str(tmp_path / "alone")
    subprocess.run([compiler, "-g", "-O0", "-o", alone, source], check=True)
    shell = f"{program}; {alone}; GLIBC_TUNABLES=glibc.cpu.hwcaps=-AVX2,-ERMS {alone}; true"
    _, found = traced(*words, "--", "/bin/sh", "-c", shell, status=0)
    assert [(line.calls, line.copied_bytes) for line in found.within] == [
        (PIECES, PIECES * PIECE)
    ]
    other, static = found.trace.unwatched
    assert static == "own: it is linked statically, and no function of its own is watched"
    assert other.startswith("alone: it called no function that is watched")
    assert set(found.doubts) == {
        f"not watched: the own memory of {one}" for one in (other, static)
    }


def test_a_function_that_is_not_watched_after_all_fails_the_self_tests(live, tmp_path):
    result, found = traced(
        *(tmp_path, "--user-copies", "64K", "--sabotage", "memmove"),
        *("--", sys.executable, "-I", "-c", OWN),
        status=errors.ControlError.exit_code,
    )
    assert "do not trust these figures" in result.stdout
    assert {control.name for control in found.failed} >= {
        "known bytes, user-memory:u2u, control_before",
        "known bytes, user-memory:u2u, control_after",
    }
