"""Modules that are loaded while a program is traced, and before."""

import json

import pytest

from tests.conftest import LIVE_KERNELS
from tests.live import tls_workload
from tests.live.conftest import HERE, zctrace
from zctrace.analysis import program
from zctrace.evidence.schema import Evidence

NOT_COUNTED = (
    "not watched: _copy_from_iter_nocache: module tls was loaded after the probes were "
    "attached: calls from "
)
TLS = ("/usr/bin/python3", "-I", "-S", HERE / "tls_workload.py")


def over_tls(found):
    """By call, what was copied of user memory for the ends of the connection."""
    account = found.trace.account
    total = {}
    for booking in account.bookings:
        if booking.thing is None or account.things[booking.thing].kind != "socket":
            continue
        if booking.direction != "k2k":
            key = booking.syscall, str(booking.direction)
            total[key] = total.get(key, 0) + booking.bytes
    return total


EXACTLY = {
    ("sendto", "u2k"): tls_workload.COPIED_IN,
    ("recvfrom", "k2u"): tls_workload.MOVED,
}


@pytest.fixture(scope="module", params=LIVE_KERNELS)
def guest(request, live, in_guest):
    answer = in_guest(request.param, "modules_guest.py")
    assert "failure" not in answer, answer["failure"]
    return {
        name: program.answer(Evidence.from_json(evidence))
        for name, evidence in answer["evidence"].items()
    }


def test_the_controls_pass_whatever_was_loaded(guest):
    for name, found in guest.items():
        assert found.failed == [], name


@pytest.mark.parametrize("name", ["without a copy", "without its hardware"])
def test_a_module_that_copies_nothing_is_no_doubt(guest, name):
    assert guest[name].doubts == ()


def test_a_module_that_came_and_went_leaves_the_answer_open(guest):
    (doubt,) = guest["came and went"].doubts
    assert doubt.startswith("not watched: module brd: it was loaded after the probes were")
    assert doubt.endswith("To count it: --module brd")


def test_a_module_that_is_loaded_meanwhile_is_named_and_watched_from_then_on(guest):
    (doubt,) = guest["loaded"].doubts
    assert doubt.startswith(NOT_COUNTED)
    assert doubt.endswith("To count them: --module tls")
    assert guest["there before"].doubts == ()
    for name in ("loaded", "there before"):
        assert over_tls(guest[name]) == EXACTLY, name


def traced(folder, *options):
    file = folder / "result.json"
    result = zctrace(
        "trace", "--kernel", "6.1", *options, "--force", "--json", file, "--", *TLS
    )
    assert result.returncode == 0, result.stderr
    (evidence,) = json.loads(file.read_text())["evidence"]
    return program.answer(Evidence.from_json(evidence))


def test_the_command_line_without_and_with_the_module(live, tmp_path):
    (doubt,) = traced(tmp_path).doubts
    assert doubt.startswith(NOT_COUNTED)
    assert doubt.endswith("To count them: --module tls")
    found = traced(tmp_path, "--module", "tls")
    assert found.doubts == ()
    assert found.unassigned == 0
    assert over_tls(found) == EXACTLY


def test_what_the_kernel_refuses_to_load_is_bad_input(live):
    result = zctrace("trace", "--kernel", "6.1", "--module", "padlock_sha", "--", "true")
    assert result.returncode == 2
    assert "--module padlock_sha: the kernel does not load it" in result.stderr
    assert "modprobe: ERROR: could not insert 'padlock_sha': No such device" in result.stderr
