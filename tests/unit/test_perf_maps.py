"""Names of code that was made at run time, or is always at the same addresses."""

import os
import struct
from types import SimpleNamespace

import pytest

from zctrace.collect import perf_maps, stacks
from zctrace.collect.perf_maps import PerfMap


@pytest.fixture
def written(monkeypatch, tmp_path):
    """What a process has written, as text."""
    path = tmp_path / "perf-1.map"
    monkeypatch.setattr(perf_maps, "_paths", lambda process: [tmp_path / "none", path])
    return path


def test_an_address_is_in_the_code_around_it(written):
    written.write_text("7f00 10 JS:~one /srv/a.js:2:17\n7f20 8 int J.two(byte[])\n")
    named = PerfMap(1)
    assert named.name(0x7F00) == "JS:~one /srv/a.js:2:17"
    assert named.name(0x7F0F) == "JS:~one /srv/a.js:2:17"
    assert named.name(0x7F27) == "int J.two(byte[])"
    assert [named.name(at) for at in (0, 0x7EFF, 0x7F10, 0x7F28)] == [None] * 4


def test_what_was_written_last_is_there(written):
    written.write_text("10 10 old\n10 20 new\n")
    assert PerfMap(1).name(0x28) == "new"


def test_lines_of_another_form_are_passed_over(written):
    written.write_bytes(b"\n0x\nzz 10 a\n10 zz b\n 20 8\n30 8 \xff\xfe\n")
    named = PerfMap(1)
    assert named.name(0x10) is None
    assert named.name(0x30) == "\ufffd\ufffd"


def test_no_file_no_names(written):
    assert PerfMap(1).name(0) is None


@pytest.mark.parametrize("kind", ["link", "fifo", "folder"])
def test_only_a_regular_file_is_read(written, tmp_path, kind):
    """Anybody may make something else of that name in /tmp, for root to fall over."""
    if kind == "link":
        (tmp_path / "other").write_text("10 10 it\n")
        written.symlink_to(tmp_path / "other")
    elif kind == "fifo":
        os.mkfifo(written)
    else:
        written.mkdir()
    assert PerfMap(1).name(0x10) is None


def test_a_process_has_it_under_its_own_number():
    first, second = perf_maps._paths(os.getpid())
    assert str(first) == f"/proc/{os.getpid()}/root/tmp/perf-{os.getpid()}.map"
    assert str(second) == f"/tmp/perf-{os.getpid()}.map"
    assert len(list(perf_maps._paths(2**22 + 1))) == 1


def test_a_program_at_fixed_addresses(tmp_path):
    server, library = tmp_path / "server-of-a-long-name", tmp_path / "library"
    server.write_bytes(struct.pack("=16xH", 2))
    library.write_bytes(struct.pack("=16xH", 3))
    names = SimpleNamespace(functions=lambda path: [(0x400100, "b"), (0x400000, "main.main"),
                                                    (0x400200, "c")])  # fmt: skip
    lines = SimpleNamespace(of={0x40004F: "srv.go:3", 0x400100: "srv.go:9"}.get)
    fixed = stacks._Fixed(map(str, (server, library)), names, lambda path: lines)
    long = "main.main (srv.go:3) [server-of-a-long-name]"
    assert fixed.name(0x400050, "server-of-a-lon", 1) == long
    assert fixed.name(0x400050, "server-of-a-lon") == "main.main [server-of-a-long-name]"
    assert fixed.name(0x400100, "server-of-a-lon") == "b (srv.go:9) [server-of-a-long-name]"
    # Where the last one ends is not known.
    assert fixed.name(0x400200, "server-of-a-lon") is None
    assert fixed.name(0x3FFFFF, "server-of-a-lon") is None
    assert fixed.name(0x400050, "library") is None
    assert fixed.name(0x400050, "another") is None
