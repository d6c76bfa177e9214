"""The four strategies, on real kernels, to the byte."""

import pytest

from tests.conftest import LIVE_KERNELS
from workloads.catalogue import STRATEGIES

MIB = 1 << 20
REPEAT = 20
NAMES = [strategy.name for strategy in STRATEGIES]
EXPECTED = {
    # u→k, k→u, system calls by name, switches
    "read-write": (MIB, MIB, {"read": 1, "write": 1}, 4),
    "mmap-write": (MIB, 0, {"mmap": 1, "write": 1}, 4),
    "sendfile": (0, 0, {"sendfile": 1}, 2),
    "splice": (0, 0, {"splice": 32}, 64),
}


@pytest.fixture(scope="module", params=LIVE_KERNELS)
def twenty(request, live, measure):
    """Twenty runs of everything."""
    return measure(request.param, "--repeat", REPEAT)


def rows_of(result, strategy):
    rows = [row for row in result.rows if row["strategy"] == strategy]
    assert rows
    return rows


def calls_of(result, strategy, run_index="0"):
    return {
        row["syscall"]: int(row["calls"])
        for row in result.evidence
        if (row["strategy"], row["run_index"], row["role"], row["quantity"])
        == (strategy, run_index, "sender", "syscall-enter")
    }


def assert_copies(row, u2k, k2u, k2k=0):
    assert (int(row["u2k_bytes"]), int(row["k2u_bytes"]), int(row["k2k_bytes"])) == (
        u2k,
        k2u,
        k2k,
    )
    assert int(row["cpu_copied_bytes"]) == u2k + k2u + k2k
    assert (row["controls"], row["coverage"]) == ("passed", "complete")


@pytest.mark.parametrize("strategy", NAMES)
def test_the_table(twenty, strategy):
    u2k, k2u, calls, switches = EXPECTED[strategy]
    rows = rows_of(twenty, strategy)
    assert len(rows) == REPEAT
    for row in rows:
        assert_copies(row, u2k, k2u)
        assert float(row["cpu_copies"]) == (u2k + k2u) / MIB
        assert int(row["mode_switches"]) == switches
        assert calls_of(twenty, strategy, row["run_index"]) == calls
        assert row["page_faults"] == "0"
        assert row["other_user_bytes"] == "0"
        assert row["outside_bytes"] == "0"


def test_mapping_faults_inside_the_kernel(twenty):
    """Sixteen pages around each fault, and a mapping that begins in the middle of one."""
    assert {row["page_faults_kernel"] for row in rows_of(twenty, "mmap-write")} == {"17"}


def test_verdicts(twenty):
    verdicts = {
        (row["strategy"], row["verdict_copies"], row["verdict_switches"], row["verdict_dma"])
        for row in twenty.rows
    }
    assert verdicts == {
        ("read-write", "holds", "holds", "not measured"),
        ("mmap-write", "holds", "holds", "not measured"),
        ("sendfile", "holds", "holds", "not measured"),
        ("splice", "holds", "refuted", "not measured"),
    }


def test_every_byte_is_received_once(twenty):
    for strategy in NAMES:
        received = sum(
            int(row["bytes"])
            for row in twenty.evidence
            if (row["strategy"], row["role"], row["kind"]) == (strategy, "sink", "copy")
        )
        assert received == REPEAT * MIB


def test_the_processor_s_routine_agrees(twenty):
    """Of the sender's bytes, and of every other role's: two mechanisms, one sum."""
    for strategy in NAMES:
        for direction in ("u2k", "k2u"):
            by_kind = {
                kind: sum(
                    int(row["bytes"])
                    for row in twenty.evidence
                    if (row["strategy"], row["kind"], row["direction"])
                    == (strategy, kind, direction)
                )
                for kind in ("copy", "cross-check")
            }
            assert by_kind["copy"] == by_kind["cross-check"]


def test_the_strategies_are_not_root(twenty):
    rights = twenty.json["evidence"][0]["rights"]
    assert rights["uid"] != 0
    assert int(rights["capabilities"], 16) == 0


def test_the_report_names_kernel_and_machine(twenty):
    assert twenty.rows[0]["kernel"] in twenty.stdout
    assert "virtual machine" in twenty.stdout
    assert max(map(len, twenty.stdout.splitlines())) <= 80


@pytest.mark.parametrize("size", [1, 4095, 65537, 1000003])
def test_odd_sizes(kernel, measure, size):
    result = measure(kernel, "--size", size)
    pages_of_pipe = -(-size // 65536)
    for strategy in NAMES:
        (row,) = rows_of(result, strategy)
        u2k, k2u, calls, _ = EXPECTED[strategy]
        assert_copies(row, u2k and size, k2u and size)
        expected = {"splice": 2 * pages_of_pipe} if strategy == "splice" else calls
        assert calls_of(result, strategy) == expected
        assert int(row["mode_switches"]) == 2 * sum(expected.values())


def test_a_chunked_loop(kernel, measure):
    size, chunk = 1000003, 4096
    result = measure(kernel, "--size", size, "--chunk", chunk)
    turns = -(-size // chunk)
    expected = {
        "read-write": {"read": turns, "write": turns},
        "mmap-write": {"mmap": 1, "write": turns},
        "sendfile": {"sendfile": turns},
        "splice": {"splice": 2 * turns},
    }
    for strategy in NAMES:
        (row,) = rows_of(result, strategy)
        u2k, k2u, _, _ = EXPECTED[strategy]
        assert_copies(row, u2k and size, k2u and size)
        assert calls_of(result, strategy) == expected[strategy]
        assert row["chunk_bytes"] == str(chunk)


def test_sixty_four_times_the_bytes(kernel, measure):
    result = measure(kernel, "--size", "64M")
    for strategy in NAMES:
        (row,) = rows_of(result, strategy)
        u2k, k2u, _, _ = EXPECTED[strategy]
        assert_copies(row, 64 * u2k, 64 * k2u)


def test_a_larger_pipe_needs_fewer_calls(live, measure):
    result = measure("6.1", "splice", "--pipe-size", "1M")
    assert calls_of(result, "splice") == {"splice": 2}
    assert_copies(rows_of(result, "splice")[0], 0, 0)
