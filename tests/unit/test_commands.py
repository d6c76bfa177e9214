"""Every command runs to its end, on what was recorded instead of a kernel."""

import json
import subprocess
import sys
from contextlib import nullcontext

import pytest
from typer.testing import CliRunner

from tests.conftest import HERE, recorded_evidence, recorded_kernel
from zctrace import cli, errors
from zctrace.collect import strategies
from zctrace.commands import common, kernels, run, serve, trace
from zctrace.evidence.schema import Evidence
from zctrace.machine import job, program_job
from zctrace.machine.kernels import Kernel
from zctrace.machine.places import Place
from zctrace.plan.plan import plan
from zctrace.probes.catalogue import CATALOGUE

PROGRAMS = HERE / "evidence" / "programs-6.1.json"
COMMANDS = {
    "run": ["run", "--kernel", "6.1"],
    "trace": ["trace", "--kernel", "6.1", "cp", "a", "b"],
    "check": ["check", "--kernel", "6.1", "--max-copies", "9", "cp", "a", "b"],
    "serve": ["serve", "--kernel", "6.1", "true"],
    "strategies": ["strategies"],
    "plan": ["plan", "--kernel", "6.1"],
    "doctor": ["doctor"],
    "report": ["report", "RUN"],
    "compare": ["compare", "RUN", "RUN"],
    "kernels": ["kernels"],
    "kernels fetch": ["kernels", "fetch", "6.1"],
    "kernels rm": ["kernels", "rm", "6.1"],
}
"""By command; RUN is a saved result."""


def commands():
    found = [command.name for command in cli.app.registered_commands]
    for group in cli.app.registered_groups:
        found.append(group.name)
        found += [f"{group.name} {c.name}" for c in group.typer_instance.registered_commands]
    return found


@pytest.fixture
def asked(monkeypatch, tmp_path):
    """What the command line asks of the rest; a kernel and what it shows are recorded."""
    asked = []
    programs = json.loads(PROGRAMS.read_text())
    kernel = Kernel("6.1.0-56-amd64", tmp_path / "vmlinuz", "cache", "6.1.192-2", stock=True)

    def collect(place, options, say, *_):
        asked.append(options)
        return recorded_evidence("6.1")

    def traced(place, wanted, say, show):
        asked.append(wanted)
        return Evidence.from_json(programs["cp"])

    def served(place, wanted, say):
        asked.append(wanted)
        return 7

    monkeypatch.setattr(job, "collect", collect)
    monkeypatch.setattr(program_job, "trace", traced)
    monkeypatch.setattr(program_job, "serve", served)
    monkeypatch.setattr(common, "require_root", lambda why: None)
    monkeypatch.setattr(common.machine_places, "require_modules", lambda: None)
    monkeypatch.setattr(common.machine_places, "find_place", lambda name, say: Place(kernel))
    monkeypatch.setattr(kernels.kernels, "fetch", lambda name, say: kernel)
    monkeypatch.setattr(kernels.kernels, "remove", lambda name: [kernel])
    monkeypatch.setattr(kernels.kernels, "cached", lambda: [kernel])
    for module in (run, serve, trace):
        assert module.require_collector is common.require_collector
    return asked


@pytest.fixture
def invoke(asked, tmp_path):
    saved = tmp_path / "run.json"
    saved.write_text(json.dumps({"evidence": [recorded_evidence("6.1").to_json()]}))

    def invoked(*arguments):
        words = [str(saved) if word == "RUN" else str(word) for word in arguments]
        return CliRunner().invoke(cli.app, words)

    return invoked


def test_every_command_is_run_here():
    assert sorted(COMMANDS) == sorted(commands())


@pytest.mark.parametrize("name", COMMANDS)
def test_it_runs(invoke, name):
    result = invoke(*COMMANDS[name])
    assert result.exception is None, result.exception
    assert result.exit_code == 0
    assert result.stdout or name in ("serve", "kernels rm"), name


@pytest.mark.parametrize("name", COMMANDS)
def test_its_help_names_all_of_its_options(invoke, name):
    words = [word for word in COMMANDS[name] if word in name.split()]
    result = invoke(*words, "--help")
    assert result.exit_code == 0
    assert f"{name} " in result.stdout


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["grep", "-q", "root", "F"], ["grep", "-q", "root", "F"]),
        (["psql", "--user", "me"], ["psql", "--user", "me"]),
        (["ls", "-l"], ["ls", "-l"]),
        (["--", "ls", "-l"], ["ls", "-l"]),
        (["env", "--", "ls"], ["env", "--", "ls"]),
        (["ls", "--kernel", "7.3", "-p", "1"], ["ls", "--kernel", "7.3", "-p", "1"]),
    ],
)
@pytest.mark.parametrize("command", ["trace", "check", "serve"])
def test_what_follows_the_command_is_its_own(
    invoke, asked, monkeypatch, command, words, expected
):
    monkeypatch.setattr(common.shutil, "which", lambda name: name)
    options = ["--max-copies", "9"] if command == "check" else []
    result = invoke(command, *options, "--kernel", "6.1", *words)
    assert result.exception is None, result.exception
    (wanted,) = asked
    assert list(wanted.subject.command) == expected
    assert wanted.user == ""


def test_a_plan_needs_no_rights_of_strategies(monkeypatch):
    """What the collector does that is only to plan, up to its evidence."""
    facts = recorded_kernel("6.1")
    request = recorded_evidence("6.1").request
    request = type(request)(**{**vars(request), "plan_only": True, "images": {}})
    monkeypatch.setattr(strategies, "survey", lambda *_: (facts, plan(CATALOGUE, facts)))
    monkeypatch.setattr(strategies.payload, "mounted", lambda request: nullcontext({}))
    evidence = strategies.collect(request, lambda step: None)
    assert json.loads(json.dumps(evidence.to_json()))["runs"] == []
    assert {site.function for site in evidence.sites} >= {"skb_copy_bits"}


@pytest.mark.parametrize("option", ["--keep", "--boot-timeout"])
def test_hints_name_options_that_the_command_has(invoke, option):
    """What a machine that does not boot is told to try."""
    for name in ("run", "trace", "check", "serve", "plan"):
        assert option in invoke(name, "--help").stdout, name


def test_a_plan_as_json_is_alone_on_standard_output(invoke):
    result = invoke("plan", "--kernel", "6.1", "--json", "-")
    assert json.loads(result.stdout)["kernel"]["release"] == "6.1.0-56-amd64"


def test_no_result_goes_to_two_outputs(invoke, tmp_path):
    (tmp_path / "out").mkdir()
    result = invoke(
        "run", "--csv", tmp_path / "same", "--json", tmp_path / "out" / ".." / "same"
    )
    assert isinstance(result.exception, errors.OutputError)


def test_a_page_to_standard_output_by_its_name(tmp_path):
    """/dev/stdout stays what it is, and the page is alone there."""
    saved = tmp_path / "run.json"
    saved.write_text(json.dumps({"evidence": [recorded_evidence("6.1").to_json()]}))
    command = [sys.executable, "-m", "zctrace", "report", saved, "--force"]
    page = subprocess.run(
        [*command, "--markdown", "/dev/stdout"], capture_output=True, text=True, check=True
    )
    dashed = subprocess.run([*command, "--markdown", "-"], capture_output=True, text=True)
    assert page.stdout == dashed.stdout != ""
