"""Stacks: named, and written for flame graphs; and the running view."""

import dataclasses
import io
import json
import mmap
import os
import struct
import sys
from types import SimpleNamespace

import pytest
from rich.console import Console
from typer.testing import CliRunner

from tests.conftest import HERE
from zctrace import cli, errors
from zctrace.analysis import program as traced
from zctrace.collect import flows, stacks
from zctrace.evidence.account import Look, Stack
from zctrace.evidence.schema import Evidence
from zctrace.probes.syscalls import MAX_NUMBER
from zctrace.reports import flamegraph
from zctrace.reports import program as reports
from zctrace.reports.text import paper
from zctrace.reports.text.live import Lines

WRITE = Stack(
    process=7,
    name="nginx",
    function="copy_page_from_iter_atomic",
    syscall="write",
    direction="u2k",
    kernel=("generic_perform_write", "vfs_write.part.0", "do_syscall_64"),
    user=("__write [libc.so.6]", "main;odd [nginx]"),
    calls=3,
    bytes=3000,
)
READ = dataclasses.replace(
    WRITE,
    function="_copy_to_iter",
    syscall="read",
    direction="k2u",
    kernel=("_copy_to_iter", "vfs_read"),
    user=(),
    bytes=500,
)
SOFTIRQ = Stack(0, "", "skb_copy_bits", None, "k2k", ("skb_copy_bits", "tcp_v4_rcv"), (), 1, 60)


@pytest.fixture(scope="module")
def plain():
    text = (HERE / "evidence" / "programs-6.1.json").read_text()
    return Evidence.from_json(json.loads(text)["cp"])


def with_stacks(evidence, *kept):
    account = dataclasses.replace(evidence.trace.account, stacks=kept)
    return dataclasses.replace(
        evidence, trace=dataclasses.replace(evidence.trace, account=account)
    )


@pytest.fixture(scope="module")
def found(plain):
    return traced.answer(with_stacks(plain, READ, WRITE, SOFTIRQ))


def test_folded_stacks(found):
    assert flamegraph.folded([found]).splitlines() == [
        "nginx;main:odd [nginx];__write [libc.so.6];write(2);do_syscall_64_[k];vfs_write_[k];"
        "generic_perform_write_[k];copy_page_from_iter_atomic_[k] 3000",
        "nginx;read(2);vfs_read_[k];_copy_to_iter_[k] 500",
        "softirqs;no call;tcp_v4_rcv_[k];skb_copy_bits_[k] 60",
    ]


def test_the_same_stack_of_two_programs_is_one_line(found):
    lines = flamegraph.folded([found, found]).splitlines()
    assert [line.rpartition(" ")[2] for line in lines] == ["6000", "1000", "120"]


def test_speedscope(found):
    """As its schema has it: frames by number, outermost first, and a weight per sample."""
    file = json.loads(flamegraph.speedscope([found]))
    names = [frame["name"] for frame in file["shared"]["frames"]]
    everything, *by_way = file["profiles"]
    assert [p["name"].split(",")[0] for p in by_way] == ["k2k", "k2u", "u2k"]
    assert everything["unit"] == "bytes"
    assert everything["endValue"] == sum(everything["weights"]) == 3560
    assert [names[n] for n in everything["samples"][1]] == flamegraph.frames(READ)
    assert sum(profile["endValue"] for profile in by_way) == 3560


def test_the_heaviest_stacks_are_in_the_report(found):
    text = io.StringIO()
    paper.show(reports.report([found]), Console(file=text, width=80))
    first = text.getvalue().split("on this stack:")[1].splitlines()[1:4]
    assert [line.strip() for line in first] == [
        "copy_page_from_iter_atomic_[k]", "generic_perform_write_[k]", "vfs_write_[k]",
    ]  # fmt: skip
    missing = found.copied_bytes - 3560
    assert (
        f"{missing} B were copied on stacks that the table had no room for" in text.getvalue()
    )


def test_what_moves_nothing_is_no_payload(plain):
    program = dataclasses.replace(WRITE, syscall="execve")
    assert traced.answer(with_stacks(plain, program)).stacks == []


