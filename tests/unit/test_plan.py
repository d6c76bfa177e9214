"""The planner, on kernels as they were found."""

import dataclasses

import pytest

from tests.conftest import KERNELS, recorded_kernel
from zctrace.collect import obstacles
from zctrace.errors import TraceError
from zctrace.kernel.facts import KernelFacts
from zctrace.plan.attachments import Choice
from zctrace.plan.places import REGISTER_NUMBERS, Amount
from zctrace.plan.plan import BREAKPOINT_SLOTS, plan, settled
from zctrace.probes import hooks
from zctrace.probes.catalogue import CATALOGUE, PROGRAM_CATALOGUE
from zctrace.probes.model import (
    Call,
    CallTarget,
    Catalogue,
    Direction,
    Kind,
    Mechanism,
    Path,
    Purpose,
    Quantity,
    Returned,
    plain,
)

TRANSFER = frozenset({Path.FILE, Path.PIPE, Path.TCP})
ITERATORS = {"copy-to-iter", "copy-from-iter", "copy-from-iter-atomic"}
WITHOUT_ITERATORS = {
    *("copy-page", "metadata-from-user", "metadata-to-user", "linear-to-page", "memory-copy"),
}
"""Quantities that only call sites can see."""


def planned(facts, choice=Choice.AUTO, catalogue=CATALOGUE):
    return plan(catalogue, facts, choice)


def changed(facts, function, **values):
    new = dataclasses.replace(facts.functions[function], **values)
    return dataclasses.replace(facts, functions={**facts.functions, function: new})


def with_calls(facts, **calls):
    """``facts`` with these targets' calls instead."""
    return dataclasses.replace(facts, calls={**facts.calls, **calls})


def untraced(facts, function):
    calls = tuple(dataclasses.replace(c, traced=False) for c in facts.calls[function])
    return with_calls(facts, **{function: calls})


def by_quantity(attach_plan):
    return {copy.site.quantity: copy for copy in attach_plan.copies}


def calls_of(attach_plan, function):
    """The only attachment of that target."""
    (attachment,) = [c for c in attach_plan.calls if c.target.function == function]
    return attachment


def reasons(attach_plan):
    return {b.quantity: b.reason for b in attach_plan.blind}


@pytest.mark.parametrize(
    ("line", "atomic", "mechanism", "routine"),
    [
        (
            "5.10",
            "iov_iter_copy_from_user_atomic",
            Mechanism.BREAKPOINT_ENTRY,
            "copy_user_enhanced_fast_string",
        ),
        (
            "6.1",
            "copy_page_from_iter_atomic",
            Mechanism.BREAKPOINT_RETURN,
            "copy_user_enhanced_fast_string",
        ),
        (
            "6.12",
            "copy_page_from_iter_atomic",
            Mechanism.BREAKPOINT_RETURN,
            "rep_movs_alternative",
        ),
        (
            "7.3",
            "copy_folio_from_iter_atomic",
            Mechanism.BREAKPOINT_RETURN,
            "rep_movs_alternative",
        ),
    ],
)
@pytest.mark.parametrize("choice", [Choice.AUTO, Choice.BREAKPOINT])
def test_breakpoints_go_to_the_iterators_and_the_routine(
    line, atomic, mechanism, routine, choice
):
    attach_plan = planned(recorded_kernel(line), choice)
    assert {(b.site.function, b.mechanism) for b in attach_plan.breakpoints} == {
        ("_copy_to_iter", Mechanism.BREAKPOINT_RETURN),
        ("_copy_from_iter", Mechanism.BREAKPOINT_RETURN),
        (atomic, mechanism),
        (routine, Mechanism.BREAKPOINT_ENTRY),
    }
    inexact = [copy.site.function for copy in attach_plan.copies if not copy.exact]
    assert inexact == ([] if mechanism is Mechanism.BREAKPOINT_RETURN else [atomic])


def test_call_sites_count_and_breakpoints_check(facts):
    attach_plan = planned(facts)
    assert {b.kind for b in attach_plan.breakpoints} == {Kind.CROSS_CHECK}
    assert {c.target.quantity for c in attach_plan.calls} >= ITERATORS | WITHOUT_ITERATORS


def test_nothing_on_a_transfer_is_blind(facts):
    assert planned(facts).blind_for(TRANSFER) == ()
    # Of plain copies elsewhere: tests/unit/test_plain_copies.py.
    assert {b.quantity for b in planned(facts).blind} <= {"memory-copy"}


def test_every_quantity_is_counted_by_something(facts):
    """Once: what is counted at call sites is not counted anywhere else."""
    attach_plan = planned(facts)
    at_calls = {call.target.quantity for call in attach_plan.calls}
    at_functions = {c.site.quantity for c in attach_plan.copies if c.kind is Kind.COPY}
    wanted = {site.quantity for site in CATALOGUE.copies if site.kind is Kind.COPY}
    wanted |= {target.quantity for target in CATALOGUE.calls}
    assert at_calls | at_functions == wanted
    assert at_calls & at_functions == set()


def test_the_meter_knows_which_site_sees_its_own_reads(facts):
    """Of user memory, by the routine under user copies; where that is watched."""
    found = planned(facts)
    number = dict(found.settings)["ROUTINE_SITE"]
    assert [c.site.quantity for c in found.copies if c.number == number] == [
        "user-copy-routine"
    ]
    fast = planned(dataclasses.replace(facts, cpu_flags=facts.cpu_flags - {"erms"} | {"fsrm"}))
    assert dict(fast.settings)["ROUTINE_SITE"] == -1


