"""Each judge of a system's claim can say each word, and goes by what it is shown."""

import dataclasses
import json
from pathlib import Path
from types import SimpleNamespace

import pytest

from tests.conftest import HERE
from tests.systems import claims, report, seen
from tests.systems.seen import Broker, Case, Moved, Seen
from zctrace.analysis.verdicts import Word
from zctrace.errors import UsageError

PAYLOAD = 1000
HOLDS, REFUTED, NOT_MEASURED = Word.HOLDS, Word.REFUTED, Word.NOT_MEASURED
NETTY = ("netty-composite", "netty-wrapped", "netty-slice")
REGIONS = ("netty-file-region", "netty-file-region-epoll")


def moved(name, calls, u2k=0, k2u=0, u2u=0, *, kernel="6.1", java="17", doubt=""):
    """A run; copied are multiples of its payload."""
    sizes = {"u2k": u2k, "k2u": k2u, "k2k": 0, "u2u": u2u}
    copied = {way: None if n is None else int(n * PAYLOAD) for way, n in sizes.items()}
    return Moved(
        name,
        {"java": java},
        kernel,
        PAYLOAD,
        copied,
        2 * sum(calls.values()),
        dict(calls),
        doubt,
    )


def unknown(name):
    run = moved(name, {"read": 1}, doubt="self-test failed: file")
    return dataclasses.replace(run, copied=dict.fromkeys(run.copied), switches=None)


def of(*runs, broker=None):
    found = {}
    for run in runs:
        found.setdefault(run.strategy, []).append(run)
    return Seen(found, broker)


def broker(mapped=("plain-0/0.index",), **cases):
    names = {"tls": "consume, TLS"}
    return of(
        broker=Broker(
            "4", "17", "6.1", dict.fromkeys(mapped, 4096),
            {names.get(name, name): case for name, case in cases.items()},
        )
    )  # fmt: skip


def judged(system, found):
    (claim,) = [claim for claim in claims.CLAIMS if claim.system == system]
    return claim.judge(found)


def all_of(names, *arguments):
    return [moved(name, *arguments) for name in names]


TRADITIONAL, MMAP = "Java traditional I/O", "Java NIO mmap"
TRANSFER, PRODUCE, CONSUME = "Java NIO sendfile", "Kafka, produce", "Kafka, consume"
DIRECT, PIECES = "Netty, direct buffers", "Netty, CompositeByteBuf, wrap and slice"
REGION = "Netty, FileRegion"
TWO, ONE_SENDFILE = ({"read": 1, "write": 1}, 1, 1), ({"sendfile": 1},)


