"""A meter with a fault must refuse its zeros."""

import pytest

from zctrace.errors import ControlError


@pytest.mark.parametrize(
    ("line", "function"),
    [("6.1", "skb_copy_ubufs"), ("7.3", "copy_page_from_iter")],
)
def test_a_dead_probe_is_noticed(live, measure, line, function):
    """One function's probes are set up but never armed: everything else works."""
    arguments = ("sendfile", "--sabotage", function)
    result = measure(line, *arguments, status=ControlError.exit_code)
    (row,) = result.rows
    assert row["cpu_copies"] == row["cpu_copied_bytes"] == row["u2k_bytes"] == ""
    assert row["verdict_copies"] == "not measured"
    assert "known bytes" in row["coverage"]
    assert row["controls"] == "failed"
    assert result.stdout.startswith("CONTROLS FAILED")
    assert "not to be trusted" in result.stderr
    # What the dead probe says nothing about stands.
    assert (row["mode_switches"], row["verdict_switches"]) == ("2", "holds")


def test_mechanisms_that_disagree_are_noticed(live, measure):
    """The breakpoint is dead, the call sites count: neither is believed."""
    sabotage = "breakpoint@return:_copy_from_iter"
    result = measure("6.1", "sendfile", "--sabotage", sabotage, status=ControlError.exit_code)
    (row,) = result.rows
    assert row["cpu_copied_bytes"] == ""
    assert "two mechanisms agree on _copy_from_iter" in row["coverage"]
