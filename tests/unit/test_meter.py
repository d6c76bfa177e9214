"""The meter compiles for every recorded kernel and mode, and verifiers can walk it."""

import itertools

import pytest

from tests.conftest import KERNELS, or_skip
from tests.live import verifier
from tests.unit.compiled import MODES, meter

PLACES = {"on_breakpoint", "on_fentry", "on_kprobe", "on_call", "on_return", "on_user_copy"}
"""Handlers that the collector attaches without a row that names them."""


@pytest.fixture(params=itertools.product(KERNELS, MODES), ids=" ".join)
def compiled(request):
    return meter(*request.param)


def handlers(compiled):
    return {name.partition(" ")[0] for name in verifier.programs(compiled)}


def test_the_meter_compiles_without_a_word(compiled):
    assert compiled.said == ""


def test_every_handler_that_the_plan_names_is_there(compiled):
    attach_plan = compiled._plan
    named = {hook.hook.called or hook.hook.handler for hook in attach_plan.hooks}
    named |= {event.site.handler for event in attach_plan.events}
    assert named <= handlers(compiled)


def named_in(mode):
    """Handlers that rows of the catalogue name."""
    catalogue, _ = verifier.MODES[mode]
    named = {row.handler for row in (*catalogue.hooks, *catalogue.events)}
    return named | {hook.called for hook in catalogue.hooks if hook.called}


@pytest.mark.parametrize("mode", MODES)
def test_every_handler_of_the_catalogue_is_in_the_meter_and_no_other(mode):
    _, options = verifier.MODES[mode]
    named = named_in(mode)
    there = set(meter("6.1", mode)._bpf)
    # Other modes' are compiled, too, where they need nothing that is not there.
    unused = set().union(*map(named_in, MODES)) - named
    places = PLACES - (set() if "user_copies_from" in options else {"on_user_copy"})
    assert there - unused == named | places


def test_the_verifier_walks_a_tenth_of_its_limit_at_most(compiled):
    """This machine's; other kernels' in tests/live/test_verifier.py."""
    for name, (kind, instructions) in verifier.programs(compiled).items():
        try:
            walked = verifier.walked(kind, instructions)
        except PermissionError as error:
            if "processed" in str(error):
                raise
            or_skip(f"loading a program needs root, and a kernel that allows it: {error}")
        assert 0 < walked <= verifier.LIMIT // 10, name
