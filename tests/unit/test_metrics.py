"""Metrics for Prometheus, from recorded evidence."""

import dataclasses
import json
import shutil
import subprocess
import sys
import urllib.request

import pytest
from prometheus_client.openmetrics.parser import text_string_to_metric_families
from typer.testing import CliRunner

from tests.conftest import HERE, or_skip
from tests.unit.collectors import altered
from zctrace import cli, errors
from zctrace.analysis import program
from zctrace.commands import metrics as command
from zctrace.evidence.account import EXITED, INTERRUPTED, TIME, Look, UnitBytes
from zctrace.evidence.schema import Evidence, Subject
from zctrace.machine import program_job, subjects
from zctrace.machine.places import Place
from zctrace.machine.program_job import Wanted
from zctrace.machine.subjects import Running
from zctrace.reports.metrics import Exported, serving

ON, OFF = "nginx, sendfile on", "nginx, sendfile off"
SIZE = 16 << 20
OPENMETRICS = {"Accept": "application/openmetrics-text"}


@pytest.fixture(scope="module")
def recorded():
    values = json.loads((HERE / "evidence" / "programs-6.1.json").read_text())
    return {name: Evidence.from_json(one) for name, one in values.items()}


def scraped(where):
    """By the name of a sample and the call or outcome that it is of."""
    with urllib.request.urlopen(urllib.request.Request(where, headers=OPENMETRICS)) as answer:
        assert answer.headers["Content-Type"].startswith("application/openmetrics-text")
        text = answer.read().decode()
    return {
        (sample.name, sample.labels.get("call") or sample.labels.get("outcome")): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


def test_a_look_a_trace_and_the_next_one(recorded):
    exported = Exported("nginx.service")
    with serving(exported, 0) as where:
        assert scraped(where)["zctrace_tracing", None] == 0
        exported.look(Look({"pread64": 4096}, {"writev": 5000}, {"pread64": 4096}, 0))
        found = scraped(where)
        assert found["zctrace_tracing", None] == 1
        assert found["zctrace_copied_bytes_total", "pread64"] == 4096
        # What came behind the last look is in the answer.
        exported.end(program.answer(recorded[OFF]))
        found = scraped(where)
        assert found["zctrace_copied_bytes_total", "pread64"] == SIZE
        assert found["zctrace_received_bytes_total", "pread64"] == SIZE
        assert found["zctrace_traces_total", "passed"] == 1
        exported.look(Look({"pread64": 100}, {}, {"pread64": 100}, 0))
        assert scraped(where)["zctrace_copied_bytes_total", "pread64"] == SIZE + 100


def test_counters_never_go_back(recorded):
    """A look is not of one moment; and after a failed self-test copies are not known."""
    exported = Exported("it")
    with serving(exported, 0) as where:
        exported.look(Look({}, {}, {"writev": 2 * SIZE}, 0))
        exported.look(Look({}, {}, {"writev": SIZE}, 0))
        assert scraped(where)["zctrace_copied_bytes_total", "writev"] == 2 * SIZE
        failing = altered(recorded[OFF])
        counts = tuple(c for c in failing.trace.run.counts if c.function != "_copy_from_iter")
        run = dataclasses.replace(failing.trace.run, counts=counts)
        trace = dataclasses.replace(failing.trace, run=run)
        exported.end(program.answer(dataclasses.replace(failing, trace=trace)))
        found = scraped(where)
        assert found["zctrace_copied_bytes_total", "writev"] == 2 * SIZE
        assert found["zctrace_traces_total", "failed"] == 1
        exported.end(program.answer(altered(recorded[ON], lost={"call": 1})))
        assert scraped(where)["zctrace_traces_total", "open"] == 1


def test_a_port_that_is_taken(recorded):
    with serving(Exported("it"), 0) as where:
        port = int(where.rpartition(":")[2].partition("/")[0])
        with (
            pytest.raises(errors.OutputError, match=f"--port {port}"),
            serving(Exported("other"), port),
        ):
            pass


def test_it_listens_on_this_machine_s_own_address():
    with serving(Exported("it"), 0) as where:
        assert where.startswith("http://127.0.0.1:")


def test_without_the_library(monkeypatch):
    monkeypatch.setitem(sys.modules, "prometheus_client", None)
    with pytest.raises(errors.UsageError, match="prometheus_client"), serving(Exported("x"), 0):
        pass


def test_a_unit_that_ends_and_comes_back(monkeypatch, recorded):
    """Until Ctrl-C; what was counted before stays."""
    monkeypatch.setattr(command, "require_collector", lambda: None)
    monkeypatch.setattr(command, "place_of", lambda *_: Place(None))
    monkeypatch.setattr(command, "_AGAIN_SECONDS", 0)
    ends, said = iter([EXITED, TIME, INTERRUPTED]), []
    looks = iter([None, errors.UsageError("x"), None])
    traced = []

    def trace(place, wanted, say, look_on):
        traced.append(wanted.subject)
        evidence = recorded[OFF]
        trace = dataclasses.replace(evidence.trace, ended=next(ends))
        return dataclasses.replace(evidence, trace=trace)

    def again():
        if found := next(looks):
            raise found
        return Subject(pids=(len(traced),), called="it")

    monkeypatch.setattr(program_job, "trace", trace)
    exported = Exported("it")
    wanted = Wanted(Subject(pids=(7,)))
    assert command.export(wanted, "host", None, exported, again, said.append) is None
    assert [subject.pids for subject in traced] == [(7,), (1,), (2,)]
    assert [line for line in said if "waiting" in line] == ["waiting: x"]
    assert exported._before.copied["it", "pread64"] == 3 * SIZE


def test_what_it_is_asked_for(monkeypatch):
    result = CliRunner().invoke(cli.app, ["metrics", "--name", "x", "--", "cp"])
    assert isinstance(result.exception, errors.UsageError)


@pytest.mark.parametrize(
    ("words", "by_unit"), [([], True), (["-p", "1"], False), (["--", "cp"], False)]
)
def test_all_of_the_machine_is_by_unit(monkeypatch, words, by_unit):
    asked = []
    monkeypatch.setattr(command, "export", lambda *given: asked.append(given))
    monkeypatch.setattr(subjects, "everybody", lambda: Running(cgroup="/", called="all"))
    CliRunner().invoke(cli.app, ["metrics", "--port", "0", *words], catch_exceptions=False)
    ((wanted, _, _, exported, again, _),) = asked
    assert wanted.subject.by_unit is again().by_unit is exported._by_unit is by_unit


def rows(*found):
    return Look({"read": 9}, {"write": 9}, {"write": 9}, 0, units=found)


def test_each_unit_has_rows_of_its_own(recorded):
    """A unit that is in no later look keeps its counters; the last look counts."""
    exported = Exported("this machine", by_unit=True)
    web, cron = (UnitBytes(name, "write", 0, 50, 60) for name in ("web.service", "cron"))
    exported.look(rows(web, cron))
    exported.look(rows(dataclasses.replace(web, delivered=70, copied=10)))
    with serving(exported, 0) as where:
        assert units(where) == {"web.service": (70, 60), "cron": (50, 60)}
        exported.end(program.answer(recorded[OFF]))
        assert units(where) == {"web.service": (70, 60), "cron": (50, 60)}
        exported.look(rows(web))
        assert units(where) == {"web.service": (120, 120), "cron": (50, 60)}


def units(where):
    """What each has delivered, and what the CPU copied for it."""
    with urllib.request.urlopen(urllib.request.Request(where, headers=OPENMETRICS)) as answer:
        text = answer.read().decode()
    found = {
        (sample.labels["subject"], sample.name): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
        if sample.labels.get("call") == "write"
    }
    return {
        subject: (
            found[subject, "zctrace_delivered_bytes_total"],
            found[subject, "zctrace_copied_bytes_total"],
        )
        for subject, _ in found
    }


def test_the_unit_file(tmp_path):
    text = (HERE.parent / "docs/examples/zctrace-metrics.service").read_text()
    (line,) = [line for line in text.splitlines() if line.startswith("ExecStart=zctrace ")]
    _, name, *options = line.split()
    shown = CliRunner().invoke(cli.app, [name, "--help"]).output
    assert [o for o in options if o.startswith("--") and o not in shown] == []
    if not shutil.which("systemd-analyze"):
        or_skip("systemd is not installed")
    unit = tmp_path / "zctrace-metrics.service"
    # One that is there, whether or not zctrace is installed.
    unit.write_text(text.replace("ExecStart=zctrace", "ExecStart=true"))
    checked = subprocess.run(
        ["systemd-analyze", "verify", "--man=no", unit], capture_output=True, text=True
    )
    assert [x for x in checked.stderr.splitlines() if "zctrace-metrics" in x] == []
