"""Modules that are loaded after the kernel was looked at."""

import dataclasses
from types import SimpleNamespace

import pytest

from tests.conftest import recorded_evidence
from tests.unit.test_call_sites import BASE, MODULE, Kernel
from zctrace.collect import attached
from zctrace.collect.attached import Instrument, Survey
from zctrace.evidence.schema import Evidence
from zctrace.evidence.sites import Blind
from zctrace.kernel import later, remembered
from zctrace.kernel import text as kernel_text
from zctrace.kernel.facts import KernelFacts
from zctrace.kernel.later import Loading
from zctrace.kernel.text import TextError
from zctrace.plan.attachments import CallAttachment, Choice
from zctrace.plan.plan import plan
from zctrace.probes.catalogue import CATALOGUE
from zctrace.probes.model import (
    Call,
    CallTarget,
    Catalogue,
    Direction,
    Kind,
    Path,
    Quantity,
    Returned,
)

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
        monkeypatch.setattr(later, "live_text", lambda: self.text)
        self.text = None
        self.load()
        self.facts = KernelFacts("", "", "", "", frozenset(), calls={"copy": (AT_FIRST,)})
        choice = Choice.AUTO
        self.survey = Survey(
            ROWS, choice, self.facts, plan(ROWS, self.facts, choice), later.loadings()
        )

    def load(self, *names, again=(), calling=True, jumping=False):
        functions = {"caller": 0x100, "copy": 0x200}
        modules = [(n, {f"{n}_read": 0x80, "give": 0x100}) for n in names]
        k = Kernel(self._monkeypatch, self._folder, functions, modules=modules)
        k.text.close = lambda: None
        k.call("caller", 0x10, "copy")
        for number, name in enumerate(names):
            start = MODULE + number * 0x10000
            if calling:
                opcode = b"\xe9" if jumping else b"\xe8"
                k.text.branch(start + 0x90, BASE + 0x200, opcode)
                k.text.branch(start + 0xA0, start + 0x100, opcode)
            folder = self._folder / "sys" / name
            if name in again:
                folder.rename(self._folder / f"formerly {name}")
            folder.mkdir(parents=True, exist_ok=True)
        kernel_text.KALLSYMS.write_bytes(k.symbols._text)
        self.text = k.text


@pytest.fixture
def machine(monkeypatch, tmp_path):
    return Machine(monkeypatch, tmp_path)


def unseen(survey, *loaded, own_machine=True):
    return survey.unseen(loaded, own_machine=own_machine)


def calls(attachments):
    return {a.target.function: [call.name for call in a.calls] for a in attachments}


def test_without_another_module_nothing_is_searched(machine, monkeypatch):
    monkeypatch.setattr(later, "live_text", None)
    assert machine.survey.renewed() == (machine.survey, ())
    assert list(unseen(machine.survey)) == []


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
    assert list(unseen(survey)) == []
    survey, added = survey.renewed()
    assert added == ()
    assert calls(survey.plan.calls) == {"copy": ["caller+0x10"]}
    assert (survey.facts.callers, survey.facts.modules) == (frozenset(), frozenset())
    assert survey.plan.blind == machine.survey.plan.blind


def test_what_came_after_the_probes_is_no_zero(machine):
    machine.load("fuse", "xfs")
    found = {blind.functions: (blind.reason, blind.modules) for blind in unseen(machine.survey)}
    assert found == {
        ("copy",): (
            "modules fuse, xfs were loaded after the probes were attached: calls from "
            "fuse_read, xfs_read are not counted. To count them: --module fuse --module xfs",
            ("fuse", "xfs"),
        ),
        ("give",): (
            "module fuse was loaded after the probes were attached: calls from fuse_read are "
            "not counted. To count them: --module fuse",
            ("fuse",),
        ),
    }


def test_on_this_machine_a_module_stays_loaded(machine):
    machine.load("fuse")
    first, _ = unseen(machine.survey, own_machine=False)
    assert first.reason.endswith("To count them: measure again, now that it is loaded")


def test_not_every_caller_is_named():
    found = tuple(Call(at, f"caller_{at}.part.0", 0, "xfs") for at in range(5))
    blind = attached.uncounted(CallAttachment(0, COPY, found[:4], found[4:]), own_machine=True)
    assert ": calls from caller_0, caller_1, caller_2 and 2 more are not" in blind.reason


def test_a_module_that_is_still_there_is_one_thing_whoever_says_so(machine):
    machine.load("fuse")
    assert list(unseen(machine.survey, "fuse")) == list(unseen(machine.survey))


