"""Saved results as frames, from recorded evidence."""

import dataclasses
import inspect
import json
import re

import pandas as pd
import pytest

import zctrace
from tests.conftest import HERE, recorded_evidence
from tests.unit.altering import broken
from zctrace import errors
from zctrace.analysis import columns, frames, program, runs, saved
from zctrace.evidence.account import Booking
from zctrace.evidence.schema import Evidence
from zctrace.probes.model import Direction

RECORDED = ["5.10", "6.1", "6.1-e1000", "6.1-java", "6.1-netty", "7.3", "7.3-e1000"]
RUN = ["kernel", "strategy", "nic", "cache", "chunk_bytes", "payload_bytes", "run_index"]


def traces(line):
    text = (HERE / "evidence" / f"programs-{line}.json").read_text()
    return {name: Evidence.from_json(values) for name, values in json.loads(text).items()}


@pytest.fixture
def load(tmp_path):
    def saving(*evidences, name="r.json"):
        path = tmp_path / name
        path.write_text(json.dumps({"evidence": [e.to_json() for e in evidences]}))
        return path

    def load(*evidences):
        return zctrace.load(saving(*evidences))

    load.saving = saving
    return load


def without_controls(evidence):
    """As if no known amounts had been seen."""
    run = evidence.trace.run
    own = tuple(count for count in run.counts if count.role == run.role)
    trace = dataclasses.replace(evidence.trace, run=dataclasses.replace(run, counts=own))
    return dataclasses.replace(evidence, trace=trace)


@pytest.mark.parametrize("line", RECORDED)
def test_runs_have_the_figures_and_unknown_is_not_available(load, line):
    evidence = recorded_evidence(line)
    frame = load(evidence).runs
    judged = runs.judge([evidence])
    assert list(frame.columns) == ["source", *columns.COLUMNS]
    assert len(frame) == len(judged) > 0
    for row, one in zip(frame.to_dict("records"), judged, strict=True):
        for column, value in one.figures.items():
            assert pd.isna(row[column]) == (value is None), column
            assert value is None or row[column] == value, column


def test_dtypes_know_what_is_not_available(load):
    found = load(recorded_evidence("6.1"), traces("6.1")["cp"])
    for frame in (found.runs, found.evidence, found.flows, found.copies):
        assert len(frame)
        assert {str(t) for t in frame.dtypes} <= {
            "string", "Int64", "Float64", "boolean", "category",
        }  # fmt: skip
    assert str(found.runs["cpu_copied_bytes"].dtype) == "Int64"
    assert str(found.runs["cpu_copies"].dtype) == "Float64"
    assert list(found.runs["verdict_copies"].cat.categories) == [
        "holds", "refuted", "not measured", "no claim",
    ]  # fmt: skip


def test_bytes_are_not_rounded_beside_unknown(evidence):
    judged = runs.judge([evidence])[0]
    sizes = [(1 << 53) + 1, None]
    frame = frames.summary(
        dataclasses.replace(judged, figures={**judged.figures, "other_user_bytes": size})
        for size in sizes
    )
    assert frame["other_user_bytes"][0] == sizes[0]
    assert frame["other_user_bytes"][1] is pd.NA


@pytest.mark.parametrize("line", RECORDED)
def test_copies_of_payload_add_up_to_the_runs(load, line):
    found = load(recorded_evidence(line))
    payload = found.copies[found.copies["payload"]]
    known = found.runs[found.runs["cpu_copied_bytes"].notna()]
    # The rows of the copies have a device even from file to file.
    key = [column for column in RUN if column != "nic"]
    for way in Direction:
        if (column := f"{way.value}_bytes") in known:
            copied = payload[payload["direction"] == way.value]
            sums = copied.groupby([*key, "nic"], dropna=False)["bytes"].sum()
            assert sorted(size for size in sums if size) == sorted(
                size for size in known[column].dropna() if size
            ), way
    assert payload["bytes"].sum() == known["cpu_copied_bytes"].sum()


@pytest.mark.parametrize("line", ["6.1", "7.3"])
def test_programs_add_up_to_their_answers(load, line):
    for name, evidence in traces(line).items():
        answer = program.answer(evidence)
        found = load(evidence)
        copies, flows = found.copies, found.flows
        payload = copies[copies["payload"]].groupby("direction")["bytes"].sum()
        assert dict(payload) == {w: n for w, n in answer.copied.items() if n}, name
        assert not copies["program"].isna().any()
        counted = flows[flows["in_total"].fillna(value=False)]
        assert counted["delivered_bytes"].sum() == sum(answer.delivered.values()), name
        assert counted["received_bytes"].sum() == sum(answer.received.values()), name
        assert flows["copied_bytes"].sum() == answer.copied_bytes, name
        ways = flows[["u2k_bytes", "k2u_bytes", "k2k_bytes"]].sum(axis=1)
        assert (ways == flows["copied_bytes"]).all()


