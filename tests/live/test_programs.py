"""Real programs, traced on real kernels: what they deliver, and what is copied for it."""

import csv
import json
import re
import subprocess

import pytest

from tests.conftest import LIVE_KERNELS
from tests.live.conftest import zctrace
from tracer import traced
from tracer.evidence import Evidence

SIZE = 16 << 20


@pytest.fixture(scope="module")
def nginx(live, tmp_path_factory):
    """The program alone, unpacked: installed, it would be started as a service."""
    folder = tmp_path_factory.mktemp("nginx")

    def apt(*words):
        return subprocess.run(["apt-get", "-qq", *words], cwd=folder, capture_output=True)

    if apt("download", "nginx").returncode:
        apt("update")
        apt("download", "nginx").check_returncode()
    (package,) = folder.glob("*.deb")
    subprocess.run(["dpkg-deb", "-x", package, folder], check=True)
    return folder / "usr/sbin/nginx"


@pytest.fixture(scope="module", params=LIVE_KERNELS)
def programs(request, live, in_guest, nginx):
    """What became of each, by name."""
    found = in_guest(
        request.param,
        "programs_guest.py",
        "ext4",
        "xfs",
        file_systems=("ext4", "xfs"),
        programs=(nginx,),
    )
    # Where something went wrong there is the reason in the place of evidence.
    assert [text for text in found.values() if isinstance(text, str)] == []
    return {
        name: traced.answer(Evidence.from_json(evidence)) for name, evidence in found.items()
    }


def line(found, name):
    (only,) = [line for line in found.calls if line.name == name]
    return only


def thing(found, end):
    (only,) = [line for line in found.things if line.name.endswith(end)]
    return only


def test_the_controls_of_every_program_pass(programs):
    assert len(programs) == 9
    for name, found in programs.items():
        assert found.failed == [], name
        assert found.doubts == (), name
        assert found.trace.account.overflow == 0


def test_cp_copies_once_inside_the_kernel(programs):
    found = programs["cp"]
    assert line(found, "copy_file_range").copied == {"k2k": SIZE}
    assert line(found, "copy_file_range").delivered == SIZE
    assert found.delivered == {"file": SIZE}
    assert thing(found, "/ext4/copy").copied == {"k2k": SIZE}
    assert 1 <= found.copies < 1.001
    assert found.trace.status == 0


def test_cp_reflink_copies_nothing(programs):
    found = programs["cp --reflink"]
    assert line(found, "ioctl").copied == {}
    assert found.delivered == {"file": SIZE}
    assert thing(found, "/xfs/copy").copied == {}
    # Libraries are read, and nothing else.
    assert found.copied_bytes < 16384
    assert traced.sentence(found).startswith("zero-copy for ")


def test_cat_reads_and_a_device_takes_it(programs):
    found = programs["cat"]
    assert thing(found, "/ext4/payload").copied == {"k2u": SIZE}
    assert found.delivered == {"device": SIZE}
    assert line(found, "write").copied == {}


def test_children_are_followed_and_their_pipe_is_no_delivery(programs):
    found = programs["shell"]
    (pipe,) = [line for line in found.things if line.name.startswith("pipe:")]
    assert pipe.copied == {"u2k": SIZE, "k2u": SIZE}
    assert (pipe.received, pipe.delivered) == (SIZE, SIZE)
    assert sum(found.delivered.values()) < 100
    assert found.trace.status == 7
    assert {line.name.split()[0] for line in found.threads} >= {"cat", "wc", "sh"}


def test_nginx_with_sendfile_copies_nothing_of_the_file(programs):
    found = programs["nginx, sendfile on"]
    sent = line(found, "sendfile")
    assert (sent.received, sent.delivered, sent.copied) == (SIZE, SIZE, {})
    assert found.copies < 0.01
    assert thing(found, "/ext4/payload").copied == {}
    assert found.trace.ended == "interrupted"


@pytest.mark.parametrize("name", ["nginx, sendfile off", "nginx, by its cgroup"])
def test_nginx_without_sendfile_copies_twice(programs, name):
    """Its breakpoints are for everybody, or for the cgroup that it has to itself."""
    found = programs[name]
    assert line(found, "pread64").copied == {"k2u": SIZE}
    headers = line(found, "writev").delivered - SIZE
    assert 0 < headers < 1000
    assert line(found, "writev").copied == {"u2k": SIZE + headers}
    assert round(found.copies, 2) == 2


def test_children_that_are_not_followed_stay_out(programs):
    found = programs["alone"]
    assert "execve" not in found.beside
    assert all(not line.name.endswith("/ext4/payload") for line in found.things)
    assert found.copied_bytes < 16384


def test_time_is_up(programs):
    found = programs["time"]
    assert found.trace.ended == "time"
    assert found.trace.status == 128 + 15


def stacks_are_whole(found, folded):
    """Every byte has its stack, and that of the write leads from the program to the copy."""
    assert found.without_stack == 0
    stacks = dict(line.rsplit(" ", 1) for line in folded.splitlines())
    assert sum(map(int, stacks.values())) == found.copied_bytes
    written = [stack for stack, size in stacks.items() if size == "300007"]
    assert len(written) == 1, stacks
    frames = written[0].split(";")
    assert frames[0] == "head"
    assert frames[-1] == "copy_page_from_iter_atomic_[k]"
    assert {"write(2)", "vfs_write_[k]"} <= set(frames)
    assert any(frame.endswith("[libc.so.6]") for frame in frames)


def running_view_is_no_more_than_the_answer(found, stderr):
    """Lines are of intervals, the last of which ended before the program did."""
    lines = [line.split() for line in stderr.splitlines() if re.match(r" +[0-9.]+ s ", line)]
    assert lines
    received, delivered, copied = (sum(int(line[n]) for line in lines) for n in (2, 3, 4))
    assert 0 < copied <= found.copied_bytes
    assert received <= sum(line.received for line in found.calls)
    assert delivered <= sum(line.delivered for line in found.calls)


def test_the_command_line(live, tmp_path):
    """In a virtual machine: output, status, and every form of the result."""
    forms = [f"--{name}={tmp_path / name}" for name in ("json", "csv", "folded", "speedscope")]
    result = zctrace(
        *("trace", "--kernel", "6.1", "-i", "0.5", *forms),
        *("--", "sh", "-c", "echo out; head -c 300007 /dev/zero >/tmp/x; echo err >&2; exit 5"),
    )
    assert result.returncode == 5, result.stderr
    assert result.stdout.startswith("out\nNot zero-copy: ")
    assert "err\n" in result.stderr
    rows = list(csv.DictReader((tmp_path / "csv").open()))
    written = [row for row in rows if row["thing"] == "/tmp/x"]
    assert sum(int(row["bytes"]) for row in written if row["way"] == "out") == 300_007
    assert {row["direction"]: int(row["bytes"]) for row in written if row["direction"]} == {
        "u2k": 300_007
    }
    (evidence,) = json.loads((tmp_path / "json").read_text())["evidence"]
    assert "PATH" not in json.dumps(evidence["request"])
    found = traced.answer(Evidence.from_json(evidence))
    stacks_are_whole(found, (tmp_path / "folded").read_text())
    profiles = json.loads((tmp_path / "speedscope").read_text())["profiles"]
    assert profiles[0]["endValue"] == found.copied_bytes
    running_view_is_no_more_than_the_answer(found, result.stderr)
    again = zctrace("report", tmp_path / "json")
    assert again.stdout == result.stdout.removeprefix("out\n")
