"""Strategies on real kernels, to the byte."""

import pytest

from tests.conftest import KERNELS
from tests.live.conftest import on_one_processor
from tests.live.suites import MORE_PROCESSORS
from zctrace.evidence.schema import CALLED, SKIPPED
from zctrace.workloads.catalogue import TEXTBOOK

MIB = 1 << 20
REPEAT = 5
NAMES = [strategy.name for strategy in TEXTBOOK]
EXPECTED = {
    # u→k, k→u, system calls by name, switches
    "read-write": (MIB, MIB, {"read": 1, "write": 1}, 4),
    "mmap-write": (MIB, 0, {"mmap": 1, "write": 1}, 4),
    "sendfile": (0, 0, {"sendfile": 1}, 2),
    "splice": (0, 0, {"splice": 32}, 64),
}


IN_JAVA_S_MEMORY = {
    # Out of the buffer that was read into, and into those that are written: 128 KiB each.
    "java-traditional": 2 * MIB,
    "java-mmap": 0,
    "java-transfer-to": 0,
    "java-heap-buffer": 2 * MIB,
    "java-direct-buffer": 0,
    "netty-direct-buffer": 0,
    # Out of the buffer that was read into, and into one outside the heap.
    "netty-heap-buffer": 2 * MIB,
    "netty-composite": 0,
    "netty-wrapped": 0,
    "netty-slice": 0,
    # Four into one, and that into one outside the heap.
    "netty-copied": 2 * MIB,
    "netty-file-region": 0,
    "netty-file-region-epoll": 0,
    # As many times, 8 KiB each.
    "netty-chunked-file": 2 * MIB,
}
CHUNKS = MIB // 8192
SECURED = MIB + CHUNKS * 38
"""What a record of TLS 1.3 has beside its contents, as Java makes it."""
EVERYTHING = {
    # u→k, k→u, k→k
    "read-write": (MIB, MIB, 0),
    "mmap-write": (MIB, 0, 0),
    "sendfile": (0, 0, 0),
    "splice": (0, 0, 0),
    "msg-zerocopy": (0, 0, MIB),
    "vmsplice": (0, 0, 0),
    "tee": (0, 0, 0),
    "copy-file-range": (0, 0, MIB),
    "sendfile-file": (0, 0, MIB),
    "reflink": (0, 0, 0),
    "direct-io": (MIB, 0, 0),
    "io-uring": (MIB, MIB, 0),
    "io-uring-zc": (0, 0, 2 * MIB),
    "recv": (0, MIB, 0),
    "recv-splice": (0, 0, MIB),
    "tcp-zerocopy-receive": (0, 0, 0),
    "java-traditional": (MIB, MIB, 0),
    "java-mmap": (MIB, 0, 0),
    "java-transfer-to": (0, 0, 0),
    "java-heap-buffer": (MIB, MIB, 0),
    "java-direct-buffer": (MIB, MIB, 0),
    "netty-direct-buffer": (MIB, MIB, 0),
    "netty-heap-buffer": (MIB, MIB, 0),
    "netty-composite": (MIB, MIB, 0),
    "netty-wrapped": (MIB, MIB, 0),
    "netty-slice": (MIB, MIB, 0),
    "netty-copied": (MIB, MIB, 0),
    "netty-file-region": (0, 0, 0),
    "netty-file-region-epoll": (0, 0, 0),
    "netty-chunked-file": (MIB, MIB, 0),
    "netty-tls": (SECURED, MIB, 0),
}


@pytest.fixture(scope="module")
def repeated(live, measure):
    """Several runs of the textbook's strategies, with scatter/gather and without.

    On one kernel: that each run is like the one before is no kernel's own.
    """
    options = ("--repeat", REPEAT, "--nic", "lo", "--nic", "veth-nosg")
    return measure("7.3", *options, processors=MORE_PROCESSORS)


NETTY = tuple(name for name in EVERYTHING if name.startswith("netty-"))
NETTY_KERNEL = "6.1"
"""What Netty does is no kernel's own, and takes two minutes where it is emulated."""


