"""Real programs, traced on real kernels: what they deliver, and what is copied for it."""

import csv
import json
import re
from collections import Counter

import pytest

from tests.conftest import LIVE_KERNELS
from tests.live import calls_workload, i386, scale_workload, suites
from tests.live.conftest import ROOT, SUITES, zctrace
from tests.live.suites import SIZE
from zctrace.analysis import advice, border, program, sentences
from zctrace.evidence.schema import Evidence

WIDELY, EVERYTHING = LIVE_KERNELS, tuple(k for k in LIVE_KERNELS if "calls" in SUITES[k])

MESSAGES = sum(calls_workload.FEW + calls_workload.MANY + calls_workload.MOST)


@pytest.fixture(scope="module", params=WIDELY)
def programs(request, traced_on):
    return traced_on(request.param).answers


@pytest.fixture(scope="module", params=EVERYTHING)
def more(request, traced_on):
    return traced_on(request.param)


def line(found, name):
    (only,) = [line for line in found.calls if line.name == name]
    return only


def thing(found, end):
    (only,) = [line for line in found.things if line.name.endswith(end)]
    return only


def things(found, beginning):
    return [line for line in found.things if line.name.startswith(beginning)]


def moved(found, kind, syscall=None):
    """Bytes that one call, or all, took from things of a kind, and brought to them."""
    account = found.trace.account
    total = {"in": 0, "out": 0}
    for flow in account.flows:
        if flow.thing is None or account.things[flow.thing].kind != kind:
            continue
        if syscall in (None, flow.syscall):
            total[flow.way] += flow.bytes
    return total


def copied(found, kind, syscall=None):
    """Bytes copied for things of a kind, by direction."""
    account = found.trace.account
    total = {}
    for booking in account.bookings:
        if booking.thing is None or account.things[booking.thing].kind != kind:
            continue
        if syscall in (None, booking.syscall):
            total[booking.direction] = total.get(booking.direction, 0) + booking.bytes
    return total


def for_users(copied):
    """Without heads of small packets that were pulled into one piece on their way."""
    assert copied.get("k2k", 0) < 4096
    return {way: size for way, size in copied.items() if way != "k2k"}


def test_the_controls_of_every_program_pass(programs):
    assert len(programs) >= 9
    for name, found in programs.items():
        assert found.failed == [], name
        assert found.doubts == () or name in DOUBTED, name
        assert found.trace.account.overflow == 0 or name in CROWDED, name


CROWDED = {"little room"}
DOUBTED = {"recvmmsg in the middle"} | CROWDED
"""In the latter it is not known which connections are inside."""


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
    assert sentences.sentence(found).startswith("zero-copy for ")


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
    assert found.border.inside == {"pipe": SIZE}
    assert found.basis[0] == "received"
    assert found.copies == pytest.approx(3, abs=0.01)
    assert found.trace.status == 7
    assert {line.name.split()[0] for line in found.threads} >= {"cat", "wc", "sh"}


def test_nginx_with_sendfile_copies_nothing_of_the_file(programs):
    found = programs["nginx, sendfile on"]
    sent = line(found, "sendfile")
    # While the receiver is busy, a small packet that waits for it is pulled into one piece.
    pulled = sum(
        site.copied_bytes for site in found.sites if "__pskb_pull_tail, sendfile" in site.name
    )
    assert (sent.received, sent.delivered, sent.copied_bytes) == (SIZE, SIZE, pulled)
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


def test_a_32_bit_program_reads_and_writes_by_numbers_of_its_own(programs):
    found = programs["i386, copying"]
    assert thing(found, "/ext4/part").received == i386.PART
    assert thing(found, "/ext4/part").copied == {"k2u": i386.PART}
    assert thing(found, "/ext4/copying.copy").delivered == i386.PART
    assert thing(found, "/ext4/copying.copy").copied == {"u2k": i386.PART}
    assert line(found, "write").copied == {"u2k": i386.PART}
    assert round(found.copies, 2) == 2


def test_a_32_bit_program_s_sendfile64_is_sendfile(programs):
    found = programs["i386, sending"]
    sent = line(found, "sendfile")
    assert (sent.received, sent.delivered) == (i386.PART, i386.PART)
    assert sent.copied == {"k2k": i386.PART}
    assert thing(found, "/ext4/sending.copy").delivered == i386.PART


