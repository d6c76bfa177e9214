"""Whether numbers may be believed, on evidence that a real kernel gave."""

import dataclasses
from collections import Counter

import pytest

from tests.conftest import recorded_evidence
from tests.unit.altering import (
    AT_RETURN,
    CALLS,
    added,
    altered,
    at_return,
    at_site,
    count,
    on_sites,
    only,
    run_of,
    told,
    with_counts,
)
from zctrace.analysis import controls, own_word
from zctrace.analysis.verdicts import Word
from zctrace.evidence.schema import Hits
from zctrace.evidence.sites import Blind
from zctrace.probes.hooks import HOOKS, LIST_MAPPED, PAGE_MAPPED
from zctrace.probes.model import Direction, Kind, Path, Quantity
from zctrace.workloads.kernel_account import KernelAccount
from zctrace.workloads.known import Moved

MIB = 1 << 20
TO_USER = Moved(Quantity.COPY_TO_ITER, Direction.KERNEL_TO_USER)
UBUFS = Moved(Quantity.SKB_COPY_UBUFS, Direction.KERNEL_TO_KERNEL)
PAGES = Moved(Quantity.COPY_PAGE, Direction.KERNEL_TO_KERNEL)


def failed(judged):
    return [control.name for control in judged.failed]


def checked(evidence, strategy):
    """Every control of the first run, by name."""
    return {c.name: c for c in controls.check(evidence, run_of(evidence, strategy))}


def test_every_control_of_a_recorded_run_passed(evidence):
    for run in evidence.runs:
        every = controls.check(evidence, run)
        assert len(every) > 2 * len(run.expected.moved) + len(run.lost)
        assert [c for c in every if not c.passed] == []


def test_a_run_that_was_not_possible_has_no_controls():
    evidence = recorded_evidence("5.10")
    assert checked(evidence, "io-uring-zc") == {}
    assert checked(evidence, "sendfile") != {}


