"""Threads, children and executed programs of an unprivileged process are all counted."""

from collections import Counter


def test_everybody_s_bytes(kernel, in_guest):
    answer = in_guest(kernel, "family_guest.py")
    # The program and its copy of busybox ran to their ends: the meter broke nothing.
    assert answer["status"] == "0", answer["stderr"]
    copied = Counter()
    for count in answer["counts"]:
        if count["role"] == "sender" and count["quantity"] in (
            "copy-to-iter",
            "copy-from-iter",
        ):
            copied[count["quantity"], count["syscall"]] += count["bytes"]
    threads, child, program = 4 * 1009, 4999, 3 * 7919
    words = len(answer["stderr"])  # dd reports through a pipe: those bytes are copied too
    assert words
    assert copied["copy-from-iter", "write"] == threads + child + words
    assert copied["copy-to-iter", "read"] == threads + child + program
    for function, hits in answer["hits"].items():
        assert hits["perf"] in (None, hits["program"]), function
        assert not hits["multiplexed"]
    assert set(answer["lost"].values()) == {0}
