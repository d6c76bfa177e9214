"""Why bytes were copied inside the kernel, in words."""

import pytest

from zctrace.analysis.reasons import reason
from zctrace.probes.catalogue import CATALOGUE
from zctrace.probes.memory_copies import MEMORY_COPIES


@pytest.mark.parametrize(
    ("quantity", "caller", "syscall", "words"),
    [
        (
            "skb-copy-ubufs",
            "__netif_receive_skb_core",
            "sendto",
            "the receiver is on the same host",
        ),
        (
            "skb-copy-ubufs",
            "ip_local_deliver_finish+0x7f",
            None,
            "the receiver is on the same host",
        ),
        (
            "skb-copy-ubufs",
            "dev_queue_xmit_nit+0x1",
            "sendto",
            "a packet capture on the device",
        ),
        ("skb-copy-ubufs", "someone+0x1", "sendto", "zero-copy packets were handed to"),
        (
            "copy-from-iter-atomic",
            "generic_perform_write+0x1",
            "splice",
            "written into the page cache",
        ),
        ("copy-to-iter", "filemap_read+0x1", "io_uring_enter", "read into a registered buffer"),
        ("copy-to-iter", "filemap_read+0x1", "sendfile", "this file system or file type"),
        ("copy-to-iter", "shmem_file_read_iter+0x1", "io_uring_enter", "this file system or"),
        ("copy-from-iter", "unix_stream_sendmsg+0x1", "sendfile", "this socket type takes"),
        ("skb-copy-and-csum-bits", "skb_segment+0x1", "sendto", "no scatter/gather: packets"),
        ("skb-copy-bits", "skb_segment+0x1", "sendto", "no scatter/gather: packets"),
        ("skb-copy-bits", "__pskb_pull_tail+0x1", None, "packet data was pulled from pages"),
        ("skb-copy-bits", "skb_try_coalesce+0x1", None, "the receiver merged small packets"),
        ("copy-page", "wp_page_copy+0xd2", None, "copy-on-write: a shared page"),
    ],
)
def test_what_was_seen_has_words_and_names_the_caller(quantity, caller, syscall, words):
    said = str(reason(quantity, caller, syscall))
    assert said.startswith(words)
    assert said.endswith(f" ({caller.partition('+')[0]})")


def test_what_the_compiler_made_of_a_caller_is_the_caller():
    made = reason("skb-copy-ubufs", "__netif_receive_skb_core.constprop.0+0xba2", "sendto")
    assert made == reason("skb-copy-ubufs", "__netif_receive_skb_core", "sendto")


@pytest.mark.parametrize("caller", [None, ""])
def test_nobody_is_named_where_nobody_is_known(caller):
    assert (
        str(reason("copy-from-iter", caller, None))
        == "this socket type takes no page references"
    )


@pytest.mark.parametrize(
    ("quantity", "caller", "syscall", "words"),
    [
        ("skb-copy-bits", "odd+0x1", "sendto", "copied by skb-copy-bits for sendto (odd)"),
        ("skb-copy-bits", "odd+0x1", None, "copied by skb-copy-bits (odd)"),
        ("nonsense", None, "read", "copied by nonsense for read"),
        ("nonsense", None, None, "copied by nonsense"),
    ],
)
def test_of_what_was_never_seen_nothing_is_guessed(quantity, caller, syscall, words):
    assert str(reason(quantity, caller, syscall)) == words


def test_no_words_are_for_what_nothing_counts():
    from zctrace.analysis import reasons

    counted = {row.quantity for row in (*CATALOGUE.copies, *CATALOGUE.calls, *CATALOGUE.events)}
    assert {row.quantity for row in reasons._REASONS} <= counted


def test_every_caller_of_a_plain_copy_inside_the_kernel_has_words():
    for row in MEMORY_COPIES:
        for caller in row.callers:
            if row.direction == "k2k":
                assert f"copied by {row.quantity}" not in str(
                    reason(row.quantity, caller, None)
                )
