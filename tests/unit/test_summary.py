"""Sums and verdicts, on evidence that a real kernel gave."""

import dataclasses

import pandas as pd
import pytest

from tests.conftest import recorded_evidence
from tests.unit.altering import (
    added,
    altered,
    at_return,
    at_site,
    by_breakpoints,
    count,
    on_sites,
    only,
    routine,
    run_of,
    told,
    with_counts,
    without,
)
from zctrace.analysis import columns as analysis_columns
from zctrace.analysis import frames, runs
from zctrace.analysis.verdicts import Word
from zctrace.evidence.sites import Blind
from zctrace.probes.catalogue import CATALOGUE
from zctrace.probes.model import Kind, Path, Purpose, Quantity
from zctrace.workloads.catalogue import STRATEGIES
from zctrace.workloads.control_stimuli import ZEROCOPY_COPIED, stimuli
from zctrace.workloads.peers import total

MIB = 1 << 20


@pytest.mark.parametrize(
    ("strategy", "u2k", "k2u", "copies", "switches", "words"),
    [
        ("read-write", MIB, MIB, 2, 4, ("holds", "holds")),
        ("mmap-write", MIB, 0, 1, 4, ("holds", "holds")),
        ("sendfile", 0, 0, 0, 2, ("holds", "holds")),
        ("splice", 0, 0, 0, 64, ("holds", "refuted")),
        ("msg-zerocopy", 0, 0, 1, 8, ("no claim", "no claim")),
        ("copy-file-range", 0, 0, 1, 2, ("no claim", "no claim")),
        ("io-uring-zc", 0, 0, 2, 6, ("no claim", "no claim")),
        ("tcp-zerocopy-receive", 0, 0, 0, 16, ("no claim", "no claim")),
    ],
)
def test_recorded_runs(evidence, strategy, u2k, k2u, copies, switches, words):
    judged = only(evidence, strategy)
    figures = judged.figures
    assert (figures["u2k_bytes"], figures["k2u_bytes"]) == (u2k, k2u)
    again = figures["k2k_bytes"] - (copies * MIB - u2k - k2u)
    assert 0 <= again <= judged.run.account.sent_again
    assert figures["cpu_copies"] == copies + again / MIB
    assert figures["mode_switches"] == switches
    assert (figures["verdict_copies"], figures["verdict_switches"]) == words
    assert figures["coverage"] == "complete"
    assert figures["controls"] == "passed"


def test_dma_over_loopback_is_no_zero(evidence):
    figures = only(evidence, "sendfile").figures
    assert (figures["dma_out_bytes"], figures["dma_copies"]) == (None, None)
    assert figures["dma_out_source"] == "none"
    assert figures["dma_in_bytes"] == 0  # requests to disks were watched, and there was none
    assert figures["header_bytes"] > 0
    assert figures["verdict_dma"] == "not measured"


def test_unmeasured_columns_are_empty(evidence):
    frame = frames.summary(runs.judge([evidence]))
    assert frame["u2u_bytes"].isna().all()
    receives = frame["strategy"] == "tcp-zerocopy-receive"
    for column in ("dma_copies", "dma_in_bytes", "dma_out_bytes", "dma_in_source"):
        assert frame[receives][column].isna().all()
    textbook = frame["claimed_dma_copies"].notna()
    assert set(frame[textbook]["verdict_dma"]) == {"not measured"}
    assert set(frame[~textbook]["verdict_dma"]) == {"no claim"}


def test_the_first_columns_are_the_promised_ones(evidence):
    promised = (
        "kernel, machine, strategy, nic, chunk_bytes, cache, payload_bytes, run_index, "
        "cpu_copies, cpu_copied_bytes, copy_calls, u2k_bytes, k2u_bytes, k2k_bytes, "
        "u2u_bytes, syscalls, mode_switches, page_faults, context_switches, dma_copies, "
        "dma_in_bytes, dma_out_bytes, claimed_cpu_copies, claimed_switches, "
        "claimed_dma_copies, verdict_copies, verdict_switches, verdict_dma, coverage, "
        "metadata_bytes, page_faults_kernel, other_user_bytes, outside_bytes, "
        "context_switches_voluntary, context_switches_involuntary, controls, file_system, "
        "reason, interrupts, dma_in_source, dma_out_source, header_bytes, disk_metadata_bytes, "
        "host, host_kernel, ended, command, build"
    ).split(", ")
    frame = frames.summary(runs.judge([evidence]))
    assert list(frame.columns) == promised


