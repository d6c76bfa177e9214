"""The planner, on kernels as they were found."""

import dataclasses

import pytest

from probes.catalogue import COPY_SITES, EVENT_SITES
from probes.site import Kind, Mechanism, Path
from tests.conftest import recorded_kernel
from tracer.kernel import KernelFacts
from tracer.plan import BREAKPOINT_SLOTS, plan

TRANSFER = frozenset({Path.FILE, Path.PIPE, Path.TCP})


def planned(facts):
    return plan(COPY_SITES, EVENT_SITES, facts)


def changed(facts, function, **values):
    new = dataclasses.replace(facts.functions[function], **values)
    return dataclasses.replace(facts, functions={**facts.functions, function: new})


def by_quantity(attach_plan):
    return {copy.site.quantity: copy for copy in attach_plan.copies}


@pytest.mark.parametrize(
    ("line", "atomic", "routine"),
    [
        ("6.1", "copy_page_from_iter_atomic", "copy_user_enhanced_fast_string"),
        ("7.3", "copy_folio_from_iter_atomic", "rep_movs_alternative"),
    ],
)
def test_breakpoints_go_to_the_iterators_and_the_routine(line, atomic, routine):
    attach_plan = planned(recorded_kernel(line))
    assert [(b.site.function, b.mechanism) for b in attach_plan.breakpoints] == [
        ("_copy_to_iter", Mechanism.BREAKPOINT_RETURN),
        ("_copy_from_iter", Mechanism.BREAKPOINT_RETURN),
        (atomic, Mechanism.BREAKPOINT_RETURN),
        (routine, Mechanism.BREAKPOINT_ENTRY),
    ]
    assert all(copy.exact for copy in attach_plan.copies)


def test_nothing_on_a_file_to_tcp_transfer_is_blind(facts):
    assert planned(facts).blind_for(TRANSFER) == ()


def test_a_return_is_watched_where_it_stands(facts):
    for copy in planned(facts).breakpoints[:3]:
        function = facts.functions[copy.site.function]
        assert copy.address == function.address + function.returns[0]
        assert copy.length == "ctx->regs.ax"


def test_the_routine_decides_direction_by_addresses(facts):
    routine = by_quantity(planned(facts))["user-copy-routine"]
    assert (routine.source, routine.destination) == ("ctx->regs.si", "ctx->regs.di")
    assert routine.site.kind is Kind.CROSS_CHECK


def test_site_numbers_are_unique_and_dense(facts):
    attach_plan = planned(facts)
    numbers = [a.number for a in (*attach_plan.copies, *attach_plan.events)]
    assert numbers == list(range(len(numbers)))


def test_no_quantity_is_attached_twice(facts):
    quantities = [copy.site.quantity for copy in planned(facts).copies]
    assert len(set(quantities)) == len(quantities)


def test_socket_buffer_length_comes_from_type_information(facts):
    length = by_quantity(planned(facts))["skb-copy-ubufs"].length
    assert length == f"u32_at(ctx->di, {facts.members['sk_buff.data_len']})"


def test_unknown_member_leaves_the_site_blind(facts):
    attach_plan = planned(dataclasses.replace(facts, members={}, btf="no BTF"))
    blind = {b.quantity: b for b in attach_plan.blind}
    assert "skb-copy-ubufs" not in by_quantity(attach_plan)
    assert "sk_buff.data_len" in blind["skb-copy-ubufs"].reason
    assert attach_plan.blind_for(TRANSFER)


def test_two_returns_fall_back_to_the_entry_and_say_so(facts):
    attach_plan = planned(changed(facts, "_copy_to_iter", returns=(10, 20)))
    copy = by_quantity(attach_plan)["copy-to-iter"]
    assert copy.mechanism is Mechanism.BREAKPOINT_ENTRY
    assert copy.address == facts.functions["_copy_to_iter"].address
    assert copy.length == "ctx->regs.si"
    assert not copy.exact
    assert "2 returns instead of one" in copy.note


def test_a_tail_jump_falls_back_to_the_entry(facts):
    attach_plan = planned(changed(facts, "_copy_from_iter", jumps=(77,)))
    copy = by_quantity(attach_plan)["copy-from-iter"]
    assert copy.mechanism is Mechanism.BREAKPOINT_ENTRY
    assert "1 jumps" in copy.note