@pytest.fixture(scope="module")
def everything(live, measure):
    """All strategies but those of Netty, on all kernels, in one command."""
    others = [text for line in KERNELS[1:] for text in ("--kernel", line)]
    with on_one_processor():
        return measure(KERNELS[0], *others, "--all", "--skip", "netty-*", seconds=2400)


@pytest.fixture(scope="module")
def netty(live, measure):
    return measure(NETTY_KERNEL, *NETTY)


def test_skipped_programs_are_told_where_the_kernel_tells(everything):
    for evidence in everything.json["evidence"]:
        told = {
            cause
            for run in evidence["runs"]
            for cause in run["lost"]
            if cause.endswith(SKIPPED)
        }
        line = ".".join(evidence["kernel"]["release"].split(".")[:2])
        assert evidence["kernel"]["tells_skips"] == (line not in ("5.10", "6.1"))
        called = {cause for cause in told if cause.startswith(CALLED)}
        assert bool(told - called) == evidence["kernel"]["tells_skips"]
        assert bool(called) == (line != "5.10")
        assert not any(cause.startswith("on_breakpoint") for cause in told)


def rows_of(result, strategy, nic="lo"):
    """Of strategies without a socket there is no device in the rows."""
    rows = [
        row for row in result.rows if row["strategy"] == strategy and row["nic"] in (nic, "")
    ]
    assert rows
    return rows


def calls_of(result, strategy, run_index="0", nic="lo"):
    return {
        row["syscall"]: int(row["calls"])
        for row in result.evidence
        if (row["strategy"], row["nic"], row["run_index"], row["role"], row["quantity"])
        == (strategy, nic, run_index, "sender", "syscall-enter")
    }


def account_of(result, row):
    """What the kernel itself said of the run of a row."""
    (account,) = [
        run["account"]
        for evidence in result.json["evidence"]
        for run in evidence["runs"]
        if (evidence["kernel"]["release"], run["strategy"], run["nic"], run["run_index"])
        == (row["kernel"], row["strategy"], row["nic"] or "lo", int(row["run_index"]))
    ]
    return account


def assert_gathered_by_the_processor(result, row, u2k, k2u):
    """Without scatter/gather: once more, and what TCP has sent again once more again."""
    again = account_of(result, row)["retransmitted_bytes"]
    assert_copies(row, u2k, k2u, int(row["payload_bytes"]) + again)
    assert "no scatter/gather" in row["reason"]
    assert row["outside_bytes"] == "0"


def assert_copies(row, u2k, k2u, k2k=0, u2u=None):
    assert (int(row["u2k_bytes"]), int(row["k2u_bytes"]), int(row["k2k_bytes"])) == (
        u2k,
        k2u,
        k2k,
    )
    assert row["u2u_bytes"] == ("" if u2u is None else str(u2u))
    assert int(row["cpu_copied_bytes"]) == u2k + k2u + k2k + (u2u or 0)
    assert (row["controls"], row["coverage"]) == ("passed", "complete")


@pytest.mark.parametrize("strategy", NAMES)
def test_the_table(repeated, strategy):
    u2k, k2u, calls, switches = EXPECTED[strategy]
    rows = rows_of(repeated, strategy)
    assert len(rows) == REPEAT
    for row in rows:
        assert_copies(row, u2k, k2u)
        assert float(row["cpu_copies"]) == (u2k + k2u) / MIB
        assert int(row["mode_switches"]) == switches
        assert calls_of(repeated, strategy, row["run_index"]) == calls
        assert row["page_faults"] == "0"
        assert row["other_user_bytes"] == "0"
        assert row["outside_bytes"] == "0"


