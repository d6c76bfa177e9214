"""Parquet, read by pandas, DuckDB and Spark: the same figures as in the report."""

import dataclasses
import importlib.util
import json
import shutil
import subprocess
import sys

import duckdb
import pandas as pd
import pytest
from typer.testing import CliRunner

from tests.conftest import HERE, recorded_evidence
from zctrace import cli, errors
from zctrace.analysis import program, runs
from zctrace.evidence.origin import Origin
from zctrace.evidence.schema import Evidence
from zctrace.reports import formats, machine_readable, program_data
from zctrace.reports.formats import Of, Outputs

SIZE = 16 << 20
ON, OFF = "nginx, sendfile on", "nginx, sendfile off"


@pytest.fixture(scope="module")
def answers():
    """Two traces of one machine, and one of another one, whose name is a strange one."""
    values = json.loads((HERE / "evidence" / "programs-6.1.json").read_text())
    found = {}
    for name, host, day in ((ON, "web1", "29"), (OFF, "web1", "30"), ("cp", "a=b/ c", "29")):
        ended = f"2026-11-{day}T23:59:59+00:00"
        origin = Origin(host, "6.1.0-1", ended, ("zctrace", "trace"), "0.1.0")
        evidence = Evidence.from_json(values[name])
        request = dataclasses.replace(evidence.request, run_id=f"{len(found):016x}")
        found[name] = program.answer(
            dataclasses.replace(evidence, origin=origin, request=request)
        )
    return found


@pytest.fixture(scope="module")
def lake(answers, tmp_path_factory):
    folder = tmp_path_factory.mktemp("lake")
    outputs = Outputs({"parquet": folder})
    outputs.check()
    for found in answers.values():
        outputs.write(Of.TRACE, [found])
    return folder


def copied(answers, name):
    return answers[name].copied_bytes


def test_pandas(lake, answers):
    traces = pd.read_parquet(lake / "traces")
    assert len(traces) == 3
    by_host = traces.groupby(traces["host"].astype(str))["copied_bytes"].sum()
    assert by_host["web1"] == copied(answers, ON) + copied(answers, OFF)
    (strange,) = set(by_host.index) - {"web1"}
    assert by_host[strange] == copied(answers, "cp")
    flows = pd.read_parquet(lake / "flows")
    joined = flows.merge(traces[["trace", "verdict"]], on="trace")
    assert len(joined) == len(flows)
    assert joined["copied_bytes"].sum() >= 2 * SIZE


QUERY = """
    select host, date, sum(copied_bytes)::bigint, sum(delivered_bytes)::bigint
    from read_parquet('{}/traces/**/*.parquet', hive_partitioning = true)
    group by all order by all
"""


def test_duckdb(lake, answers):
    rows = duckdb.sql(QUERY.format(lake)).fetchall()
    by = {(host, str(date)): (size, out) for host, date, size, out in rows}
    for key, name in (
        (("web1", "2026-11-30"), OFF),
        (("web1", "2026-11-29"), ON),
        (("a=b/ c", "2026-11-29"), "cp"),
    ):
        found = answers[name]
        assert by[key] == (found.copied_bytes, sum(found.delivered.values()))
    (who,) = duckdb.sql(
        f"select function, caller from read_parquet('{lake}/copies/**/*.parquet', "
        "hive_partitioning = true) where payload and syscall = 'pread64' "
        "group by all order by sum(bytes) desc limit 1"
    ).fetchall()
    assert who == ("_copy_to_iter", "copy_page_to_iter")


SPARK = """
import sys
from pyspark.sql import SparkSession
spark = (SparkSession.builder.master("local[1]").config("spark.ui.enabled", "false")
         .config("spark.driver.bindAddress", "127.0.0.1").getOrCreate())
traces = spark.read.parquet(sys.argv[1] + "/traces")
for row in traces.groupBy("host").sum("copied_bytes").collect():
    print(row[0], row[1], sep="\\t")
"""


def test_spark(lake, answers):
    """Fetching it takes 500 MB: `make test-fleet` does."""
    if not importlib.util.find_spec("pyspark") or not shutil.which("java"):
        pytest.skip("pyspark or Java is not installed: make test-fleet")
    ran = subprocess.run(
        [sys.executable, "-c", SPARK, lake], capture_output=True, text=True, timeout=300
    )
    rows = dict(line.split("\t") for line in ran.stdout.splitlines())
    assert rows.pop("web1") == str(copied(answers, ON) + copied(answers, OFF)), ran.stderr
    assert list(rows.values()) == [str(copied(answers, "cp"))]


def test_what_is_unknown_is_null_and_not_certain(answers, tmp_path):
    found = answers[OFF]
    first, *others = found.checked
    checked = [dataclasses.replace(first, passed=False), *others]
    found = dataclasses.replace(found, checked=checked)
    Outputs({"parquet": tmp_path}).write(Of.TRACE, [found])
    (row,) = pd.read_parquet(tmp_path / "traces").to_dict("records")
    assert row["self_tests"] == "failed"
    assert not row["certain"]


def test_runs_of_strategies(tmp_path):
    judged = runs.judge([recorded_evidence("6.1")])
    path = tmp_path / "run.json"
    path.write_text(machine_readable.result_json(judged))
    for _ in range(2):  # what is there already stays
        arguments = ["report", str(path), "--parquet", str(tmp_path / "lake")]
        assert CliRunner().invoke(cli.app, arguments).exit_code == 0
    found = duckdb.sql(
        f"select strategy, cpu_copied_bytes, kernel, count(*) from "
        f"read_parquet('{tmp_path}/lake/runs/**/*.parquet', hive_partitioning = true) "
        "where payload_bytes = 1048576 group by all"
    ).fetchall()
    by = {strategy: (size, kernel, many) for strategy, size, kernel, many in found}
    assert by["sendfile"][:2] == (0, "6.1.0-56-amd64")
    assert by["read-write"][0] == 2 << 20
    assert all(many % 2 == 0 for _, _, many in by.values())


def test_without_the_library_it_is_said_before_anything_is_measured(monkeypatch, tmp_path):
    monkeypatch.setattr(formats.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(errors.UsageError, match="needs the Python package pyarrow"):
        Outputs({"parquet": tmp_path}).check()


def test_a_file_in_place_of_the_folder(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(errors.OutputError, match="is no folder"):
        Outputs({"parquet": tmp_path / "file"}).check()
    with pytest.raises(errors.OutputError, match="no folder"):
        Outputs({"svg": tmp_path / "no" / "more"}).check()


def test_drawings_are_files(answers, tmp_path):
    path = tmp_path / "trace.json"
    path.write_text(program_data.result_json([answers[OFF]]))
    arguments = ["report", str(path), "--svg", str(tmp_path / "new")]
    assert CliRunner().invoke(cli.app, arguments).exit_code == 0
    (drawing,) = (tmp_path / "new").iterdir()
    text = drawing.read_text()
    assert text.startswith('<svg xmlns="http://www.w3.org/2000/svg"') or "<svg " in text[:80]
    assert "pread64" in text
    assert "--page:" in text  # its colours, light and dark
    # One that is there is replaced only if that is asked for.
    again = CliRunner().invoke(cli.app, arguments)
    assert isinstance(again.exception, errors.OutputError)
    assert CliRunner().invoke(cli.app, [*arguments, "--force"]).exit_code == 0
