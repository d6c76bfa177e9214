"""Packet captures at work beside a measurement: their copies are theirs, and are said."""

import dataclasses
import json

import pytest

from tests.conftest import HERE, recorded_evidence
from tests.unit.altering import added, at_site, only, run_of, told
from zctrace.analysis import program, sentences
from zctrace.collect import captures
from zctrace.evidence.schema import Capture, Evidence
from zctrace.reports import wording

TCPDUMP = Capture(17, "tcpdump")
TABLE = """sk               RefCnt Type Proto  Iface R Rmem   User   Inode
ffff8a1b 3      3    0003   1     1 0      0      4711
ffff8a1c 3      3    0003   1     0 0      0      4712
ffff8a1d 3      3    0000   1     1 0      0      4713
"""


@pytest.fixture(params=("6.1", "7.3"))
def evidence(request):
    return recorded_evidence(request.param)


@pytest.fixture(params=("6.1", "7.3"))
def traced(request):
    text = (HERE / "evidence" / f"programs-{request.param}.json").read_text()
    return Evidence.from_json(json.loads(text)["cat"])


def captured(evidence, *counts, by=(TCPDUMP,)):
    run = evidence.trace.run
    run = dataclasses.replace(run, counts=(*run.counts, *counts), captures=by)
    return dataclasses.replace(evidence, trace=dataclasses.replace(evidence.trace, run=run))


def into_ring(evidence, role, size):
    where = {"syscall": None, "caller": "tpacket_rcv+0x3a1"}
    return at_site(evidence, role, "skb_copy_bits", size, **where)


def given_up(evidence, role, size, caller="dev_queue_xmit_nit"):
    """What was copied of a zero-copy send, for whom that function called."""
    where = {"syscall": "sendto", "caller": f"{caller}+0x1c0"}
    return at_site(evidence, role, "skb_copy_ubufs", size, **where)


def test_a_capture_s_copies_are_in_no_figure_of_a_program(traced):
    before = program.answer(traced)
    found = program.answer(captured(traced, into_ring(traced, "tapped:program", 4533)))
    assert (found.copied, found.unassigned, found.doubts, found.beside) == (
        *(before.copied, before.unassigned, before.doubts, before.beside),
    )
    assert sentences.sentence(found) == sentences.sentence(before)
    assert found.failed == []
    (note,) = set(found.notes) - set(before.notes)
    assert note == (
        "a packet capture (tcpdump, process 17) copied 4533 B of packets during the "
        "measurement; they are not included in any figure: end the capture to measure "
        "without it"
    )


def test_what_it_had_copied_of_zero_copy_sends_is_in_them_with_the_reason(traced):
    found = program.answer(captured(traced, given_up(traced, "program", 4001)))
    assert found.copied_bytes == program.answer(traced).copied_bytes + 4001
    why = [str(reason) for reason, size in found.reasons if size == 4001]
    assert why == ["a packet capture on the device keeps the packets (dev_queue_xmit_nit)"]
    assert any("made the kernel copy 4001 B of zero-copy sends" in n for n in found.notes)


def test_a_program_s_own_capture_leaves_the_answer_open(traced):
    """Whoever captures is the program, or may be: nothing is set aside."""
    own = next(flow.process for flow in traced.trace.account.flows if flow.process)
    before = program.answer(traced).unassigned
    count = into_ring(traced, "tapped:program", 4533)
    for process in (own, own + 100_000):
        found = program.answer(captured(traced, count, by=(Capture(process, "cat"),)))
        assert found.unassigned == before + 4533 * (process == own)


@pytest.mark.parametrize("by", [(), (Capture(3, "a"), Capture(1, "b"))])
def test_any_number_of_captures_can_be_named(traced, by):
    count = into_ring(traced, "tapped:program", 10)
    (note, *_) = program.answer(captured(traced, count, by=by)).notes
    expected = {
        0: "a packet capture that has ended copied 10 B",
        2: "packet captures (b, process 1; a, process 3) copied 10 B",
    }[len(by)]
    assert note.startswith(expected)


@pytest.mark.parametrize("role", ["control_before", "control_after"])
def test_controls_hold_beside_a_capture_and_only_then(evidence, role):
    before = only(evidence, "sendfile")
    counts = (given_up(evidence, role, 4001), into_ring(evidence, f"tapped:{role}", 4533))
    judged = only(added(evidence, "sendfile", *counts), "sendfile")
    assert judged.failed == []
    assert judged.figures == before.figures
    for stray in (
        given_up(evidence, role, 4001, caller="somebody_else"),
        into_ring(evidence, role, 4533),
    ):
        assert only(added(evidence, "sendfile", stray), "sendfile").failed


def test_a_strategy_s_figures_are_its_own(evidence):
    before = only(evidence, "sendfile")
    count = into_ring(evidence, "tapped:sender", 4533)
    judged = only(added(evidence, "sendfile", count), "sendfile")
    assert judged.figures == before.figures
    said = [line.text for line in wording.coverage(judged.evidence, [judged])]
    assert any("A packet capture that has ended copied 4533 B" in text for text in said)
    assert not any("capture" in line.text for line in wording.coverage(evidence, [before]))


def test_the_kernel_s_own_word_agrees_beside_a_capture(evidence):
    """The loopback's copy and the capture's are each no more than was sent."""
    run = run_of(evidence, "msg-zerocopy")
    size = run.payload_bytes
    for more, holds in ((size, True), (size + 1, run.account.sent_again > 0)):
        stray = given_up(evidence, run.role, more)
        judged = only(added(evidence, "msg-zerocopy", stray), "msg-zerocopy")
        assert (judged.failed == []) == holds
    account = told(evidence, "msg-zerocopy", zerocopy_copied=0)
    stray = given_up(evidence, run.role, size)
    assert only(added(account, "msg-zerocopy", stray), "msg-zerocopy").failed


@pytest.fixture
def processes(tmp_path, monkeypatch):
    """Two in one network namespace, the second with two sockets; and one in another."""
    for process, namespace, sockets in ((3, 1, (4713,)), (17, 1, (1, 4711)), (20, 2, (4712,))):
        folder = tmp_path / str(process)
        for name in ("ns", "net", "fd"):
            (folder / name).mkdir(parents=True)
        (folder / "ns/net").symlink_to(f"net:[{namespace}]")
        (folder / "net/packet").write_text(TABLE if namespace == 1 else TABLE[:62])
        (folder / "comm").write_text("tcpdump\n")
        for number, inode in enumerate(sockets):
            (folder / "fd" / str(number)).symlink_to(f"socket:[{inode}]")
    monkeypatch.setattr(captures, "_PROCESSES", tmp_path)


def test_who_captures_is_found_by_the_sockets_that_get_packets(processes, traced):
    count = into_ring(traced, "tapped:program", 10)
    assert captures.behind([count]) == (TCPDUMP,)
    assert captures.behind([given_up(traced, "sink", 10)]) == (TCPDUMP,)


def test_nobody_is_looked_for_without_need(monkeypatch, traced):
    monkeypatch.setattr(captures, "_PROCESSES", None)
    assert captures.behind(traced.trace.run.counts) == ()