def test_no_call_is_attached_in_two_ways(facts):
    """Several targets may be the same function, for different callers."""
    attached = [call for attachment in planned(facts).calls for call in attachment.calls]
    assert len({call.address for call in attached}) == len(attached)


def test_only_what_can_be_probed_is_attached(facts):
    for attachment in planned(facts).calls:
        assert attachment.calls or attachment.unreached
        assert all(call.traced and not call.jump for call in attachment.calls)
        assert all(call.jump or not call.traced for call in attachment.unreached)


def test_no_byte_passes_two_of_what_is_attached(facts):
    """Whoever calls a target is none himself."""
    attach_plan = planned(facts)
    targets = {call.target.function for call in attach_plan.calls}
    callers = {
        plain(call.caller)
        for attachment in attach_plan.calls
        for call in (*attachment.calls, *attachment.unreached)
    }
    assert callers & targets == set()


@pytest.mark.parametrize(
    ("line", "relay", "inner"),
    [
        *((line, "copy_page_to_iter", "_copy_to_iter") for line in KERNELS),
        *((line, "simple_copy_to_iter", "_copy_to_iter") for line in KERNELS),
        *((line, "copy_page_from_iter", "_copy_from_iter") for line in KERNELS),
        ("5.10", "skb_do_copy_data_nocache", "_copy_from_iter_full"),
        ("5.10", "skb_do_copy_data_nocache", "csum_and_copy_from_iter_full"),
        ("6.12", "copy_mc_user_highpage", "copy_mc_to_kernel"),
    ],
)
def test_a_relay_s_own_call_is_not_attached_again(line, relay, inner):
    facts = recorded_kernel(line)
    assert relay in {plain(call.caller) for call in facts.calls[inner]}
    attach_plan = planned(facts)
    assert calls_of(attach_plan, relay).calls
    everywhere = [
        call
        for attachment in attach_plan.calls
        if attachment.target.function == inner
        for call in (*attachment.calls, *attachment.unreached)
    ]
    assert relay not in {plain(call.caller) for call in everywhere}
    others = [call for call in facts.calls[inner] if plain(call.caller) != relay]
    assert {call.address for call in others} >= {call.address for call in everywhere}


@pytest.mark.parametrize(
    ("line", "passed"), [("5.10", False), ("6.1", True), ("6.12", True), ("7.3", True)]
)
def test_old_iterators_copy_pages_by_themselves(line, passed):
    attach_plan = planned(recorded_kernel(line))
    for page, other in (
        ("copy_page_to_iter", "_copy_to_iter"),
        ("copy_page_from_iter", "_copy_from_iter"),
    ):
        assert calls_of(attach_plan, page).target.breakpoint == (other if passed else "")


def made(function, **values):
    row = CallTarget(
        quantity="made",
        function=function,
        direction=Direction.KERNEL_TO_USER,
        returned=Returned.COPIED,
        why="",
        since="",
    )
    return dataclasses.replace(row, **values)


def made_plan(facts, *rows):
    return planned(facts, catalogue=dataclasses.replace(CATALOGUE, calls=rows))


CALLED = (Call(0x1000, "somebody", 0x10),)


@pytest.mark.parametrize(
    ("condition", "there", "attached"),
    [
        ({"beside": "mark"}, True, True),
        ({"beside": "mark"}, False, False),
        ({"without": "mark"}, True, False),
        ({"without": "mark"}, False, True),
    ],
)
def test_a_row_may_hold_beside_or_without_another_function(facts, condition, there, attached):
    """The other one is there, even if nobody calls it."""
    facts = with_calls(facts, f=CALLED, **({"mark": ()} if there else {}))
    attach_plan = made_plan(facts, made("f", **condition))
    assert [c.target.function for c in attach_plan.calls] == ["f"] * attached
    expected = [] if attached else ["this kernel calls no such function"]
    assert [b.reason for b in attach_plan.blind if b.quantity == "made"] == expected


def test_a_row_that_does_not_hold_relays_nothing(facts):
    facts = with_calls(facts, f=(Call(0x1000, "relay", 0x10),), relay=CALLED)
    attach_plan = made_plan(facts, made("f"), made("relay", beside="absent"))
    assert [c.target.function for c in attach_plan.calls] == ["f"]
    assert calls_of(attach_plan, "f").calls == facts.calls["f"]


def test_a_call_belongs_to_the_row_that_names_its_caller(facts):
    """What no row names belongs to the one without callers, if there is any."""
    named = Call(0x2000, "names.cold", 0x10)
    facts = with_calls(facts, f=(*CALLED, named))
    rows = made("f", callers=("names", "absent")), made("f", quantity="others")
    for several in (rows, rows[::-1]):
        found = {c.target.quantity: c.calls for c in made_plan(facts, *several).calls}
        assert found == {"made": (named,), "others": CALLED}
    (only,) = made_plan(facts, rows[0]).calls
    assert only.calls == (named,)


NAMED = {"callers": ("name", "other"), "paths": frozenset({Path.PIPE})}


