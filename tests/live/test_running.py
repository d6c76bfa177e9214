"""What runs already, found by its unit, its container, its name and its thread: exact bytes."""

import pytest

from tests.live.suites import SIZE, THREAD_BYTES
from zctrace.analysis import by_process, sentences


@pytest.fixture(scope="module")
def guest(traced_on):
    # Alone: the other suites are another worker's.
    return traced_on("6.1", ("running",))


@pytest.fixture(scope="module")
def running(guest):
    return guest.answers


def subject(answer):
    return answer.evidence.request.subject


def moved(answer, syscall, process=None):
    total = {"in": 0, "out": 0}
    for flow in answer.trace.account.flows:
        if flow.syscall == syscall and process in (None, flow.process):
            total[flow.way] += flow.bytes
    return total


def test_a_unit_of_systemd_s(running):
    answer = running["a unit"]
    assert subject(answer).called == "nginx.service"
    assert subject(answer).cgroup.endswith("/system.slice/nginx.service")
    assert moved(answer, "sendfile") == {"in": SIZE, "out": SIZE}
    assert sum(answer.copied.values()) < 4096
    assert answer.doubts == ()


def test_a_container(running):
    answer = running["a container"]
    assert subject(answer).called.startswith("container ")
    assert moved(answer, "sendfile") == {"in": 0, "out": 0}
    calls = {line.name: line for line in answer.calls}
    assert calls["pread64"].copied == {"k2u": SIZE}
    assert calls["writev"].copied.keys() == {"u2k"}
    assert SIZE <= calls["writev"].copied_bytes < SIZE + 4096
    # Its processes have other numbers inside.
    assert {p.name for p in by_process.of(answer)} == {"nginx"}


def test_all_of_a_name_and_an_answer_for_each(running):
    answer = running["by name"]
    assert subject(answer).called == "nginx"
    large = [p for p in by_process.of(answer) if p.is_large]
    assert sorted((p.name, p.words) for p in large) == [
        ("nginx", "2.00 copies per byte delivered"),
        ("nginx", "zero-copy"),
    ]
    (one,) = [p for p in large if p.is_zero_copy]
    (other,) = [p for p in large if not p.is_zero_copy]
    assert one.copied_bytes < 4096
    assert other.copied["k2u"] == SIZE + moved(answer, "recvfrom", other.number)["in"]
    assert sentences.sentence(answer).startswith("by process: nginx ")


def test_the_whole_machine(running):
    answer = running["this machine"]
    assert moved(answer, "sendfile") == {"in": SIZE, "out": SIZE}
    assert subject(answer).words.startswith("this machine (cgroup /")
    # The one that measures is not measured.
    assert "python3" not in {p.name for p in by_process.of(answer)}


def test_the_whole_machine_by_unit(guest):
    """Each row is a unit's, or another cgroup's: a server's, whichever process of it served."""
    rows = {(row["unit"], row["call"]): row for row in guest.found["units"]}
    sent = rows["nginx.service", "sendfile"]
    assert (sent["received"], sent["delivered"], sent["copied"]) == (SIZE, SIZE, 0)
    (container,) = {unit for unit, _ in rows if unit.startswith("docker-")}
    assert container.endswith(".scope")
    read, written = rows[container, "pread64"], rows[container, "writev"]
    assert (read["received"], read["copied"]) == (SIZE, SIZE)
    assert SIZE <= written["delivered"] == written["copied"] < SIZE + 4096
    assert ("nginx.service", "pread64") not in rows
    assert "gone" not in {unit for unit, _ in rows}


def test_one_thread_of_two(running):
    answer = running["a thread"]
    first, _ = THREAD_BYTES
    assert moved(answer, "read") == {"in": first, "out": 0}
    assert answer.trace.cpu_seconds is None
    assert answer.doubts == ()
