"""What devices move: requests, packets, mappings, and what is concluded from them."""

import dataclasses

import pytest

from tests.conftest import recorded_evidence
from tests.unit.altering import altered, count, only, run_of, with_counts, without
from zctrace.analysis import controls, frames
from zctrace.analysis.verdicts import Dma, Source, Word, judge_dma
from zctrace.collect import disk
from zctrace.evidence.schema import Hits, Setting

MIB = 1 << 20


@pytest.fixture
def cold(line):
    """From a cold page cache over e1000, with scatter/gather and without."""
    return recorded_evidence(f"{line}-e1000")


def over(evidence, nic):
    """Only what was done over one device."""
    runs = tuple(run for run in evidence.runs if run.nic == nic)
    return dataclasses.replace(evidence, runs=runs)


@pytest.mark.parametrize(
    ("strategy", "nic", "k2k", "words"),
    [
        ("read-write", "e1000", 0, ("holds", "holds", "holds")),
        ("sendfile", "e1000", 0, ("holds", "holds", "holds")),
        ("splice", "e1000", 0, ("holds", "refuted", "holds")),
        ("read-write", "e1000-nosg", MIB, ("refuted", "holds", "holds")),
        ("sendfile", "e1000-nosg", MIB, ("holds", "holds", "holds")),
        ("splice", "e1000-nosg", MIB, ("refuted", "refuted", "holds")),
    ],
)
def test_recorded_runs(cold, strategy, nic, k2k, words):
    figures = only(over(cold, nic), strategy).figures
    assert figures["k2k_bytes"] == k2k
    assert (figures["dma_in_bytes"], figures["dma_out_bytes"]) == (MIB, MIB)
    assert (figures["dma_in_source"], figures["dma_out_source"]) == ("measured", "measured")
    assert figures["dma_copies"] == 2
    assert figures["header_bytes"] > 0
    assert figures["outside_bytes"] == 0
    assert figures["interrupts"] > 0
    assert (figures["nic"], figures["cache"], figures["controls"]) == (nic, "cold", "passed")
    kinds = ("copies", "switches", "dma")
    assert tuple(figures[f"verdict_{kind}"] for kind in kinds) == words


def test_without_scatter_gather_sendfile_is_claimed_to_copy_once(cold):
    claims = {
        nic: only(over(cold, nic), "sendfile").figures["claimed_cpu_copies"]
        for nic in ("e1000", "e1000-nosg")
    }
    assert claims == {"e1000": 0, "e1000-nosg": 1}


def test_the_claim_goes_by_what_the_device_said_not_by_its_name(cold):
    facts = dataclasses.replace(cold.nics["e1000"], scatter_gather=False)
    evidence = dataclasses.replace(cold, nics={**cold.nics, "e1000": facts})
    assert only(over(evidence, "e1000"), "sendfile").figures["claimed_cpu_copies"] == 1


def test_most_of_the_copies_are_made_where_no_pid_filter_sees_them(cold):
    """Outside of the sender's system call, on top of another thread, and still its own."""
    run = run_of(over(cold, "e1000-nosg"), "sendfile")
    deferred = sum(
        c.bytes
        for c in run.counts
        if c.role == "sender" and c.quantity.startswith("skb-") and c.syscall is None
    )
    assert deferred > 0


@pytest.mark.parametrize(("way", "side"), [("d2k", "in"), ("k2d", "out")])
def test_what_was_not_seen_mapped_is_derived(cold, way, side):
    def unmapped(count):
        return None if (count.quantity, count.direction) == ("dma-mapped", way) else count

    judged = only(with_counts(over(cold, "e1000"), "sendfile", unmapped), "sendfile")
    assert judged.figures[f"dma_{side}_source"] == "derived"
    assert judged.figures[f"dma_{side}_bytes"] == MIB
    assert judged.dma.word is Word.NOT_MEASURED
    assert "was not seen mapping" in judged.dma.sentence


def test_of_what_is_encrypted_more_leaves_than_arrives(line):
    """TCP says how much that is, and the packets are to have carried it."""
    recorded = over(recorded_evidence(f"{line}-e1000"), "e1000")

    def judged(secured):
        run = run_of(recorded, "sendfile")
        account = dataclasses.replace(run.account, secured_bytes=secured)
        run = dataclasses.replace(run, account=account)
        return only(dataclasses.replace(recorded, runs=(run,)), "sendfile")

    assert not judged(MIB).failed
    assert [c.name for c in judged(MIB + 38).failed] == ["what arrived was transmitted"] * 2


