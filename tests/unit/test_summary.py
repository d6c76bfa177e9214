"""Sums and verdicts, on evidence that a real kernel gave."""

import dataclasses

import pandas as pd
import pytest

from probes.catalogue import COPY_SITES
from probes.site import Kind
from tests.conftest import recorded_evidence
from tracer import controls, summary
from tracer.evidence import Count, Hits
from tracer.verdict import Word
from workloads.catalogue import STRATEGIES
from workloads.exercise import stimuli
from workloads.peers import total

MIB = 1 << 20


def only(evidence, strategy):
    """The first run of one strategy, judged."""
    return next(j for j in summary.judge([evidence]) if j.run.strategy == strategy)


def altered(evidence, strategy, **values):
    runs = tuple(
        dataclasses.replace(run, **values) if run.strategy == strategy else run
        for run in evidence.runs
    )
    return dataclasses.replace(evidence, runs=runs)


def with_counts(evidence, strategy, change):
    """Every count of a strategy's runs through ``change``; ``None`` drops it."""
    runs = tuple(
        dataclasses.replace(
            run, counts=tuple(c for c in map(change, run.counts) if c is not None)
        )
        if run.strategy == strategy
        else run
        for run in evidence.runs
    )
    return dataclasses.replace(evidence, runs=runs)


@pytest.mark.parametrize(
    ("strategy", "u2k", "k2u", "copies", "switches", "words"),
    [
        ("read-write", MIB, MIB, 2, 4, ("holds", "holds")),
        ("mmap-write", MIB, 0, 1, 4, ("holds", "holds")),
        ("sendfile", 0, 0, 0, 2, ("holds", "holds")),
        ("splice", 0, 0, 0, 64, ("holds", "refuted")),
    ],
)
def test_recorded_runs(evidence, strategy, u2k, k2u, copies, switches, words):
    figures = only(evidence, strategy).figures
    assert (figures["u2k_bytes"], figures["k2u_bytes"], figures["k2k_bytes"]) == (u2k, k2u, 0)
    assert figures["cpu_copies"] == copies
    assert figures["mode_switches"] == switches
    assert (figures["verdict_copies"], figures["verdict_switches"]) == words
    assert figures["coverage"] == "complete"
    assert figures["controls"] == "passed"


def test_unmeasured_columns_are_empty(evidence):
    frame = summary.summarise(summary.judge([evidence]))
    for column in ("dma_copies", "dma_in_bytes", "u2u_bytes", "metadata_bytes"):
        assert frame[column].isna().all()
    assert (frame["verdict_dma"] == "not measured").all()


def test_the_first_columns_are_the_promised_ones(evidence):
    promised = (
        "kernel, machine, strategy, nic, chunk_bytes, cache, payload_bytes, run_index, "
        "cpu_copies, cpu_copied_bytes, copy_calls, u2k_bytes, k2u_bytes, k2k_bytes, "
        "u2u_bytes, syscalls, mode_switches, page_faults, context_switches, dma_copies, "
        "dma_in_bytes, dma_out_bytes, claimed_cpu_copies, claimed_switches, "
        "claimed_dma_copies, verdict_copies, verdict_switches, verdict_dma, coverage, "
        "metadata_bytes, page_faults_kernel"
    ).split(", ")
    frame = summary.summarise(summary.judge([evidence]))
    assert list(frame.columns)[: len(promised)] == promised


def test_a_copy_through_a_kernel_iterator_stays_in_the_kernel(evidence):
    stray = Count("sender", "copy-from-iter", "_copy_from_iter", None, "sendfile", 1, 4096)
    run = next(r for r in evidence.runs if r.strategy == "sendfile")
    figures = only(altered(evidence, "sendfile", counts=(*run.counts, stray)), "sendfile")
    assert figures.figures["k2k_bytes"] == 4096
    assert figures.figures["u2k_bytes"] == 0
    assert figures.copies.word is Word.REFUTED


def test_copies_in_another_context_leave_the_claim_open(evidence):
    stray = Count("outside:sender", "skb-copy-bits", "skb_copy_bits", None, None, 1, 100)
    run = next(r for r in evidence.runs if r.strategy == "sendfile")
    judged = only(altered(evidence, "sendfile", counts=(*run.counts, stray)), "sendfile")
    assert judged.figures["cpu_copied_bytes"] is None
    assert judged.copies.word is Word.NOT_MEASURED
    assert "100 B" in judged.copies.sentence


@pytest.mark.parametrize(
    "quantity",
    [
        "copy-to-iter",
        "copy-from-iter",
        "copy-from-iter-atomic",
        "skb-copy-ubufs",
        "skb-copy-bits",
        "skb-copy-and-csum-bits",
        "user-copy-routine",
    ],
)
def test_a_site_that_sees_nothing_forbids_every_zero(evidence, quantity):
    dead = with_counts(evidence, "sendfile", lambda c: None if c.quantity == quantity else c)
    judged = only(dead, "sendfile")
    assert judged.figures["cpu_copies"] is None
    assert judged.figures["u2k_bytes"] is None
    assert judged.copies.word is Word.NOT_MEASURED
    assert judged.figures["controls"] == "failed"


