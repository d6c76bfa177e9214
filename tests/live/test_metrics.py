"""Counters that a real Prometheus has scraped, while a program is traced: exact bytes."""

import json
import re
import socket
import subprocess
import sys
import time
import urllib.parse
import urllib.request

import pytest

from tests.live.conftest import ROOT

SIZE, TIMES = 3_000_017, 4
SCRAPES = """
global: {{scrape_interval: 1s}}
scrape_configs:
  - job_name: zctrace
    static_configs: [{{targets: ["127.0.0.1:{port}"]}}]
"""
PROGRAM = (
    f"head -c {SIZE} /dev/zero >/tmp/f; "
    f"for i in {' '.join(map(str, range(TIMES)))}; do cat /tmp/f >/tmp/g; done; "
    # All is written while it waits.
    "read line"
)
DELIVERED = (TIMES + 1) * SIZE


def until(true, process, seconds=240):
    deadline = time.monotonic() + seconds
    while not (found := true()):
        assert process.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.5)
    return found


@pytest.fixture
def prometheus(unpacked, tmp_path):
    """What starts one that scrapes a port, and returns what asks it, by system call."""
    running = []

    def start(port):
        with socket.create_server(("127.0.0.1", 0)) as free:
            address = f"127.0.0.1:{free.getsockname()[1]}"
        (tmp_path / "prometheus.yml").write_text(SCRAPES.format(port=port))
        command = [
            unpacked("prometheus") / "usr/bin/prometheus",
            f"--config.file={tmp_path}/prometheus.yml",
            f"--storage.tsdb.path={tmp_path}/data",
            f"--web.listen-address={address}",
        ]
        log = (tmp_path / "log").open("w")
        running.append(subprocess.Popen(command, stdout=log, stderr=log))

        def ask(query):
            url = f"http://{address}/api/v1/query?query={urllib.parse.quote(query)}"
            try:
                with urllib.request.urlopen(url) as answer:
                    found = json.load(answer)["data"]["result"]
            except OSError:
                return {}
            return {one["metric"].get("call"): float(one["value"][1]) for one in found}

        return ask

    yield start
    for process in running:
        process.terminate()
        process.wait()


def test_a_real_prometheus_has_every_byte(live, prometheus):
    command = [
        "metrics",
        "--kernel",
        "6.1",
        "--port",
        "0",
        "-i",
        "1",
        "--",
        "sh",
        "-c",
        PROGRAM,
    ]
    process = subprocess.Popen(
        [sys.executable, "-m", "zctrace", *command],
        cwd=ROOT, stdin=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    try:
        port = re.search(r"127\.0\.0\.1:(\d+)/metrics", process.stderr.readline())[1]
        ask = prometheus(port)
        until(lambda: sum(ask("zctrace_delivered_bytes_total").values()) >= DELIVERED, process)
        delivered = ask("zctrace_delivered_bytes_total")
        assert sum(delivered.values()) == DELIVERED
        assert ask("zctrace_tracing") == {None: 1}
        # By each call the CPU copied every byte that it delivered, once.
        copied = ask("zctrace_copied_bytes_total")
        assert {call: copied[call] for call in delivered} == delivered
        _, said = process.communicate("end\n", timeout=240)
    finally:
        process.kill()
    assert process.returncode == 0, said