def test_reasons_stand_beside_what_was_copied_inside_the_kernel(load, evidence):
    copies = load(evidence).copies
    inside = copies["direction"] == "k2k"
    assert inside.any()
    assert (copies["reason"].notna() == inside).all()
    judged = next(j for j in runs.judge([evidence]) if j.run.strategy == "copy-file-range")
    own = copies[copies["strategy"] == "copy-file-range"].groupby("reason")["bytes"].sum()
    why = runs.why(judged.evidence, judged.run)
    assert dict(own) == {reason.words: size for reason, size in why.items()}


def test_withheld_copies_are_not_zero(load, evidence):
    found = load(broken(evidence))
    assert found.runs["cpu_copied_bytes"].isna().all()
    assert len(found.copies)
    assert found.copies["bytes"].isna().all()
    assert found.copies["bytes"].sum(min_count=1) is pd.NA
    assert found.evidence["bytes"].sum() > 0


def test_a_program_whose_controls_failed_moved_bytes_and_copied_nobody_knows(load):
    evidence = without_controls(traces("6.1")["cp"])
    assert program.answer(evidence).copied is None
    found = load(evidence)
    assert found.copies["bytes"].isna().all()
    assert found.flows["copied_bytes"].isna().all()
    assert found.flows["delivered_bytes"].sum() > 0


def test_pipes_inside_a_program_are_in_no_total(load):
    flows = load(traces("6.1")["shell"]).flows
    assert set(flows.loc[flows["kind"] == "pipe", "in_total"]) == {False}
    assert set(flows.loc[flows["kind"] == "file", "in_total"]) == {True}


def test_what_no_call_moved_is_not_available(load):
    evidence = traces("6.1")["cp"]
    outside = Booking(None, None, Direction.KERNEL_TO_KERNEL, 1, 919)
    account = evidence.trace.account
    account = dataclasses.replace(account, bookings=(*account.bookings, outside))
    trace = dataclasses.replace(evidence.trace, account=account)
    flows = load(dataclasses.replace(evidence, trace=trace)).flows
    (row,) = flows[flows["syscall"].isna()].to_dict("records")
    assert row["copied_bytes"] > 0
    for column in ("thing", "name", "calls", "received_bytes", "delivered_bytes", "in_total"):
        assert pd.isna(row[column]), column


def test_several_files_are_told_apart_by_their_source(load):
    paths = [
        load.saving(recorded_evidence("6.1"), name="a.json"),
        str(load.saving(recorded_evidence("7.3"), name="b.json")),
        load.saving(traces("6.1")["cat"], name="c.json"),
    ]
    found = zctrace.load(paths)
    for frame in (found.evidence, found.copies):
        assert set(frame["source"]) == set(map(str, paths))
        of_runs = frame["program"].isna()
        assert set(frame["source"][of_runs]) == {str(path) for path in paths[:2]}
        assert (frame["strategy"].isna() == ~of_runs).all()
        assert (frame["payload_bytes"].isna() == ~of_runs).all()
    assert list(found.runs["source"].unique()) == [str(path) for path in paths[:2]]
    assert set(found.flows["source"]) == {str(paths[2])}
    assert set(found.flows["program"]) == {"cat /run/programs/ext4/payload"}


def test_evidence_of_runs_is_the_tidy_table(load, evidence):
    frame = load(evidence).evidence.drop(columns=["source", "program"])
    pd.testing.assert_frame_equal(frame, frames.tidy([evidence]))


def test_no_files_are_empty_frames():
    found = zctrace.load([])
    for frame in (found.runs, found.evidence, found.flows, found.copies):
        assert len(frame) == 0
        assert "source" in frame


@pytest.mark.parametrize("text", ["[]", "{}", '{"evidence": []}', "\x00"])
def test_what_is_no_result_is_refused_as_report_does(tmp_path, text):
    path = tmp_path / "r.json"
    path.write_text(text)
    with pytest.raises(errors.UsageError) as refused:
        zctrace.load(path)
    with pytest.raises(errors.UsageError) as by_report:
        saved.read(path)
    assert str(refused.value) == str(by_report.value)
    assert f"{path}: not a result of zctrace" in str(refused.value)


def test_every_column_is_documented(load):
    found = load(recorded_evidence("6.1"), traces("6.1")["cp"])
    general, *parts = re.split(
        r"\n``(runs|evidence|copies|flows)``: ", inspect.getdoc(frames.Frames)
    )
    documented = dict(zip(parts[::2], parts[1::2], strict=True))
    assert documented.keys() == {"runs", "evidence", "copies", "flows"}
    common = set(re.findall(r"``(\w+)``", general))
    for name, text in documented.items():
        wanted = set(getattr(found, name).columns)
        assert wanted <= common | set(re.findall(r"``(\w+)``", text)), name