def test_a_copy_between_kernel_buffers_stays_in_the_kernel(evidence):
    """The function copies from user memory; of these bytes the call site knows better."""
    where = {"quantity": "copy-from-iter", "syscall": "sendfile"}
    stray = count("sender", "_copy_from_iter", 4096, direction="k2k", **where)
    twin = at_return("sender", "_copy_from_iter", 4096, **where)
    judged = only(added(evidence, "sendfile", stray, twin), "sendfile")
    assert judged.figures["k2k_bytes"] == 4096
    assert judged.figures["u2k_bytes"] == 0
    assert judged.copies.word is Word.REFUTED


@pytest.mark.parametrize(("syscall", "inside"), [("sendfile", True), ("write", False)])
def test_a_breakpoint_tells_direction_by_the_system_call(evidence, syscall, inside):
    stray = at_return(
        "sender", "_copy_from_iter", 4096, quantity="copy-from-iter", syscall=syscall
    )
    copied = routine(evidence, "sender", 0 if inside else 4096, caller=None)
    figures = only(
        added(by_breakpoints(evidence), "sendfile", stray, copied), "sendfile"
    ).figures
    assert figures["k2k_bytes"] == (4096 if inside else 0)
    assert figures["u2k_bytes"] == (0 if inside else 4096)


def test_breakpoints_alone_give_the_textbook_s_figures(evidence):
    for strategy in ("read-write", "mmap-write", "sendfile", "splice"):
        both, alone = only(evidence, strategy), only(by_breakpoints(evidence), strategy)
        assert alone.failed == []
        columns = ("u2k_bytes", "k2u_bytes", "k2k_bytes", "verdict_copies", "mode_switches")
        assert [alone.figures[c] for c in columns] == [both.figures[c] for c in columns]


def test_copies_in_another_context_leave_the_claim_open(evidence):
    stray = at_site(evidence, "outside:sender", "skb_copy_bits", 100, syscall=None)
    judged = only(added(evidence, "sendfile", stray), "sendfile")
    assert judged.figures["cpu_copied_bytes"] is None
    assert judged.copies.word is Word.NOT_MEASURED
    assert judged.copies.sentence.startswith("unattributed: during the transfer 100 B")
    assert judged.failed == []


def test_no_system_call_at_all_is_no_zero(evidence):
    def unseen(count):
        return None if count.role == "sender" else count

    judged = only(with_counts(evidence, "sendfile", unseen), "sendfile")
    assert judged.figures["mode_switches"] is None
    assert judged.switches.word is Word.NOT_MEASURED


STRANGER = "strncpy_from_user+0x10"


def test_bytes_that_only_the_routine_saw_leave_the_copies_open(evidence):
    stray = routine(evidence, "sender", MIB, caller=STRANGER)
    judged = only(added(evidence, "sendfile", stray), "sendfile")
    assert judged.copies.word is Word.NOT_MEASURED
    assert "1048576 B more" in judged.copies.sentence


def test_small_user_copies_are_shown_apart(evidence):
    stray = routine(evidence, "sender", 16, caller=STRANGER)
    judged = only(added(evidence, "sendfile", stray), "sendfile")
    assert judged.copies.word is Word.HOLDS
    assert judged.figures["other_user_bytes"] == 16
    assert judged.figures["cpu_copied_bytes"] == 0


def test_bytes_that_the_routine_tried_twice_are_nobody_else_s(evidence):
    """It is called again for a page that was not present; the bytes were copied once."""
    again = routine(
        evidence, "sender", 4096, caller="_copy_to_iter+0x1c1", direction="k2u", syscall="read"
    )
    judged = only(added(evidence, "read-write", again), "read-write")
    assert judged.copies.word is Word.HOLDS
    assert judged.figures["other_user_bytes"] == 0
    other = routine(evidence, "sender", 7, caller=STRANGER)
    figures = only(added(evidence, "read-write", again, other), "read-write").figures
    assert figures["other_user_bytes"] == 7