def test_a_site_that_misses_one_byte_fails_its_control(evidence):
    def lossy(count):
        if count.role == "control_after" and count.quantity == "copy-to-iter":
            return dataclasses.replace(count, bytes=count.bytes - 1)
        return count

    judged = only(with_counts(evidence, "read-write", lossy), "read-write")
    assert judged.copies.word is Word.NOT_MEASURED


def test_double_counting_fails_a_control(evidence):
    def doubled(count):
        if count.quantity == "copy-from-iter" and count.role.startswith("control"):
            return dataclasses.replace(count, bytes=2 * count.bytes)
        return count

    assert only(with_counts(evidence, "read-write", doubled), "read-write").failed


def test_a_neighbour_s_bytes_in_an_idle_window_fail(evidence):
    run = next(r for r in evidence.runs if r.strategy == "splice")
    stray = Count("control_idle", "copy-to-iter", "_copy_to_iter", None, "read", 1, 61)
    judged = only(altered(evidence, "splice", counts=(*run.counts, stray)), "splice")
    assert [c.name for c in judged.failed] == ["a neighbour's copies stay out"]


def test_a_breakpoint_that_hit_more_than_its_program_fails(evidence):
    run = next(r for r in evidence.runs if r.strategy == "splice")
    hits = {**run.hits, "_copy_to_iter": Hits(program=10, perf=11)}
    judged = only(altered(evidence, "splice", hits=hits), "splice")
    assert judged.copies.word is Word.NOT_MEASURED
    assert judged.switches.word is Word.REFUTED


def test_a_multiplexed_breakpoint_fails(evidence):
    run = next(r for r in evidence.runs if r.strategy == "splice")
    hits = {**run.hits, "_copy_to_iter": Hits(program=10, perf=10, multiplexed=True)}
    assert only(altered(evidence, "splice", hits=hits), "splice").failed


def test_lost_system_calls_leave_only_the_switches_open(evidence):
    run = next(r for r in evidence.runs if r.strategy == "sendfile")
    judged = only(
        altered(evidence, "sendfile", lost={**run.lost, "on_sys_enter-skipped": 1}), "sendfile"
    )
    assert judged.figures["mode_switches"] is None
    assert judged.switches.word is Word.NOT_MEASURED
    assert judged.copies.word is Word.HOLDS


def test_a_lost_copy_leaves_the_copies_open(evidence):
    run = next(r for r in evidence.runs if r.strategy == "sendfile")
    for cause in ("tally", "window", "on_kprobe_0-skipped", "on_breakpoint_2-skipped"):
        lost = {**run.lost, cause: 1}
        assert only(altered(evidence, "sendfile", lost=lost), "sendfile").copies.word is (
            Word.NOT_MEASURED
        )


def test_an_exit_that_was_not_seen_leaves_the_switches_open(evidence):
    def missing(count):
        return None if (count.role, count.quantity) == ("sender", "syscall-exit") else count

    judged = only(with_counts(evidence, "sendfile", missing), "sendfile")
    assert judged.figures["mode_switches"] is None


@pytest.mark.parametrize("cause", ["window", "tally", "on_process_fork-skipped"])
def test_a_lost_window_leaves_everything_open(evidence, cause):
    run = next(r for r in evidence.runs if r.strategy == "sendfile")
    judged = only(altered(evidence, "sendfile", lost={**run.lost, cause: 1}), "sendfile")
    for column in ("cpu_copies", "mode_switches", "page_faults", "context_switches"):
        assert judged.figures[column] is None


def test_skipped_faults_and_switches_are_withheld_and_nothing_else(evidence):
    run = next(r for r in evidence.runs if r.strategy == "mmap-write")
    lost = {**run.lost, "on_page_fault_kernel-skipped": 5, "on_sched_switch-skipped": 3}
    judged = only(altered(evidence, "mmap-write", lost=lost), "mmap-write")
    for column in ("page_faults", "page_faults_kernel", "context_switches"):
        assert judged.figures[column] is None
    assert judged.switches.word is Word.HOLDS
    assert judged.copies.word is Word.HOLDS
    assert judged.figures["controls"] == "failed"


def test_no_system_call_at_all_is_no_zero(evidence):
    def unseen(count):
        return None if count.role == "sender" else count

    judged = only(with_counts(evidence, "sendfile", unseen), "sendfile")
    assert judged.figures["mode_switches"] is None
    assert judged.switches.word is Word.NOT_MEASURED


def routine(evidence, size):
    """What the processor's routine would show for ``size`` bytes in the sender's window."""
    site = next(s for s in evidence.sites if s["quantity"] == "user-copy-routine")
    return Count("sender", site["quantity"], site["function"], "u2k", "sendfile", 1, size)


