"""A meter with faults must refuse its zeros.

One run on each of two kernels has all faults at once: each must be noticed by a control of
its own. On two kernels, because which probes there are depends on the kernel.
"""

import pytest

from tests.conftest import LIVE_KERNELS
from tests.live.conftest import on_one_processor, zctrace
from zctrace.errors import ControlError

FAULTS = ("skb_copy_ubufs", "copy_page_from_iter", "breakpoint@return:_copy_from_iter")
"""Probes that are set up but never armed: those of one function, or of one mechanism at it."""


@pytest.fixture(scope="module")
def sabotaged(live, measure):
    first, second = LIVE_KERNELS
    faults = [text for fault in FAULTS for text in ("--sabotage", fault)]
    with on_one_processor():
        return measure(
            first, "--kernel", second, "sendfile", *faults, status=ControlError.exit_code
        )


@pytest.fixture(params=LIVE_KERNELS)
def row(sabotaged, request):
    (row,) = [
        row
        for row in sabotaged.json["summary"]
        if row["kernel"].startswith(f"{request.param}.")
    ]
    return row


def failed(row):
    return {
        result["name"]: result["detail"]
        for result in row["control_results"]
        if not result["passed"]
    }


def test_no_figure_is_shown(sabotaged):
    assert len(sabotaged.rows) == len(LIVE_KERNELS)
    for row in sabotaged.rows:
        assert row["cpu_copies"] == row["cpu_copied_bytes"] == row["u2k_bytes"] == ""
        assert row["verdict_copies"] == "not measured"
        assert "known bytes" in row["coverage"]
        assert "two mechanisms agree on _copy_from_iter" in row["coverage"]
        assert row["controls"] == "failed"
        # What the dead probes say nothing about stands.
        assert (row["mode_switches"], row["verdict_switches"]) == ("2", "holds")
    assert sabotaged.stdout.startswith("SELF-TEST FAILED")
    assert "do not trust these figures" in sabotaged.stderr


@pytest.mark.parametrize("when", ["control_before", "control_after"])
def test_a_dead_function_is_noticed(row, when):
    """Nothing is seen of what it alone counts."""
    detail = failed(row)[f"known bytes, skb-copy-ubufs:k2k, {when}"]
    assert detail.endswith("expected 4001 B, seen 0 B")


@pytest.mark.parametrize("when", ["control_before", "control_after"])
def test_dead_call_sites_are_noticed_beside_living_ones(row, when):
    """The callers of ``copy_page_from_iter`` are dead, those of ``_copy_from_iter`` count."""
    detail = failed(row)[f"known bytes, copy-from-iter:u2k, {when}"]
    expected, seen = (int(word) for word in detail.split() if word.isdigit())
    assert 0 < seen < expected


def test_mechanisms_that_disagree_are_noticed(row):
    """The breakpoint is dead, the call sites count: neither is believed."""
    detail = failed(row)["two mechanisms agree on _copy_from_iter"]
    assert "B at call sites, 0 B at the breakpoint" in detail
    assert " 0 B at call sites" not in detail


def test_no_other_control_fails(row):
    """A neighbour's copies are known bytes, too."""
    assert {name.partition(",")[0] for name in failed(row)} == {
        "known bytes",
        "a neighbour's copies stay out",
        "two mechanisms agree on _copy_from_iter",
    }
    assert len(failed(row)) == 6


ROUTINES = {"6.1": "copy_user_enhanced_fast_string", "7.3": "rep_movs_alternative"}
BREAKPOINTS = [("6.1", "_copy_to_iter"), *ROUTINES.items()]


@pytest.mark.parametrize(("line", "function"), BREAKPOINTS)
def test_a_trace_by_breakpoints_of_which_one_is_dead_has_no_answer(live, line, function):
    """Each is watched by known amounts alone: no call sites are beside them."""
    words = ("--kernel", line, "--sabotage", function)
    result = zctrace("trace", *words, "--", "cp", "/usr/bin/env", "/tmp/copy")
    assert result.returncode == ControlError.exit_code, result.stdout
    assert result.stdout.startswith("SELF-TEST FAILED")
    assert "do not trust these figures" in result.stderr


OTHER, OWN = "/sys/fs/cgroup/other", "/sys/fs/cgroup$(sed -n s/^0:://p /proc/self/cgroup)/part"


@pytest.mark.parametrize(("cgroup", "left"), [(OTHER, True), (OWN, False)])
def test_a_program_that_goes_to_another_cgroup_has_no_zero(live, cgroup, left):
    """No breakpoint follows it there; within its own it may go where it wants."""
    text = "mkdir $1 && echo $$ >$1/cgroup.procs && exec head -c 2M /dev/zero >/tmp/zero"
    result = zctrace("trace", "--kernel", "6.1", "--", "sh", "-c", f'set -- "{cgroup}"; {text}')
    said = result.stdout.replace("\n  ", " ")
    assert ("ran in another cgroup" in said) == left, said
    assert said.startswith("Not zero-copy: 1.0") != left, said
    assert not said.lower().startswith("zero-copy"), said