def test_bytes_that_the_routine_did_not_see_leave_the_copies_open(evidence):
    def unseen(count):
        mine = (count.role, count.quantity) == ("sender", "user-copy-routine")
        return None if mine else count

    judged = only(with_counts(evidence, "read-write", unseen), "read-write")
    assert judged.copies.word is Word.NOT_MEASURED
    assert "2097152 B less" in judged.copies.sentence


def metadata(size, **values):
    where = {"quantity": "metadata-from-user", "direction": "u2k", "syscall": "sendfile"}
    return count("sender", "_copy_from_user", size, **{**where, **values})


def test_metadata_is_no_payload(evidence):
    seen = routine(evidence, "sender", 48, caller="_copy_from_user+0x10")
    judged = only(added(evidence, "sendfile", metadata(48), seen), "sendfile")
    assert judged.copies.word is Word.HOLDS
    assert judged.figures["metadata_bytes"] == 48
    for column in ("cpu_copied_bytes", "copy_calls", "u2k_bytes", "other_user_bytes"):
        assert judged.figures[column] == 0, column


def test_metadata_that_the_routine_did_not_see_leave_the_copies_open(evidence):
    judged = only(added(evidence, "sendfile", metadata(48)), "sendfile")
    assert judged.copies.word is Word.NOT_MEASURED
    assert "48 B less" in judged.copies.sentence


def test_metadata_that_nothing_watches_is_not_zero(evidence):
    sites = tuple(s for s in evidence.sites if s.purpose is not Purpose.METADATA)
    judged = only(dataclasses.replace(evidence, sites=sites), "sendfile")
    assert judged.copies.word is Word.HOLDS
    assert judged.figures["metadata_bytes"] is None


@pytest.mark.parametrize(("strategy", "some"), [("msg-zerocopy", True), ("sendfile", False)])
def test_recorded_metadata(evidence, strategy, some):
    """Completions are received as messages."""
    assert (only(evidence, strategy).figures["metadata_bytes"] > 0) == some


ONCE = {"retransmitted_bytes": 0}


def test_copy_on_write_is_a_copy_inside_the_kernel(evidence):
    page = count(
        "sender",
        "copy_page",
        4096,
        quantity="copy-page",
        direction="k2k",
        syscall=None,
        caller="wp_page_copy+0xd2",
    )
    judged = only(told(added(evidence, "sendfile", page), "sendfile", **ONCE), "sendfile")
    assert judged.figures["k2k_bytes"] == judged.figures["cpu_copied_bytes"] == 4096
    assert judged.figures["metadata_bytes"] == 0
    assert judged.copies.word is Word.REFUTED
    assert judged.copies.sentence.endswith("+4096 B")
    assert judged.figures["reason"] == (
        "4096 B: copy-on-write: a shared page was written to (wp_page_copy)"
    )


def test_bytes_inside_the_kernel_have_a_reason(evidence):
    loopback = only(evidence, "msg-zerocopy").figures
    assert loopback["k2k_bytes"] >= MIB
    assert loopback["reason"].startswith(
        f"{loopback['k2k_bytes']} B: the receiver is on the same host"
    )
    page_cache = only(evidence, "copy-file-range").figures["reason"]
    assert page_cache.startswith("1048576 B: written into the page cache")
    assert "(generic_perform_write)" in page_cache


def test_other_copies_have_no_reason(evidence):
    for strategy in ("read-write", "sendfile", "tcp-zerocopy-receive"):
        assert only(evidence, strategy).figures["reason"] == ""


def test_reasons_are_added_up_and_begin_with_the_most_bytes(evidence):
    def inside(size, caller, syscall=None):
        where = {"caller": caller, "syscall": syscall}
        return at_site(evidence, "sender", "skb_copy_ubufs", size, **where)

    counts = (
        inside(100, "__netif_receive_skb_core.constprop.0+0xba2"),
        inside(5000, "dev_queue_xmit_nit+0x100"),
        inside(200, "__netif_receive_skb_core+0x10", syscall="sendfile"),
        inside(300, None),
    )
    copied = told(added(evidence, "sendfile", *counts), "sendfile", **ONCE)
    reason = only(copied, "sendfile").figures["reason"]
    sizes = [part.split(" B: ")[0] for part in reason.split("; ")]
    assert sizes == ["5000", "300", "300"]
    assert reason.startswith("5000 B: a packet capture on the device")
    assert "300 B: the receiver is on the same host" in reason


