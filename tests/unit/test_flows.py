"""Names of files, sockets and pipes; and the process that becomes a program."""

import json
import os
import socket
import stat
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

from tests.conftest import HERE
from zctrace import errors
from zctrace.collect import cgroups, flows, mounts, sockets, threads
from zctrace.evidence import account as evidence_account
from zctrace.probes.syscalls import MAX_NUMBER, NAMES, TRANSFERS
from zctrace.workloads.marker import Role

ROOT = HERE.parent
MOUNTS = [
    b"22 1 8:1 /some/part /bind rw - ext4 /dev/sda1 rw",
    b"23 1 8:1 / / rw - ext4 /dev/sda1 rw",
    b"24 1 0:25 / /tmp rw - tmpfs tmpfs rw",
]


def entry(**values):
    of_all = {"names": b"", "type_name": b"", "device": 0, "protocol": 0, "upper": b""}
    return SimpleNamespace(**of_all | values)


def thing(kind, values, points=()):
    return flows._thing(kind, values, dict(points), lambda device: ())


def key(kind, inode=5, device=0):
    return SimpleNamespace(inode=inode, device=device, kind=kind)


def names(*parts):
    return b"".join(part.encode().ljust(40, b"\0") for part in parts).ljust(400, b"\0")


def test_the_whole_of_a_file_system_comes_before_a_part():
    found = flows._mounts(mounts.parse(MOUNTS))
    assert {device: str(several[0].point) for device, several in found.items()} == {
        8 << 20 | 1: "/",
        25: "/tmp",
    }


@pytest.mark.parametrize(
    ("parts", "points", "path"),
    [
        (("file", "folder"), {"/": "/"}, "/folder/file"),
        (("file",), {"/": "/tmp"}, "/tmp/file"),
        ((), {"/": "/tmp"}, "/tmp"),
        (tuple("jihgfedcba"), {"/": "/"}, "/…/a/b/c/d/e/f/g/h/i/j"),
        # Parts of btrfs, of which the whole is mounted nowhere, or somewhere.
        (("cp", "bin", "@"), {"/@": "/", "/@home": "/home"}, "/bin/cp"),
        (("file", "me", "@home"), {"/@": "/", "/@home": "/home"}, "/home/me/file"),
        (("file", "@other"), {"/@": "/", "/@home": "/home"}, "/@other/file"),
        (("file", "@"), {"/": "/all", "/@": "/"}, "/all/@/file"),
        (("file", "folder"), {}, "/folder/file"),
    ],
)
def test_paths(parts, points, path):
    mounted = [
        mounts.Mount(1, root, Path(point), "x", "x", ()) for root, point in points.items()
    ]
    assert flows._path(names(*parts), mounted) == path


def test_sockets():
    ends = {"address": socket.inet_aton("127.0.0.1") + bytes(12), "port": 80,
            "peer": socket.inet_aton("192.0.2.7") + bytes(12),
            "peer_port": socket.htons(4711)}  # fmt: skip
    tcp = entry(family=socket.AF_INET, type=1, **ends)
    assert thing(key(stat.S_IFSOCK), tcp) == evidence_account.Thing(
        "socket", "tcp 127.0.0.1:80 → 192.0.2.7:4711", type="tcp"
    )
    six = {**ends, "address": bytes(15) + b"\1", "peer": bytes(16)}
    udp = entry(family=socket.AF_INET6, type=2, **six)
    assert thing(key(stat.S_IFSOCK), udp).name == "udp [::1]:80 → [::]:4711"
    four = bytes(10) + b"\xff\xff" + socket.inet_aton("192.0.2.9")
    mapped = entry(family=socket.AF_INET6, type=1, **{**six, "address": four, "peer": four})
    tcp = thing(key(stat.S_IFSOCK), mapped)
    assert tcp.name == "tcp 192.0.2.9:80 → 192.0.2.9:4711"
    unix = entry(family=socket.AF_UNIX, type=5)
    assert thing(key(stat.S_IFSOCK), unix).name == "unix packets socket:[5]"


def connected(family, near, far, kind=1):
    """A socket with its own address and port, and its peer's."""
    address, peer = (socket.inet_pton(family, end[0]).ljust(16, b"\0") for end in (near, far))
    return entry(family=family, type=kind, address=address, port=near[1], peer=peer,
                 peer_port=socket.htons(far[1]), sock=0, peer_sock=0)  # fmt: skip


def local(sock, peer_sock, kind=1):
    return entry(family=socket.AF_UNIX, type=kind, sock=sock, peer_sock=peer_sock)