def test_bytes_that_only_the_routine_saw_leave_the_copies_open(evidence):
    run = next(r for r in evidence.runs if r.strategy == "sendfile")
    counts = (*run.counts, routine(evidence, MIB))
    judged = only(altered(evidence, "sendfile", counts=counts), "sendfile")
    assert judged.copies.word is Word.NOT_MEASURED
    assert "1048576 B more" in judged.copies.sentence


def test_small_user_copies_are_shown_apart(evidence):
    run = next(r for r in evidence.runs if r.strategy == "sendfile")
    counts = (*run.counts, routine(evidence, 16))
    judged = only(altered(evidence, "sendfile", counts=counts), "sendfile")
    assert judged.copies.word is Word.HOLDS
    assert judged.figures["other_user_bytes"] == 16
    assert judged.figures["cpu_copied_bytes"] == 0


def test_bytes_that_the_routine_did_not_see_leave_the_copies_open(evidence):
    def unseen(count):
        mine = (count.role, count.quantity) == ("sender", "user-copy-routine")
        return None if mine else count

    judged = only(with_counts(evidence, "read-write", unseen), "read-write")
    assert judged.copies.word is Word.NOT_MEASURED
    assert "2097152 B less" in judged.copies.sentence


def test_a_site_without_a_control_leaves_the_copies_open(evidence):
    run = next(r for r in evidence.runs if r.strategy == "sendfile")
    expected = {q: n for q, n in run.expected.items() if q != "skb-copy-ubufs"}
    judged = only(altered(evidence, "sendfile", expected=expected), "sendfile")
    assert judged.copies.word is Word.NOT_MEASURED
    assert "no control" in judged.copies.sentence


def test_every_site_on_a_strategy_s_path_has_a_control():
    paths = frozenset().union(*(strategy.paths for strategy in STRATEGIES))
    wanted = {s.quantity for s in COPY_SITES if s.kind is Kind.COPY and s.paths & paths}
    assert wanted <= set(total(stimuli()))


def test_an_unattributed_figure_is_withheld_with_its_probe(evidence):
    dead = with_counts(
        evidence, "sendfile", lambda c: None if c.quantity == "skb-copy-bits" else c
    )
    assert only(dead, "sendfile").figures["outside_bytes"] is None


def test_a_blind_site_on_the_path_leaves_the_copies_open(evidence):
    blind = {
        "quantity": "x",
        "functions": ["f"],
        "reason": "refused",
        "paths": ["tcp"],
        "kind": "copy",
    }
    open_ = dataclasses.replace(evidence, blind=(*evidence.blind, blind))
    judged = only(open_, "sendfile")
    assert judged.copies.word is Word.NOT_MEASURED
    assert judged.figures["coverage"] == "blind: f: refused"


def test_an_inexact_site_leaves_the_copies_open(evidence):
    sites = tuple({**s, "exact": False, "note": "n"} for s in evidence.sites)
    judged = only(dataclasses.replace(evidence, sites=sites), "sendfile")
    assert judged.copies.word is Word.NOT_MEASURED


def test_unwatched_events_are_empty_not_zero(evidence):
    judged = only(dataclasses.replace(evidence, events=()), "mmap-write")
    for column in ("page_faults", "page_faults_kernel", "context_switches", "mode_switches"):
        assert judged.figures[column] is None


def test_tidy_shows_attached_sites_with_zeros_and_blind_ones_empty():
    frame = summary.tidy([recorded_evidence("6.1")])
    sender = frame[(frame["strategy"] == "sendfile") & (frame["role"] == "sender")]
    sites = sender[sender["kind"] == "copy"].set_index("quantity")
    assert (sites.loc["copy-to-iter", "bytes"] == 0).all()
    assert sites.loc["csum-and-copy-from-iter", "bytes"].isna().all()
    assert sites.loc["csum-and-copy-from-iter", "note"].str.contains("refused").all()


def test_tidy_adds_up_to_the_summary(evidence):
    rows = summary.tidy([evidence])
    sender = rows[(rows["role"] == "sender") & (rows["kind"] == "copy")]
    sums = sender.groupby(["strategy", "run_index"])["bytes"].sum()
    frame = summary.summarise(summary.judge([evidence]))
    copied = frame.set_index(["strategy", "run_index"])["cpu_copied_bytes"]
    pd.testing.assert_series_equal(
        sums.sort_index(), copied.sort_index(), check_names=False, check_dtype=False
    )


def test_the_sink_is_not_the_sender(evidence):
    rows = summary.tidy([evidence])
    sink = rows[(rows["role"] == "sink") & (rows["kind"] == "copy")]
    assert (sink.groupby(["strategy", "run_index"])["bytes"].sum() == MIB).all()


def test_every_control_of_a_recorded_run_passed(evidence):
    for run in evidence.runs:
        checked = controls.check(evidence, run)
        assert len(checked) > 30
        assert [c for c in checked if not c.passed] == []