@pytest.mark.parametrize(
    ("there", "loaded", "module", "reason"),
    [
        ({"name"}, set(), "", "no call of it was found in name"),
        ({"name"}, set(), "mod", "no call of it was found in name"),
        (set(), set(), "", "this kernel has none of its callers name, other"),
        (set(), {"mod"}, "mod", "this kernel has none of its callers name, other"),
        (set(), set(), "mod", None),
        (set(), set(), None, None),
        ({"name"}, set(), None, "no call of it was found in name"),
    ],
)
def test_named_callers_without_a_call_are_no_zero(facts, there, loaded, module, reason):
    """They copy by other instructions, or have other names.

    Or their module is not loaded, or the kernel is too old for them.
    """
    facts = dataclasses.replace(facts, callers=frozenset(there), modules=frozenset(loaded))
    facts = with_calls(facts, f=CALLED, g=CALLED)
    why = {"optional": True} if module is None else {"module": module}
    rows = made("f", **why, **NAMED), made("g")
    found = [(b.functions, b.reason) for b in made_plan(facts, *rows).blind_for(TRANSFER)]
    assert found == ([(("f",), reason)] if reason else [])


def test_one_of_several_rows_for_the_same_callers_is_enough(facts):
    """A compiler puts a function into its callers, whose calls are another row's."""
    calls = (Call(0x2000, "name", 0x10),)
    facts = dataclasses.replace(facts, callers=frozenset({"name", "other"}))
    facts = with_calls(facts, f=(), g=calls)
    attach_plan = made_plan(facts, made("f", **NAMED), made("g", **NAMED))
    assert calls_of(attach_plan, "g").calls == calls
    assert attach_plan.blind_for(TRANSFER) == ()


def test_where_nothing_is_known_the_reason_is_given_once(facts):
    facts = dataclasses.replace(facts, calls={}, text="kcore is locked")
    attach_plan = made_plan(facts, made("f", **NAMED), made("g", **NAMED))
    assert [b.reason for b in attach_plan.blind if b.quantity == "made"] == ["kcore is locked"]


def test_a_part_of_a_relay_is_the_relay(facts):
    facts = with_calls(facts, f=(Call(0x1000, "relay.cold", 0x10), *CALLED), relay=CALLED)
    attach_plan = made_plan(facts, made("f"), made("relay"))
    assert calls_of(attach_plan, "f").calls == CALLED


def test_callers_that_refuse_and_jumps_are_unreached(facts):
    refused = Call(0x2000, "refuses", 0x10, traced=False)
    jump = Call(0x3000, "jumps", 0x10, jump=True)
    facts = with_calls(facts, f=(*CALLED, refused, jump))
    attachment = calls_of(made_plan(facts, made("f")), "f")
    assert (attachment.calls, attachment.unreached) == (CALLED, (refused, jump))


def test_a_target_that_all_callers_refuse_is_blind(facts):
    refused = Call(0x2000, "refuses", 0x10, traced=False)
    facts = with_calls(facts, f=(refused, refused), relay=(), g=(Call(1, "f", 1),))
    attach_plan = made_plan(facts, made("f"), made("g", quantity="inner"))
    assert attach_plan.calls == ()
    assert reasons(attach_plan)["made"] == "refused in all 2 callers"
    assert reasons(attach_plan)["inner"] == "called by others only"


def test_of_several_reasons_the_one_of_a_function_that_is_there_is_given(facts):
    refused = Call(0x2000, "refuses", 0x10, traced=False)
    facts = with_calls(facts, f=(refused,))
    for rows in ((made("f"), made("absent")), (made("absent"), made("f"))):
        (blind,) = [b for b in made_plan(facts, *rows).blind if b.quantity == "made"]
        assert blind.reason == "refused in all 1 callers"
        assert blind.functions == tuple(row.function for row in rows)


def test_a_target_that_is_lost_beside_another_is_not_forgotten():
    attach_plan = planned(untraced(recorded_kernel("5.10"), "_copy_from_iter_full"))
    unreached = {c.caller for call in attach_plan.calls for c in call.unreached}
    blind = {function for b in attach_plan.blind for function in b.functions}
    assert "ip_generic_getfrag" in unreached or "_copy_from_iter_full" in blind


def test_where_the_routine_is_inlined_its_callers_without_iterators_are_watched(facts):
    """With FSRM, from Linux 6.4 on; and before what call sites count anyway."""
    flags = facts.cpu_flags | {"fsrm"}
    attach_plan = planned(dataclasses.replace(facts, cpu_flags=flags))
    watched = [b.site.function for b in attach_plan.breakpoints]
    inlined = "rep_movs_alternative" in facts.functions
    assert (set(watched[:2]) == {"_copy_to_user", "_copy_from_user"}) == inlined
    assert len(watched) == 4
    quantities = {blind.quantity for blind in attach_plan.blind}
    assert Quantity.COPY_TO_USER not in quantities


@pytest.mark.parametrize("line", KERNELS)
def test_a_traced_program_is_watched_by_breakpoints_where_these_see_all(line):
    """Which cost nobody else; not on 5.10, where a function of theirs has three returns."""
    facts = recorded_kernel(line)
    expected = Choice.BOTH if line == "5.10" else Choice.BREAKPOINT
    assert settled(PROGRAM_CATALOGUE, facts, Choice.AUTO) is expected
    calls = plan(PROGRAM_CATALOGUE, facts, expected).calls
    watched = {call.caller for attachment in calls for call in attachment.calls}
    assert ("filemap_read" in watched or "generic_file_buffered_read" in watched) == (
        expected is Choice.BOTH
    ), "what everybody calls"