def test_unreadable_text_falls_back_to_the_entry(facts):
    locked = dataclasses.replace(
        changed(facts, "_copy_to_iter", returns=None, jumps=None), text="kcore is locked"
    )
    copy = by_quantity(planned(locked))["copy-to-iter"]
    assert (copy.exact, copy.note) == (False, "breakpoint@return: kcore is locked")


def test_no_breakpoints_leaves_every_iterator_blind(facts):
    attach_plan = planned(dataclasses.replace(facts, breakpoint="refused: EINVAL"))
    assert attach_plan.breakpoints == ()
    blind = {b.quantity for b in attach_plan.blind_for(TRANSFER)}
    assert {"copy-to-iter", "copy-from-iter", "copy-from-iter-atomic"} <= blind


def test_a_refused_probe_is_blind_with_the_kernel_s_reason(facts):
    attach_plan = planned(changed(facts, "skb_copy_bits", kprobe="refused by the kernel: no"))
    blind = {b.quantity: b.reason for b in attach_plan.blind}
    assert blind["skb-copy-bits"] == "kprobe: refused by the kernel: no"


def test_the_checksum_copy_cannot_be_probed_in_lib():
    blind = {b.quantity: b for b in planned(recorded_kernel("6.1")).blind}
    assert blind["csum-and-copy-from-iter"].paths == {Path.UDP}
    assert "refused" in blind["csum-and-copy-from-iter"].reason
    assert "csum-and-copy-from-iter" in by_quantity(planned(recorded_kernel("7.3")))


def test_an_fsrm_processor_has_no_routine_to_watch():
    facts = recorded_kernel("7.3")
    facts = dataclasses.replace(facts, cpu_flags=facts.cpu_flags | {"fsrm"})
    attach_plan = planned(facts)
    assert "user-copy-routine" not in by_quantity(attach_plan)
    reason = next(b.reason for b in attach_plan.blind if b.quantity == "user-copy-routine")
    assert "fsrm" in reason
    # A cross-check that cannot be made is no hole in the count.
    assert attach_plan.blind_for(TRANSFER) == ()


def test_a_processor_without_erms_uses_another_routine():
    facts = recorded_kernel("6.1")
    facts = dataclasses.replace(facts, cpu_flags=facts.cpu_flags - {"erms"})
    assert "user-copy-routine" not in by_quantity(planned(facts))


def test_at_most_four_breakpoints(facts):
    from_iter = next(s for s in COPY_SITES if s.function == "_copy_from_iter")
    more = [dataclasses.replace(from_iter, quantity=f"more-{n}") for n in range(3)]
    attach_plan = plan((*COPY_SITES, *more), EVENT_SITES, facts)
    assert len(attach_plan.breakpoints) == BREAKPOINT_SLOTS
    reasons = {b.quantity: b.reason for b in attach_plan.blind}
    assert "all 4 debug registers are taken" in reasons["more-0"]


def test_an_empty_kernel_attaches_nothing_and_explains_everything():
    facts = KernelFacts("0", "0", "x86_64", "none", frozenset())
    attach_plan = planned(facts)
    assert attach_plan.copies == ()
    assert attach_plan.events == ()
    quantities = {s.quantity for s in (*COPY_SITES, *EVENT_SITES)}
    assert {b.quantity for b in attach_plan.blind} == quantities
    assert all(b.reason for b in attach_plan.blind)


def test_a_tracepoint_without_the_field_is_blind(facts):
    tracepoints = {**facts.tracepoints, "sched:sched_switch": {"prev_pid": 24}}
    attach_plan = planned(dataclasses.replace(facts, tracepoints=tracepoints))
    blind = {b.quantity: b.reason for b in attach_plan.blind}
    assert blind["context-switch-voluntary"] == "its record has no prev_state"
    # The handler is compiled all the same and needs its parameters.
    assert dict(attach_plan.parameters)["SWITCH_PREV_STATE"] == "0"


def test_field_offsets_are_the_kernel_s(facts):
    parameters = dict(planned(facts).parameters)
    child = facts.tracepoints["sched:sched_process_fork"]["child_pid"]
    assert parameters["FORK_CHILD_PID"] == str(child)