def test_stacks_survive_being_saved(plain):
    evidence = with_stacks(plain, WRITE)
    again = Evidence.from_json(json.loads(json.dumps(evidence.to_json())))
    assert again.trace.account.stacks == (WRITE,)


def report(tmp_path, evidence, *options):
    saved = tmp_path / "saved.json"
    saved.write_text(json.dumps({"evidence": [evidence.to_json()]}))
    return CliRunner().invoke(cli.app, ["report", str(saved), *options])


def test_saved_stacks_can_be_written_again(tmp_path, plain, found):
    result = report(tmp_path, with_stacks(plain, READ, WRITE, SOFTIRQ), "--folded", "-")
    assert result.stdout == flamegraph.folded([found])


def test_results_without_stacks_are_told_so(tmp_path, plain):
    result = report(tmp_path, plain, "--speedscope", "-")
    assert isinstance(result.exception, errors.UsageError)
    assert "no stacks" in str(result.exception)


class Table(dict):
    """A map of BCC's, as far as it is used here."""

    def __getitem__(self, key):
        return super().__getitem__(key.value)


class Entry(SimpleNamespace):
    def __hash__(self):
        return id(self)


def entry(status, offset=0):
    # The same eight bytes are one or the other.
    return Entry(status=status, build_id=b"\x12" * 20, offset=offset, ip=offset)


def test_reading(tmp_path):
    program = tmp_path / "program"
    program.write_bytes(b"\x7fELF")
    key = SimpleNamespace(
        kernel=3, user=4, process=7, site=1, syscall=1, direction=2, name=b"cat\0\0"
    )
    lost = SimpleNamespace(**{**vars(key), "kernel": -17, "user": -14})
    softirq = SimpleNamespace(**{**vars(key), "user": -1, "process": 0, "name": b"\0"})
    cell = SimpleNamespace(calls=2, bytes=9)

    added = []
    names = SimpleNamespace(
        add_file=added.append,
        build_id=lambda path: "12" * 20,
        name=lambda place: "main [program]" if place.offset == 0 else "[unknown]",
    )
    tables = {
        "stacks": SimpleNamespace(
            items=lambda: [(key, cell), (lost, cell), (softirq, cell)],
        ),
        "kernel_stacks": Table({3: SimpleNamespace(ip=[100, 200, 0, 0])}),
        "user_stacks": Table(
            {
                4: SimpleNamespace(
                    trace=[
                        entry(1, 1),
                        entry(1, 5),
                        entry(2, 77),
                        entry(1, 2**64 - 9),
                        entry(0),
                    ]
                )
            }
        ),
    }
    one, two, three = stacks.read(
        tables,
        stacks.Programs().paths([str(program), str(tmp_path), str(tmp_path / "none")]),
        names,
        lambda site: f"site{site}",
        lambda address: f"f{address}+0x1",
        lambda number: "write",
        {2: "u2k"}.get,
    )
    assert added == [str(program)]
    assert one.kernel == ("f100", "f200")
    assert one.user == ("main [program]", "program+0x5", "[unknown]", "[unknown]")
    assert (two.kernel, two.user) == (("[stack not kept]",), ("[no stack]",))
    assert (three.user, three.name, three.process) == ((), "", 0)


@pytest.mark.parametrize(
    ("name", "line", "shown"),
    [
        ("main [srv]", "srv.go:17", "main (srv.go:17) [srv]"),
        ("operator [] [srv]", "a.cc:1", "operator [] (a.cc:1) [srv]"),
        ("main [srv]", None, "main [srv]"),
        ("[unknown]", "srv.go:17", "[unknown]"),
    ],
)
def test_a_name_with_its_line(name, line, shown):
    assert stacks._with_line(name, line) == shown


class Compiled:
    """Lines of a program that begins at 4096 and whose calls are on odd lines."""

    def __init__(self, path):
        self.path = path

    def address(self, offset):
        return offset + 4096 if offset else None

    def of(self, address):
        return f"it.c:{address}"