@pytest.mark.parametrize("strategy", NAMES)
def test_without_scatter_gather_the_kernel_copies_once(repeated, strategy):
    """Whoever's thread it is on top of: the bytes are the sender's."""
    u2k, k2u, calls, _ = EXPECTED[strategy]
    rows = rows_of(repeated, strategy, "veth-nosg")
    assert len(rows) == REPEAT
    for row in rows:
        assert_gathered_by_the_processor(repeated, row, u2k, k2u)
        assert calls_of(repeated, strategy, row["run_index"], "veth-nosg") == calls


def test_of_virtual_devices_nothing_goes_by_dma(repeated):
    rows = [row for row in repeated.rows if row["nic"] == "veth-nosg"]
    assert {(row["dma_out_bytes"], row["dma_out_source"]) for row in rows} == {("", "none")}
    assert {row["verdict_dma"] for row in rows} == {"not measured"}


def test_mapping_faults_inside_the_kernel(repeated):
    """Sixteen pages around each fault, and a mapping that begins in the middle of one."""
    assert {row["page_faults_kernel"] for row in rows_of(repeated, "mmap-write")} == {"17"}


def test_verdicts(repeated):
    verdicts = {
        (row["strategy"], row["verdict_copies"], row["verdict_switches"], row["verdict_dma"])
        for row in repeated.rows
        if row["nic"] == "lo"
    }
    assert verdicts == {
        ("read-write", "holds", "holds", "not measured"),
        ("mmap-write", "holds", "holds", "not measured"),
        ("sendfile", "holds", "holds", "not measured"),
        ("splice", "holds", "refuted", "not measured"),
    }


def test_every_byte_is_received_once(repeated):
    """The sink is a fork, and copies a few pages on write beside."""
    for strategy in NAMES:
        received = sum(
            int(row["bytes"])
            for row in repeated.evidence
            if (row["strategy"], row["role"], row["kind"]) == (strategy, "sink", "copy")
            and row["purpose"] == "payload"
            and (row["nic"], row["direction"]) == ("lo", "k2u")
        )
        assert received == REPEAT * MIB


def test_two_mechanisms_see_the_same_bytes(repeated):
    """Of the sender's bytes, and of every other role's."""
    for control in (
        "two mechanisms agree on _copy_to_iter",
        "two mechanisms agree on _copy_from_iter",
        "two mechanisms agree on copy_folio_from_iter_atomic",
    ):
        results = [
            result
            for row in repeated.json["summary"]
            for result in row["control_results"]
            if result["name"] == control
        ]
        assert len(results) == 2 * REPEAT * len(NAMES)
        assert all(result["passed"] for result in results)


def test_the_processor_s_routine_agrees(repeated):
    for strategy in NAMES:
        for direction in ("u2k", "k2u"):
            sums = {
                mechanism: sum(
                    int(row["bytes"])
                    for row in repeated.evidence
                    if (row["strategy"], row["mechanism"], row["direction"])
                    == (strategy, mechanism, direction)
                    and row["bytes"]
                    and row["purpose"] == "payload"
                )
                for mechanism in ("call sites", "breakpoint@entry")
            }
            assert sums["call sites"] == sums["breakpoint@entry"]


def test_the_strategies_are_not_root(repeated):
    rights = repeated.json["evidence"][0]["rights"]
    assert rights["uid"] != 0
    assert int(rights["capabilities"], 16) == 0


def test_the_report_names_kernel_and_machine(repeated):
    assert repeated.rows[0]["kernel"] in repeated.stdout
    assert "virtual machine" in repeated.stdout
    assert max(map(len, repeated.stdout.splitlines())) <= 80