NEAR, FAR, OTHER = ("127.0.0.1", 80), ("127.0.0.1", 40000), ("127.0.0.1", 40001)
V4, V6 = socket.AF_INET, socket.AF_INET6


@pytest.mark.parametrize(
    ("entries", "peers"),
    [
        ([connected(V4, NEAR, FAR), connected(V4, FAR, NEAR)], {0: 1, 1: 0}),
        ([connected(V4, NEAR, FAR, 2), connected(V4, FAR, NEAR, 2)], {0: 1, 1: 0}),
        ([connected(V6, ("::1", 80), ("::1", 9)), connected(V6, ("::1", 9), ("::1", 80))],
         {0: 1, 1: 0}),
        # Java's server, and a client that knows of IPv4 alone.
        ([connected(V6, ("::ffff:127.0.0.1", 80), ("::ffff:127.0.0.1", 40000)),
          connected(V4, FAR, NEAR)], {0: 1, 1: 0}),
        ([local(0xA0, 0xB0), local(0xB0, 0xA0)], {0: 1, 1: 0}),
        # The same addresses, but not the same protocol; another client; no client at all.
        ([connected(V4, NEAR, FAR), connected(V4, FAR, NEAR, 2)], {}),
        ([connected(V4, NEAR, FAR), connected(V4, OTHER, NEAR)], {}),
        ([connected(V4, NEAR, FAR)], {}),
        # Nothing that is connected: of UDP, of raw sockets, of Unix sockets.
        ([connected(V4, ("0.0.0.0", 53), ("0.0.0.0", 0), 2),
          connected(V4, ("0.0.0.0", 0), ("0.0.0.0", 53), 2)], {}),
        ([connected(V4, NEAR, FAR, 3), connected(V4, FAR, NEAR, 3)], {}),
        ([local(0xA0, 0), local(0xB0, 0)], {}),
        ([local(0xA0, 0xB0), local(0xB0, 0xC0)], {}),
        ([entry(family=socket.AF_VSOCK, type=1)], {}),
    ],
)  # fmt: skip
def test_two_sockets_of_one_connection_are_peers(entries, peers):
    assert sockets.peers(list(enumerate(entries))) == peers


def test_a_thing_has_the_index_of_its_peer():
    keys = [key(stat.S_IFSOCK, 7), key(stat.S_IFIFO, 8), key(stat.S_IFSOCK, 9)]
    entries = [local(0xA0, 0xB0), entry(), local(0xB0, 0xA0)]
    objects = Table(*((vars(k), vars(e)) for k, e in zip(keys, entries, strict=True)))
    assert [thing.peer for thing in flows.Things(objects, {}).all] == [2, None, 0]


@pytest.mark.parametrize(
    ("kind", "protocol", "upper", "name"),
    [
        (1, 6, b"", "tcp"),
        (1, 6, b"tls", "tcp+tls"),
        (1, 132, b"", "sctp"),
        (1, 262, b"", "mptcp"),
        (2, 136, b"", "udplite"),
        (3, 1, b"", "raw of protocol 1"),
        (1, 0, b"", "tcp"),  # by the type, where the kernel does not tell
    ],
)
def test_a_socket_is_named_by_its_protocol(kind, protocol, upper, name):
    ends = {"address": bytes(16), "port": 1, "peer": bytes(16), "peer_port": 0}
    of = entry(family=socket.AF_INET, type=kind, protocol=protocol, upper=upper, **ends)
    found = thing(key(stat.S_IFSOCK), of)
    assert (found.name, found.type) == (f"{name} 0.0.0.0:1 → 0.0.0.0:0", name)


def test_kinds():
    assert thing(key(stat.S_IFIFO, 7), entry()) == evidence_account.Thing(
        "pipe", "pipe:[7]", type=""
    )
    assert thing(key(stat.S_IFCHR, 7), entry()).kind == "device"
    assert thing(key(stat.S_IFREG, 7), entry()).kind == "file"


def test_what_is_in_no_folder_has_a_name_all_the_same():
    """Event counters and timers have no kind of their own."""
    nameless = entry(names=names())
    assert thing(key(1, 7), nameless) == evidence_account.Thing(
        "other", "anon_inode:[7]", type="anon_inode:[7]"
    )
    memfd = thing(key(stat.S_IFREG, 8), nameless)
    assert memfd == evidence_account.Thing("file", "file:[8]", type="")


class Table:
    """A table of the meter's, with rows."""

    def __init__(self, *rows):
        self._rows = rows

    def items(self):
        return [(SimpleNamespace(**key), SimpleNamespace(**cell)) for key, cell in self._rows]

    def __getitem__(self, number):
        return SimpleNamespace(**self._rows[number.value])


