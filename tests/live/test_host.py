"""``--kernel host``: no virtual machine in between. The host is a guest of ours.

On one kernel: what differs from a run in a virtual machine is on this side of the collector.
"""

import sys

import pytest

from tests.live.conftest import ROOT
from zctrace import errors

MIB = 1 << 20
STATUS = {"SIGKILL": -9, "SIGTERM": errors.TERMINATED, "SIGINT": errors.INTERRUPTED}


@pytest.fixture(scope="module")
def on_host(live, in_guest):
    return in_guest("6.1", "host_guest.py", sys.executable, ROOT, file_systems=("ext4",))


def test_the_same_figures(on_host):
    assert on_host["status"] == 0, on_host["stderr"]
    figures = {
        row["strategy"]: (
            row["u2k_bytes"],
            row["k2u_bytes"],
            row["k2k_bytes"],
            row["mode_switches"],
        )
        for row in on_host["result"]["summary"]
    }
    assert figures == {
        "read-write": (MIB, MIB, 0, 4),
        "mmap-write": (MIB, 0, 0, 4),
        "sendfile": (0, 0, 0, 2),
        "splice": (0, 0, 0, 64),
    }
    assert {row["machine"] for row in on_host["result"]["summary"]} == {"host"}
    assert {row["controls"] for row in on_host["result"]["summary"]} == {"passed"}


def test_the_table_says_it_is_this_machine(on_host):
    assert "the host's own kernel" in on_host["stdout"]
    assert "was not measured" not in on_host["stdout"]


def test_nothing_is_left(on_host):
    assert on_host["left"] == {}


def test_a_file_and_an_address_of_one_s_own(on_host):
    assert on_host["own_status"] == 0, on_host["own_stderr"]
    (row,) = on_host["own"]["summary"]
    size = row["payload_bytes"]
    assert (size, row["strategy"], row["nic"], row["cache"]) == (
        300_007, "sendfile", "lo", "cold",
    )  # fmt: skip
    assert (row["cpu_copied_bytes"], row["mode_switches"]) == (0, 2)
    assert (row["controls"], row["coverage"]) == ("passed", "complete")
    # Whole blocks, which are of 1 KiB on so small a file system.
    assert (row["dma_in_bytes"], row["dma_in_source"]) == (-(-size // 1024) * 1024, "measured")
    assert row["dma_out_source"] == "none"
    assert on_host["own_left"] == {}


def test_a_program_of_one_s_own(on_host):
    """It keeps its input, output and status, and its file is read by copying, once."""
    assert on_host["traced_status"] == 7, on_host["traced_stderr"]
    assert on_host["traced_stdout"].startswith("70001\nNot zero-copy")
    (found,) = on_host["traced"]["summary"]
    assert found["delivered_bytes"]["device"] == 300_007
    assert found["received_bytes"]["pipe"] == 70_001
    (evidence,) = on_host["traced"]["evidence"]
    things = evidence["trace"]["account"]["things"]
    copied = [
        (booking["direction"], booking["bytes"])
        for booking in evidence["trace"]["account"]["bookings"]
        if booking["thing"] is not None and things[booking["thing"]]["name"] == "/run/own/file"
    ]
    assert copied == [("k2u", 300_007)]
    assert on_host["traced_left"] == {}


@pytest.mark.parametrize(
    ("how", "status", "uid"), [("served", 0, 65534), ("measured", -9, 0)], ids=str
)
def test_a_program_that_measures_itself(on_host, how, status, uid):
    """By a collector that was there, or by one of its own, which ends with it."""
    ended, output, complaint = on_host[how]
    assert ended == status, complaint
    assert output == "x" * 4099 + f"{uid} 4099 4099\n"
    assert on_host[f"{how}_left"] == {}


def test_a_program_that_runs_already(on_host):
    """It is traced until Ctrl-C, or until zctrace is killed, and notices neither."""
    for name, status, stdout, stderr, read, left in on_host["running"]:
        assert read == [300_007, 300_007], name
        assert left == {}, name
        assert (status, bool(stdout)) == {"SIGINT": (0, True), "SIGKILL": (-9, False)}[name], (
            stderr
        )
    (_, _, report, *_), _ = on_host["running"]
    assert "stopped by Ctrl-C" in report
    # In the table; what would help names it, too.
    lines = [line.split() for line in report.splitlines() if "/run/own/file" in line]
    (file,) = [words for words in lines if words[-1].isdigit()]
    assert file[-5:] == ["300007", "0", "0", "300007", "0"]
    # The shell had no more lines.
    assert on_host["reader"] == 0


def test_killed(on_host):
    assert len(on_host["killed"]) == 2
    for case in on_host["killed"]:
        assert case["left"] == {}, case
        assert case["status"] == STATUS[case["signal"]], case
        assert not case["files"], case


def test_a_machine_without_configured_cgroups_is_told_what_to_do(on_host):
    complaint, status = on_host["bare"]
    assert status == errors.TraceError.exit_code
    assert "cgroup.subtree_control" in complaint


def test_two_at_once_do_not_spoil_each_other(on_host):
    """The processor has four debug registers: the second run is told so."""
    status, complaint = on_host["second"]
    assert status == errors.TraceError.exit_code
    assert "debug registers are in use" in complaint