@pytest.mark.parametrize(
    ("own_machine", "remedy"), [(True, "--module brd"), (False, "modprobe brd, before")]
)
def test_a_module_that_came_and_went_is_no_zero(machine, own_machine, remedy):
    (blind,) = unseen(machine.survey, "brd", own_machine=own_machine)
    assert (blind.functions, blind.modules, blind.kind) == (("module brd",), ("brd",), "copy")
    assert blind.paths == frozenset(Path)
    assert blind.reason == (
        "it was loaded after the probes were attached, and has gone again: what it copied is "
        f"not known. To count it: {remedy}"
    )


def test_a_module_without_a_call_is_no_doubt(machine):
    machine.load("silent", calling=False)
    survey, added = machine.survey.renewed()
    assert (survey.loadings, added) == (later.loadings(), ())
    assert list(unseen(machine.survey, "silent")) == []


def test_a_call_that_cannot_be_probed_is_no_zero(machine):
    machine.load("fuse", jumping=True)
    found = {blind.functions: blind.modules for blind in unseen(machine.survey)}
    assert found == {("copy",): ("fuse",), ("give",): ("fuse",)}


def test_a_module_that_copies_by_instructions_is_no_zero(machine):
    """Its row's callers are there, and call nothing: that is said of it in any case."""
    machine.load("fuse", calling=False)
    (blind,) = unseen(machine.survey)
    assert (blind.functions, blind.modules) == (("give",), ())
    assert blind.reason == "no call of it was found in fuse_read"
    survey, _ = machine.survey.renewed()
    assert list(unseen(survey)) == []
    assert blind in survey.plan.blind


def test_what_else_is_not_watched_is_said_after_a_module_came_as_before(machine):
    other = Blind(Quantity.SYSCALL_ENTER, ("calls",), "", frozenset(), Kind.COPY)
    blind = (*machine.survey.plan.blind, other)
    whole = dataclasses.replace(machine.survey.plan, blind=blind)
    survey = dataclasses.replace(machine.survey, plan=whole)
    machine.load("fuse")
    renewed, _ = survey.renewed()
    assert other in renewed.plan.blind


def test_a_module_that_cannot_be_searched_is_no_zero(machine, monkeypatch):
    def locked():
        raise TextError("/proc/kcore: locked")

    monkeypatch.setattr(later, "live_text", locked)
    machine.load("fuse")
    (blind,) = unseen(machine.survey)
    assert blind.reason == "modules were loaded that cannot be searched: /proc/kcore: locked"


def test_of_a_kernel_that_was_never_searched_it_is_said_elsewhere(machine):
    facts = dataclasses.replace(machine.facts, text="/proc/kcore: locked")
    survey = dataclasses.replace(machine.survey, facts=facts)
    machine.load("fuse")
    assert list(unseen(survey)) == []


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
    assert list(unseen(instrument.survey)) == []


def test_evidence_has_what_was_loaded_too_late(machine, monkeypatch):
    @dataclasses.dataclass
    class Said:
        blind: tuple

    monkeypatch.setattr(attached, "evidence_of", lambda *_, **__: Said(("first",)))
    meter = SimpleNamespace(refused={}, modules_loaded=lambda: {"fuse", "brd"})
    instrument = Instrument(meter, None, machine.survey, "")
    machine.load("fuse")
    first, *others = instrument.evidence(SimpleNamespace(machine="host"), None).blind
    assert first == "first"
    assert [blind.functions for blind in others] == [("copy",), ("give",), ("module brd",)]
    assert [blind.reason.rpartition(": ")[2] for blind in others] == [
        "measure again, now that it is loaded",
        "measure again, now that it is loaded",
        "modprobe brd, before",
    ]


def test_late_modules_survive_being_written_and_read():
    saved = recorded_evidence("6.1").to_json()
    for blind in saved["blind"]:
        blind.pop("modules", None)
    read = Evidence.from_json(saved)
    assert {blind.modules for blind in read.blind} <= {()}
    blind = Blind(Quantity.MEMORY_COPY, ("memcpy",), "late", frozenset(), Kind.COPY, ("sctp",))
    again = Evidence.from_json(dataclasses.replace(read, blind=(blind,)).to_json())
    assert again.blind == (blind,)


def test_each_loading_is_told_from_others(machine):
    machine.load("fuse", "xfs")
    names = sorted((loading.name, loading.start) for loading in later.loadings())
    assert names == [("fuse", MODULE), ("xfs", MODULE + 0x10000)]
    assert all(isinstance(loading, Loading) and loading.inode for loading in later.loadings())
