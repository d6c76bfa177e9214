"""Every command, run by the real command line; only what collects and boots is faked."""

import dataclasses
import inspect
import json
import os
import signal
import sys
import typing
from contextlib import nullcontext
from pathlib import Path

import pytest
import typer

from tests.conftest import HERE, KERNELS, recorded_evidence, recorded_kernel
from tests.unit.test_kernels import FakeArchive, put
from zctrace import cli, errors, trust
from zctrace.collect import cgroups, obstacles, payload, program, strategies, windows
from zctrace.evidence.schema import Request
from zctrace.kernel import facts as kernel
from zctrace.kernel import remembered
from zctrace.machine import (
    collector_process,
    images,
    kernels,
    modules,
    own_origin,
    places,
    qemu,
    staging,
)
from zctrace.machine.debian_archive import StockKernel

PROGRAMS = json.loads((HERE / "evidence" / "programs-6.1.json").read_text())
RELEASE = recorded_evidence("6.1").kernel["release"]
STATUS = 3


class FakeCollector:
    """Answers with recorded evidence; ``requests`` are those that it got."""

    def __init__(self):
        self.requests = []

    def answered(self, request, guest, run_folder, code, say, *_, **__):
        request = Request.from_json(json.loads(json.dumps(dataclasses.asdict(request))))
        self.requests.append(request)
        say("collecting")
        return self.answer(request, say), 1.0

    def answer(self, request, say):
        if request.plan_only:
            return json.loads(json.dumps(strategies.collect(request, say).to_json()))
        if request.subject is None:
            return recorded_evidence("6.1").to_json()
        if request.subject.marked:
            return {"status": STATUS}
        return PROGRAMS["cp"]


@pytest.fixture
def collector(monkeypatch, tmp_path):
    return fake_collector(monkeypatch, tmp_path)