@pytest.mark.parametrize(("syscall", "innermost"), [("write", 4099), (None, 4100)])
def test_lines_are_of_the_calls(tmp_path, monkeypatch, syscall, innermost):
    """The address that is kept is behind a call; of a page fault it is the instruction's."""
    monkeypatch.setattr(stacks, "Lines", Compiled)
    program = tmp_path / "program"
    program.write_bytes(b"\x7fELF")
    key = SimpleNamespace(
        kernel=-1, user=4, process=7, site=1, syscall=1, direction=2, name=b"cat\0"
    )
    names = SimpleNamespace(
        add_file=lambda path: None,
        build_id=lambda path: "12" * 20,
        name=lambda place: f"f{place.offset} [program]",
    )
    trace = [entry(1, 4), entry(1, 4), entry(1, 8), entry(1, 0)]
    (stack,) = stacks.read(
        {
            "stacks": SimpleNamespace(items=lambda: [(key, SimpleNamespace(calls=1, bytes=1))]),
            "kernel_stacks": Table({}),
            "user_stacks": Table({4: SimpleNamespace(trace=trace)}),
        },
        [str(program)],
        names,
        str,
        str,
        lambda number: syscall,
        {}.get,
    )
    assert stack.user == (
        f"f{innermost - 4096} (it.c:{innermost}) [program]",
        "f3 (it.c:4099) [program]",
        "f7 (it.c:4103) [program]",
        "f0 [program]",
    )


def test_what_a_process_has_mapped():
    programs = stacks.Programs()
    programs.note([os.getpid(), 2**30])
    paths = programs.paths([])
    assert os.path.realpath(sys.executable) in {os.path.realpath(path) for path in paths}


def test_the_totals_are_read_from_memory(tmp_path):
    """Any file can be mapped as the meter's arrays are."""
    cells = [0] * (3 * MAX_NUMBER)
    cells[0 * 3 + 0], cells[1 * 3 + 1], cells[1 * 3 + 2] = 10, 20, 30
    cells[(MAX_NUMBER - 1) * 3 + 2] = 5
    cells[59 * 3 + 2] = 8
    totals, full = tmp_path / "totals", tmp_path / "overflow"
    pages = -(-8 * len(cells) // mmap.PAGESIZE)
    whole = struct.pack(f"={len(cells)}Q", *cells).ljust(pages * mmap.PAGESIZE, b"\0")
    totals.write_bytes(whole)
    full.write_bytes(struct.pack("=2Q", 0, 4).ljust(mmap.PAGESIZE, b"\0"))
    descriptors = [os.open(path, os.O_RDWR) for path in (totals, full)]
    names = {0: "read", 1: "write", 59: "execve"}
    try:
        with flows.Running(*descriptors, names.get) as running:
            expected = Look({"read": 10}, {"write": 20}, {"write": 30, "no call": 5}, 4)
            assert running.look() == expected
            os.pwrite(descriptors[0], struct.pack("=Q", 11), 0)
            assert running.look().received == {"read": 11}
    finally:
        for descriptor in descriptors:
            os.close(descriptor)


def test_lines_are_of_what_is_new():
    lines = Lines()
    heading, first = lines.next(1.0, Look({"read": 10**9}, {}, {"read": 500}, 0))
    assert heading.split() == [
        "time", "received", "delivered", "copied", "per", "byte", "most", "by",
    ]  # fmt: skip
    assert first.split() == ["1.0", "s", "953.7M", "0", "500", "<0.01", "read", "500"]
    (second,) = lines.next(2.0, Look({"read": 10**9}, {"write": 40}, {"read": 520}, 0))
    assert second.split() == ["2.0", "s", "0", "40", "20", "0.50", "read", "20"]
    third, warning = lines.next(3.0, Look({"read": 10**9}, {"write": 40}, {"read": 520}, 8))
    assert third.split() == ["3.0", "s", "0", "0", "0"]
    assert "8 B" in warning
    assert "full" in warning
    assert max(map(len, (heading, first, second, third, warning))) <= 80


def test_the_heading_comes_again():
    lines = Lines()
    counts = [len(lines.next(float(n), Look({}, {}, {}, 0))) for n in range(41)]
    assert [n for n, many in enumerate(counts) if many == 2] == [0, 20, 40]