@pytest.mark.parametrize(
    ("system", "found", "word"),
    [
        (TRADITIONAL, of(moved("java-traditional", *TWO)), HOLDS),
        (TRADITIONAL, of(moved("java-traditional", *TWO, 2)), REFUTED),
        (TRADITIONAL, of(moved("java-traditional", {"read": 1, "write": 8}, 1, 1)), REFUTED),
        (TRADITIONAL, of(moved("java-traditional", *TWO, None)), NOT_MEASURED),
        (TRADITIONAL, of(unknown("java-traditional")), NOT_MEASURED),
        (MMAP, of(moved("java-mmap", {"mmap": 1, "write": 1}, 1)), HOLDS),
        (MMAP, of(moved("java-mmap", *TWO)), REFUTED),
        (MMAP, of(moved("java-mmap", {"mmap": 1, **TWO[0]}, 1, 1)), REFUTED),
        (MMAP, of(unknown("java-mmap")), NOT_MEASURED),
        (TRANSFER, of(moved("java-transfer-to", *ONE_SENDFILE)), HOLDS),
        (TRANSFER, of(moved("java-transfer-to", *TWO)), REFUTED),
        (TRANSFER, of(moved("java-transfer-to", {"sendfile": 1}, 1)), REFUTED),
        (
            TRANSFER,
            of(moved("java-transfer-to", {"sendfile": 1, "copy_file_range": 1})),
            REFUTED,
        ),
        (
            TRANSFER,
            of(moved("java-transfer-to", *ONE_SENDFILE), moved("java-pipe", {"splice": 2})),
            REFUTED,
        ),
        (
            TRANSFER,
            of(moved("java-transfer-to", *ONE_SENDFILE), moved("splice", {"splice": 2})),
            HOLDS,
        ),
        (TRANSFER, of(unknown("java-transfer-to")), NOT_MEASURED),
        (DIRECT, of(moved("netty-direct-buffer", *TWO)), HOLDS),
        (DIRECT, of(moved("netty-direct-buffer", *TWO, 0.002)), HOLDS),
        (DIRECT, of(moved("netty-direct-buffer", *TWO, 1)), REFUTED),
        (DIRECT, of(moved("netty-direct-buffer", {"read": 1}, 2, 1)), REFUTED),
        (DIRECT, of(moved("netty-direct-buffer", *TWO, None)), NOT_MEASURED),
        (PIECES, of(*all_of(NETTY, *TWO)), HOLDS),
        (PIECES, of(*all_of(NETTY[:2], *TWO), moved(NETTY[2], *TWO, 1)), REFUTED),
        (PIECES, of(moved(NETTY[2], *TWO, 1)), REFUTED),
        (PIECES, of(*all_of(NETTY[:2], *TWO)), NOT_MEASURED),
        (PIECES, of(*all_of(NETTY[:2], *TWO), unknown(NETTY[2])), NOT_MEASURED),
        (REGION, of(*all_of(REGIONS, *ONE_SENDFILE)), HOLDS),
        (REGION, of(moved(REGIONS[0], *ONE_SENDFILE), moved(REGIONS[1], *TWO)), REFUTED),
        (REGION, of(moved(REGIONS[0], *ONE_SENDFILE)), NOT_MEASURED),
        (REGION, of(*all_of(REGIONS, {"write": 1})), REFUTED),
        (PRODUCE, broker(produce=Case(PAYLOAD, {"write": 1010}, copies=2)), REFUTED),
        (PRODUCE, broker(("0.log",), produce=Case(PAYLOAD, copies=1)), HOLDS),
        (PRODUCE, broker(produce=Case(PAYLOAD, copies=1)), NOT_MEASURED),
        (PRODUCE, broker(("0.log",), produce=Case(PAYLOAD, {"write": 500}, copies=1)),
         NOT_MEASURED),
        (PRODUCE, broker(produce=Case(PAYLOAD, {"write": 1010}, copies=2, doubt="lost")),
         NOT_MEASURED),
        (PRODUCE, broker(consume=Case(PAYLOAD, copies=0)), NOT_MEASURED),
        (CONSUME, broker(consume=Case(PAYLOAD, sent={"sendfile": 1010}, copies=0.05)), HOLDS),
        (CONSUME, broker(consume=Case(PAYLOAD, sent={"sendfile": 1010}, copies=0.06)), REFUTED),
        (CONSUME, broker(consume=Case(PAYLOAD, sent={"write": 1010}, copies=0)), REFUTED),
        (CONSUME, broker(consume=Case(PAYLOAD, sent={"sendfile": 1010})), NOT_MEASURED),
        *((claim.system, of(), NOT_MEASURED) for claim in claims.CLAIMS),
    ],
)  # fmt: skip
def test_the_word(system, found, word):
    verdict = judged(system, found)
    assert verdict.word is word
    assert verdict.sentence


def test_one_kernel_is_enough_to_refute_and_all_of_one_kind_share_a_sentence():
    runs = [moved("java-traditional", *TWO, kernel=kernel) for kernel in ("5.10", "6.1")]
    other = moved("java-traditional", *TWO, 2, kernel="7.3")
    assert judged(TRADITIONAL, of(*runs)).sentence == (
        "`java-traditional` (Java 17, Linux 5.10, 6.1): 2 copies (u→k 1000, k→u 1000 B of "
        "1000), 4 switches (1 read, 1 write)"
    )
    verdict = judged(TRADITIONAL, of(*runs, other))
    assert verdict.word is REFUTED
    assert "; `java-traditional` (Java 17, Linux 7.3): 4 copies" in verdict.sentence


def test_what_was_not_measured_on_one_kernel_holds_by_the_others():
    verdict = judged(MMAP, of(moved("java-mmap", {"mmap": 1}, 1), unknown("java-mmap")))
    assert verdict.word is HOLDS
    assert "self-test failed: file" in verdict.sentence


def test_other_ways_stand_beside():
    runs = moved("netty-direct-buffer", *TWO), moved("netty-heap-buffer", *TWO, 2)
    assert judged(DIRECT, of(*runs)).sentence.endswith(
        "; `netty-heap-buffer` beside: 2 in user memory"
    )


def test_a_consumer_over_tls_is_named():
    plain = Case(PAYLOAD, sent={"sendfile": 1010}, copies=0.001)
    tls = Case(PAYLOAD, sent={"write": 1100}, read={"pread64": 1010}, copies=2)
    verdict = judged(CONSUME, broker(consume=plain, tls=tls))
    assert verdict.word is HOLDS
    assert "over TLS 1100 B by write, 1010 B by pread64 out of the log" in verdict.sentence