@pytest.mark.parametrize(
    "less",
    [
        {"cpu_flags": frozenset({"erms", "fsrm"})},
        {"breakpoint": "refused by the kernel"},
        {"iterators": {}},
    ],
)
def test_where_breakpoints_do_not_see_all_both_are_used(less):
    """With FSRM, from 6.4 on, there is no routine to watch."""
    facts = dataclasses.replace(recorded_kernel("7.3"), **less)
    expected = Choice.BREAKPOINT if "iterators" in less else Choice.BOTH
    assert settled(PROGRAM_CATALOGUE, facts, Choice.AUTO) is expected
    several = changed(recorded_kernel("7.3"), "_copy_to_iter", returns=(10, 20))
    assert settled(PROGRAM_CATALOGUE, several, Choice.AUTO) is Choice.BOTH


@pytest.mark.parametrize("choice", [one for one in Choice if one is not Choice.AUTO])
def test_what_is_asked_for_is_used(facts, choice):
    assert settled(PROGRAM_CATALOGUE, facts, choice) is choice


def test_only_breakpoints(facts):
    """Where there are any: what no breakpoint sees is left to call sites."""
    attach_plan = planned(facts, Choice.BREAKPOINT)
    counting = {c.site.quantity for c in attach_plan.breakpoints if c.kind is Kind.COPY}
    assert counting == ITERATORS
    everything = {call.target for call in planned(facts).calls}
    assert {call.target for call in attach_plan.calls} == {
        target for target in everything if not target.breakpoint
    }
    assert {c.target.quantity for c in attach_plan.calls} >= WITHOUT_ITERATORS
    assert attach_plan.blind == planned(facts).blind


def counted_twice(facts, choice, catalogue=CATALOGUE):
    """Breakpoints that count, and attached targets that call the functions they are on."""
    attach_plan = planned(facts, choice, catalogue)
    targets = {call.target.function for call in attach_plan.calls}
    counting = [b.site.function for b in attach_plan.breakpoints if b.kind is Kind.COPY]
    return {
        (function, plain(call.caller))
        for function in counting
        for call in facts.calls[function]
        if plain(call.caller) in targets
    }


@pytest.mark.parametrize("catalogue", [CATALOGUE, PROGRAM_CATALOGUE])
@pytest.mark.parametrize("choice", [Choice.AUTO, Choice.CALL_SITE])
def test_no_byte_passes_a_target_and_a_breakpoint_that_counts(facts, choice, catalogue):
    assert counted_twice(facts, choice, catalogue) == set()
    assert planned(facts, choice, catalogue).counted_twice == ()


TWICE = {"_copy_to_iter": "copy_page_to_iter", "_copy_from_iter": "copy_page_from_iter"}
"""On 5.10, where the callers copy user memory by themselves and call these for the rest."""


@pytest.mark.parametrize("catalogue", [CATALOGUE, PROGRAM_CATALOGUE])
@pytest.mark.parametrize("line", KERNELS)
def test_bytes_that_would_be_counted_twice_are_known_from_the_kernel_s_calls(line, catalogue):
    facts = recorded_kernel(line)
    attach_plan = planned(facts, Choice.BREAKPOINT, catalogue)
    expected = set(TWICE.items()) if line == "5.10" else set()
    assert set(attach_plan.counted_twice) == expected
    assert counted_twice(facts, Choice.BREAKPOINT, catalogue) == expected
    noted = {c.site.function for c in attach_plan.breakpoints if c.note.endswith(", too")}
    assert noted == {function for function, _ in expected}


def test_without_those_calls_nothing_is_counted_twice():
    """Not a version decides: 5.10 with the calls of a later kernel is none of these."""
    facts = recorded_kernel("5.10")
    calls = {
        function: tuple(c for c in facts.calls[function] if plain(c.caller) != caller)
        for function, caller in TWICE.items()
    }
    assert planned(with_calls(facts, **calls), Choice.BREAKPOINT).counted_twice == ()


def test_only_call_sites(facts):
    attach_plan = planned(facts, Choice.CALL_SITE)
    assert attach_plan.calls == planned(facts).calls
    assert attach_plan.breakpoints == ()
    for quantity in (*ITERATORS, "user-copy-routine"):
        assert reasons(attach_plan)[quantity] == "only call sites were asked for"
    # Cross-checks that are not made are no holes in the count.
    assert attach_plan.blind_for(TRANSFER) == ()


UNKNOWN = [{"iterators": {}}, {"members": {}}]


@pytest.mark.parametrize("values", UNKNOWN)
def test_unknown_kinds_of_iterators_leave_call_sites_to_those_without(facts, values):
    facts = dataclasses.replace(facts, **values)
    attach_plan = planned(facts, Choice.CALL_SITE)
    assert not any(call.target.iterator for call in attach_plan.calls)
    assert {c.target.quantity for c in attach_plan.calls} >= WITHOUT_ITERATORS
    assert {b.quantity for b in attach_plan.blind_for(TRANSFER)} >= ITERATORS


def test_unknown_kinds_of_iterators_are_the_reason_for_every_quantity(facts):
    unknown = dataclasses.replace(facts, iterators={}, btf="no BTF")
    given = reasons(planned(unknown, Choice.CALL_SITE))
    assert "kinds of iov_iter unknown: no BTF" in given["copy-to-iter"]


@pytest.mark.parametrize("values", UNKNOWN)
def test_unknown_kinds_of_iterators_leave_the_count_to_breakpoints(facts, values):
    attach_plan = planned(dataclasses.replace(facts, **values))
    counting = {c.site.quantity for c in attach_plan.breakpoints if c.kind is Kind.COPY}
    assert counting == ITERATORS


