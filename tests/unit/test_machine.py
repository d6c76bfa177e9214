"""Which kernels can be measured where they are."""

import dataclasses

import pytest

from tests.conftest import recorded_kernel
from zctrace.machine import places


def test_a_kernel_on_which_nothing_is_blind_can_be_measured(facts):
    """Also where a cross-check, which no figure needs, has to fall back."""
    assert places.why_not_host(facts) == []


def test_a_count_that_falls_back_cannot_be_had():
    facts = recorded_kernel("5.10")
    facts = dataclasses.replace(facts, iterators={})
    assert "breakpoint@return: 3 returns instead of one" in places.why_not_host(facts)


def test_without_breakpoints_the_callers_are_enough(facts):
    refused = dataclasses.replace(facts, breakpoint="refused by the kernel: no")
    assert places.why_not_host(refused) == []


@pytest.mark.parametrize(
    ("values", "reason"),
    [
        ({"calls": {}, "text": "kcore is locked"}, "kcore is locked"),
        ({"functions": {}}, "this kernel has no such function"),
        ({"tracepoints": {}}, "tracepoints are missing"),
    ],
)
def test_what_is_missing_is_said(facts, values, reason):
    reasons = places.why_not_host(dataclasses.replace(facts, **values))
    assert any(reason in said for said in reasons)
    assert len(set(reasons)) == len(reasons)
