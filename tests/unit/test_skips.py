"""Whether a kernel tells of skipped programs, and what follows where it does not."""

import dataclasses
from types import SimpleNamespace

import pytest

from tests.conftest import recorded_kernel
from tests.unit.altering import run_of
from tests.unit.test_call_sites import BASE, Text
from zctrace.analysis import controls, runs
from zctrace.collect import meter
from zctrace.evidence.schema import SKIPPED
from zctrace.kernel import facts as kernel
from zctrace.kernel import symbols as call_sites
from zctrace.kernel import text as kernel_text
from zctrace.kernel import text_facts
from zctrace.kernel.text import Symbol, TextError
from zctrace.plan.plan import plan
from zctrace.probes.catalogue import CATALOGUE
from zctrace.probes.model import Catalogue
from zctrace.reports import wording

RUNS, COUNTS, OTHER = 0x100, 0x200, 0x300
"""Where functions begin: what runs programs, what counts skips, and another."""


@pytest.fixture
def observed(monkeypatch, tmp_path):
    """What is found on a kernel of three functions, one of which calls the counting one."""

    def observe(caller, *, counts="bpf_prog_inc_misses_counter", locked=False):
        text = Text((BASE, 0x1000))
        for at in (RUNS, COUNTS, OTHER):
            text.write(BASE + at, b"\x0f\x1f\x44\x00\x00")
        if caller:
            text.branch(BASE + caller + 0x20, BASE + COUNTS)
        text.close = lambda: None
        symbols = [
            *((0, "T _stext"), (RUNS, "T trace_call_bpf"), (COUNTS, f"T {counts}")),
            *((OTHER, "T __bpf_prog_enter_recur"), (0x1000, "T _etext")),
        ]
        kallsyms = "".join(f"{BASE + at:016x} {name}\n" for at, name in symbols).encode()

        def live_text():
            if locked:
                raise TextError("/proc/kcore: Operation not permitted")
            return text

        (tmp_path / "modules").touch()
        monkeypatch.setattr(call_sites, "_MODULES", tmp_path / "modules")
        (tmp_path / "kallsyms").write_bytes(kallsyms)
        monkeypatch.setattr(kernel_text, "KALLSYMS", tmp_path / "kallsyms")
        monkeypatch.setattr(
            kernel_text, "find_symbols", lambda *_: {"trace_call_bpf": Symbol(0, 0)}
        )
        monkeypatch.setattr(text_facts, "live_text", live_text)
        return kernel.observe(Catalogue((), (), (), ()))

    return observe


def test_a_kernel_that_counts_skips_tells(observed):
    facts = observed(RUNS)
    assert facts.tells_skips
    # It is no copy.
    assert facts.calls == {}


@pytest.mark.parametrize("caller", [None, OTHER])
def test_one_that_counts_only_others_does_not(observed, caller):
    assert not observed(caller).tells_skips


def test_one_that_counts_nothing_does_not(observed):
    assert not observed(RUNS, counts="something_else").tells_skips


def test_where_the_text_is_locked_it_is_not_known(observed):
    facts = observed(RUNS, locked=True)
    assert not facts.tells_skips
    assert facts.text


@pytest.mark.parametrize(
    ("line", "tells"), [("5.10", False), ("6.1", False), ("6.12", True), ("7.3", True)]
)
def test_recorded_kernels(line, tells):
    facts = recorded_kernel(line)
    assert facts.tells_skips == plan(CATALOGUE, facts).tells_skips == tells


@pytest.fixture
def skipped(monkeypatch):
    """What a meter says was skipped, of programs that all have the figure."""
    monkeypatch.setattr(meter.bpf_syscall, "recursion_misses", lambda program: program)
    return lambda tells, **programs: meter.Meter.skipped(
        SimpleNamespace(_plan=SimpleNamespace(tells_skips=tells), _programs=programs)
    )


def test_skips_are_read_where_the_kernel_tells(skipped):
    programs = {"on_call": 3, "on_kprobe_0": 0, "on_fentry_1": 2, "on_breakpoint_0": 0}
    always = {"on_fentry_1-skipped": 2}
    probes = {"on_call-skipped": 3, "on_kprobe_0-skipped": 0}
    assert skipped(True, **programs) == probes | always
    assert skipped(False, **programs) == always


def untold(evidence):
    """As a kernel gives it that does not tell."""
    return dataclasses.replace(
        evidence,
        runs=tuple(
            dataclasses.replace(
                run, lost={c: n for c, n in run.lost.items() if not c.endswith(SKIPPED)}
            )
            for run in evidence.runs
        ),
    )


def test_what_is_not_told_is_no_control(evidence):
    def losses(evidence):
        run = run_of(evidence, "sendfile")
        names = {c.name for c in controls.check(evidence, run)}
        return {name for name in names if name.startswith("nothing lost: ")}

    probes = {"nothing lost: on_call-skipped", "nothing lost: on_kprobe_0-skipped"}
    assert losses(evidence) & probes == (probes if evidence.kernel["tells_skips"] else set())
    assert "nothing lost: on_fentry_merge-skipped" in losses(evidence)
    assert losses(untold(evidence)) == {
        f"nothing lost: {cause}"
        for cause in (
            *("call", "cpus-unwatched", "mapping", "owner", "part", "request", "syscall"),
            *("tally", "window"),
        )
    }


def test_the_report_says_what_is_not_told(evidence):
    def said(evidence):
        lines = wording.coverage(evidence, runs.judge([evidence]))
        return [line.text for line in lines if line.text.startswith("This kernel does not")]

    def called(run):
        return dataclasses.replace(run, lost={**run.lost, "on_fentry_1-skipped": 0})

    more = untold(evidence)
    more = dataclasses.replace(more, runs=tuple(map(called, more.runs)))
    untold_so = [
        "This kernel does not report probe hits skipped during interrupts (Linux 6.7 and later "
        "do), so missed events cannot be ruled out."
    ]
    assert said(evidence) == ([] if evidence.kernel["tells_skips"] else untold_so)
    assert said(more) == said(untold(evidence)) == untold_so