def test_what_there_is_no_room_for_is_together_by_kind():
    pipe, other = key(stat.S_IFIFO, 7), key(stat.S_IFIFO, 0)
    sockets, unseen = key(stat.S_IFSOCK, 0), key(0, 0)
    tcp = key(stat.S_IFSOCK, 0, socket.AF_INET << 24 | 1 << 16 | socket.IPPROTO_TCP)
    tables = {
        "objects": Table((vars(pipe), {"names": b""})),
        "flows": Table(*(flow(thing, 1000) for thing in (pipe, other, unseen))),
        "more_flows": Table(*(flow(t, 200, process=0) for t in (other, sockets, tcp))),
        "bookings": Table(booking(pipe, 30)),
        "more_bookings": Table(booking(sockets, 4, 0), booking(unseen, 5, 0)),
        "workers": Table(),
        "more_workers": Table({"calls": 1, "bytes": 39}),
        "overflow": Table({"value": 4711}),
    }
    account = flows.read(tables, threads.Kept(NOTHING_KEPT), frozenset(), str)
    assert account.things == (
        evidence_account.Thing("pipe", "pipe:[7]", type=""),
        evidence_account.Thing("pipe", "more pipes", many=True, type="of many kinds"),
        evidence_account.Thing("socket", "more sockets", many=True, type="of many kinds"),
        evidence_account.Thing("socket", "more tcp sockets", many=True, type="tcp"),
    )
    assert [flow.thing for flow in account.flows] == [0, 1, None, 1, 2, 3]
    assert [booking.thing for booking in account.bookings] == [0, 2, None]
    assert [booking.process for booking in account.bookings] == [1, None, None]
    assert account.workers == (evidence_account.Worker(0, 0, "more threads", 1, 39),)
    assert account.overflow == 4711


NOTHING_KEPT = {"threads": {}, "claims": (), "more_threads": {}}


def kept_of(number, **slots):
    """What is kept of a thread."""
    empty = {"moved": (), "copied": (), "called": (), "payload_calls": 0, "payload_bytes": 0}
    return SimpleNamespace(**{"id": number, "process": 1, "name": b"cat"} | empty | slots)


def copied(role, site, **more):
    where = {"object": key(stat.S_IFIFO, 7), "caller": 5, "syscall": 0, "direction": 1}
    counted = {"role": role, "site": site, "calls": 2, "bytes": 100}
    return SimpleNamespace(**where | counted | more)


def test_what_is_kept_of_threads_is_counted_with_the_tables():
    """Slots and rows of the same are one; payload alone is booked, and the program's alone."""
    pipe = key(stat.S_IFIFO, 7)
    where, cell = flow(pipe, 1000)
    moved = SimpleNamespace(**where | {"calls": 3, "bytes": 300})
    first = kept_of(
        *(1,),
        moved=[moved, SimpleNamespace(calls=0)],
        copied=[copied(Role.PROGRAM, 4), copied(Role.PROGRAM, 9), copied(Role.CONTROL_IDLE, 4)],
        called=[SimpleNamespace(role=2, number=0, enters=3, exits=2)],
        payload_calls=2,
        payload_bytes=100,
    )
    second = kept_of(2, moved=[moved])
    kept = {
        "threads": Slots({1: first}),
        "claims": (SimpleNamespace(value=1),),
        "more_threads": {2: second},
    }
    tables = {name: Table() for name in ("more_flows", "more_bookings")} | {
        "objects": Table((vars(pipe), {"names": b""})),
        "flows": Table((where, cell)),
        "bookings": Table(booking(pipe, 30)),
        "workers": Table(
            ({"value": 1}, worker("cp", 5, 50)), ({"value": 3}, worker("x", 1, 9))
        ),
        "more_workers": Table({"calls": 0, "bytes": 0}),
        "overflow": Table({"value": 0}),
    }
    tables["tallies"] = Table()
    account = flows.read(tables, threads.Kept(kept), {4}, str)
    assert [(flow.calls, flow.bytes) for flow in account.flows] == [(7, 1600)]
    assert [(b.syscall, b.bytes) for b in account.bookings] == [("1", 30), ("0", 100)]
    found = {w.thread: (w.name, w.calls, w.bytes) for w in account.workers}
    # One that has moved bytes, and none were copied on it, has its name.
    assert found == {1: ("cat", 7, 150), 2: ("cat", 0, 0), 3: ("x", 1, 9)}
    tallied = threads.tallied(tables, threads.Kept(kept), 20, 21)
    assert tallied == {
        threads.Key(Role.PROGRAM, 4, 1, 0, 5): (2, 100),
        threads.Key(Role.PROGRAM, 9, 1, 0, 5): (2, 100),
        threads.Key(Role.CONTROL_IDLE, 4, 1, 0, 5): (2, 100),
        threads.Key(2, 20, 0, 0, 0): (3, 0),
        threads.Key(2, 21, 0, 0, 0): (2, 0),
    }