def test_bytes_that_were_sent_again_are_named_beside_copies(evidence):
    again = told(evidence, "msg-zerocopy", retransmitted_bytes=500)
    assert "; 500 B were sent again by TCP" in only(again, "msg-zerocopy").figures["reason"]
    again = told(evidence, "sendfile", retransmitted_bytes=500)
    assert only(again, "sendfile").figures["reason"] == ""


def test_bytes_that_were_sent_again_are_not_named_beside_other_copies(evidence):
    page = count("sender", "copy_page", 4096, quantity="copy-page", direction="k2k")
    again = told(added(evidence, "sendfile", page), "sendfile", retransmitted_bytes=500)
    assert "sent again" not in only(again, "sendfile").figures["reason"]


def test_no_figure_has_no_reason(evidence):
    dead = with_counts(
        evidence, "msg-zerocopy", lambda c: None if c.quantity == "skb-copy-bits" else c
    )
    assert only(dead, "msg-zerocopy").figures["reason"] is None


def test_of_a_receiver_its_own_figures_are_shown(evidence):
    """It copied nothing; the process that sent to it did."""
    judged = only(evidence, "tcp-zerocopy-receive")
    rows = frames.tidy([dataclasses.replace(evidence, runs=(judged.run,))])
    sent = rows[(rows["role"] == "source") & (rows["kind"] == "copy")]
    assert sent["bytes"].sum() >= MIB
    assert judged.figures["cpu_copied_bytes"] == 0
    entered = rows[(rows["role"] == "receiver") & (rows["quantity"] == "syscall-enter")]
    assert judged.calls == entered.groupby("syscall")["calls"].sum().to_dict()
    assert judged.figures["syscalls"] == entered["calls"].sum() > 0


def test_what_a_receiver_copies_is_its_own(evidence):
    counts = (
        count("receiver", "_copy_to_iter", 100, syscall="getsockopt"),
        at_return("receiver", "_copy_to_iter", 100, syscall="getsockopt"),
        routine(
            evidence,
            "receiver",
            100,
            direction="k2u",
            syscall="getsockopt",
            caller="_copy_to_iter+0x10",
        ),
    )
    told_so = told(evidence, "tcp-zerocopy-receive", mapped_bytes=MIB - 100, copied_bytes=100)
    judged = only(added(told_so, "tcp-zerocopy-receive", *counts), "tcp-zerocopy-receive")
    assert judged.failed == []
    assert judged.figures["k2u_bytes"] == judged.figures["cpu_copied_bytes"] == 100


def test_a_sender_s_bytes_are_not_a_receiver_s(evidence):
    stray = count("sender", "copy_page", 4096, quantity="copy-page", direction="k2k")
    judged = only(added(evidence, "tcp-zerocopy-receive", stray), "tcp-zerocopy-receive")
    assert judged.figures["k2k_bytes"] == 0


@pytest.mark.parametrize(("strategy", "nic"), [("sendfile", "lo"), ("copy-file-range", None)])
def test_what_was_done(evidence, strategy, nic):
    figures = only(altered(evidence, strategy, file_system="xfs"), strategy).figures
    assert (figures["nic"], figures["file_system"]) == (nic, "xfs")


def test_a_run_that_was_not_possible_is_empty_and_says_why():
    judged = only(recorded_evidence("5.10"), "io-uring-zc")
    why = "not available: this kernel's io_uring has no IORING_OP_SEND_ZC: that is since v6.0"
    assert judged.figures["coverage"] == why
    for verdict in (judged.copies, judged.switches, judged.dma):
        assert (verdict.word, verdict.sentence) == (Word.NOT_MEASURED, why)
    told_all_the_same = {
        *("kernel", "machine", "strategy", "file_system", "nic", "cache", "payload_bytes"),
        *("run_index", "coverage", "verdict_copies", "verdict_switches", "verdict_dma"),
    }
    empty = {column for column, value in judged.figures.items() if value is None}
    assert empty == set(analysis_columns.COLUMNS) - told_all_the_same
    assert (judged.checked, judged.calls) == ((), {})