def test_odd_sizes_and_a_large_one(live, measure):
    """Through a pipe that takes a mebibyte at a time. On one kernel, as the next test is."""
    sizes = (1, 4095, 65537, 1000003, 64 * MIB)
    options = [text for size in sizes for text in ("--size", size)]
    result = measure("7.3", *options, "--pipe-size", "1M")
    for strategy in NAMES:
        u2k, k2u, calls, _ = EXPECTED[strategy]
        rows = rows_of(result, strategy)
        assert [int(row["payload_bytes"]) for row in rows] == list(sizes)
        for row, size in zip(rows, sizes, strict=True):
            assert_copies(row, u2k and size, k2u and size)
            expected = {"splice": 2 * -(-size // MIB)} if strategy == "splice" else calls
            assert int(row["mode_switches"]) == 2 * sum(expected.values())


def test_a_chunked_loop(live, measure):
    size, chunk = 1000003, 4096
    result = measure(
        "6.1", "--size", size, "--chunk", chunk, "--nic", "lo", "--nic", "veth-nosg"
    )
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
        (row,) = rows_of(result, strategy, "veth-nosg")
        assert_gathered_by_the_processor(result, row, u2k and size, k2u and size)


@pytest.mark.parametrize(
    ("line", "strategy"),
    [(line, name) for name in EVERYTHING if name not in NETTY for line in KERNELS],
)
def test_every_strategy_on_every_kernel(everything, line, strategy):
    """What a kernel copies is its own, so that each is asked."""
    (row,) = [r for r in rows_of(everything, strategy) if r["kernel"].startswith(f"{line}.")]
    if (strategy, line) == ("io-uring-zc", "5.10"):
        assert row["cpu_copied_bytes"] == ""
        assert "no IORING_OP_SEND_ZC" in row["coverage"]
        return
    assert_as_expected(everything, row, strategy)


@pytest.mark.parametrize("strategy", NETTY)
def test_every_strategy_of_netty(netty, strategy):
    (row,) = rows_of(netty, strategy)
    assert_as_expected(netty, row, strategy)


def assert_as_expected(result, row, strategy):
    account = account_of(result, row)
    u2k, k2u, k2k = EVERYTHING[strategy]
    if k2k and "zerocopy_copied" in account:
        # The kernel says so itself; what TCP sends again is looped back, and copied, again.
        assert account["zerocopy_copied"] == account["zerocopy_sends"]
        k2k += account["retransmitted_bytes"]
    if strategy == "tcp-zerocopy-receive":
        k2u = account["copied_bytes"]
        assert account["mapped_bytes"] > MIB // 2
    own = IN_JAVA_S_MEMORY.get(strategy)
    if strategy == "netty-tls":
        # Twice on the way to the cipher, encrypted once; and small ones with each record.
        own = int(row["u2u_bytes"])
        assert 2 * MIB + SECURED <= own < 4 * MIB
    assert_copies(row, u2k, k2u, k2k, own)
    assert bool(k2k) == bool(row["reason"])


@pytest.mark.parametrize("line", KERNELS)
@pytest.mark.parametrize("strategy", NAMES)
def test_from_the_disk_to_a_network_card(everything, line, strategy):
    """The textbook's table: each byte comes in and goes out by DMA, once."""
    u2k, k2u, _, switches = EXPECTED[strategy]
    for nic in ("e1000", "e1000-nosg"):
        (row,) = [
            r for r in rows_of(everything, strategy, nic) if r["kernel"].startswith(f"{line}.")
        ]
        again = account_of(everything, row)["retransmitted_bytes"]
        if nic == "e1000":
            assert_copies(row, u2k, k2u)
        else:
            assert_gathered_by_the_processor(everything, row, u2k, k2u)
        assert (row["cache"], int(row["mode_switches"])) == ("cold", switches)
        assert (int(row["dma_in_bytes"]), row["dma_in_source"]) == (MIB, "measured")
        assert (int(row["dma_out_bytes"]), row["dma_out_source"]) == (MIB + again, "measured")
        assert row["verdict_dma"] == "holds"
        assert int(row["header_bytes"]) > 0


def test_a_warm_cache_reads_nothing_from_the_disk(everything):
    for line in KERNELS:
        for strategy in NAMES:
            (row,) = [
                r for r in rows_of(everything, strategy) if r["kernel"].startswith(f"{line}.")
            ]
            assert (row["cache"], row["dma_in_bytes"]) == ("warm", "0")


def test_direct_input_is_dma_whatever_is_in_the_cache(everything):
    assert {row["dma_in_bytes"] for row in rows_of(everything, "direct-io")} == {str(MIB)}


@pytest.mark.parametrize("line", KERNELS)
@pytest.mark.parametrize(
    ("strategy", "calls"),
    [
        ("java-traditional", {"read": 1, "write": 8}),
        ("java-mmap", {"newfstatat": 1, "mmap": 1, "write": 1}),
        ("java-transfer-to", {"newfstatat": 1, "sendfile": 1}),
        ("java-heap-buffer", {"read": 1, "write": 1}),
        ("java-direct-buffer", {"read": 1, "write": 1}),
    ],
)
def test_what_java_asks_of_the_kernel(everything, line, strategy, calls):
    """In its window is the transfer, and neither the loading of classes nor a compiler."""
    row, made = made_on(everything, line, strategy)
    assert made == calls
    assert row["verdict_switches"] in ("refuted", "no claim")


BY_ITSELF = {"gettid"}
"""What a virtual machine does once in a while, for whatever reason: seen in one row of ninety.
Neither loading of classes nor a compiler."""


def made_on(result, line, strategy):
    """The row of a strategy on a kernel, and the system calls that the transfer made."""
    (row,) = [r for r in rows_of(result, strategy) if r["kernel"].startswith(f"{line}.")]
    return row, {
        counted["syscall"]: int(counted["calls"])
        for counted in result.evidence
        if (counted["strategy"], counted["kernel"]) == (strategy, row["kernel"])
        and (counted["role"], counted["quantity"]) == ("sender", "syscall-enter")
        and counted["syscall"] not in BY_ITSELF
    }


WAITING = {"epoll_wait", "epoll_pwait", "epoll_ctl"}
"""What an event loop does where the socket does not take everything at once: how many calls
that makes of one is chance."""


@pytest.mark.parametrize(
    ("strategy", "least"),
    [
        ("netty-direct-buffer", {"read": 1, "write": 1}),
        ("netty-heap-buffer", {"read": 1, "write": 1}),
        ("netty-composite", {"read": 4, "writev": 1}),
        ("netty-wrapped", {"read": 4, "writev": 1}),
        ("netty-slice", {"read": 1, "write": 1, "writev": 1}),
        ("netty-copied", {"read": 4, "write": 1}),
        ("netty-file-region", {"newfstatat": 1, "sendfile": 1}),
        ("netty-file-region-epoll", {"sendfile": 1}),
        ("netty-chunked-file", {"read": CHUNKS, "write": CHUNKS, "close": 1}),
        ("netty-tls", {"read": CHUNKS, "write": CHUNKS, "close": 1}),
    ],
)
def test_what_netty_asks_of_the_kernel(netty, strategy, least):
    row, made = made_on(netty, NETTY_KERNEL, strategy)
    reading = {name: made[name] for name in least.keys() & {"read", "close"}}
    assert reading == {name: least[name] for name in reading}
    assert all(made[name] >= calls for name, calls in least.items())
    allowed = least.keys() | WAITING
    if "writev" in least:
        allowed |= {"write"}  # what is left of the last part
    if "sendfile" in least:
        allowed |= {"newfstatat"}  # after one that moved nothing
    if strategy == "netty-tls":
        allowed |= {"futex"}  # what has ciphers compiled is told so
    assert made.keys() <= allowed
    claimed = row["claimed_cpu_copies"] != ""
    assert row["verdict_copies"] == ("holds" if claimed else "no claim")


def test_kernels_stand_side_by_side(everything):
    lines = everything.stdout.splitlines()
    assert max(map(len, lines)) <= 80
    table = [line.split() for line in lines if line.split()[:1] == ["read-write"]][
        : len(KERNELS)
    ]
    assert [row[1] for row in table] == list(KERNELS)
    assert "≠" in everything.stdout
    assert len({row["kernel"] for row in everything.rows}) == len(KERNELS)