def fake_collector(monkeypatch, folder):
    """A machine whose own kernel, the recorded 6.1, can be measured, by a fake collector."""
    fake = FakeCollector()
    monkeypatch.setattr(collector_process, "answered", fake.answered)
    monkeypatch.setattr(payload, "mounted", lambda _: nullcontext({}))
    monkeypatch.setattr(staging, "stage", lambda folder, *_: folder)
    monkeypatch.setattr(images, "make_image", lambda *_: None)
    monkeypatch.setattr(places, "has_module", lambda _: True)
    monkeypatch.setattr(places, "ARCHITECTURE", os.uname().machine)
    monkeypatch.setattr(kernel, "observe", lambda *_: recorded_kernel("6.1"))
    monkeypatch.setattr(obstacles, "of_machine", lambda *_, **__: ())
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    for name in ("SUDO_UID", "SUDO_GID", "SUDO_USER"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("ZCTRACE_CACHE", str(folder / "cache"))
    monkeypatch.chdir(folder)
    return fake


@pytest.fixture
def zctrace(monkeypatch, capfd):
    """What ``zctrace`` with some arguments prints and ends in."""
    handlers = {number: signal.getsignal(number) for number in (signal.SIGPIPE, signal.SIGTERM)}

    def run(*arguments):
        monkeypatch.setattr(sys, "argv", ["zctrace", *map(str, arguments)])
        with pytest.raises(SystemExit) as caught:
            cli.main()
        return caught.value.code, *capfd.readouterr()

    yield run
    for number, handler in handlers.items():
        signal.signal(number, handler)


def registered(group=None, path=()):
    """Every command of the command line, by its words; a group that does something, too."""
    group = group or typer.main.get_command(cli.app)
    for name, command in group.commands.items():
        words = (*path, name)
        if not hasattr(command, "commands"):
            yield " ".join(words), command
            continue
        if command.invoke_without_command:
            yield " ".join(words), command
        yield from registered(command, words)


WRITTEN = {"csv", "evidence", "json", "html", "markdown", "folded", "speedscope"}


def named(command):
    return {option.name for option in command.params}


INVOCATIONS = {
    "run": (["run", "sendfile"], 0, f"Linux {RELEASE}"),
    "trace": (["trace", "cp", "a", "b"], PROGRAMS["cp"]["trace"]["status"], "zero-copy"),
    "check": (["check", "cp", "a", "b"], errors.LimitError.exit_code, "zero-copy"),
    "serve": (["serve", "true"], STATUS, ""),
    "metrics": (
        ["metrics", "--port", "0", "cp", "a", "b"],
        PROGRAMS["cp"]["trace"]["status"],
        "",
    ),
    "strategies": (["strategies"], 0, "sendfile(socket, file)"),
    "plan": (["plan"], 0, "Events, by tracepoint: "),
    "doctor": (["doctor"], 0, "zctrace run works here, on this machine's kernel."),
    "report": (["report", "run.json"], 0, f"Linux {RELEASE}"),
    "example": (["example", "textbook"], 0, "Linux 5.10"),
    "compare": (["compare", "run.json", "run.json"], 0, "Nothing changed"),
    "kernels": (["kernels"], 0, "6.1.0-56-amd64"),
    "kernels fetch": (["kernels", "fetch", "6.1"], 0, "vmlinuz-6.1.0-56-amd64"),
    "kernels rm": (["kernels", "rm", "6.1.0-56-amd64"], 0, "removed 6.1.0-56-amd64"),
}
"""Of each command: arguments, the exit status, and something that is printed then."""


@pytest.fixture
def installed(collector, monkeypatch, tmp_path):
    install(monkeypatch, tmp_path)
    return collector


def install(monkeypatch, folder):
    """All that any command looks for: programs, a fetched kernel, an archive, a result."""
    tools = folder / "tools"
    tools.mkdir()
    for tool in ("mkfs.ext4", "ip", "ethtool"):
        (tools / tool).write_text("#!/bin/true\n")
        (tools / tool).chmod(0o755)
    monkeypatch.setattr(trust, "SYSTEM_PATH", str(tools))
    monkeypatch.setattr(qemu, "missing", list)
    put(folder / "cache", "6.1.0-56-amd64", "6.1.192-2", stock=True)
    offered = StockKernel("6.1.0-56-amd64", "6.1.192-2", (), 1)
    monkeypatch.setattr(kernels, "all_releases", lambda _: FakeArchive(offered))
    result = {"evidence": [recorded_evidence("6.1").to_json()]}
    (folder / "run.json").write_text(json.dumps(result))


def test_every_command_is_run_here():
    """But for the one that needs a terminal: tests/live/test_top.py."""
    assert {*INVOCATIONS, "top"} == {name for name, _ in registered()}


@pytest.mark.parametrize("name", INVOCATIONS)
def test_the_command_does_its_work(installed, zctrace, name):
    arguments, status, said = INVOCATIONS[name]
    code, printed, complaint = zctrace(*arguments)
    assert code == status, complaint
    assert said in printed
    assert "Traceback" not in complaint


@pytest.mark.parametrize("line", KERNELS)
def test_a_plan_is_shown_and_written_for_every_kernel(
    installed, zctrace, monkeypatch, tmp_path, line
):
    facts = recorded_kernel(line)
    monkeypatch.setattr(kernel, "observe", lambda *_: facts)
    code, printed, complaint = zctrace("plan", "--kernel", "host", "--json", "plan.json")
    assert code == 0, complaint
    assert printed.startswith(f"Linux {facts.release} on ")
    written = json.loads((tmp_path / "plan.json").read_text())
    assert written["kernel"] == json.loads(json.dumps(facts.to_json()))
    assert "_copy_to_iter" in {site["function"] for site in written["sites"]}


@pytest.mark.parametrize(
    ("name", "command"), [(n, c) for n, c in registered() if "kernel" in named(c)]
)
def test_a_command_that_boots_has_the_options_that_its_errors_name(name, command):
    """A guest that does not boot, and a kernel that refuses, are reasons for these hints."""
    assert {"keep", "boot_timeout", "mechanism"} <= named(command)


@pytest.mark.parametrize(
    ("name", "command"), [(n, c) for n, c in registered() if named(c) & WRITTEN]
)
def test_a_command_that_writes_files_has_the_option_to_overwrite_them(name, command):
    assert "force" in named(command)


@pytest.mark.parametrize("command", ["trace", "check", "serve"])
@pytest.mark.parametrize(
    ("words", "traced"),
    [
        (["grep", "-q", "root", "F"], None),
        (["env", "--user", "nobody"], None),
        (["env", "--user=nobody"], None),
        (["ls", "-l"], None),
        (["ls", "--help"], None),
        (["ls", "--kernel", "5.10", "--no-such-option"], None),
        (["ls", "--", "-l"], None),
        (["--", "ls", "-l"], ["ls", "-l"]),
        (["-q", "ls", "-q"], ["ls", "-q"]),
        (["-q", "--", "ls", "--", "-q"], ["ls", "--", "-q"]),
        (["--user", "nobody", "ls", "--user", "root"], ["ls", "--user", "root"]),
    ],
)
def test_options_after_the_first_word_are_the_command_s(
    collector, zctrace, command, words, traced
):
    limit = ["--max-copies", "9"] if command == "check" else []
    _, _, complaint = zctrace(command, *limit, *words)
    (request,) = collector.requests
    assert list(request.subject.command) == (traced or words), complaint
    assert request.user == ("nobody" if words[0] == "--user" else cgroups.caller("")[3])


def test_options_without_a_command_may_be_in_any_order(collector, zctrace):
    own = os.getppid()
    zctrace("trace", "-d", "5", "-p", own, "--pid", "1", "-q")
    (request,) = collector.requests
    assert (request.subject.pids, request.subject.seconds) == ((own, 1), 5)
    assert request.subject.command == ()


MODULES = {
    "run": ("run", "sendfile"),
    "trace": ("trace",),
    "check": ("check",),
    "serve": ("serve",),
}


@pytest.mark.parametrize("name", MODULES)
def test_modules_are_asked_for_by_name(installed, zctrace, monkeypatch, tmp_path, name):
    (tmp_path / "sys" / "tls").mkdir(parents=True)
    (tmp_path / "sys" / "vmw_vsock").mkdir()
    monkeypatch.setattr(remembered, "SYS_MODULES", tmp_path / "sys")
    command = () if name == "run" else ("true",)
    zctrace(*MODULES[name], "--module", "vmw-vsock", "--module", "tls", *command)
    (request,) = installed.requests
    assert request.modules == ("vmw_vsock", "tls")


@pytest.mark.parametrize("name", MODULES)
@pytest.mark.parametrize("kernel", ["host", "6.1.0-56-amd64"])
def test_a_module_that_there_is_not_ends_before_anything_begins(
    installed, zctrace, monkeypatch, tmp_path, name, kernel
):
    folder = tmp_path / "cache" / "kernels" / RELEASE / "lib" / "modules" / RELEASE
    for each in (folder, tmp_path / os.uname().release):
        each.mkdir(parents=True, exist_ok=True)
        (each / "modules.dep").write_text("kernel/net/tls/tls.ko:\n")
        (each / "modules.builtin").write_text("kernel/fs/fuse/fuse.ko\n")
    monkeypatch.setattr(remembered, "SYS_MODULES", tmp_path / "sys")
    monkeypatch.setattr(modules, "_INSTALLED", tmp_path)
    command = () if name == "run" else ("true",)
    code, printed, complaint = zctrace(
        *MODULES[name], "--kernel", kernel, "--module", "tsl", *command
    )
    assert (code, printed) == (errors.UsageError.exit_code, "")
    assert "--module tsl: Linux " in complaint
    assert "try: --module tls\n" in complaint
    assert installed.requests == []


FRACTIONS = [
    (name, option.opts[-1])
    for name, command in registered()
    for option in command.params
    if typing.get_type_hints(inspect.unwrap(command.callback)).get(option.name)
    in (float, float | None)
]


def test_options_that_are_fractions_are_found():
    assert {option for _, option in FRACTIONS} == {
        "-d", "-i", "--boot-timeout", "--max-copies", "--period",
    }  # fmt: skip
    assert len(FRACTIONS) >= 8


@pytest.mark.parametrize(("command", "option"), FRACTIONS)
@pytest.mark.parametrize("value", ["nan", "inf", "-inf", "1e999", "-1"])
def test_what_is_no_finite_number_is_refused(collector, zctrace, command, option, value):
    given = f"{option}={value}" if option.startswith("--") else f"{option}{value}"
    code, printed, complaint = zctrace(*command.split(), given, "true")
    assert code == errors.UsageError.exit_code
    assert option in complaint
    assert value in complaint
    assert printed == ""
    assert collector.requests == []


MACHINE_READABLE = [
    (name, f"--{output}")
    for name, command in registered()
    for output in sorted(named(command) & {"json", "csv", "html"})
]


@pytest.mark.parametrize("stdout", ["-", "/dev/stdout"])
@pytest.mark.parametrize(("name", "option"), MACHINE_READABLE)
def test_what_goes_to_standard_output_stands_there_alone(
    installed, zctrace, tmp_path, monkeypatch, name, option, stdout
):
    same = own_origin.here()
    monkeypatch.setattr(own_origin, "here", lambda: same)
    arguments, status, _ = INVOCATIONS[name]
    words = name.split()
    given = [*words, option, tmp_path / "file", *arguments[len(words) :]]
    assert zctrace(*given)[0] == status
    given[len(words) + 1] = stdout
    code, printed, complaint = zctrace(*given)
    assert code == status, complaint
    written = (tmp_path / "file").read_text()
    if name == "plan":  # the only one whose evidence was not recorded
        printed, written = (json.loads(text)["sites"] for text in (printed, written))
    assert printed == written


@pytest.mark.parametrize(("name", "option"), MACHINE_READABLE)
def test_every_command_refuses_one_file_for_two_outputs_before_it_does_anything(
    installed, collector, zctrace, name, option
):
    others = sorted(named(dict(registered())[name]) & WRITTEN - {option.removeprefix("--")})
    arguments, _, _ = INVOCATIONS[name]
    words = name.split()
    for other in others:
        given = (option, "same", f"--{other}", "tools/../same")
        code, printed, complaint = zctrace(*words, *given, *arguments[len(words) :])
        assert code == errors.OutputError.exit_code
        assert "two outputs would go to the same place" in complaint
        assert printed == ""
    assert collector.requests == []
    assert others or name in ("check", "plan")


class AttachedError(Exception):
    """What the fake instrument raises: the kernel was not refused."""


@pytest.mark.parametrize("collect", [strategies.collect, program.trace, windows.serve])
def test_no_probe_is_attached_where_bytes_would_be_counted_twice(
    collector, monkeypatch, zctrace, collect
):
    def attached(*_, **__):
        raise AttachedError

    monkeypatch.setattr(kernel, "observe", lambda *_: recorded_kernel("5.10"))
    # Recorded without the members that only programs are traced by.
    monkeypatch.setattr(obstacles, "FLOW_MEMBERS", {})
    monkeypatch.setattr(windows.os, "chown", lambda *_: None)  # root's, which this need not be
    for module in (strategies, program):
        monkeypatch.setattr(module, "attached", attached)
    zctrace("trace", "--kernel", "host", "--mechanism", "breakpoint", "true")
    (request,) = collector.requests
    given = {
        strategies.collect: (request, print),
        program.trace: (request, [], {}, bool, print, print),
        windows.serve: (request, [], {}, bool, print, Path.cwd()),
    }[collect]
    with pytest.raises(errors.TraceError) as caught:
        collect(*given)
    assert caught.value.what.endswith("cannot be measured with --mechanism breakpoint")
    assert "copy_page_to_iter calls _copy_to_iter, so that bytes wo" in caught.value.why
    assert caught.value.hint == "--mechanism auto or callsite"
    for choice in ("auto", "callsite"):
        request = dataclasses.replace(request, mechanism=choice)
        with pytest.raises(AttachedError):
            collect(request, *given[1:])


def test_a_plan_shows_which_bytes_would_be_counted_twice(collector, monkeypatch, zctrace):
    monkeypatch.setattr(kernel, "observe", lambda *_: recorded_kernel("5.10"))
    code, printed, _ = zctrace("plan", "--kernel", "host", "--mechanism", "breakpoint")
    assert code == 0
    assert "_copy_to_iter: the bytes are counted in copy_page_to_iter, too." in printed


@pytest.mark.parametrize(
    "words",
    [
        ("run", "sendfile", "--kernel", "host"),
        ("run", "sendfile", "--kernel", "host", "--dry-run"),
        ("trace", "--kernel", "host", "true"),
        ("trace", "-p", str(os.getppid())),
        ("check", "--kernel", "host", "true"),
        ("serve", "--kernel", "host", "true"),
    ],
)
def test_this_machine_has_the_processors_that_it_has(collector, zctrace, words):
    status, _, said = zctrace(words[0], "--cpus", 2, *words[1:])
    assert status == 2
    assert "--cpus 2 cannot be used with this machine's own kernel" in said
    assert not collector.requests


@pytest.mark.parametrize("value", ["0", "-1", "two", "1.5"])
def test_processors_are_counted(collector, zctrace, value):
    status, _, said = zctrace("trace", f"--cpus={value}", "true")
    assert status == 2
    assert "a whole number, at least 1" in said
