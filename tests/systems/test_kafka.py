"""What a Kafka broker copies, and by which calls it moves what it is sent and asked for."""

import subprocess
import sys

import pytest

from tests.systems import claims, seen
from tests.systems.conftest import there
from tests.systems.kafka_suite import CASES, RECORDS
from zctrace.analysis.verdicts import Word

PAYLOAD = RECORDS << 16
TALK = 0.03
"""Copies for each byte that are of what a broker says and hears beside the records."""
FRAMES = 0.02
"""By how much a log is longer than its records, and TLS longer than what it carries."""
PRODUCED = {"produce": "plain", "produce, lz4": "lz4", "produce, lz4 to gzip": "gzip"}
CONSUMED = {"consume": "plain", "consume, lz4": "lz4", "consume, gzip": "gzip"}


def case(kafka, name):
    return kafka.broker.cases[name]


def test_every_control_passes_and_nothing_is_doubted(kafka):
    assert set(kafka.answers) == set(CASES)
    for name, found in kafka.answers.items():
        assert found.failed == [], name
        assert (found.doubts, found.notes) == ((), ()), name
        assert found.unassigned == 0, name
        assert all(line.name for line in found.things), name


def test_the_client_got_back_what_it_sent(kafka):
    """It compares every byte, and the order."""
    assert kafka.facts["moved"] == dict.fromkeys(CASES, PAYLOAD)


@pytest.mark.parametrize(("name", "topic"), PRODUCED.items())
def test_a_log_is_written_by_write_and_the_whole_of_it(kafka, name, topic):
    found, size = case(kafka, name), kafka.facts["logs"][topic]
    assert found.wrote == {"write": size}
    # What the broker is sent goes through its memory.
    assert 2 - TALK < found.copies < 2 + TALK


def test_logs_are_opened_and_indexes_are_mapped(kafka):
    opened, mapped = kafka.facts["opened"], kafka.facts["mapped"]
    for topic in kafka.facts["logs"]:
        segment = f"{topic}-0/00000000000000000000"
        assert f"{segment}.log" in opened
        assert f"{segment}.log" not in mapped
        for index in ("index", "timeindex"):
            assert mapped[f"{segment}.{index}"] > 0
            assert f"{segment}.{index}" not in opened
    assert not any(name.endswith(".log") for name in mapped)


@pytest.mark.parametrize(("name", "topic"), CONSUMED.items())
def test_consumers_are_served_by_sendfile_and_without_a_copy(kafka, name, topic):
    """Compressed or not: whoever consumes gets what is in the log."""
    found = case(kafka, name)
    sent = found.sent["sendfile"]
    assert sent == found.read["sendfile"] >= kafka.facts["logs"][topic]
    assert sum(found.sent.values()) - sent < sent * FRAMES
    assert found.copies <= claims.NEARLY_NONE
    (call,) = [line for line in kafka.answers[name].calls if line.name == "sendfile"]
    assert call.copied == {}


def test_over_tls_they_are_served_with_two_copies(kafka):
    found = case(kafka, "consume, TLS")
    assert "sendfile" not in found.sent
    read, sent = found.read["pread64"], found.sent["write"]
    assert PAYLOAD <= read < sent < read * (1 + FRAMES)
    assert 2 - TALK < found.copies < 2 + TALK


def test_what_is_compressed_is_less(kafka):
    sizes = kafka.facts["logs"]
    assert sizes["plain"] > PAYLOAD
    for topic in ("lz4", "gzip"):
        assert PAYLOAD * 0.5 < sizes[topic] < PAYLOAD * 0.52
    # Another codec, so other bytes than the producer's came into the log.
    written = case(kafka, "produce, lz4 to gzip").wrote["write"]
    got = kafka.answers["produce, lz4 to gzip"].received["socket"]
    assert written < got - 10_000


def test_nobody_is_served_who_would_need_another_format(kafka):
    """Version 4 of the fetch request is the first that knows today's format."""
    assert kafka.facts["versions"]["fetch"][0] == 4
    assert kafka.facts["answers_fetch"] == {"3": False, "4": True}


def test_the_claims(kafka):
    found = seen.Seen({}, kafka.broker)
    assert claims.produced(found).word is Word.REFUTED
    assert claims.consumed(found).word is Word.HOLDS


def test_nothing_is_left_behind(kafka):
    assert kafka.left == set()


def test_nothing_is_left_behind_when_a_step_fails(home, tmp_path):
    """A client, on this machine: there is no broker, and no such command."""
    code = (
        f"import sys; sys.path.insert(0, {str(home)!r})\n"
        "from broker import Kafka\n"
        f"kafka = Kafka({str(home)!r}, {(home / 'java').read_text()!r}, {str(tmp_path)!r})\n"
        "kafka.prepare()\n"
        "with kafka.client() as perform:\n"
        "    perform('nonsense')\n"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert result.returncode == 1
    assert "KafkaError: nonsense: java.lang.IllegalArgumentException: nonsense" in result.stderr
    assert there(str(tmp_path)) == set()