def test_a_run_that_was_not_possible_copied_nothing_anywhere():
    evidence = recorded_evidence("5.10")
    rows = frames.tidy([evidence])
    assert set(rows["strategy"]) == {"sendfile"}
    frame = frames.summary(runs.judge([evidence])).set_index("strategy")
    assert frame.loc["sendfile", "cpu_copied_bytes"] == 0
    assert pd.isna(frame.loc["io-uring-zc", "cpu_copied_bytes"])


def with_sites(evidence, change):
    return dataclasses.replace(evidence, sites=tuple(map(change, evidence.sites)))


def test_callers_that_nothing_watches_leave_the_copies_open(evidence):
    """Neither a breakpoint behind them nor the processor's routine."""

    def refused(site):
        mine = site.function == "dax_copy_to_iter"
        unreached = {"unreached": ("odd+0x10", "even+0x20"), "breakpoint": ""}
        return dataclasses.replace(site, **unreached) if mine else site

    unreached = with_sites(evidence, refused)
    assert only(unreached, "sendfile").copies.word is Word.HOLDS
    sites = tuple(s for s in unreached.sites if s.quantity != "user-copy-routine")
    judged = only(dataclasses.replace(unreached, sites=sites), "sendfile")
    assert judged.copies.word is Word.NOT_MEASURED
    assert judged.copies.sentence == (
        "not covered: dax_copy_to_iter from odd+0x10, even+0x20 (the call site is not probed)"
    )


def test_callers_that_a_breakpoint_watches_leave_nothing_open(evidence):
    def refused(site):
        unreached = dataclasses.replace(site, unreached=("odd+0x10",))
        return unreached if site.breakpoint else site

    def watched(site):
        return site.quantity != "user-copy-routine" and site.paths != {Path.UDP}

    unreached = on_sites(with_sites(evidence, refused), watched)
    assert only(unreached, "sendfile").copies.word is Word.HOLDS
    alone = on_sites(unreached, lambda site: site.kind is not Kind.CROSS_CHECK)
    judged = only(alone, "sendfile")
    assert judged.failed == []
    assert judged.copies.word is Word.NOT_MEASURED
    assert "from odd+0x10 (the call site is not probed)" in judged.copies.sentence


def test_metadata_that_nobody_watches_is_not_the_payload_s(evidence):
    def refused(site):
        unreached = dataclasses.replace(site, unreached=("odd+0x10",), exact=False)
        return unreached if site.purpose is Purpose.METADATA else site

    sites = tuple(
        s for s in with_sites(evidence, refused).sites if s.quantity != "user-copy-routine"
    )
    judged = only(dataclasses.replace(evidence, sites=sites), "sendfile")
    assert judged.figures["coverage"].count("metadata") == 0
    assert "_copy_from_user" not in judged.figures["coverage"]


def test_an_inexact_cross_check_leaves_nothing_open(evidence):
    def inexact(site):
        return dataclasses.replace(site, exact=site.kind is not Kind.CROSS_CHECK)

    assert only(with_sites(evidence, inexact), "sendfile").copies.word is Word.HOLDS


def test_a_site_without_a_control_leaves_the_copies_open(evidence):
    expected = without(run_of(evidence, "sendfile").expected, ZEROCOPY_COPIED)
    judged = only(altered(evidence, "sendfile", expected=expected), "sendfile")
    assert judged.copies.word is Word.NOT_MEASURED
    assert "no self-test" in judged.copies.sentence


def test_every_site_on_a_strategy_s_path_has_a_control():
    paths = frozenset().union(*(strategy.paths for strategy in STRATEGIES))
    copies = {s.quantity for s in CATALOGUE.copies if s.kind is Kind.COPY and s.paths & paths}
    calls = {
        target.quantity
        for target in CATALOGUE.calls
        if target.purpose is not Purpose.METADATA and target.paths & paths
    }
    assert "copy-page" in calls
    assert copies | calls <= {moved.quantity for moved in total(stimuli()).moved}


def test_an_unattributed_figure_is_withheld_with_its_probe(evidence):
    dead = with_counts(
        evidence, "sendfile", lambda c: None if c.quantity == "skb-copy-bits" else c
    )
    assert only(dead, "sendfile").figures["outside_bytes"] is None