@pytest.mark.parametrize(
    "quantity",
    [
        "copy-to-iter",
        "copy-from-iter",
        "copy-from-iter-atomic",
        "skb-copy-ubufs",
        "skb-copy-bits",
        "skb-copy-and-csum-bits",
        "copy-page",
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
    strays = (
        count("control_idle", "_copy_to_iter", 61),
        at_return("control_idle", "_copy_to_iter", 61),
    )
    judged = only(added(evidence, "splice", *strays), "splice")
    assert failed(judged) == ["a neighbour's copies stay out"]
    assert "{'copy-to-iter:k2u': 61}" in judged.failed[0].detail


def test_a_breakpoint_that_hit_more_than_its_program_fails(evidence):
    run = run_of(evidence, "splice")
    hits = {**run.hits, "_copy_to_iter": Hits(program=10, perf=11)}
    judged = only(altered(evidence, "splice", hits=hits), "splice")
    assert judged.copies.word is Word.NOT_MEASURED
    assert judged.switches.word is Word.REFUTED


def test_a_multiplexed_breakpoint_fails(evidence):
    run = run_of(evidence, "splice")
    hits = {**run.hits, "_copy_to_iter": Hits(program=10, perf=10, multiplexed=True)}
    assert only(altered(evidence, "splice", hits=hits), "splice").failed


def test_lost_system_calls_leave_only_the_switches_open(evidence):
    run = run_of(evidence, "sendfile")
    judged = only(
        altered(evidence, "sendfile", lost={**run.lost, "on_sys_enter-skipped": 1}), "sendfile"
    )
    assert judged.figures["mode_switches"] is None
    assert judged.switches.word is Word.NOT_MEASURED
    assert judged.copies.word is Word.HOLDS


def test_a_lost_copy_leaves_the_copies_open(evidence):
    run = run_of(evidence, "sendfile")
    for cause in (
        *("call", "part", "owner", "syscall", "cpus-unwatched", "on_call-skipped"),
        *("on_return-skipped", "on_kprobe_0-skipped", "on_breakpoint_2-skipped"),
        *("on_zerocopy_begun-skipped", "on_fentry_1-skipped", "on_fexit_backlog-skipped"),
    ):
        judged = only(altered(evidence, "sendfile", lost={**run.lost, cause: 1}), "sendfile")
        assert set(failed(judged)) == {f"nothing lost: {cause}"}
        assert judged.copies.word is Word.NOT_MEASURED
        # What does not rely on it stands.
        assert judged.switches.word is Word.HOLDS
        assert judged.figures["page_faults"] is not None


MAPPING = [hook for hook in HOOKS if hook.quantity in (PAGE_MAPPED, LIST_MAPPED)]


@pytest.mark.parametrize(
    "handler", sorted({name for hook in MAPPING for name in (hook.handler, hook.called)})
)
def test_a_lost_mapping_leaves_only_dma_open(evidence, handler):
    lost = {**run_of(evidence, "sendfile").lost, f"{handler}-skipped": 1}
    judged = only(altered(evidence, "sendfile", lost=lost), "sendfile")
    assert [(c.name, c.figures) for c in judged.failed] == [
        (f"nothing lost: {handler}-skipped", controls.DMA)
    ]
    assert judged.copies.word is Word.HOLDS


def test_an_exit_that_was_not_seen_leaves_the_switches_open(evidence):
    def missing(count):
        return None if (count.role, count.quantity) == ("sender", "syscall-exit") else count

    judged = only(with_counts(evidence, "sendfile", missing), "sendfile")
    assert judged.figures["mode_switches"] is None


@pytest.mark.parametrize("cause", ["window", "tally", "on_process_fork-skipped"])
def test_a_lost_window_leaves_everything_open(evidence, cause):
    run = run_of(evidence, "sendfile")
    judged = only(altered(evidence, "sendfile", lost={**run.lost, cause: 1}), "sendfile")
    for column in ("cpu_copies", "mode_switches", "page_faults", "context_switches"):
        assert judged.figures[column] is None


def test_skipped_faults_and_switches_are_withheld_and_nothing_else(evidence):
    run = run_of(evidence, "mmap-write")
    lost = {**run.lost, "on_page_fault_kernel-skipped": 5, "on_sched_switch-skipped": 3}
    judged = only(altered(evidence, "mmap-write", lost=lost), "mmap-write")
    for column in ("page_faults", "page_faults_kernel", "context_switches"):
        assert judged.figures[column] is None
    assert judged.switches.word is Word.HOLDS
    assert judged.copies.word is Word.HOLDS
    assert judged.figures["controls"] == "failed"


def changed(evidence, strategy, change, **wanted):
    """Every count with these values through ``change``."""

    def alter(count):
        mine = all(getattr(count, name) == value for name, value in wanted.items())
        return change(count) if mine else count

    result = with_counts(evidence, strategy, alter)
    assert result != evidence
    return result


def gone(count):
    return None


def resized(by):
    return lambda count: dataclasses.replace(count, bytes=count.bytes + by)


AGREE = "two mechanisms agree on _copy_to_iter"


@pytest.mark.parametrize("mechanism", [CALLS, AT_RETURN])
@pytest.mark.parametrize("by", [-1, 1])
@pytest.mark.parametrize("role", ["sender", "neighbour"])
def test_in_a_system_call_two_mechanisms_see_the_same(evidence, mechanism, by, role):
    functions = {c.function for c in run_of(evidence, "read-write").counts}
    function = "_copy_to_iter" if mechanism == AT_RETURN else "copy_page_to_iter"
    assert function in functions
    differing = changed(
        evidence,
        "read-write",
        resized(by),
        role=role,
        mechanism=mechanism,
        function=function,
        syscall="read",
    )
    judged = only(differing, "read-write")
    assert AGREE in failed(judged)
    assert f"{role}: " in next(c.detail for c in judged.failed if c.name == AGREE)
    assert judged.figures["cpu_copied_bytes"] is None
    assert judged.switches.word is Word.HOLDS


@pytest.mark.parametrize(
    ("at_calls", "at_breakpoint", "passed"),
    [(100, 0, True), (100, 99, True), (100, 100, True), (0, 1, False), (100, 101, False)],
)
def test_outside_of_system_calls_a_breakpoint_may_see_less(
    evidence, at_calls, at_breakpoint, passed
):
    """It is limited to the program's own threads; kernel threads may work for it."""
    strays = (
        count("sender", "_copy_to_iter", at_calls, syscall=None),
        at_return("sender", "_copy_to_iter", at_breakpoint, syscall=None),
    )
    control = checked(added(evidence, "sendfile", *strays), "sendfile")[AGREE]
    assert control.passed == passed


@pytest.mark.parametrize(
    ("role", "at_calls", "at_breakpoint", "passed"),
    [
        ("sender", 0, 100, True),
        ("sender", 100, 0, False),
        ("control_before", 0, 100, False),
        ("control_after", 0, 100, False),
    ],
)
@pytest.mark.parametrize("late", [("_copy_to_iter",), ("_copy_from_iter",)])
def test_calls_in_a_module_that_came_too_late_are_a_doubt_and_no_failure(
    evidence, late, role, at_calls, at_breakpoint, passed
):
    strays = (
        count(role, "_copy_to_iter", at_calls),
        at_return(role, "_copy_to_iter", at_breakpoint),
    )
    blind = Blind(Quantity.COPY_TO_ITER, late, "late", frozenset(Path), Kind.COPY, ("vsock",))
    found = dataclasses.replace(added(evidence, "sendfile", *strays), blind=(blind,))
    assert checked(found, "sendfile")[AGREE].passed == (passed and late == ("_copy_to_iter",))
    assert not checked(added(evidence, "sendfile", *strays), "sendfile")[AGREE].passed


def test_roles_do_not_make_up_for_each_other(evidence):
    strays = (
        count("sink", "_copy_to_iter", 100),
        at_return("sender", "_copy_to_iter", 100),
    )
    detail = checked(added(evidence, "sendfile", *strays), "sendfile")[AGREE]
    assert not detail.passed
    assert "sender: 0 B at call sites, 100 B at the breakpoint" in detail.detail


def test_agreement_is_checked_where_a_breakpoint_tells_what_was_copied():
    """On 5.10 one has to stand at the entry, and pages are copied beside another."""
    evidence = recorded_evidence("5.10")
    agreed = [name for name in checked(evidence, "sendfile") if name.startswith("two")]
    assert agreed == [AGREE, "two mechanisms agree on _copy_from_iter"]
    asked = changed(
        evidence, "sendfile", resized(7), function="iov_iter_copy_from_user_atomic",
        mechanism="breakpoint@entry",
    )  # fmt: skip
    assert only(asked, "sendfile").failed == []
    pages = changed(evidence, "sendfile", gone, function="_copy_to_iter", mechanism=AT_RETURN)
    assert AGREE in failed(only(pages, "sendfile"))


@pytest.mark.parametrize(
    ("size", "direction", "passed"),
    [(4096, "k2k", True), (4095, "k2k", False), (4097, "k2k", False), (4096, "k2u", False)],
)
def test_on_old_kernels_pages_for_kernel_memory_pass_the_breakpoint(size, direction, passed):
    """5.10's copy_page_to_iter leaves those, and only those, to _copy_to_iter."""
    where = {"syscall": "io_uring_enter", "direction": direction, "caller": "filemap_read+0x1"}
    counts = (
        count("sender", "copy_page_to_iter", size, **where),
        at_return("sender", "_copy_to_iter", 4096, syscall="io_uring_enter"),
    )
    evidence = added(recorded_evidence("5.10"), "sendfile", *counts)
    assert checked(evidence, "sendfile")[AGREE].passed == passed


def test_what_a_site_names_is_compared_and_nothing_else(evidence):
    names = [name for name in checked(evidence, "sendfile") if name.startswith("two")]
    compared = {name.rpartition(" ")[2] for name in names}
    assert compared >= {"_copy_to_iter", "_copy_from_iter"}
    named = {s.breakpoint for s in evidence.sites} - {""}
    assert compared <= named
    stray = count("sender", "_copy_from_iter_nocache", 100, quantity="copy-from-iter")
    judged = only(added(evidence, "sendfile", stray), "sendfile")
    assert not any(name.startswith("two") for name in failed(judged))


OWN_WORD = "the kernel's own word on zero-copy sends"


def test_without_scatter_gather_other_copies_agree_with_the_kernel_s_word(evidence):
    """Packets are put together from the pages, which are then free: copied, the kernel says."""
    run = run_of(evidence, "msg-zerocopy")
    account = KernelAccount(zerocopy_sends=1, zerocopy_copied=1, retransmitted_bytes=0)
    run = dataclasses.replace(run, account=account)
    pulled = Moved(Quantity.SKB_COPY_BITS, Direction.KERNEL_TO_KERNEL)
    for gathers, counted, holds in ((False, MIB, True), (True, MIB, False), (False, 0, False)):
        seen = Counter({pulled: counted})
        ((name, passed, _),) = own_word.compared(run, seen, Counter(), gathers=gathers)
        assert (name, passed) == (OWN_WORD, holds)


@pytest.mark.parametrize(
    ("counted", "account", "passed"),
    [
        (MIB, {"zerocopy_sends": 1, "zerocopy_copied": 1}, True),
        (0, {"zerocopy_sends": 1, "zerocopy_copied": 1}, False),
        (MIB - 1, {"zerocopy_sends": 1, "zerocopy_copied": 1}, False),
        (MIB + 1, {"zerocopy_sends": 1, "zerocopy_copied": 1}, False),
        (MIB + 1, {"zerocopy_sends": 1, "zerocopy_copied": 1, "retransmitted_bytes": 1}, True),
        (MIB + 2, {"zerocopy_sends": 1, "zerocopy_copied": 1, "retransmitted_bytes": 1}, False),
        (0, {"zerocopy_sends": 2, "zerocopy_copied": 0}, True),
        (1, {"zerocopy_sends": 2, "zerocopy_copied": 0}, False),
        (MIB, {"zerocopy_sends": 2, "zerocopy_copied": 0}, False),
        (0, {"zerocopy_sends": 2, "zerocopy_copied": 1}, False),
        (1, {"zerocopy_sends": 2, "zerocopy_copied": 1}, True),
        (MIB + 1, {"zerocopy_sends": 2, "zerocopy_copied": 1}, False),
    ],
)
def test_the_kernel_s_own_word_on_sends(evidence, counted, account, passed):
    account = KernelAccount(**{"retransmitted_bytes": 0, **account})
    bare = changed(evidence, "msg-zerocopy", gone, role="sender", quantity="skb-copy-ubufs")
    copied = at_site(evidence, "sender", "skb_copy_ubufs", counted, syscall="sendto")
    judged = only(
        altered(
            added(bare, "msg-zerocopy", *([copied] if counted else [])),
            "msg-zerocopy",
            account=account,
        ),
        "msg-zerocopy",
    )
    assert failed(judged) == ([] if passed else [OWN_WORD])
    assert judged.figures["k2k_bytes"] == (counted if passed else None)


MAPPED = "the kernel's own word on mapped bytes"


@pytest.mark.parametrize(
    ("counted", "copied", "passed"), [(0, 0, True), (9, 9, True), (0, 9, False), (9, 0, False)]
)
def test_the_kernel_s_own_word_on_mapped_bytes(evidence, counted, copied, passed):
    name = "tcp-zerocopy-receive"
    said = told(evidence, name, mapped_bytes=MIB - copied, copied_bytes=copied)
    strays = (
        count("receiver", "_copy_to_iter", counted, syscall="getsockopt"),
        at_return("receiver", "_copy_to_iter", counted, syscall="getsockopt"),
    )
    control = checked(added(said, name, *strays), name)[MAPPED]
    assert control.passed == passed
    assert f"{copied} B copied, it says; {counted} B counted" in control.detail


def test_where_the_kernel_says_nothing_it_is_not_asked(evidence):
    words = {OWN_WORD, MAPPED}
    assert not words & checked(evidence, "sendfile").keys()
    silent = altered(evidence, "msg-zerocopy", account=KernelAccount(zerocopy_sends=1))
    assert not words & checked(silent, "msg-zerocopy").keys()
    assert words & checked(evidence, "msg-zerocopy").keys() == {OWN_WORD}
    assert words & checked(evidence, "tcp-zerocopy-receive").keys() == {MAPPED}


def test_every_direction_has_its_own_known_bytes(evidence):
    """Of the same bytes, some counted as if they had stayed in the kernel."""
    known = run_of(evidence, "sendfile").expected.moved[TO_USER]
    turned = changed(
        evidence,
        "sendfile",
        lambda c: dataclasses.replace(c, direction=Direction.KERNEL_TO_KERNEL),
        role="control_before",
        quantity="copy-to-iter",
        mechanism=CALLS,
    )
    judged = only(turned, "sendfile")
    assert failed(judged) == ["known bytes, copy-to-iter:k2u, control_before"]
    assert judged.failed[0].detail == f"expected {known} B, seen 0 B"


def test_what_is_counted_on_top_of_another_thread_is_there(evidence):
    moved = changed(
        evidence,
        "sendfile",
        lambda c: dataclasses.replace(c, role="outside:control_before", syscall=None),
        role="control_before",
        quantity="skb-copy-ubufs",
    )
    judged = only(moved, "sendfile")
    assert judged.failed == []
    name = "known bytes, skb-copy-ubufs:k2k, control_before"
    known = run_of(evidence, "sendfile").expected.moved[UBUFS]
    assert checked(moved, "sendfile")[name].detail == (
        f"expected {known} B, seen 0 B and {known} B in another context"
    )


def test_what_nothing_counts_on_this_kernel_needs_no_control(evidence):
    without = on_sites(evidence, lambda site: site.quantity != "copy-page")
    names = checked(evidence, "sendfile").keys() - checked(without, "sendfile").keys()
    assert names == {
        f"known bytes, copy-page:k2k, {role}" for role in ("control_before", "control_after")
    }
    assert only(without, "sendfile").failed == []


def test_a_neighbour_that_was_not_seen_fails(evidence):
    moved = run_of(evidence, "sendfile").neighbour.moved
    copied, pages = sum(moved.values()), moved[PAGES]
    unseen = changed(evidence, "sendfile", gone, role="neighbour", quantity="copy-page")
    judged = only(unseen, "sendfile")
    assert failed(judged) == ["a neighbour's copies stay out"]
    assert pages > 0
    seen = f"a neighbour copied {copied} B, seen {copied - pages} B"
    assert seen in judged.failed[0].detail


@pytest.mark.parametrize("role", ["sender", "sink", "outside:sender"])
def test_copies_at_no_site_are_no_zero(evidence, role):
    """Of a function that is not watched so, whose bytes no figure has."""
    stray = count(role, "skb_copy_bits", 100, quantity="skb-copy-bits", mechanism="uprobe")
    judged = only(added(evidence, "sendfile", stray), "sendfile")
    assert failed(judged) == ["every copy is at a site"]
    assert judged.failed[0].detail == "at no site: 100 B at skb_copy_bits (uprobe)"
    assert judged.figures["cpu_copied_bytes"] is None
    assert judged.copies.word is Word.NOT_MEASURED


@pytest.mark.parametrize("quantity", ["syscall-enter", "syscall-exit"])
def test_known_system_calls_are_all_seen(evidence, quantity):
    unseen = changed(
        evidence, "sendfile", gone, role="control_after", quantity=quantity, syscall="lseek"
    )
    judged = only(unseen, "sendfile")
    assert failed(judged) == [f"known system calls, {quantity}, control_after"]
    assert judged.figures["mode_switches"] is None
    assert judged.copies.word is Word.HOLDS


def test_a_runtime_may_look_at_the_time(evidence):
    """Where that is a system call, the controls do not count it, nor the 16 B it copies."""
    looks = [
        count(
            "control_after",
            f"raw_syscalls:{quantity.replace('syscall', 'sys').replace('-', '_')}",
            0,
            quantity=quantity,
            mechanism="tracepoint",
            direction=None,
            syscall="clock_gettime",
            caller=None,
        )
        for quantity in ("syscall-enter", "syscall-exit")
    ]
    site = next(s for s in evidence.sites_of(Kind.CROSS_CHECK) if s.direction is None)
    told = count(
        "control_after", site.function, 16,
        quantity=site.quantity, mechanism=site.mechanism, direction="k2u",
        syscall="clock_gettime",
    )  # fmt: skip
    assert only(added(evidence, "sendfile", *looks, told), "sendfile").failed == []
    judged = only(added(evidence, "sendfile", told), "sendfile")
    assert failed(judged) == [f"{site.function} agrees, k2u, control_after"]


def test_no_other_system_calls_are_seen(evidence):
    more = count(
        "control_after",
        "raw_syscalls:sys_enter",
        0,
        quantity="syscall-enter",
        mechanism="tracepoint",
        direction=None,
        syscall="munmap",
        caller=None,
    )
    judged = only(added(evidence, "sendfile", more), "sendfile")
    assert failed(judged) == ["known system calls, syscall-enter, control_after"]


def test_a_receiver_s_own_entries_and_exits_are_compared(evidence):
    name = "tcp-zerocopy-receive"
    unseen = changed(evidence, name, gone, role="receiver", quantity="syscall-exit")
    assert failed(only(unseen, name)) == ["as many exits as entries, and some"]
    others = changed(evidence, name, gone, role="source", quantity="syscall-exit")
    assert only(others, name).failed == []
