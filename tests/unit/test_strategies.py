"""A strategy is a module and a row: nobody else has to be told of it."""

import dataclasses
import io
import json
from pathlib import Path

import pytest
from rich.console import Console

from tests.conftest import recorded_evidence
from tests.live.test_strategies import EVERYTHING
from tests.unit.altering import run_of
from zctrace.analysis import runs, saved
from zctrace.analysis.comparison import pairing
from zctrace.commands.choices import choose_strategies
from zctrace.reports import comparison, formats
from zctrace.reports.data_path import way
from zctrace.reports.formats import Of
from zctrace.reports.text import paper
from zctrace.reports.text import runs as terminal
from zctrace.workloads import __main__ as workload
from zctrace.workloads import catalogue
from zctrace.workloads.route import PASSED
from zctrace.workloads.strategies.sendfile import Sendfile
from zctrace.workloads.strategy import Ends, Strategy

FORMATS = [one for one in formats.FORMATS if one.of in (Of.RUN, Of.COMPARE)]
PLACES = {
    Ends.FILE_TO_SOCKET: ("page cache", "socket buffer"),
    Ends.FILE_TO_FILE: ("page cache", "page cache of the target"),
    Ends.SOCKET_TO_MEMORY: ("socket buffer", "user buffer"),
    Ends.SOCKET_TO_FILE: ("socket buffer", "page cache of the target"),
}


class Bare(Sendfile):
    """Says no more than it must."""

    name = "brand-new"
    summary = "brandnew(file, socket)"
    expected = Strategy.expected
    expected_without_gather = None
    route = ()


class Routed(Bare):
    route = (PASSED,)


@pytest.fixture(params=[Bare, Routed])
def strategy(monkeypatch, request):
    monkeypatch.setattr(catalogue, "STRATEGIES", (*catalogue.STRATEGIES, request.param()))
    return request.param


def judged(run_like="read-write"):
    """What another has done, as its own."""
    evidence = recorded_evidence("6.1")
    run = dataclasses.replace(run_of(evidence, run_like), strategy="brand-new")
    settings = tuple(
        dataclasses.replace(setting, strategies=("brand-new",))
        for setting in evidence.request.settings[:1]
    )
    request = dataclasses.replace(evidence.request, settings=settings)
    return runs.judge([dataclasses.replace(evidence, runs=(run,), request=request)])


@pytest.mark.parametrize("form", FORMATS, ids=lambda one: f"{one.of.value} {one.option}")
def test_every_format_shows_one_that_is_new(strategy, form):
    results = judged()
    if form.of is Of.COMPARE:
        before, after = (
            saved.Saved(Path(name), tuple(judged(like)))
            for name, like in (("a", "read-write"), ("b", "sendfile"))
        )
        results = pairing.compare(before, after)
    if (form.name, form.of) == ("svg", Of.COMPARE):
        assert form.files(results) == {}  # there are drawings of traces alone
    elif form.files:
        written = [str(part) for item in form.files(results).items() for part in item]
        assert any("brand-new" in text for text in written)
    else:
        assert "brand-new" in form.text(results)


def test_so_do_the_tables_in_the_terminal(strategy):
    console = Console(file=io.StringIO(), width=80)
    terminal.render(judged(), console)
    assert "brand-new" in console.file.getvalue()
    before, after = (
        saved.Saved(Path(name), tuple(judged(like)))
        for name, like in (("a", "read-write"), ("b", "sendfile"))
    )
    console = Console(file=io.StringIO(), width=80)
    paper.show(comparison.report(pairing.compare(before, after)), console)
    assert "brand-new" in console.file.getvalue()


def test_saved_results_of_it_can_be_read(strategy, tmp_path):
    (file := tmp_path / "r.json").write_text(formats.named("json", Of.RUN).text(judged()))
    assert [one.run.strategy for one in saved.read(file).runs] == ["brand-new"]


def test_what_was_counted_is_drawn_with_and_without_a_route(strategy):
    (copied,) = judged("read-write")
    arrows = {(a.start.value, a.end.value): a.bytes for a in way(copied).arrows}
    assert arrows["page cache", "user buffer"] == copied.run.payload_bytes
    assert arrows["user buffer", "socket buffer"] == copied.run.payload_bytes
    # What was handed over, only where it says so.
    (passed,) = judged("sendfile")
    drawn = ("page cache", "socket buffer") in {
        (a.start.value, a.end.value) for a in way(passed).arrows
    }
    assert drawn == (strategy is Routed)


def test_it_can_be_chosen_and_runs_alone(strategy, tmp_path, capsys):
    assert choose_strategies([], every=True)[-1] == "brand-new"
    (file := tmp_path / "payload").write_bytes(bytes(4099))
    assert workload.main(["brand-new", "--file", str(file)]) == 0
    assert json.loads(capsys.readouterr().out)["received"] == 4099


@pytest.mark.parametrize("strategy", catalogue.STRATEGIES, ids=lambda one: one.name)
def test_every_strategy_says_all_that_others_ask_of_it(strategy):
    where = f"{type(strategy).__module__}.{type(strategy).__name__}"
    for name in ("name", "summary", "paths", "route"):
        assert getattr(strategy, name, None), f"{where}: say its {name}"
    first, last = PLACES[strategy.ends]
    begin, end = strategy.route[0].start.value, strategy.route[-1].end.value
    assert begin in (first, "user buffer"), f"{where}: its route begins at {begin}"
    assert end == last, f"{where}: its route ends at {end}"
    for one, next_one in zip(strategy.route, strategy.route[1:], strict=False):
        assert one.end is next_one.start, f"{where}: its route has a gap at {one.end.value}"


def test_every_strategy_is_expected_to_copy_something_on_real_kernels():
    names = [strategy.name for strategy in catalogue.STRATEGIES]
    missing = [name for name in names if name not in EVERYTHING]
    assert not missing, (
        f"{', '.join(missing)}: say in EVERYTHING, in tests/live/test_strategies.py, how many "
        "bytes it copies"
    )
    assert list(EVERYTHING) == names