def test_a_blind_site_on_the_path_leaves_the_copies_open(evidence):
    paths = frozenset({Path.TCP})
    blind = Blind(Quantity.COPY_PAGE, ("f",), "refused", paths, Kind.COPY)
    open_ = dataclasses.replace(evidence, blind=(*evidence.blind, blind))
    judged = only(open_, "sendfile")
    assert judged.copies.word is Word.NOT_MEASURED
    assert judged.figures["coverage"] == "not covered: f (refused)"


def test_an_inexact_site_leaves_the_copies_open(evidence):
    sites = tuple(dataclasses.replace(s, exact=False, note="n") for s in evidence.sites)
    judged = only(dataclasses.replace(evidence, sites=sites), "sendfile")
    assert judged.copies.word is Word.NOT_MEASURED


def test_unwatched_events_are_empty_not_zero(evidence):
    judged = only(dataclasses.replace(evidence, events=()), "mmap-write")
    for column in ("page_faults", "page_faults_kernel", "context_switches", "mode_switches"):
        assert judged.figures[column] is None


def test_tidy_shows_attached_sites_with_zeros_and_blind_ones_empty(evidence):
    functions, paths = ("udp_copy", "udp_copy_too"), frozenset({Path.UDP})
    blind = Blind(Quantity.BOUNCE, functions, "refused", paths, Kind.COPY)
    frame = frames.tidy([dataclasses.replace(evidence, blind=(blind,))])
    sender = frame[(frame["strategy"] == "sendfile") & (frame["role"] == "sender")]
    sites = sender[sender["kind"] == "copy"].set_index("quantity")
    assert len(sites.loc["copy-to-iter"]) == sum(
        s.quantity == "copy-to-iter" and s.kind == "copy" for s in evidence.sites
    )
    assert (sites.loc["copy-to-iter", "bytes"] == 0).all()
    (row,) = sites.loc[["bounce"]].to_dict("records")
    assert (row["site"], row["mechanism"]) == ("udp_copy or udp_copy_too", "none")
    assert (pd.isna(row["bytes"]), pd.isna(row["calls"]), row["note"]) == (
        True,
        True,
        "refused",
    )


def test_tidy_tells_two_mechanisms_and_the_callers_apart(evidence):
    rows = frames.tidy([evidence])
    mine = rows[(rows["strategy"] == "read-write") & (rows["role"] == "sender")]
    mine = mine[(mine["quantity"] == "copy-from-iter") & (mine["bytes"] > 0)]
    by_mechanism = mine.groupby("mechanism")["bytes"].sum().to_dict()
    assert by_mechanism == {"call sites": MIB, "breakpoint@return": MIB}
    kinds = mine.groupby("mechanism")["kind"].unique().map(list).to_dict()
    assert kinds == {"call sites": ["copy"], "breakpoint@return": ["cross-check"]}
    callers = mine[mine["mechanism"] == "call sites"]["caller"]
    assert callers.str.match(r"\w+(\.\w+)*\+0x").all()


def test_tidy_adds_up_to_the_summary(evidence):
    rows = frames.tidy([evidence])
    roles = {run.strategy: run.role for run in evidence.runs}
    own = rows[(rows["role"] == rows["strategy"].map(roles)) & (rows["kind"] == "copy")]
    own = own[own["purpose"] != Purpose.METADATA.value]
    sums = own.groupby(["strategy", "run_index"])["bytes"].sum()
    frame = frames.summary(runs.judge([evidence]))
    copied = frame.set_index(["strategy", "run_index"])["cpu_copied_bytes"]
    assert len(sums) == len(evidence.runs)
    pd.testing.assert_series_equal(
        sums.sort_index(), copied.sort_index(), check_names=False, check_dtype=False
    )


def test_the_sink_is_not_the_sender(evidence):
    rows = frames.tidy([evidence])
    sink = rows[(rows["role"] == "sink") & (rows["kind"] == "copy")]
    sink = sink[sink["purpose"] == Purpose.PAYLOAD.value]
    received = sink.groupby("strategy")["bytes"].sum().to_dict()
    to_socket = {"read-write", "mmap-write", "sendfile", "splice", "msg-zerocopy"}
    assert received == dict.fromkeys({*to_socket, "io-uring-zc"}, MIB)
