"""Whatever a saved result has become: it is shown, or one error says what is wrong with it."""

import copy
import io
import json

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as some
from rich.console import Console

from tests.conftest import HERE
from zctrace.analysis import frames, saved
from zctrace.analysis.comparison import pairing
from zctrace.errors import ZctraceError
from zctrace.reports import (
    comparison,
    comparison_data,
    flamegraph,
    machine_readable,
    markdown,
    program,
    program_data,
)
from zctrace.reports.html import page
from zctrace.reports.text import paper, runs

SHOWN = (
    ("read-write", "lo"), ("sendfile", "lo"),
    ("read-write", "e1000"), ("sendfile", "e1000-nosg"),
)  # fmt: skip
"""Runs of the recorded results that are mutated: of all, a page takes too long."""
FEW = settings(
    max_examples=40,
    deadline=None,
    derandomize=True,
    database=None,
    phases=(Phase.generate,),
    suppress_health_check=list(HealthCheck),
)


def recorded(name):
    """A result as ``--json`` writes it, of few runs or programs."""
    values = json.loads((HERE / "evidence" / f"{name}.json").read_text())
    found = [values] if "schema" in values else [values[key] for key in ("cp", "nginx")
                                                 if key in values]  # fmt: skip
    for evidence in found:
        evidence["runs"] = [
            run for run in evidence["runs"] if (run["strategy"], run["nic"]) in SHOWN
        ]
        for facts in ("functions", "calls", "callers", "members", "tracepoints"):
            evidence["kernel"].pop(facts, None)  # no report reads them
    return {"evidence": found}


NAMES = ("linux-5.10", "linux-6.1", "linux-7.3-e1000", "programs-6.1", "programs-7.3")
RECORDED = {name: recorded(name) for name in NAMES}
EXTREME = some.sampled_from(
    [0, 1, -1, 2**31, 2**63 - 1, 2**63, 10**400, 1.5, 1e308, 1e-320, float("nan"), float("inf")]
)
OTHER = some.one_of(
    some.none(), some.booleans(),
    some.sampled_from(["", "0", "é\x1b[31m\n", "\udcff", "lo", "read"]),
    some.just([]), some.just({}), some.just([[1]]), some.just({"bytes": 1}),
)  # fmt: skip
ACTIONS = some.sampled_from(["drop", "double", "retype", "nest", "extreme", "add", "rename"])


def nested(depth):
    value = []
    for _ in range(depth):
        value = [value]
    return value


def mutate(draw, values):
    """One part of the values, anywhere, is something else then."""
    inside, key = None, None
    part = values
    while isinstance(part, dict | list) and part:
        if inside is not None and draw(some.integers(0, 7)) == 0:
            break
        inside = part
        key = draw(
            some.sampled_from(list(part))
            if isinstance(part, dict)
            else some.integers(0, len(part) - 1)
        )
        part = part[key]
    if inside is None:
        return
    action = draw(ACTIONS)
    if action == "drop":
        del inside[key]
    elif action == "double":
        inside[key] = [part, part]
    elif action == "retype":
        inside[key] = copy.deepcopy(draw(OTHER))
    elif action == "nest":
        inside[key] = nested(draw(some.sampled_from([1, 50, 400])))
    elif action == "extreme":
        inside[key] = draw(EXTREME)
    elif isinstance(inside, dict):
        inside[draw(some.sampled_from(["surprise", "\udcff", "[...]"]))] = part
        if action == "rename":
            del inside[key]
    else:
        inside.append(part)


def everything(path, other):
    """All that is made of one file, and of it beside another result."""
    found = saved.read(path)
    console = Console(file=io.StringIO(), width=100)
    if found.runs:
        runs.render(found.runs, console)
        page.page(found.runs)
        markdown.document(found.runs)
        machine_readable.summary_csv(found.runs)
        machine_readable.evidence_csv(found.runs)
        machine_readable.result_json(found.runs)
    if found.programs:
        paper.show(program.report(found.programs), console)
        program_data.flows_csv(found.programs)
        program_data.result_json(found.programs)
        flamegraph.folded(found.programs)
        flamegraph.speedscope(found.programs)
    frames.load(path)
    for sides in ((found, other), (other, found)):
        result = pairing.compare(*sides)
        paper.show(comparison.report(result), console)
        comparison_data.differences_csv(result)
        comparison_data.differences_json(result)


@pytest.fixture(scope="module", params=NAMES)
def result(request, tmp_path_factory):
    """A name, and what was read of its file."""
    path = tmp_path_factory.mktemp("saved") / f"{request.param}.json"
    path.write_text(json.dumps(RECORDED[request.param]))
    return request.param, saved.read(path)


def test_what_is_mutated_can_be_shown(result):
    _, as_it_is = result
    everything(as_it_is.path, as_it_is)


def test_a_mutated_result_is_shown_or_refused(result, tmp_path):
    name, as_it_is = result
    path = tmp_path / "mutated.json"

    text = json.dumps(RECORDED[name])

    @FEW
    @given(some.data(), some.integers(1, 2))
    def attempt(data, times):
        values = json.loads(text)
        for _ in range(times):
            mutate(data.draw, values)
        path.write_text(json.dumps(values))
        told(path, as_it_is)

    attempt()


def told(path, other):
    """Everything of it is shown, or it is refused in words that are not Python's."""
    try:
        everything(path, other)
    except ZctraceError as refused:
        error = refused
    else:
        return
    assert error.what
    assert error.why
    assert error.hint
    for word in ("KeyError", "TypeError", "IndexError", "Traceback", "NoneType", "<class"):
        assert word not in f"{error.what} {error.why} {error.hint}"


@pytest.mark.parametrize(
    ("before", "after", "why"),
    [
        ('"pipe_max_bytes": 1048576', '"pipe_max_bytes": NaN', "NaN is no number"),
        ('"pipe_max_bytes": 1048576', '"pipe_max_bytes": -Infinity', "-Infinity is no number"),
        ('"pipe_max_bytes": 1048576', '"pipe_max_bytes": 1e999', "1e999 is no number"),
        ('{"evidence"', '{"evidence": [], "evidence"', "has two members 'evidence'"),
        ('"schema": 3', '"schema": 3, "schema": 2', "has two members 'schema'"),
    ],
)
def test_what_is_no_json_is_refused_where_no_form_looks(tmp_path, before, after, why):
    text = json.dumps(RECORDED["programs-6.1"])
    assert before in text
    path = tmp_path / "changed.json"
    path.write_text(text.replace(before, after))
    with pytest.raises(ZctraceError, match=f"not JSON: .*{why}"):
        saved.read(path)


def test_a_damaged_file_is_shown_or_refused(tmp_path):
    content = json.dumps(RECORDED["programs-6.1"]).encode()
    path = tmp_path / "damaged.json"
    path.write_bytes(content)
    as_it_is = saved.read(path)

    @FEW
    @given(some.data())
    def attempt(data):
        place = data.draw(some.integers(0, len(content)))
        added = data.draw(some.binary(max_size=3))
        rest = content[place + len(added) :] if data.draw(some.booleans()) else b""
        path.write_bytes(content[:place] + added + rest)
        told(path, as_it_is)

    attempt()
