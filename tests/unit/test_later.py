"""Modules that are loaded after the kernel was looked at."""

import dataclasses
from types import SimpleNamespace

import pytest

from tests.unit.test_call_sites import BASE, MODULE, Kernel
from zctrace.collect import attached
from zctrace.collect.attached import Instrument, Survey
from zctrace.kernel import later, remembered
from zctrace.kernel import text as kernel_text
from zctrace.kernel.facts import KernelFacts
from zctrace.kernel.later import Loading
from zctrace.kernel.text import TextError
from zctrace.plan.attachments import Choice
from zctrace.plan.plan import plan
from zctrace.probes.catalogue import CATALOGUE
from zctrace.probes.model import Call, CallTarget, Catalogue, Direction, Quantity, Returned

COPY, OWN = (
    CallTarget(
        quantity=Quantity.MEMORY_COPY,
        function=function,
        direction=Direction.KERNEL_TO_KERNEL,
        returned=Returned.COPIED,
        why="",
        since="",
        callers=callers,
        module=module,
    )
    for function, callers, module in (
        ("copy", (), ""),
        ("give", ("fuse_read",), "fuse"),
    )
)
ROWS = Catalogue((), (COPY, OWN), tuple(CATALOGUE.hooks), ())
AT_FIRST = Call(BASE + 0x110, "caller", 0x10)


class Machine:
    """A kernel whose function ''copy'' is called by itself and by each of its modules."""

    def __init__(self, monkeypatch, tmp_path):
        self._monkeypatch, self._folder = monkeypatch, tmp_path
        monkeypatch.setattr(remembered, "SYS_MODULES", tmp_path / "sys")
        monkeypatch.setattr(kernel_text, "KALLSYMS", tmp_path / "kallsyms")
        monkeypatch.setattr(later, "LiveText", lambda: self.text)
        self.text = None
        self.load()
        self.facts = KernelFacts("", "", "", "", frozenset(), calls={"copy": (AT_FIRST,)})
        choice = Choice.AUTO
        self.survey = Survey(
            ROWS, choice, self.facts, plan(ROWS, self.facts, choice), later.loadings()
        )

    def load(self, *names, again=()):
        functions = {"caller": 0x100, "copy": 0x200}
        modules = [(n, {f"{n}_read": 0x80, "give": 0x100}) for n in names]
        k = Kernel(self._monkeypatch, self._folder, functions, modules=modules)
        k.text.close = lambda: None
        k.call("caller", 0x10, "copy")
        for number, name in enumerate(names):
            start = MODULE + number * 0x10000
            k.text.branch(start + 0x90, BASE + 0x200)
            k.text.branch(start + 0xA0, start + 0x100)
            folder = self._folder / "sys" / name
            if name in again:
                folder.rename(self._folder / f"formerly {name}")
            folder.mkdir(parents=True, exist_ok=True)
        kernel_text.KALLSYMS.write_bytes(k.symbols._text)
        self.text = k.text


@pytest.fixture
def machine(monkeypatch, tmp_path):
    return Machine(monkeypatch, tmp_path)


def calls(attachments):
    return {a.target.function: [call.name for call in a.calls] for a in attachments}


def test_without_another_module_nothing_is_searched(machine, monkeypatch):
    monkeypatch.setattr(later, "LiveText", None)
    assert machine.survey.renewed() == (machine.survey, ())
    assert list(machine.survey.unseen()) == []


def test_what_a_module_brings_is_planned(machine):
    machine.load("fuse")
    survey, added = machine.survey.renewed()
    assert calls(added) == {"copy": ["fuse_read+0x10"], "give": ["fuse_read+0x20"]}
    assert [attachment.number for attachment in added] == [0, 1]
    assert calls(survey.plan.calls) == {
        "copy": ["caller+0x10", "fuse_read+0x10"],
        "give": ["fuse_read+0x20"],
    }
    assert survey.facts.callers == {"fuse_read"}
    assert survey.facts.modules == {"fuse"}
    assert survey.renewed() == (survey, ())


def test_a_module_that_is_loaded_again_is_another_one(machine):
    """At the same address, even: its probes are gone."""
    machine.load("fuse")
    survey, _ = machine.survey.renewed()
    machine.load("fuse", again=["fuse"])
    again, added = survey.renewed()
    assert calls(added) == {"copy": ["fuse_read+0x10"], "give": ["fuse_read+0x20"]}
    assert calls(again.plan.calls) == calls(survey.plan.calls)


def test_what_is_in_a_module_that_has_gone_is_planned_no_more(machine):
    machine.load("fuse", "xfs")
    survey, _ = machine.survey.renewed()
    machine.load()
    survey, added = survey.renewed()
    assert added == ()
    assert calls(survey.plan.calls) == {"copy": ["caller+0x10"]}


def test_what_came_after_the_probes_is_no_zero(machine):
    machine.load("fuse", "xfs")
    found = {blind.functions: blind.reason for blind in machine.survey.unseen()}
    assert found == {
        ("copy",): "fuse, xfs: loaded after the probes were attached; measure again, it will "
        "be watched",
        ("give",): "fuse: loaded after the probes were attached; measure again, it will be "
        "watched",
    }


def test_a_module_that_cannot_be_searched_is_no_zero(machine, monkeypatch):
    def locked():
        raise TextError("/proc/kcore: locked")

    monkeypatch.setattr(later, "LiveText", locked)
    machine.load("fuse")
    (blind,) = machine.survey.unseen()
    assert blind.reason == "modules were loaded that cannot be searched: /proc/kcore: locked"


def test_of_a_kernel_that_was_never_searched_it_is_said_elsewhere(machine):
    facts = dataclasses.replace(machine.facts, text="/proc/kcore: locked")
    survey = dataclasses.replace(machine.survey, facts=facts)
    machine.load("fuse")
    assert list(survey.unseen()) == []


def test_a_renewed_instrument_has_the_module_watched_and_says_so(machine, monkeypatch):
    extended = []
    meter = SimpleNamespace(extend=lambda plan, added: extended.append((plan, calls(added))))
    instrument = Instrument(meter, None, machine.survey, "")
    instrument.renew()
    assert extended == []
    machine.load("fuse")
    instrument.renew()
    ((extended_plan, added),) = extended
    assert extended_plan is instrument.survey.plan
    assert added == {"copy": ["fuse_read+0x10"], "give": ["fuse_read+0x20"]}
    assert list(instrument.survey.unseen()) == []


def test_evidence_has_what_was_loaded_too_late(machine, monkeypatch):
    @dataclasses.dataclass
    class Said:
        blind: tuple

    monkeypatch.setattr(attached, "evidence_of", lambda *_, **__: Said(("first",)))
    instrument = Instrument(SimpleNamespace(refused={}), None, machine.survey, "")
    machine.load("fuse")
    first, *others = instrument.evidence(None, None).blind
    assert first == "first"
    assert [blind.functions for blind in others] == [("copy",), ("give",)]


def test_each_loading_is_told_from_others(machine):
    machine.load("fuse", "xfs")
    names = sorted((loading.name, loading.start) for loading in later.loadings())
    assert names == [("fuse", MODULE), ("xfs", MODULE + 0x10000)]
    assert all(isinstance(loading, Loading) and loading.inode for loading in later.loadings())
