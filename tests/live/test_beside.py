"""What else is at work on the machine: the measurement is exact, or ends with a clear error.

One guest plays the host, for all cases; packet captures also on the other kernel. Each case
takes minutes: ``make test`` has a few, ``make test-beside`` all.
"""

import os
import sys

import pytest

from tests.live.beside_work import SIZE
from tests.live.capture import CAPTURED
from tests.live.conftest import ROOT
from zctrace import errors
from zctrace.analysis import captures, program
from zctrace.analysis.reasons import reason
from zctrace.evidence.schema import Evidence
from zctrace.probes.model import Direction, Quantity

EVERY = bool(os.environ.get("ZCTRACE_EVERY_CASE"))
CAPTURES = {
    "6.1": ("capture", "capture_into_ring", "capture_by_payload", "captures_itself"),
    "7.3": ("capture", "capture_into_ring"),
}
EXACT = (
    *("alone", "bpftrace", "perf_record", "function_tracer", "kprobe_events"),
    *("paranoid", "few_samples", "no_locked_memory", "debugged", "call_sites_beside_a_trace"),
)
"""Beside all this a trace is what it is alone."""
REFUSED = {
    "two_traces": "all debug registers are in use",
    "perf_breakpoint": "all debug registers are in use",
    "debugger": "all debug registers are in use",
    "kprobes_disabled": "/sys/kernel/debug/kprobes/enabled is 0",
    "ftrace_disabled": "kernel.ftrace_enabled is 0",
}
"""Beside these nothing is measured, and why is said."""
OTHERS = (*EXACT, *REFUSED)
if not EVERY:
    CAPTURES = {"6.1": ("traced_beside_capture",)}
    EXACT, REFUSED = (), {case: REFUSED[case] for case in ("kprobes_disabled",)}
    OTHERS = tuple(REFUSED)


@pytest.fixture(scope="module")
def found(live, in_guest):
    packages = os.environ.get("PYTHONPATH", "")
    kept = {}

    def on(line):
        if line not in kept:
            cases = (*CAPTURES[line], *(OTHERS if line == "6.1" else ()))
            arguments = (sys.executable, ROOT, packages, *cases)
            kept[line] = in_guest(line, "beside_guest.py", *arguments, file_systems=("ext4",))
        return kept[line]

    return on


def answer(result):
    assert result["status"] == 0, result["stderr"]
    (evidence,) = result["result"]["evidence"]
    return program.answer(Evidence.from_json(evidence))


def of_calls(answered):
    """What was copied in the calls that moved known bytes."""
    lines = {line.name: line.copied for line in answered.calls}
    return (
        lines["sendto"][Direction.USER_TO_KERNEL],
        lines["recvfrom"][Direction.KERNEL_TO_USER],
    )


def zero_copy_sends(answered):
    """Bytes of zero-copy sends that were copied, by why; those that TCP sent again, too."""
    total = {}
    for count in answered.trace.run.counts:
        if (count.role, count.quantity) == ("program", Quantity.SKB_COPY_UBUFS):
            words = reason(count.quantity, count.caller, count.syscall).words
            total[words] = total.get(words, 0) + count.bytes
    return total


@pytest.mark.parametrize("case", EXACT)
def test_a_trace_is_exact_beside_it(found, case):
    answered = answer(found("6.1")[case])
    assert answered.failed == []
    assert of_calls(answered) == (SIZE, 3 * SIZE)
    (copied,) = zero_copy_sends(answered).values()
    assert copied >= SIZE
    assert captures.tapped(answered.trace.run) == 0


@pytest.mark.parametrize("case", REFUSED)
def test_what_stands_in_the_way_is_said(found, case):
    results = found("6.1")[case]
    for result in results.values() if "status" not in results else [results]:
        assert result["status"] == errors.TraceError.exit_code, result["stderr"]
        assert REFUSED[case] in result["stderr"]
        assert "try: " in result["stderr"]
        assert "Traceback" not in result["stderr"]


@pytest.mark.parametrize(
    ("line", "case"),
    [(line, c) for line, cases in CAPTURES.items() for c in cases if c != "captures_itself"],
)
def test_a_capture_s_copies_are_its_own(found, line, case):
    results = found(line)[case]
    answered = answer(results["trace"])
    assert answered.failed == []
    assert of_calls(answered) == (SIZE, 3 * SIZE)
    assert answered.unassigned == 0
    # The receiver's copy, and one for the capture.
    received, captured = zero_copy_sends(answered).values()
    assert received == captured >= SIZE
    assert (captures.tapped(answered.trace.run) > 0) == (case != "capture")
    assert any("packet capture (python" in note for note in answered.notes)
    if "run" not in results:
        return
    rows = {row["strategy"]: row for row in results["run"]["result"]["summary"]}
    assert {row["controls"] for row in rows.values()} == {"passed"}
    inside = {name: row["k2k_bytes"] for name, row in rows.items()}
    assert inside["read-write"] == inside["sendfile"] == 0
    assert inside["msg-zerocopy"] >= 2 * SIZE
    assert inside["msg-zerocopy"] % 2 == 0


@pytest.mark.skipif("captures_itself" not in CAPTURES["6.1"], reason="make test-beside")
def test_what_a_program_captures_itself_is_its_own(found):
    answered = answer(found("6.1")["captures_itself"])
    assert answered.failed == []
    into_ring = sum(
        count.bytes
        for count in answered.trace.run.counts
        if count.role == "program" and (count.caller or "").startswith("tpacket_rcv")
    )
    assert into_ring == CAPTURED
    assert captures.tapped(answered.trace.run) == 0