class Slots(dict):
    """An array, asked by number."""

    def __getitem__(self, number):
        return super().__getitem__(number.value)


class Scope(dict):
    def __setitem__(self, number, leaf):
        super().__setitem__(number.value, str(Path(f"/proc/self/fd/{leaf}").readlink()))

    def __delitem__(self, number):
        super().__delitem__(number.value)


def test_a_cgroup_of_version_1_limits_nobody(tmp_path):
    """Kernels find nobody in it: then nothing would be counted."""
    (new := tmp_path / "new").mkdir()
    (new / "cgroup.controllers").touch()
    (old := tmp_path / "old").mkdir()
    tables = {"scope": Scope()}
    threads.limit(tables, new)
    assert tables["scope"] == {0: str(new)}
    threads.limit(tables, old)
    assert tables["scope"] == {}
    threads.limit(tables, new)
    threads.limit(tables, None)
    assert tables["scope"] == {}


def worker(name, calls, size):
    return {"process": 1, "name": name.encode(), "calls": calls, "bytes": size}


def flow(thing, size, process=1):
    where = {"object": thing, "process": process, "descriptor": 3, "syscall": 1, "way": 2}
    return where, {"calls": 1, "bytes": size}


def booking(thing, size, process=1):
    where = {"object": thing, "process": process, "syscall": 1, "direction": 1}
    return where, {"calls": 1, "bytes": size}


def test_every_call_has_an_end_and_a_number():
    assert len({transfer.number for transfer in TRANSFERS}) == len(TRANSFERS) == len(NAMES)
    for transfer in TRANSFERS:
        nameless = transfer.source_kind or transfer.destination_kind
        assert transfer.source or transfer.destination or nameless
        assert transfer.number < MAX_NUMBER
        if nameless:
            continue
        assert transfer.source != transfer.destination


def launch(*command, tmp_path):
    """What the process answers to both steps, and its status."""
    near, far = socket.socketpair()
    with near, far:
        options = {"channel": far.fileno(), "folder": str(tmp_path)}
        process = subprocess.Popen(
            [sys.executable, "-m", "zctrace.workloads.launch", json.dumps(options), *command],
            cwd=ROOT, pass_fds=[far.fileno()], stdout=subprocess.PIPE,
        )  # fmt: skip
        far.close()
        answers = near.makefile()
        near.sendall(b"\n")
        first = json.loads(answers.readline())
        near.sendall(b"\n")
        second = answers.readline()
        output, _ = process.communicate()
    return first, second, process.returncode, output


def test_it_does_the_controls_and_becomes_the_program(tmp_path):
    first, second, status, output = launch("sh", "-c", "echo $$; exit 3", tmp_path=tmp_path)
    assert first["expected"]["copy-from-iter:u2k"] > 150_000
    assert first["neighbour"]["syscall:sendto"] >= 2
    assert (second, status) == ("", 3)
    assert int(output) > 1
    assert list(tmp_path.iterdir()) == []


def test_a_program_gets_its_signals_back(tmp_path):
    *_, output = launch("sh", "-c", "grep SigIgn /proc/self/status", tmp_path=tmp_path)
    ignored = int(output.split()[1], 16)
    assert not ignored & (1 << 12 | 1 << 1)


def test_what_cannot_be_started_says_why(tmp_path):
    _, second, status, _ = launch("/no/such/program", tmp_path=tmp_path)
    assert "No such file" in json.loads(second)["error"]
    assert status == 1


def test_a_command_runs_as_who_has_called(monkeypatch):
    monkeypatch.delenv("SUDO_USER", raising=False)
    assert cgroups.caller()[0] == 0
    monkeypatch.setenv("SUDO_USER", "nobody")
    assert cgroups.caller()[3] == "nobody"
    assert cgroups.caller("root")[0] == 0
    with pytest.raises(errors.UsageError, match="no such user"):
        cgroups.caller("nobody-of-that-name")


def test_the_root_cgroup_is_nobody_s_own():
    folder = cgroups.common_cgroup([os.getpid()])
    assert folder is None or (folder / "cgroup.procs").exists()
    assert cgroups.common_cgroup([]) is None