@pytest.mark.parametrize(
    ("btf", "why"), [("no BTF", "no BTF"), (None, "not in the type information")]
)
def test_unknown_kinds_of_iterators_are_the_reason(facts, btf, why):
    unknown = dataclasses.replace(facts, iterators={}, btf=btf)
    given = reasons(planned(unknown))
    assert given["csum-and-copy-from-iter"] == f"kinds of iov_iter unknown: {why}"


def test_a_kernel_that_cannot_be_read_has_no_call_sites(facts):
    locked = dataclasses.replace(facts, calls={}, text="kcore is locked")
    attach_plan = planned(locked)
    assert attach_plan.calls == ()
    assert reasons(attach_plan)["copy-page"] == "kcore is locked"
    assert reasons(attach_plan)["metadata-from-user"] == "kcore is locked"
    # Metadata is no part of the payload.
    blind = {b.quantity for b in attach_plan.blind_for(TRANSFER)}
    assert blind == {"copy-page", "linear-to-page"}


@pytest.mark.parametrize("choice", list(Choice))
def test_no_more_breakpoints_than_there_are_registers(facts, choice):
    attach_plan = planned(facts, choice)
    assert [b.slot for b in attach_plan.breakpoints] == list(
        range(len(attach_plan.breakpoints))
    )
    assert [k.slot for k in attach_plan.at_entries] == list(range(len(attach_plan.at_entries)))
    assert len(attach_plan.breakpoints) <= BREAKPOINT_SLOTS


def test_the_catalogue_may_have_as_many_functions_at_whose_entry_to_look_as_it_likes(facts):
    (row,) = (site for site in CATALOGUE.copies if site.function == "skb_copy_bits")
    names = [f"skb_copy_bits_{number}" for number in range(40)]
    rows = tuple(dataclasses.replace(row, quantity=name, function=name) for name in names)
    function = facts.functions["skb_copy_bits"]
    functions = facts.functions | {
        name: dataclasses.replace(function, address=function.address + number)
        for number, name in enumerate(names)
    }
    attach_plan = plan(
        Catalogue(rows, (), (), ()), dataclasses.replace(facts, functions=functions)
    )
    assert [c.site.function for c in attach_plan.at_entries] == names
    for number, copy in enumerate(attach_plan.at_entries):
        place = dict(copy.place)
        assert place["PLACE_START"] == function.address + number
        assert place["PLACE_SITE"] == copy.number
    assert len({copy.number for copy in attach_plan.copies}) == len(names)


def test_what_differs_from_one_start_of_the_kernel_to_the_next_is_no_parameter(facts):
    """So that what was compiled can be used again."""
    moved = dataclasses.replace(
        facts,
        functions={
            name: dataclasses.replace(function, address=function.address + 0x1000000)
            for name, function in facts.functions.items()
        },
    )
    assert planned(moved).parameters == planned(facts).parameters
    assert planned(moved).settings != planned(facts).settings


@pytest.mark.parametrize("line", KERNELS)
def test_kinds_of_iterators_are_the_kernel_s(line):
    facts = recorded_kernel(line)
    parameters = dict(planned(facts).parameters)

    def kinds(parameter):
        """Those for which the C expression is true."""
        text = parameters[f"{parameter}(kind)"].replace("||", "or")
        return {name for name, kind in facts.iterators.items() if eval(text, {"kind": kind})}

    assert kinds("IS_USER_ITER") == {"ITER_IOVEC", "ITER_UBUF"} & facts.iterators.keys()
    assert "ITER_IOVEC" in kinds("IS_USER_ITER")
    assert kinds("IS_DISCARD_ITER") == {"ITER_DISCARD"}
    assert kinds("IS_PIPE_ITER") == {"ITER_PIPE"} & facts.iterators.keys()
    assert ("ITER_PIPE" in facts.iterators) == (line in ("5.10", "6.1"))


def test_the_kind_of_an_iterator_is_read_where_it_stands(facts):
    parameters = dict(planned(facts).parameters)
    old = "iov_iter.type" in facts.members
    name = "iov_iter.type" if old else "iov_iter.iter_type"
    assert parameters["ITER_TYPE_OFFSET"] == str(facts.members[name])
    assert parameters["ITER_TYPE_BYTES"] == ("4" if old else "1")
    mask = int(parameters["ITER_TYPE_MASK"].removesuffix("U"), 16)
    # On old kernels the lowest bit is the direction, of which no kind has anything.
    assert mask == (0xFFFFFFFE if old else 0xFF)
    assert all(kind & mask == kind for kind in facts.iterators.values())


def test_what_the_kernel_does_not_have_compiles(facts):
    """As something that is never true, but for user memory, which is the rule."""
    parameters = dict(planned(dataclasses.replace(facts, iterators={}, members={})).parameters)
    assert parameters["IS_USER_ITER(kind)"] == "(1)"
    assert parameters["IS_DISCARD_ITER(kind)"] == parameters["IS_PIPE_ITER(kind)"] == "0"
    assert parameters["TASK_MM"] == parameters["SKB_LEN"] == "0"


def test_places_in_structures_are_the_kernel_s(facts):
    parameters = dict(planned(facts).parameters)
    for parameter, member in (
        ("TASK_MM", "task_struct.mm"),
        ("SKB_LEN", "sk_buff.len"),
        ("SKB_HEAD", "sk_buff.head"),
        ("SKB_END", "sk_buff.end"),
        ("SHINFO_DESTRUCTOR_ARG", "skb_shared_info.destructor_arg"),
    ):
        assert int(parameters[parameter]) == facts.members[member] > 0