def test_packets_that_were_not_seen_leave_dma_and_copies_open(cold):
    def unsent(count):
        return None if count.quantity == "transmit-payload" else count

    judged = only(with_counts(over(cold, "e1000"), "sendfile", unsent), "sendfile")
    # Where packets went unseen, so may have copies of them.
    assert [c.name for c in judged.failed] == ["what arrived was transmitted"] * 2
    assert judged.figures["dma_out_bytes"] is judged.figures["dma_copies"] is None
    assert judged.dma.word is judged.copies.word is Word.NOT_MEASURED


def test_a_disk_whose_reads_were_not_seen_leaves_the_dma_open(cold):
    def unread(count):
        return None if count.quantity.startswith("disk-read") else count

    judged = only(with_counts(over(cold, "e1000"), "sendfile", unread), "sendfile")
    assert {c.name for c in judged.failed} == {
        "known bytes from the disk, control_before",
        "known bytes from the disk, control_after",
    }
    assert judged.figures["dma_in_bytes"] is None


def without_disk_control(evidence, strategy):
    expected = without(run_of(evidence, strategy).expected, controls.DISK_READ_CONTROL)
    return altered(evidence, strategy, expected=expected)


def test_a_disk_without_a_control_is_not_measured(cold):
    """As where the payload is a file in a folder that its user may not write to."""
    judged = only(without_disk_control(over(cold, "e1000"), "sendfile"), "sendfile")
    assert not judged.failed
    assert judged.figures["dma_in_bytes"] is judged.figures["dma_in_source"] is None
    assert judged.figures["dma_copies"] is None
    assert judged.figures["dma_out_bytes"] == MIB
    assert judged.copies.word is Word.HOLDS
    assert judged.dma.word is Word.NOT_MEASURED
    assert judged.dma.sentence == (
        "no self-test: no known bytes were read from nvme0n1, because the strategies' user "
        "cannot make files there"
    )


def test_without_a_control_nothing_read_of_a_user_s_file_is_no_zero(evidence):
    request = dataclasses.replace(evidence.request, file="/srv/big")
    bare = without_disk_control(dataclasses.replace(evidence, request=request), "sendfile")
    assert only(bare, "sendfile").figures["dma_in_bytes"] is None


def test_a_cache_that_was_not_cold_leaves_the_dma_open(cold):
    run = run_of(over(cold, "e1000"), "sendfile")
    account = dataclasses.replace(run.account, resident_bytes=4096)
    judged = only(altered(over(cold, "e1000"), "sendfile", account=account), "sendfile")
    assert [c.name for c in judged.failed] == ["the page cache is cold"]
    assert judged.dma.word is Word.NOT_MEASURED


def test_reads_by_others_are_not_taken_for_the_file_s_own(cold):
    """A kernel thread may read the payload ahead; what else it reads is somebody else's."""
    more = (
        count("outside:sender", "block:block_rq_issue", 4096, quantity="disk-read"),
        count("outside:sender", "block:block_rq_issue", 8192, quantity="disk-read-other"),
    )
    run = run_of(over(cold, "e1000"), "sendfile")
    judged = only(
        altered(over(cold, "e1000"), "sendfile", counts=(*run.counts, *more)), "sendfile"
    )
    assert judged.figures["dma_in_bytes"] == MIB + 4096
    assert judged.figures["disk_metadata_bytes"] == 0


def test_bounce_buffers_are_copies(cold):
    bounced = count(
        "sender",
        "swiotlb:swiotlb_bounced",
        MIB,
        quantity="bounce",
        mechanism="tracepoint",
        direction="k2k",
        caller=None,
    )
    run = run_of(over(cold, "e1000"), "sendfile")
    judged = only(
        altered(over(cold, "e1000"), "sendfile", counts=(*run.counts, bounced)), "sendfile"
    )
    assert judged.figures["k2k_bytes"] == MIB
    assert judged.copies.word is Word.REFUTED
    assert "bounce buffers" in judged.figures["reason"]


def test_packets_of_others_are_no_copies_of_the_sender(cold):
    stray = count("outside:sender", "net:net_dev_start_xmit", 999, quantity="transmit-payload")
    run = run_of(over(cold, "e1000"), "sendfile")
    judged = only(
        altered(over(cold, "e1000"), "sendfile", counts=(*run.counts, stray)), "sendfile"
    )
    assert judged.figures["outside_bytes"] == 0
    assert judged.figures["dma_out_bytes"] == MIB


def test_lost_interrupts_matter_to_nothing_else(cold):
    run = run_of(over(cold, "e1000"), "sendfile")
    lost = {**run.lost, "on_interrupt_timer-skipped": 5}
    assert not only(altered(over(cold, "e1000"), "sendfile", lost=lost), "sendfile").failed


