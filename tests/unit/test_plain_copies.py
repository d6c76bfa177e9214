"""Plain copies in evidence: several sites of one function, and what nobody sees."""

import dataclasses

import pytest

from tests.conftest import recorded_evidence, recorded_kernel
from tests.unit.altering import count
from zctrace.analysis import doubts
from zctrace.analysis.rows import tidy_rows
from zctrace.evidence.sites import Site
from zctrace.plan.plan import plan
from zctrace.probes.catalogue import CATALOGUE
from zctrace.probes.memory_copies import MEMORY_COPIES
from zctrace.probes.model import Direction, Kind, Mechanism, Path, Purpose, Quantity, plain

INSIDE, TO_USER = Direction.KERNEL_TO_KERNEL, Direction.KERNEL_TO_USER


def site(function, quantity=Quantity.MEMORY_COPY, direction=INSIDE, **values):
    return Site(
        quantity=quantity,
        function=function,
        kind=Kind.COPY,
        direction=direction,
        mechanism=Mechanism.CALL_SITE,
        paths=values.pop("paths", frozenset()),
        why="",
        **values,
    )


@pytest.fixture
def evidence():
    return recorded_evidence("6.1")


def with_sites(evidence, *sites):
    return dataclasses.replace(evidence, sites=(*evidence.sites, *sites))


def test_the_same_function_may_copy_payload_and_metadata(evidence):
    plainly = site("_copy_to_user", direction=TO_USER)
    found = with_sites(evidence, plainly)
    values = {"mechanism": "call sites", "function": "_copy_to_user"}
    payload = count("sender", quantity="memory-copy", size=1, **values)
    metadata = count("sender", quantity="metadata-to-user", size=1, **values)
    assert found.site_of(payload).purpose is Purpose.PAYLOAD
    assert found.site_of(metadata).purpose is Purpose.METADATA


def test_sites_of_the_same_function_have_one_row_of_zeros(evidence):
    found = with_sites(evidence, site("memcpy"), site("memcpy"))
    rows = [row for row in tidy_rows(found, found.runs[0]) if row.site == "memcpy"]
    assert [(row.quantity, row.calls, row.bytes) for row in rows] == [("memory-copy", 0, 0)]


def test_a_caller_of_a_plain_copy_without_a_probe_is_no_zero(evidence):
    """The processor's routine, which is watched here, sees user memory alone."""
    refused = site("memcpy", unreached=("fuse_copy_do+0x5a",), paths=frozenset({Path.PIPE}))
    found = with_sites(evidence, refused)
    assert list(doubts.unreached(found)) == [
        "memcpy from fuse_copy_do+0x5a (the call site is not probed)"
    ]
    assert list(doubts.unreached(found, frozenset({Path.TCP}))) == []
    assert list(doubts.unreached(found, frozenset({Path.PIPE, Path.TCP})))
    of_user = with_sites(evidence, dataclasses.replace(refused, direction=TO_USER))
    assert list(doubts.unreached(of_user)) == list(doubts.unreached(evidence)) == []


CALLERS = {
    *("mem_rw", "environ_read", "proc_pid_cmdline_read", "ptrace_access_vm"),
    *("__splice_segment", "sctp_packet_transmit"),
}
"""Who copies plainly on all kernels; of others each has those below."""
OWN = {
    "5.10": {
        *("xsk_rcv", "__xsk_sendmsg", "fuse_copy_page", "brd_submit_bio", "pmem_do_read"),
        *("brd_rw_page", "write_pmem", "null_transfer"),
    },
    "6.1": {
        *("__xsk_rcv", "__xsk_generic_xmit", "fuse_copy_page", "brd_submit_bio"),
        *("brd_rw_page", "pmem_do_read", "pmem_do_write", "null_transfer"),
        "btrfs_decompress_buf2page",
    },
    "6.12": {
        *("__xsk_rcv", "__xsk_generic_xmit", "fuse_copy_page", "pmem_submit_bio"),
        *("pmem_do_write", "null_process_cmd", "btrfs_decompress_buf2page"),
    },
    "7.3": {
        *("__xsk_rcv", "__xsk_generic_xmit", "fuse_copy_folio", "brd_submit_bio"),
        *("pmem_submit_bio", "null_handle_data_transfer", "btrfs_decompress_buf2page"),
        *("pmem_do_write", "io_zcrx_copy_chunk"),
    },
}
UNSEEN = {"5.10": {"btrfs_decompress_buf2page"}, "6.12": {"brd_submit_bio"}}
"""Who does by instructions on these, which is said."""


@pytest.mark.parametrize("line", OWN)
def test_who_copies_plainly_is_watched_or_said_not_to_be(line):
    """With the modules loaded that the rows name."""
    attach_plan = plan(CATALOGUE, recorded_kernel(line))
    attachments = [a for a in attach_plan.calls if a.target in MEMORY_COPIES]
    named = {caller for row in MEMORY_COPIES for caller in row.callers}
    watched = {plain(call.caller) for a in attachments for call in a.calls}
    assert watched & (named | CALLERS) == CALLERS | OWN[line]
    assert {c.caller for a in attachments for c in a.unreached} <= {"access_remote_vm"}
    missing = {b.reason for b in attach_plan.blind if b.quantity == "memory-copy"}
    assert missing == {
        f"no call of it was found in {caller}" for caller in UNSEEN.get(line, ())
    }