def saved_runs(tmp_path, *evidence):
    path = tmp_path / "result.json"
    path.write_text(json.dumps({"evidence": evidence}))
    return path


@pytest.fixture
def java(tmp_path):
    recorded = json.loads((HERE / "evidence" / "linux-6.1-java.json").read_text())
    return saved_runs(tmp_path, recorded)


def test_what_a_run_has_saved(java):
    found = seen.runs([java])
    (run,) = found["java-traditional"]
    assert (run.by, run.kernel) == ("Java 17.0.15", "6.1")
    assert (run.copies(), run.switches) == (4, 18)
    assert run.doubt == ""


@pytest.mark.parametrize(
    ("strategy", "by"),
    [("java-mmap", "Java 17"), ("netty-slice", "Java 17, Netty 4.2")],
)
def test_what_is_of_netty_names_its_version(strategy, by):
    tool = {"zctrace": "0.1.0", "java": "17", "netty": "4.2"}
    judged = SimpleNamespace(
        run=SimpleNamespace(strategy=strategy), evidence=SimpleNamespace(tool=tool)
    )
    run = dataclasses.replace(moved(strategy, {}), versions=seen._versions(judged))
    assert run.by == by


def test_other_networks_are_not_looked_at(tmp_path):
    """Without scatter/gather there are copies of the kernel's own."""
    recorded = json.loads((HERE / "evidence" / "linux-6.1-e1000.json").read_text())
    assert seen.runs([saved_runs(tmp_path, recorded)]) == {}


def test_no_result_is_no_result(tmp_path):
    path = tmp_path / "else"
    path.write_text("{}")
    with pytest.raises(UsageError):
        seen.runs([path])


@pytest.fixture(scope="module")
def recorded_broker():
    return seen.kafka(HERE / "evidence" / "kafka-6.1.json")


def test_a_recorded_broker(recorded_broker):
    cases = recorded_broker.cases
    assert sum(cases["produce"].wrote.values()) > cases["produce"].payload == 16 << 20
    assert cases["consume"].sent["sendfile"] == cases["consume"].read["sendfile"]
    assert "sendfile" not in cases["consume, TLS"].sent
    assert all(case.doubt == "" for case in cases.values())


def test_a_lost_event_is_a_doubt(recorded_broker, tmp_path):
    text = json.loads((HERE / "evidence" / "kafka-6.1.json").read_text())
    text["evidence"][0]["trace"]["run"]["lost"]["tally"] = 3
    path = tmp_path / "kafka.json"
    path.write_text(json.dumps(text))
    found = Seen({}, seen.kafka(path))
    assert judged(PRODUCE, found).word is NOT_MEASURED
    assert "3 events were lost" in judged(PRODUCE, found).sentence
    assert judged(PRODUCE, Seen({}, recorded_broker)).word is not NOT_MEASURED


def test_the_section_is_put_behind_and_replaced():
    once = report.with_section("# Title\n\nText.\n", report.section(of()))
    assert once.startswith(f"# Title\n\nText.\n\n{report.HEADING}\n")
    assert once.count("| not measured |") == len(claims.CLAIMS) == 8
    again = report.with_section(once, report.section(of(moved("java-traditional", *TWO, 2))))
    assert again.count(report.HEADING) == 1
    assert again.count("| not measured |") == 7
    assert "| **refuted** |" in again


def test_the_command(java, tmp_path, monkeypatch):
    document = tmp_path / "results.md"
    document.write_text("# Measured\n")
    broker_file = HERE / "evidence" / "kafka-6.1.json"
    words = ["report", str(document), str(java), "--kafka", str(broker_file)]
    monkeypatch.setattr("sys.argv", words)
    report.main()
    assert report.HEADING in document.read_text()
    assert "Kafka 4" in document.read_text()


def test_the_results_have_the_section():
    """With all claims, in their words."""
    text = (Path(HERE).parent / "docs" / "results.md").read_text().partition(report.HEADING)[2]
    rows = [line.split(" | ")[:3] for line in text.splitlines() if line.startswith("| ")][2:]
    assert [(system.removeprefix("| "), said) for system, said, _ in rows] == [
        (claim.system, claim.text) for claim in claims.CLAIMS
    ]
    words = {word.strip("*") for _, _, word in rows}
    assert words <= {word.value for word in (HOLDS, REFUTED, NOT_MEASURED)}