def test_a_file_system_without_a_disk_is_not_measured(cold):
    nowhere = dataclasses.replace(cold.disks["ext4"], trouble="tmpfs lies on no disk")
    judged = only(dataclasses.replace(over(cold, "e1000"), disks={"ext4": nowhere}), "sendfile")
    assert judged.figures["dma_in_bytes"] is None
    assert judged.dma.sentence == "tmpfs lies on no disk"


def test_from_a_warm_cache_nothing_is_concluded(evidence):
    judged = only(evidence, "sendfile")
    assert judged.figures["dma_in_bytes"] == 0
    assert judged.dma.word is Word.NOT_MEASURED
    assert "in the page cache" in judged.dma.sentence


def test_the_tidy_rows_have_what_devices_moved(cold):
    frame = frames.tidy([over(cold, "e1000")])
    sent = frame[(frame["quantity"] == "transmit-payload") & (frame["role"] == "sender")]
    assert set(sent.groupby("strategy")["bytes"].sum()) == {MIB}
    assert set(frame["nic"]) == {"e1000"}


IN = Dma(MIB, Source.MEASURED, "a disk")
OUT = Dma(MIB, Source.MEASURED, "a card")


def judged_dma(into=IN, out=OUT, claimed=2, payload=MIB, again=0):
    return judge_dma(claimed, into, out, payload, 4096, again)


def test_two_copies_by_dma_hold():
    assert judged_dma().word is Word.HOLDS


@pytest.mark.parametrize(
    "sides",
    [
        {"into": dataclasses.replace(IN, bytes=MIB + 4096)},
        {"into": dataclasses.replace(IN, bytes=0)},
        {"out": dataclasses.replace(OUT, bytes=MIB - 1)},
        {"claimed": 1},
    ],
)
def test_anything_else_refutes(sides):
    assert judged_dma(**sides).word is Word.REFUTED


def test_a_disk_reads_whole_pages():
    into, out = dataclasses.replace(IN, bytes=8192), dataclasses.replace(OUT, bytes=4097)
    assert judged_dma(into, out, payload=4097).word is Word.HOLDS


def test_what_is_sent_again_is_no_copy_more():
    verdict = judged_dma(out=dataclasses.replace(OUT, bytes=MIB + 1448), again=1448)
    assert verdict.word is Word.HOLDS
    assert "1448 B of these retransmitted by TCP" in verdict.sentence


@pytest.mark.parametrize("source", [Source.DERIVED, Source.NONE])
def test_what_no_device_was_seen_moving_holds_nothing(source):
    for sides in ({"into": dataclasses.replace(IN, source=source)},
                  {"out": dataclasses.replace(OUT, source=source)}):  # fmt: skip
        assert judged_dma(**sides).word is Word.NOT_MEASURED


def test_where_nothing_is_claimed_nothing_is_judged():
    assert judged_dma(claimed=None).word is Word.NO_CLAIM
    assert judged_dma(Dma(None, None, "", "why"), claimed=None).word is Word.NO_CLAIM


@pytest.mark.parametrize(
    ("start", "length", "inside"),
    [
        (0, 100, 0),
        (50, 100, 50),
        (100, 100, 100),
        (150, 100, 50),
        (150, 200, 100),
        (0, 999, 200),
    ],
)
def test_requests_overlap_extents(start, length, inside):
    assert disk.overlap(((100, 100), (300, 100)), start, length) == inside


def test_a_file_s_extents_cover_it(tmp_path):
    file = tmp_path / "file"
    file.write_bytes(b"x" * 10_000)
    with file.open("rb+") as opened:
        import os

        os.fsync(opened.fileno())
    extents = disk._extents(file, 10_000, 0)
    if extents is None:
        pytest.skip("this file system does not tell where its files are")
    assert sum(length for _, length in extents) == 12_288


@pytest.mark.parametrize(
    ("hits", "agree"),
    [
        (Hits(5, None), True),
        (Hits(5, 5), True),
        (Hits(4, 5), False),
        (Hits(6, 5), False),
        (Hits(6, 5, shared=True), True),
        (Hits(4, 5, shared=True), False),
        (Hits(5, 5, multiplexed=True), False),
    ],
)
def test_a_missed_execution_is_noticed(hits, agree):
    assert hits.agree is agree


def test_everything_is_also_what_the_textbook_speaks_of():
    from zctrace.commands.choices import choose_settings

    settings = choose_settings(("tee", "sendfile"), (), (), every=True)
    assert settings[0] == Setting(("tee", "sendfile"))
    assert settings[1:] == (
        Setting(("sendfile",), "e1000", "cold"),
        Setting(("sendfile",), "e1000-nosg", "cold"),
    )
    assert choose_settings(("tee",), ("veth",), (), every=True) == (Setting(("tee",), "veth"),)