def test_what_a_32_bit_program_calls_by_socketcall_is_told(programs):
    found = programs["i386, connected"]
    assert moved(found, "socket", "sendto") == {"in": 0, "out": i386.SENT}
    assert moved(found, "socket", "recvfrom") == {"in": i386.SENT, "out": 0}
    assert copied(found, "socket") == {"u2k": i386.SENT, "k2u": i386.SENT}
    assert found.border.inside == {"socket": i386.SENT}


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


def test_dd_copies_twice(more):
    found = more.answers["dd"]
    assert thing(found, "/ext4/payload").copied == {"k2u": SIZE}
    assert thing(found, "/ext4/copied").copied == {"u2k": SIZE}
    assert thing(found, "/ext4/payload").calls == SIZE // (64 << 10)
    assert found.delivered["file"] == SIZE


def test_pv_splices_where_one_end_is_a_pipe(more):
    """The pipe takes the file's own pages, and who reads it copies; a device takes none."""
    found = more.answers["pv to a pipe"]
    spliced = line(found, "splice")
    assert (spliced.received, spliced.delivered, spliced.copied) == (SIZE, SIZE, {})
    assert thing(found, "/ext4/payload").copied == {}
    (pipe,) = things(found, "pipe:")
    assert (pipe.received, pipe.delivered, pipe.copied) == (SIZE, SIZE, {"k2u": SIZE})
    found = more.answers["pv to a device"]
    assert all(line.name != "splice" for line in found.calls)
    assert thing(found, "/ext4/payload").copied == {"k2u": SIZE}
    assert found.delivered == {"device": SIZE}


def test_socat_copies_twice(more):
    found = more.answers["socat"]
    assert thing(found, "/ext4/payload").copied == {"k2u": SIZE}
    assert for_users(copied(found, "socket")) == {"u2k": SIZE}
    assert moved(found, "socket") == {"in": 0, "out": SIZE}


def test_python_copies_a_file_inside_the_kernel(more):
    """By which call, its version decides."""
    found = more.answers["copyfile"]
    assert thing(found, "/ext4/copied").copied == {"k2k": SIZE}
    inside = {line.name for line in found.calls if line.copied.get("k2k") == SIZE}
    assert len(inside & {"sendfile", "copy_file_range"}) == 1
    assert found.delivered == {"file": SIZE}


def test_python_sends_a_file_without_copying_it(more):
    """What the interpreter reads when it starts is all that it copies."""
    found = more.answers["socket.sendfile"]
    sent = line(found, "sendfile")
    assert (sent.received, sent.delivered, sent.copied) == (SIZE, SIZE, {})
    assert moved(found, "socket") == {"in": 0, "out": SIZE}
    assert for_users(copied(found, "socket")) == {}


def test_python_serves_a_file_with_two_copies(more):
    found = more.answers["http.server"]
    assert thing(found, "/ext4/payload").copied == {"k2u": SIZE}
    assert thing(found, "/ext4/payload").calls == SIZE // (64 << 10)
    sent = line(found, "sendto")
    assert 0 < sent.delivered - SIZE < 1000
    assert for_users(sent.copied) == {"u2k": sent.delivered}


def test_nginx_with_tls_copies_twice_whatever_sendfile_says(more):
    """Encrypted in user space: records of 16 KiB, 22 B (TLS 1.3) to 29 B (1.2) longer each."""
    found = more.answers["nginx with TLS"]
    assert all(line.name != "sendfile" for line in found.calls)
    assert line(found, "pread64").copied == {"k2u": SIZE}
    written = line(found, "write")
    assert for_users(written.copied) == {"u2k": written.delivered}
    handshake = 8192
    records = SIZE // (16 << 10)
    assert 22 * records < written.delivered - SIZE < 29 * records + handshake


def test_haproxy_copies_twice(more):
    """With what the client asks, and the server's headers, each way."""
    found = more.answers["haproxy"]
    for way in ("in", "out"):
        assert 0 < moved(found, "socket")[way] - SIZE < 2000
    many = sum(found.delivered.values())
    assert found.received == found.delivered == {"socket": many}
    # Besides, threads wake each other by a byte through a pipe.
    assert for_users(copied(found, "socket")) == {"k2u": many, "u2k": many}


