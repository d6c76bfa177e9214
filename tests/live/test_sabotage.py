"""A meter with a fault must refuse its zeros."""

import pytest

from tracer.errors import ControlError


@pytest.mark.parametrize(
    ("line", "function"),
    [("6.1", "_copy_from_iter"), ("6.1", "skb_copy_ubufs"), ("7.3", "skb_copy_bits")],
)
def test_a_dead_probe_is_noticed(live, measure, line, function):
    """One probe is set up but never armed: everything else works."""
    arguments = ("sendfile", "--sabotage", function)
    result = measure(line, *arguments, status=ControlError.exit_code)
    (row,) = result.rows
    assert row["cpu_copies"] == row["cpu_copied_bytes"] == row["u2k_bytes"] == ""
    assert row["verdict_copies"] == "not measured"
    assert function in row["coverage"]
    assert row["controls"] == "failed"
    assert result.stdout.startswith("CONTROLS FAILED")
    assert function in result.stdout
    assert "not to be trusted" in result.stderr
    # What the dead probe says nothing about stands.
    assert (row["mode_switches"], row["verdict_switches"]) == ("2", "holds")
