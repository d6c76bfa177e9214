"""A performer is one class: everybody else finds it by the strategies that name it."""

import io
import os

import pytest
from rich.console import Console

from zctrace.collect import describe
from zctrace.commands import doctor
from zctrace.commands import strategies as listing
from zctrace.evidence.schema import Setting
from zctrace.machine import job, kernels, staging
from zctrace.workloads import catalogue, prepared
from zctrace.workloads.performer import Performer, memory_bytes
from zctrace.workloads.prepared import NotPreparedError, Prepared, read_staged
from zctrace.workloads.runner import Runner
from zctrace.workloads.strategies.sendfile import Sendfile

MIB = 1 << 20
STEP = 4099


class Crate(Performer):
    """Somebody who performs nothing: what is asked of it is noted down."""

    name, role = "Crate", "crate"
    trouble = ""

    def __init__(self):
        super().__init__()
        self.asked = []
        self.started = False

    def prepare(self, cache, say):
        self.asked.append("prepare")
        if self.trouble:
            raise NotPreparedError(self.trouble)
        (cache / "parts").mkdir(parents=True, exist_ok=True)
        (cache / "parts" / "one").write_text("part")
        return Prepared({"parts": cache / "parts"}, {"at": "/opt"}, {"crate": "1.2"})

    def describe(self, cache):
        if self.trouble:
            raise NotPreparedError(self.trouble)
        return "Crate 1.2"

    def memory_bytes(self, step):
        return 1000 + step

    def start(self, nonce, step):
        self.asked.append(("start", nonce, step))
        self.started = True

    @property
    def threads(self):
        return {self.role: os.getpid()} if self.started else {}

    def own_all_memory(self):
        self.asked.append("own")

    def exercise(self, stretch, folder):
        return {"crate:u2u": 7}

    def idle(self, stretch, stage):
        raise AssertionError("no controls were asked for")


class Crated(Sendfile):
    name = "crated"


@pytest.fixture
def crate(monkeypatch, tmp_path):
    """Its strategy is in the table, and nothing else was told."""
    one = Crate()
    monkeypatch.setattr(Crated, "performer", one)
    monkeypatch.setattr(catalogue, "STRATEGIES", (*catalogue.STRATEGIES, Crated()))
    monkeypatch.setenv("ZCTRACE_CACHE", str(tmp_path / "cache"))
    return one


def options(*names, **more):
    return job.Options(settings=(Setting(names),), sizes=(MIB,), **more)


def test_a_guest_has_room_for_its_process(crate):
    without = job.guest_memory(options("sendfile"))
    assert job.guest_memory(options("sendfile", "crated")) == without + 1000 + MIB
    assert options("crated", chunk=STEP).performer_bytes == 1000 + STEP
    # Those that share a process need it once.
    assert memory_bytes([crate, Crate()], STEP) == 1000 + STEP


def test_what_it_needs_is_prepared_and_staged(crate, tmp_path, monkeypatch):
    said = []
    found = job._prepared(options("sendfile", "crated"), said.append)
    assert said == ["preparing what Crate needs, if that was not done before"]
    code = staging.stage(tmp_path, found)
    folder = code / "zctrace" / "workloads" / "staged" / "crate"
    there = read_staged(folder)
    assert (there.folders["parts"] / "one").read_text() == "part"
    assert (there.facts, there.versions) == ({"at": "/opt"}, {"crate": "1.2"})
    assert all(path.stat().st_mode & 0o004 for path in folder.rglob("*"))
    # There it is taken, and its version stands in the evidence.
    monkeypatch.setattr(prepared, "_HERE", code / "zctrace" / "workloads")
    crate.asked.clear()
    assert crate.prepared() == there
    assert crate.asked == []
    assert describe._performer_versions() == {"crate": "1.2"}


def test_a_reason_is_staged_alike(crate, tmp_path, monkeypatch):
    crate.trouble = "no wood"
    code = staging.stage(tmp_path, job._prepared(options("crated"), print))
    crate.trouble = ""
    monkeypatch.setattr(prepared, "_HERE", code / "zctrace" / "workloads")
    assert crate.refusal() == "no wood"
    assert describe._performer_versions() == {}


def test_a_cache_that_cannot_be_written_to_is_a_reason(crate, monkeypatch):
    monkeypatch.setattr(kernels, "trusted_cache", lambda: tmp)
    tmp = prepared.Path("/proc/none")
    reason = job._prepared(options("crated"), print)["crate"]
    assert str(reason).startswith("Crate cannot be prepared: ")
    # In the strategies' process there is another folder for what is not kept.
    monkeypatch.setenv("ZCTRACE_CACHE", "/proc/none")
    folder = crate.prepared().folders["parts"]
    assert (folder / "one").read_text() == "part"
    crate.close()
    assert not folder.exists()


def test_why_there_is_none_is_found_out_once(crate):
    crate.trouble = "no wood"
    assert [crate.refusal(), crate.refusal()] == ["no wood"] * 2
    assert crate.asked == ["prepare"]
    crate.close()
    crate.trouble = ""
    assert crate.refusal() == ""


def test_doctor_and_the_list_of_strategies_know_it(crate):
    def listed():
        console = Console(file=io.StringIO(), width=200)
        listing.show(console)
        return console.file.getvalue().splitlines()

    assert listed()[-1] == "Strategies of Crate are performed by Crate 1.2."
    assert any(line.startswith("crated ") for line in listed())
    finding = [*doctor._systems()][-1]
    assert (finding.topic, finding.fine) == ("strategies of Crate", True)
    crate.trouble = "no wood"
    assert listed()[-1] == "Strategies of Crate are not possible here: no wood"
    finding = [*doctor._systems()][-1]
    assert (finding.what, finding.fine) == ("no wood", False)


def test_a_runner_starts_it_when_it_performs(crate, tmp_path):
    (file := tmp_path / "payload").write_bytes(bytes(MIB))
    strategy = catalogue.strategy_named("crated")
    made = Runner(
        {"": file}, sizes=[MIB], nonce=5, chunk=STEP, controls=False, strategies=[strategy]
    )
    try:
        assert made.pids["crate"] == os.getpid()
        assert made.run(strategy).received == MIB
    finally:
        made.close()
    assert crate.asked == ["prepare", ("start", 5, STEP), ("start", 5, STEP), "own"]


def test_a_runner_does_not_start_one_that_there_is_not(crate, tmp_path):
    crate.trouble = "no wood"
    (file := tmp_path / "payload").write_bytes(bytes(MIB))
    strategy = catalogue.strategy_named("crated")
    made = Runner({"": file}, sizes=[MIB], controls=False, strategies=[strategy])
    try:
        assert "crate" not in made.pids
        assert made.run(strategy).unavailable == "no wood"
        assert crate.asked == ["prepare"]
    finally:
        made.close()


def test_the_meter_watches_the_memory_of_one_process():
    """Functions of user memory are probed in one process only: see Meter.watch_user_memory."""
    watched = {s.performer.role for s in catalogue.STRATEGIES if s.user_memory}
    assert len(watched) == 1, f"{watched}: the meter would count for the last of them only"