@pytest.mark.parametrize(("option", "least"), [("auto", 0), ("response", SIZE * 9 // 10)])
def test_haproxy_copies_what_it_does_not_splice(more, option, least):
    """Through a pipe from socket to socket; with ``auto``, if it finds that worth while."""
    found = more.answers[f"haproxy option splice-{option}"]
    many = sum(found.delivered.values())
    assert found.received == found.delivered == {"socket": many}
    assert 0 < many - SIZE < 2000
    spliced = moved(found, "socket", "splice")
    assert spliced["in"] == spliced["out"] >= least
    rest = many - spliced["out"]
    assert for_users(copied(found, "socket")) == {"k2u": rest, "u2k": rest}


@pytest.mark.parametrize(
    ("syscall", "kind", "way", "many", "direction"),
    [
        ("sendmmsg", "socket", "out", MESSAGES, "u2k"),
        ("recvmmsg", "socket", "in", MESSAGES, "k2u"),
        ("sendmsg", "socket", "out", calls_workload.SEND_MESSAGE, "u2k"),
        ("recvmsg", "socket", "in", calls_workload.SEND_MESSAGE, "k2u"),
        ("sendto", "socket", "out", calls_workload.SEND_TO + calls_workload.SIX, "u2k"),
        ("recvfrom", "socket", "in", calls_workload.SEND_TO + calls_workload.SIX, "k2u"),
        ("tee", "pipe", "in", calls_workload.INTO_PIPE - calls_workload.OUT_OF_PIPE, None),
        ("tee", "pipe", "out", calls_workload.INTO_PIPE - calls_workload.OUT_OF_PIPE, None),
        ("vmsplice", "pipe", "out", calls_workload.INTO_PIPE + calls_workload.INTO_FIFO, None),
        ("vmsplice", "pipe", "in", calls_workload.OUT_OF_PIPE, "k2u"),
        *((name, "file", "out", size, "u2k") for name, size in calls_workload.WRITES.items()),
        *((name, "file", "in", size, "k2u") for name, size in calls_workload.READS.items()),
        (
            "ioctl",
            "file",
            "out",
            calls_workload.CLONED + SIZE - calls_workload.TO_END_FROM,
            None,
        ),
        (
            "ioctl",
            "file",
            "in",
            calls_workload.CLONED + SIZE - calls_workload.TO_END_FROM,
            None,
        ),
    ],
)
def test_every_call(more, syscall, kind, way, many, direction):
    found = more.answers["calls"]
    assert moved(found, kind, syscall)[way] == many
    if direction:
        assert copied(found, kind, syscall)[direction] == many
    else:
        assert copied(found, kind, syscall).get({"in": "k2u", "out": "u2k"}[way], 0) == 0


def test_each_thing_has_its_own(more):
    found = more.answers["calls"]
    (six,) = [line for line in things(found, "tcp [::1]") if line.delivered]
    assert (six.delivered, six.copied) == (calls_workload.SIX, {"u2k": calls_workload.SIX})
    udp = {line.delivered for line in things(found, "udp 127.0.0.1:") if line.delivered}
    assert udp == {
        sum(calls_workload.FEW),
        sum(calls_workload.MANY),
        calls_workload.SEND_TO,
        calls_workload.SEND_MESSAGE,
    }
    assert thing(found, "/xfs/range").delivered == calls_workload.CLONED
    assert thing(found, "/xfs/to-end").delivered == SIZE - calls_workload.TO_END_FROM
    assert found.trace.status == 0


def test_calls_that_had_begun_before(more):
    """How much they moved is known, and not between what; what they copied, as it is seen."""
    found = more.answers["read in the middle"]
    assert found.received == {"unknown": suites.LATE_BYTES}
    assert found.copied == {"k2u": suites.LATE_BYTES}
    (unknown,) = [line for line in found.things if line.name == border.UNKNOWN.name]
    assert unknown.received == suites.LATE_BYTES
    found = more.answers["sendfile in the middle"]
    assert found.received == found.delivered == {"unknown": SIZE}
    assert found.copied == {}
    found = more.answers["recvmmsg in the middle"]
    assert found.received == {}
    assert found.copied == {"k2u": suites.LATE_BYTES}
    (doubt,) = found.doubts
    assert "1 events were lost (part 1)" in doubt


@pytest.mark.parametrize("name", ["setuid", "setuid, by a shell"])
def test_a_program_that_gains_rights_is_counted(more, name):
    """It reads, as root, what who has started it cannot."""
    found = more.answers[name]
    secret = thing(found, "/ext4/secret")
    assert secret.received == suites.SECRET_BYTES
    assert secret.copied == {"k2u": suites.SECRET_BYTES}
    assert found.trace.status == 0


def test_a_program_that_cannot_be_read_is_counted(more):
    found = more.answers["unreadable"]
    assert thing(found, "/ext4/payload").copied == {"k2u": SIZE}
    assert found.trace.status == 0


def test_nothing_is_kept_of_processes_that_are_gone(more):
    found = more.answers["many processes"]
    ended = [
        c for c in found.trace.run.counts if c.syscall == "exit_group" and c.role == "program"
    ]
    assert sum(c.calls for c in ended if c.quantity == "syscall-enter") >= suites.PROCESSES
    # Of the controls' threads, which end behind their windows, until it is read with the rest.
    before, after = more.found["sizes"]
    assert sum(before.values()) <= 5, before
    # And of the shell itself, which may be in a call: it waits for a line.
    assert all(size <= before[name] + 1 for name, size in after.items()), (before, after)
    # The call has the same name when it is over, although the thread has another number.
    execs = Counter()
    for count in found.trace.run.counts:
        if count.syscall == "execve" and count.role == "program":
            execs[count.quantity] += count.calls
    assert (execs["syscall-enter"], execs["syscall-exit"]) == (3, 3)


def test_five_hundred_threads_and_ten_thousand_descriptors(more):
    found = more.answers["scale"]
    many = scale_workload.total(*suites.SCALE)
    assert moved(found, "socket") == {"in": many, "out": many}
    assert copied(found, "socket") == {"u2k": many, "k2u": many}
    assert len(things(found, "unix stream")) == 2 * suites.SCALE[0] * suites.SCALE[1]
    assert len(found.threads) > suites.SCALE[0]
    assert found.notes == ()


def test_more_than_there_is_room_for(more):
    """No total suffers, and what is in rows of many is told to the byte."""
    found = more.answers["little room"]
    many = scale_workload.total(*suites.CROWD)
    assert moved(found, "socket") == {"in": many, "out": many}
    assert copied(found, "socket") == {"u2k": many, "k2u": many}
    account = found.trace.account
    assert sum(thing.many for thing in account.things) >= 1
    assert len(account.things) <= suites.ROOM[1] + 5
    crowd = [line for line in found.things if re.fullmatch("more .*sockets", line.name)]
    assert [line.delivered > 0 for line in crowd] == [True]
    assert found.unexplained_bytes == 0
    together = {n for n, thing in enumerate(account.things) if thing.many}
    rows = [row for row in (*account.flows, *account.bookings) if row.thing in together]
    (threads,) = [worker for worker in account.workers if worker.name == "more threads"]
    assert account.overflow == sum(row.bytes for row in rows) + threads.bytes
    (note,) = found.notes
    assert note.startswith(f"{account.overflow} B, moved or copied")
    # Every copy is in some thread's row, too.
    assert sum(worker.bytes for worker in account.workers) == sum(
        booking.bytes for booking in account.bookings
    )


def test_the_command_line(live, tmp_path):
    """In a virtual machine, on one kernel: output, status, and every form of the result."""
    forms = [f"--{name}={tmp_path / name}" for name in ("json", "csv", "folded", "speedscope")]
    words = "echo out; head -c 300007 /dev/zero >/tmp/x; echo err >&2"
    left = ROOT / f"left-{tmp_path.name}"
    result = zctrace(
        *("trace", "--kernel", "6.1", "-i", "0.5", *forms, "--jsonl", tmp_path / "jsonl"),
        # It lasts longer than an interval, however quick all else is.
        *("--", "sh", "-c", f"{words}; echo >{left} || exit 6; sleep 1; exit 5"),
    )
    assert result.returncode == 5, result.stderr
    assert not left.exists()
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
    found = program.answer(Evidence.from_json(evidence))
    stacks_are_whole(found, (tmp_path / "folded").read_text())
    profiles = json.loads((tmp_path / "speedscope").read_text())["profiles"]
    assert profiles[0]["endValue"] == found.copied_bytes
    running_view_is_no_more_than_the_answer(found, result.stderr)
    *looks, last = map(json.loads, (tmp_path / "jsonl").read_text().splitlines())
    assert len(looks) >= 2
    assert looks[-1]["delivered"]["write"] == 300_007 + len("out\nerr\n\n")
    assert looks[-1]["seconds"] > looks[0]["seconds"] > 0
    assert last["summary"]["delivered_bytes"] == found.delivered
    again = zctrace("report", tmp_path / "json")
    assert again.stdout == result.stdout.removeprefix("out\n")


def saving(found, rule):
    (one,) = [given for given in advice.of(found) if given.rule == rule]
    return one.saves_bytes


def test_what_sendfile_would_save_is_what_it_saves(programs):
    off, on = programs["nginx, sendfile off"], programs["nginx, sendfile on"]
    assert saving(off, "sendfile") == off.copied_bytes - on.copied_bytes == 2 * SIZE
    assert advice.of(on) == []


def test_what_shared_blocks_would_save_is_what_they_save(programs):
    never, shared = programs["cp --reflink=never"], programs["cp --reflink"]
    assert saving(never, "reflink") == 2 * SIZE
    assert abs(never.copied_bytes - shared.copied_bytes - 2 * SIZE) < 4096
    assert advice.of(shared) == []


def test_no_advice_where_nothing_would_help(programs):
    for name in ("cp", "cat", "alone", "time"):
        assert advice.of(programs[name]) == [], name


def test_what_a_copy_between_files_would_save(more):
    """By the kernel alone, each byte is still copied once."""
    if "dd" not in more.answers:
        pytest.skip("only where more programs are traced")
    dd, cp = more.answers["dd"], more.answers["cp"]
    assert saving(dd, "copy-file-range") == SIZE
    assert line(cp, "copy_file_range").copied == {"k2k": SIZE}
    assert thing(dd, "/copied").copied == {"u2k": SIZE}


def test_what_larger_pieces_would_save_is_what_they_save(more):
    if "dd" not in more.answers:
        pytest.skip("only where more programs are traced")
    small, large = (more.answers[f"dd in {name} pieces"] for name in ("small", "large"))
    given = {
        one.words.partition("(2)")[0].rpartition(" ")[2]: one.saves_calls
        for one in advice.of(small)
        if one.rule == "larger-pieces"
    }
    assert given.keys() == {"read", "write"}
    for call, saved in given.items():
        end = {"read": "/payload", "write": "/copied"}[call]
        assert thing(small, end).calls - thing(large, end).calls == saved
    assert [one for one in advice.of(large) if one.rule == "larger-pieces"] == []


def test_advice_for_more_programs(more):
    if "dd" not in more.answers:
        pytest.skip("only where more programs are traced")
    answers = more.answers
    assert saving(answers["http.server"], "sendfile") == 2 * SIZE
    assert copied(answers["socket.sendfile"], "socket") == {}
    assert saving(answers["socat"], "sendfile") == 2 * SIZE
    assert saving(answers["a mapped file"], "mapped-file") == SIZE
    assert copied(answers["a mapped file"], "socket") == {"u2k": SIZE}
    assert saving(answers["nginx with TLS"], "ktls-sendfile") == 2 * SIZE
    assert saving(answers["haproxy"], "splice") >= 2 * SIZE
    for name in ("copyfile", "socket.sendfile", "haproxy option splice-response", "gzip"):
        assert [a for a in advice.of(answers[name]) if a.saves_bytes] == [], name


def test_what_java_would_save_by_transfer_to(more):
    if "dd" not in more.answers:
        pytest.skip("only where more programs are traced")
    stream, channel = (more.answers[f"Java by {how}"] for how in ("stream", "channel"))
    assert saving(stream, "sendfile") == 2 * SIZE
    assert copied(stream, "socket") == {"u2k": SIZE}
    assert copied(channel, "socket") == {}
    assert [a for a in advice.of(channel) if a.rule == "sendfile"] == []


def test_what_fewer_vectors_would_save_is_what_they_save(more):
    if "dd" not in more.answers:
        pytest.skip("only where more programs are traced")
    many, one = more.answers["many vectors"], more.answers["one vector"]
    (given,) = [a for a in advice.of(many) if a.rule == "fewer-vectors"]
    structures = [dict(found.explanation.other).get("writev", 0) for found in (many, one)]
    calls, vectors = suites.VECTOR_CALLS, suites.MANY_VECTORS
    assert structures == [16 * calls * vectors, 16 * calls]
    assert given.saves_structures == structures[0] - structures[1]
    assert line(many, "writev").delivered == line(one, "writev").delivered
    assert [a for a in advice.of(one) if a.rule == "fewer-vectors"] == []
