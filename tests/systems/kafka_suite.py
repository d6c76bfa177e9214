"""A suite of tracing_guest: a Kafka broker, traced while one client works with it."""

import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent
HOME = HERE / "kafka"
sys.path.insert(0, str(HOME))

from broker import PORT, TLS_PORT, Kafka  # noqa: E402

RECORDS, WARM_RECORDS = 256, 16
TOPICS = {"plain": "producer", "lz4": "producer", "gzip": "gzip", "warm": "producer"}
"""How the broker compresses: as the producer did, or by a codec of its own."""
CASES = {
    "produce": ("produce", "plain", "none", "random", RECORDS),
    "consume": ("consume", "plain", PORT, RECORDS),
    "consume, TLS": ("consume", "plain", TLS_PORT, RECORDS),
    "produce, lz4": ("produce", "lz4", "lz4", "half", RECORDS),
    "consume, lz4": ("consume", "lz4", PORT, RECORDS),
    "produce, lz4 to gzip": ("produce", "gzip", "lz4", "half", RECORDS),
    "consume, gzip": ("consume", "gzip", PORT, RECORDS),
}


def everything(programs):
    java = (HOME / "java").read_text()  # the JDK that the host has chosen
    kafka = Kafka(HOME, java, programs.folders["ext4"] / "kafka")
    programs.say("formatting Kafka's storage")
    kafka.prepare()
    with kafka.broker(programs.say) as broker, kafka.client() as perform:
        for name, compression in TOPICS.items():
            perform("topic", name, compression)
            programs.say(f"topic {name}")
        # Classes are loaded and libraries unpacked when they are first needed.
        perform("produce", "warm", "lz4", "half", WARM_RECORDS)
        for port in (PORT, TLS_PORT):
            programs.say("warming up")
            perform("consume", "warm", port, WARM_RECORDS)
        moved = {}

        def work(name):
            moved[name] = perform(*CASES[name])

        for name in CASES:
            programs.attached(name, lambda name=name: work(name), pids=(broker,))
        programs.answer["found"]["kafka"] = {
            "moved": moved,
            "logs": {name: kafka.log_bytes(name) for name in TOPICS},
            "versions": kafka.versions(),
            "answers_fetch": {str(n): kafka.answers_fetch(n) for n in (3, 4)},
            "mapped": kafka.mapped(broker),
            "opened": kafka.opened(broker),
        }
        programs.say("ending the broker")