def test_a_zero_copy_send_s_buffers_are_told_by_the_kernel_s_flag(facts):
    parameters = dict(planned(facts).parameters)
    old = "skb_shared_info.flags" not in facts.members
    assert old == facts.release.startswith("5.10")
    # SKBTX_DEV_ZEROCOPY in tx_flags, SKBFL_ZEROCOPY_ENABLE in flags.
    place, bit = (
        ("skb_shared_info.tx_flags", "0x8U") if old else ("skb_shared_info.flags", "0x1U")
    )
    assert parameters["SHINFO_FLAGS"] == str(facts.members[place])
    assert parameters["SHINFO_ZEROCOPY"] == bit


def test_without_the_flag_no_buffer_is_a_zero_copy_send_s(facts):
    members = {n: at for n, at in facts.members.items() if not n.endswith("flags")}
    parameters = dict(planned(dataclasses.replace(facts, members=members)).parameters)
    assert parameters["SHINFO_ZEROCOPY"] == "0x0U"


def hooks_of(attach_plan):
    return {(a.hook.quantity, a.hook.function): a for a in attach_plan.hooks}


def test_whose_packets_are_and_what_is_mapped_is_known(facts):
    attached = hooks_of(planned(facts))
    # All that there are, but pages given to a socket, which newer kernels have no function for.
    quantities = {hook.quantity for hook in CATALOGUE.hooks}
    spliced = "generic_splice_sendpage" in facts.functions
    missing = set() if spliced else {"pages spliced into a socket"}
    assert {quantity for quantity, _ in attached} == quantities - missing
    for (_, function), attachment in attached.items():
        assert attachment.address == facts.functions[function].address


def test_of_two_functions_that_map_the_inner_one_is_watched(facts):
    functions = {
        function
        for quantity, function in hooks_of(planned(facts))
        if quantity in (hooks.PAGE_MAPPED, hooks.LIST_MAPPED)
    }
    inner = {"dma_map_phys", "__dma_map_sg_attrs"} & facts.functions.keys()
    assert inner <= functions
    assert len(functions) == 2


def test_a_hook_that_is_refused_gives_way_to_the_next(facts):
    old = "sock_zerocopy_realloc" in facts.functions
    begun = "sock_zerocopy_realloc" if old else "msg_zerocopy_realloc"
    assert (hooks.ZEROCOPY_BEGUN, begun) in hooks_of(planned(facts))
    refused = hooks_of(planned(changed(facts, begun, kprobe="refused")))
    assert hooks.ZEROCOPY_BEGUN not in {quantity for quantity, _ in refused}


def test_what_an_interrupt_may_call_is_called_by_the_function_where_that_can_be(facts):
    """A probe is passed over when an interrupt comes in the middle of another program."""
    anywhere = {
        function
        for (_, function), attachment in hooks_of(planned(facts)).items()
        if attachment.mechanism is Mechanism.FENTRY
    }
    assert {"skb_try_coalesce", "tcp_add_backlog", "inet_sock_destruct"} < anywhere
    assert {"packet_rcv", "tpacket_rcv"} < anywhere
    assert len(anywhere) == 7, "and a page and a list that are mapped"
    refused = hooks_of(planned(changed(facts, "tcp_add_backlog", fentry="refused")))
    assert {
        a.mechanism for (_, function), a in refused.items() if function == "tcp_add_backlog"
    } == {Mechanism.KPROBE}


def test_what_a_packet_capture_s_entry_notes_is_taken_back_at_its_return(facts):
    """And is not noted before it can be."""
    for function in ("packet_rcv", "tpacket_rcv"):
        of = [a for a in planned(facts).hooks if a.hook.function == function]
        assert [a.hook.at_return for a in of] == [True, False]
        assert len({a.mechanism for a in of}) == 1


def test_merging_is_told_by_the_function_s_place(facts):
    settings = dict(planned(facts).settings)
    function = facts.functions["skb_try_coalesce"]
    assert settings["MERGE_START"] == function.address
    assert settings["MERGE_SIZE"] == function.size > 0


def test_a_list_s_entries_are_as_far_apart_as_the_structure_is_long(facts):
    parameters = dict(planned(facts).parameters)
    assert int(parameters["SCATTER_BYTES"]) == 32
    assert int(parameters["SCATTER_LENGTH"]) == 12


def test_only_payload_is_counted_for_the_program(facts):
    purposes = {c.target.quantity: c.target.purpose for c in planned(facts).calls}
    assert {q for q, p in purposes.items() if p is Purpose.METADATA} == {
        "metadata-from-user",
        "metadata-to-user",
    }
    assert {q for q, p in purposes.items() if p is Purpose.COPY_ON_WRITE} == {"copy-page"}


def told(copy):
    """How the number of bytes of a copy is told, and by which registers."""
    place = dict(copy.place)
    names = {number: name for name, number in REGISTER_NUMBERS.items()}
    registers = [place["PLACE_FIRST"], place["PLACE_SECOND"]]
    return Amount(place["PLACE_AMOUNT"]), *(names[r] for r in registers if r)


def test_a_return_is_watched_where_it_stands(facts):
    at_returns = [
        copy
        for copy in planned(facts).breakpoints
        if copy.mechanism is Mechanism.BREAKPOINT_RETURN
    ]
    assert len(at_returns) >= 2
    for copy in at_returns:
        function = facts.functions[copy.site.function]
        assert copy.address == function.address + function.returns[0]
        assert told(copy) == (Amount.REGISTER, "ax")


