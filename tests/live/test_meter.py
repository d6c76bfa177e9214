"""The meter on programs of other shapes than the strategies'."""

from collections import Counter


def test_threads_children_and_executed_programs(kernel, in_guest):
    answer = in_guest(kernel, "meter_guest.py", "family.py")
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


def test_copies_on_top_of_another_thread_do_not_vanish(kernel, in_guest):
    """The sender asked for zero copies; the kernel makes one of every byte it sends."""
    answer = in_guest(kernel, "meter_guest.py", "zerocopy.py")
    received, sent_again = map(int, answer["status"].split())
    assert received == 4 * 4_000_037, answer["stderr"]
    copied = Counter()
    for count in answer["counts"]:
        if count["quantity"] == "skb-copy-ubufs":
            copied[count["role"]] += count["bytes"]
    assert set(copied) <= {"sender", "outside:sender"}
    total = sum(copied.values())
    # A segment that TCP sends a second time is looped back, and copied, a second time.
    assert total == received if not sent_again else total > received, (copied, sent_again)