@pytest.mark.parametrize("choice", [Choice.AUTO, Choice.BREAKPOINT])
def test_the_routine_decides_direction_by_addresses(facts, choice):
    routine = by_quantity(planned(facts, choice))["user-copy-routine"]
    place = dict(routine.place)
    assert place["PLACE_FROM"] == REGISTER_NUMBERS["si"]
    assert place["PLACE_TO"] == REGISTER_NUMBERS["di"]
    assert place["PLACE_DIRECTION"] == 0
    assert routine.kind is Kind.CROSS_CHECK


def test_site_numbers_are_unique(facts):
    for choice in Choice:
        attach_plan = planned(facts, choice)
        attached = (*attach_plan.calls, *attach_plan.copies, *attach_plan.events)
        numbers = [attachment.number for attachment in attached]
        assert len(set(numbers)) == len(numbers)


def test_a_call_target_s_number_is_its_place_in_the_catalogue(facts):
    """So that one that a module brings later changes no other's."""
    for choice in Choice:
        for attachment in planned(facts, choice).calls:
            assert CATALOGUE.calls[attachment.number] is attachment.target


def test_no_quantity_has_two_copy_sites(facts):
    quantities = [copy.site.quantity for copy in planned(facts).copies]
    assert len(set(quantities)) == len(quantities)


def test_socket_buffer_length_comes_from_type_information(facts):
    copy = by_quantity(planned(facts))["skb-copy-ubufs"]
    assert told(copy) == (Amount.MEMBER, "di")
    assert dict(copy.place)["PLACE_MEMBER"] == facts.members["sk_buff.data_len"] > 0


def test_unknown_member_leaves_the_site_blind(facts):
    attach_plan = planned(dataclasses.replace(facts, members={}, btf="no BTF"))
    assert "skb-copy-ubufs" not in by_quantity(attach_plan)
    reason = reasons(attach_plan)["skb-copy-ubufs"]
    assert reason == "fentry: offset of sk_buff.data_len unknown: no BTF; kprobe: the same"
    blind = {b.quantity for b in attach_plan.blind_for(TRANSFER)}
    assert {"skb-copy-ubufs", "skb-copy-bits", "skb-copy-and-csum-bits"} <= blind


def test_two_returns_fall_back_to_the_entry_and_say_so(facts):
    attach_plan = planned(changed(facts, "_copy_to_iter", returns=(10, 20)), Choice.BREAKPOINT)
    copy = by_quantity(attach_plan)["copy-to-iter"]
    assert copy.mechanism is Mechanism.BREAKPOINT_ENTRY
    assert copy.address == facts.functions["_copy_to_iter"].address
    assert told(copy) == (Amount.REGISTER, "si")
    assert not copy.exact
    assert "2 returns instead of one" in copy.note


def test_a_tail_jump_falls_back_to_the_entry(facts):
    attach_plan = planned(changed(facts, "_copy_from_iter", jumps=(77,)), Choice.BREAKPOINT)
    copy = by_quantity(attach_plan)["copy-from-iter"]
    assert copy.mechanism is Mechanism.BREAKPOINT_ENTRY
    assert "1 jumps" in copy.note


def test_unreadable_text_falls_back_to_the_entry(facts):
    locked = dataclasses.replace(
        changed(facts, "_copy_to_iter", returns=None, jumps=None), text="kcore is locked"
    )
    copy = by_quantity(planned(locked, Choice.BREAKPOINT))["copy-to-iter"]
    assert not copy.exact
    assert copy.note.partition("; ")[0] == "breakpoint@return: kcore is locked"


def test_no_breakpoints_leaves_every_iterator_to_its_callers(facts):
    facts = dataclasses.replace(facts, breakpoint="refused: EINVAL")
    attach_plan = planned(facts)
    assert attach_plan.breakpoints == ()
    assert attach_plan.blind_for(TRANSFER) == ()
    assert "refused: EINVAL" in reasons(attach_plan)["copy-to-iter"]
    blind = {b.quantity for b in planned(facts, Choice.BREAKPOINT).blind_for(TRANSFER)}
    assert blind >= ITERATORS


def test_a_refused_probe_is_blind_with_the_kernel_s_reason(facts):
    refused = changed(facts, "skb_copy_bits", fentry="not described", kprobe="refused")
    attach_plan = planned(refused)
    reason = reasons(attach_plan)["skb-copy-bits"]
    assert reason == "fentry: not described; kprobe: refused"
    assert {b.quantity for b in attach_plan.blind_for(TRANSFER)} == {"skb-copy-bits"}


def test_where_a_function_cannot_call_the_program_it_is_probed(facts):
    attach_plan = planned(changed(facts, "skb_copy_bits", fentry="no trampolines"))
    copy = by_quantity(attach_plan)["skb-copy-bits"]
    assert copy.mechanism is Mechanism.KPROBE
    assert (copy.exact, copy.note) == (False, "fentry: no trampolines")
    assert told(copy) == (Amount.WITHIN, "cx", "si")
    assert dict(copy.place)["PLACE_SKB"] == REGISTER_NUMBERS["di"]
    assert by_quantity(attach_plan)["skb-copy-ubufs"].mechanism is Mechanism.FENTRY


@pytest.mark.parametrize(
    ("line", "refused"), [("5.10", True), ("6.1", True), ("6.12", False), ("7.3", False)]
)
def test_the_checksum_copy_cannot_be_probed_in_lib(line, refused):
    """Where it can be, the function above it only checks."""
    attach_plan = planned(recorded_kernel(line))
    above = by_quantity(attach_plan)["csum-and-copy-to-iter"]
    assert above.site.function == "__skb_datagram_iter"
    assert above.kind is (Kind.COPY if refused else Kind.CROSS_CHECK)
    targets = {call.target.function for call in attach_plan.calls}
    assert ("csum_and_copy_to_user" in targets) != refused
    assert told(above) == (Amount.WHERE, "cx", "r8")


@pytest.mark.parametrize("line", ["6.12", "7.3"])
def test_an_fsrm_processor_has_no_routine_to_watch(line):
    facts = recorded_kernel(line)
    with_routine = planned(facts)
    facts = dataclasses.replace(facts, cpu_flags=facts.cpu_flags | {"fsrm"})
    attach_plan = planned(facts)
    assert "user-copy-routine" in by_quantity(with_routine)
    assert "user-copy-routine" not in by_quantity(attach_plan)
    assert "fsrm" in reasons(attach_plan)["user-copy-routine"]
    # A cross-check that cannot be made is no hole in the count.
    assert attach_plan.blind_for(TRANSFER) == ()
    assert attach_plan.calls == with_routine.calls
    # In the place of one that only checks, of what call sites count.
    kept = {b.site.function for b in attach_plan.breakpoints}
    assert kept - {b.site.function for b in with_routine.breakpoints} == {
        "_copy_to_user",
        "_copy_from_user",
    }
    assert {b.kind for b in attach_plan.breakpoints} == {Kind.CROSS_CHECK}


@pytest.mark.parametrize("line", ["5.10", "6.1"])
def test_a_processor_without_erms_uses_another_routine(line):
    facts = recorded_kernel(line)
    facts = dataclasses.replace(facts, cpu_flags=facts.cpu_flags - {"erms"})
    assert "user-copy-routine" not in by_quantity(planned(facts))
    assert "erms" in reasons(planned(facts))["user-copy-routine"]
    assert planned(facts).blind_for(TRANSFER) == ()


def test_at_most_four_breakpoints(facts):
    from_iter = next(s for s in CATALOGUE.copies if s.function == "_copy_from_iter")
    more = [dataclasses.replace(from_iter, quantity=f"more-{n}") for n in range(3)]
    copies = (*CATALOGUE.copies, *more)
    attach_plan = planned(facts, catalogue=dataclasses.replace(CATALOGUE, copies=copies))
    assert len(attach_plan.breakpoints) == BREAKPOINT_SLOTS
    assert "all 4 debug registers are taken" in reasons(attach_plan)["more-0"]


def test_an_empty_kernel_attaches_nothing_and_explains_everything():
    facts = KernelFacts("0", "0", "x86_64", "none", frozenset())
    attach_plan = planned(facts)
    assert attach_plan.copies == attach_plan.calls == attach_plan.hooks == ()
    assert attach_plan.events == ()
    rows = (*CATALOGUE.copies, *CATALOGUE.calls, *CATALOGUE.events)
    quantities = [b.quantity for b in attach_plan.blind]
    assert set(quantities) == {row.quantity for row in rows}
    assert all(b.reason for b in attach_plan.blind)


def test_a_tracepoint_without_the_field_is_blind(facts):
    tracepoints = {**facts.tracepoints, "sched:sched_switch": {"prev_pid": 24}}
    attach_plan = planned(dataclasses.replace(facts, tracepoints=tracepoints))
    blind = reasons(attach_plan)
    assert blind["context-switch-voluntary"] == "its record has no prev_state"
    # The handler is compiled all the same and needs its parameters.
    assert dict(attach_plan.parameters)["SWITCH_PREV_STATE"] == "0"


def test_field_offsets_are_the_kernel_s(facts):
    parameters = dict(planned(facts).parameters)
    child = facts.tracepoints["sched:sched_process_fork"]["child_pid"]
    assert parameters["FORK_CHILD_PID"] == str(child)


def test_a_kernel_that_hides_its_addresses_is_refused_for_that(facts):
    hidden = dataclasses.replace(
        facts, functions={}, calls={}, text="addresses are hidden", breakpoint="none is known"
    )
    with pytest.raises(TraceError, match="hides the addresses of its functions") as caught:
        obstacles.require(obstacles.of_plan(hidden, planned(hidden), Choice.AUTO))
    assert caught.value.why == "addresses are hidden"
    assert caught.value.hint.startswith("sysctl kernel.kptr_restrict=1")


@pytest.mark.parametrize(
    ("lockdown", "what"),
    [("confidentiality", "is locked down"), ("integrity", "has no tracepoints")],
)
def test_a_kernel_without_tracepoints_says_whether_it_is_locked_down(facts, lockdown, what):
    locked = dataclasses.replace(facts, tracepoints={}, lockdown=lockdown)
    with pytest.raises(TraceError, match=what):
        obstacles.require(obstacles.of_plan(locked, planned(locked), Choice.AUTO))


def test_events_of_one_handler_are_attached_together(facts):
    """Its program has the numbers of all, and is not loaded with a number missing."""
    nothing = dataclasses.replace(facts, members={}, btf="there is none")
    for kernel in (facts, nothing):
        attached = {event.site for event in planned(kernel).events}
        for site in attached:
            assert {s for s in CATALOGUE.events if s.handler == site.handler} <= attached
