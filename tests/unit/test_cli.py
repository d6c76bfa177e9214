"""The command line: every wrong use has one clear message and its own exit code."""

import ast
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
from typer.testing import CliRunner

from release import tree
from tests.conftest import HERE
from tests.unit import forked
from zctrace import cli, errors, packages
from zctrace._version import version
from zctrace.errors import UsageError
from zctrace.machine import kernels
from zctrace.machine.debian_archive import StockKernel

ROOT = Path(__file__).parents[2]


@pytest.fixture
def invoke():
    return lambda *arguments: CliRunner().invoke(cli.app, list(arguments))


def zctrace(*arguments, **options):
    return forked.run("zctrace.cli", *arguments, **options)


def test_version(invoke):
    assert invoke("--version").stdout == f"zctrace {version()}\n"


def test_help_names_every_command(invoke):
    text = invoke("--help").stdout
    for command in (
        "run",
        "trace",
        "check",
        "strategies",
        "plan",
        "doctor",
        "kernels",
        "report",
    ):
        assert command in text


def test_strategies(invoke):
    text = invoke("strategies").stdout
    assert "sendfile(socket, file)" in text
    assert max(map(len, text.splitlines())) <= 80


@pytest.mark.parametrize(
    ("arguments", "what"),
    [
        (["run", "nonsense"], "no strategy nonsense"),
        (["run", "send_fil"], "try: sendfile; zctrace strategies"),
        (["run", "--size", "0"], "--size 0: not a size"),
        (["run", "--size=-1"], "--size -1: not a size"),
        (["run", "--size", "garbage"], "--size garbage: not a size"),
        (["run", "--chunk", "2M"], "--chunk 2097152 is larger than --size 1048576"),
        (["run", "--chunk", "0"], "--chunk 0: not a size"),
        (["run", "--repeat", "0"], "'--repeat': 0: a whole number, at least 1"),
        (["run", "--boot-timeout", "0"], "more than 0 seconds"),
        (["run", "--size", "1M", "--size", "x"], "--size x: not a size"),
        (["run", "--nic", "eth0"], "--nic eth0: no such device"),
        (["run", "--cache", "hot"], "'--cache': 'hot' is not one of 'warm', 'cold'"),
        (
            ["run", "--fs", "tmpfs", "--cache", "cold"],
            "--fs tmpfs cannot be combined with --cache cold",
        ),
        (["run", "--to", "there"], "--to there: not HOST:PORT"),
        (["run", "--to", "127.0.0.1:0"], "--to 127.0.0.1:0: not HOST:PORT"),
        (["run", "--to", "127.0.0.1:9", "--nic", "lo"], "--to cannot be combined with --nic"),
        (["run", "--to", "127.0.0.1:9", "recv"], "--to with recv"),
        (["run", "--file", "/nonexistent"], "--file /nonexistent: No such file"),
        (["run", "--file", "/dev/null"], "--file /dev/null: no file with anything in it"),
        (["run", "--size", "8K", "--size", "1M", "--chunk", "9K"], "than --size 8192"),
        (["run", "--fs", "minix"], "--fs minix: no such file system"),
        (
            ["run", "--mechanism", "magic"],
            "'magic' is not one of 'auto', ",
        ),
        (["run", "--all", "sendfile"], "--all cannot be combined with strategy names"),
        (["run", "--boot-timeout", "nan"], "nan: more than 0 seconds"),
        (["run", "--boot-timeout", "inf"], "inf: more than 0 seconds"),
        (["trace", "-d", "0", "--", "ls"], "0: more than 0 seconds"),
        (["trace", "-d", "nan", "--", "ls"], "nan: more than 0 seconds"),
        (["trace", "-i", "inf", "--", "ls"], "inf: more than 0 seconds"),
        (["trace", "-i", "often", "--", "ls"], "often is not a number"),
        (["trace", "--mechanism", "x", "--", "ls"], "'x' is not one of"),
        (["check", "--max-copies=-1", "--", "ls"], "-1: at least 0"),
        (["check", "--max-copies", "nan", "--", "ls"], "nan: at least 0, and finite"),
        (["check", "--max-copies", "inf", "--", "ls"], "inf: at least 0, and finite"),
        (["run", "--nonsense"], "No such option"),
        (["nonsense"], "No such command"),
        (["report", "/absent"], "/absent: No such file"),
    ],
)
def test_wrong_arguments(arguments, what):
    result = zctrace(*arguments)
    assert result.returncode == errors.UsageError.exit_code
    assert what in result.stderr
    assert result.stdout == ""
    assert "Traceback" not in result.stderr


@pytest.mark.parametrize(
    "text",
    [
        "[]",
        "",
        "{}",
        '{"evidence": ["x"]}',
        '{"evidence": []}',
        '{"evidence": [{"schema": 0}]}',
    ],
)
def test_a_report_of_something_else(tmp_path, text):
    (tmp_path / "a.json").write_text(text)
    result = zctrace("report", tmp_path / "a.json")
    assert result.returncode == errors.UsageError.exit_code
    assert "not a result of zctrace" in result.stderr or "evidence[0]" in result.stderr
    assert "Traceback" not in result.stderr


def test_a_report_of_failed_controls(tmp_path, line):
    import json

    evidence = json.loads((HERE / "evidence" / f"linux-{line}.json").read_text())
    evidence["runs"][0]["received_bytes"] -= 1
    (tmp_path / "a.json").write_text(json.dumps({"evidence": [evidence]}))
    result = zctrace("report", tmp_path / "a.json")
    assert result.returncode == errors.ControlError.exit_code
    assert result.stdout.startswith("SELF-TEST FAILED")


def test_a_reader_that_has_enough():
    command = f"{sys.executable} -m zctrace strategies | true"
    result = subprocess.run(
        ["sh", "-c", command], cwd=ROOT, capture_output=True, text=True, timeout=60
    )
    assert result.stderr == ""


def test_outputs_are_checked_before_anything_is_done(tmp_path):
    (tmp_path / "old.csv").write_text("")
    result = zctrace("run", "--csv", tmp_path / "old.csv")
    assert result.returncode == errors.OutputError.exit_code
    assert "exists already" in result.stderr
    result = zctrace("run", "--csv", tmp_path / "x", "--json", tmp_path / "x")
    assert result.returncode == errors.OutputError.exit_code


@pytest.mark.skipif(os.geteuid() != 0, reason="as root, to become nobody")
@pytest.mark.parametrize("command", ["run", "plan"])
def test_without_root(command):
    """All is imported before: nobody may not be able to look into this folder."""
    text = f"""
import contextlib, os, sys
from zctrace import cli
for options in (["--help"], []):
    sys.argv[1:] = [{command!r}, *options]
    with contextlib.suppress(SystemExit) if options else contextlib.nullcontext():
        cli.main()
    os.setuid(65534)
"""
    result = subprocess.run(
        [sys.executable, "-c", text], cwd=ROOT, capture_output=True, text=True
    )
    assert result.returncode == errors.RightsError.exit_code
    assert "sudo zctrace" in result.stderr


@pytest.mark.skipif(os.geteuid() != 0, reason="root is asked for first")
def test_more_than_memory():
    result = zctrace("run", "--size", "100000G", "--kernel", "host")
    assert result.returncode == errors.ResourceError.exit_code
    assert "a smaller --size" in result.stderr


@pytest.mark.skipif(os.geteuid() != 0, reason="root is asked for first")
def test_no_such_kernel():
    result = zctrace("run", "--kernel", "nonsense")
    assert result.returncode == errors.KernelError.exit_code
    assert "no such kernel" in result.stderr


@pytest.mark.skipif(os.geteuid() != 0, reason="root is asked for first")
def test_no_qemu(tmp_path):
    """Only what Python needs is on the PATH."""
    image = tmp_path / "vmlinuz-x"
    image.write_bytes(b"\0" * 0x202 + b"HdrS" + b"\0" * 100)
    result = zctrace("run", "--kernel", image, env={**os.environ, "PATH": str(tmp_path)})
    assert result.returncode == errors.MissingError.exit_code
    assert "apt-get install qemu-system-x86" in result.stderr


def test_no_bcc(monkeypatch, tmp_path):
    from zctrace.kernel import remembered
    from zctrace.machine import observations, places

    monkeypatch.setenv("ZCTRACE_CACHE", str(tmp_path))
    monkeypatch.setattr(places, "COMPILER", "no_such_module")
    monkeypatch.setattr(places, "MODULES", ("no_such_module",))
    monkeypatch.setitem(packages.NEEDS, "no_such_module", packages.NEEDS["bcc"])
    with pytest.raises(errors.MissingError) as caught:
        places.require_modules()
    assert caught.value.hint == packages.remedy("bcc")
    remembered.write(observations.home(None) / f"programs-{'0' * 32}.json", {"compiled": 1})
    places.require_modules()  # does without
    monkeypatch.setattr(places, "COMPILER", "bcc")
    with pytest.raises(errors.MissingError):
        places.require_modules()


def test_another_architecture_is_refused(monkeypatch):
    from zctrace.machine import places

    places.require_architecture()
    monkeypatch.setattr(places, "ARCHITECTURE", "pdp11")
    with pytest.raises(errors.KernelError, match="this machine is x86_64"):
        places.require_architecture()


def test_every_error_has_a_code_of_its_own():
    kinds = errors.ZctraceError.__subclasses__()
    codes = [kind.exit_code for kind in kinds]
    assert len(set(codes)) == len(codes)
    for kind in kinds:
        assert f"{kind.__name__} " in errors.__doc__
        assert str(kind.exit_code) in errors.__doc__


def test_errors_survive_the_way_from_the_guest():
    for kind in errors.ZctraceError.__subclasses__():
        error = errors.from_json(kind("what", "why", "hint").to_json())
        assert (type(error), error.what, error.why, error.hint) == (kind, "what", "why", "hint")


def test_dry_run_does_nothing(tmp_path, monkeypatch, invoke):
    image = tmp_path / "vmlinuz-x"
    image.write_bytes(b"\0" * 0x202 + b"HdrS" + b"\0" * 100)
    wanted = ("--kernel", str(image), "--cpus", "4", "--size", "64M")
    result = invoke("run", "--dry-run", *wanted)
    assert result.exit_code == 0
    assert f"-kernel {image}" in result.stdout
    assert "-smp 4 " in result.stdout
    assert "payload: 67108864 B" in result.stdout


def test_dry_run_refuses_a_kernel_that_cannot_be_fetched(monkeypatch, tmp_path, invoke):
    monkeypatch.setenv("ZCTRACE_CACHE", str(tmp_path))
    (tmp_path / "apt").mkdir()
    monkeypatch.setattr(kernels, "installed", list)
    part = StockKernel("6.19.14-amd64", "6.19.14-1", ("an-image",), 1, ("its-modules",))
    whole = StockKernel("6.18.15-amd64", "6.18.15-1", ("an-image",), 1)
    archive = SimpleNamespace(kernels=lambda say: [whole, part])
    monkeypatch.setattr(kernels, "all_releases", lambda folder: archive)
    result = invoke("run", "--dry-run", "--kernel", "6.18")
    assert "6.18: Linux 6.18.15-amd64 is not at hand: 6.18.15-1 would be" in result.stdout
    result = invoke("run", "--dry-run", "--kernel", "6.19")
    assert isinstance(result.exception, errors.KernelError)
    assert "6.19.14-amd64 needs its-modules" in result.exception.why


def test_recorded_results_are_shown_without_root(tmp_path, line):
    import json

    evidence = json.loads((HERE / "evidence" / f"linux-{line}.json").read_text())
    (tmp_path / "result.json").write_text(json.dumps({"evidence": [evidence]}))
    result = zctrace("report", tmp_path / "result.json")
    assert result.returncode == 0
    assert evidence["kernel"]["release"] in result.stdout
    assert max(map(len, result.stdout.splitlines())) <= 80
    assert "\x1b" not in result.stdout


@pytest.mark.parametrize(
    ("name", "strategies", "chosen"),
    [
        (None, ["sendfile"], ["ext4"]),
        (None, ["sendfile", "reflink"], ["ext4", "xfs"]),
        (None, ["reflink"], ["xfs"]),
        ("btrfs", ["sendfile", "reflink"], ["btrfs"]),
        ("ext4", ["reflink"], ["ext4"]),
    ],
)
def test_the_file_systems_are_those_that_the_strategies_need(name, strategies, chosen):
    from zctrace.commands.choices import choose_file_systems

    assert choose_file_systems(name, strategies) == tuple(chosen)


def test_strategies_are_the_textbook_s_if_none_is_named():
    from zctrace.commands.choices import choose_strategies
    from zctrace.workloads.catalogue import STRATEGIES, TEXTBOOK

    assert choose_strategies([]) == tuple(s.name for s in TEXTBOOK)
    assert choose_strategies([], every=True) == tuple(s.name for s in STRATEGIES)
    assert choose_strategies(["tee", "recv", "tee"]) == ("tee", "recv")


def test_strategies_are_left_out():
    from zctrace.commands.choices import choose_settings, choose_strategies

    everything = choose_strategies([], every=True)
    some = choose_strategies([], every=True, skip=["netty-*", "sendfile"])
    assert set(everything) - set(some) == {"sendfile"} | {
        name for name in everything if name.startswith("netty-")
    }
    first, *cards = choose_settings(some, [], [], every=True)
    assert first.strategies == some
    assert cards
    assert {card.strategies for card in cards} == {("read-write", "mmap-write", "splice")}
    only_tee = choose_settings(("tee",), [], [], every=True)
    assert [setting.strategies for setting in only_tee] == [("tee",)]


@pytest.mark.parametrize(
    ("names", "skip", "said"),
    [
        ([], ["tee"], "--skip tee: none of the strategies"),
        (["tee", "recv"], ["recv", "t*"], "--skip leaves no strategy"),
    ],
)
def test_leaving_out_nothing_or_everything_is_an_error(names, skip, said):
    from zctrace.commands.choices import choose_strategies

    with pytest.raises(UsageError, match=re.escape(said)):
        choose_strategies(names, skip=skip)


@pytest.mark.parametrize("closed", [(), (0,), (2,), (0, 2)], ids=str)
def test_what_was_closed_when_we_were_started_is_open_and_empty(closed):
    """QEMU, say, would take the first file that we open for its standard input."""
    script = (
        "import os\n"
        "from zctrace.commands import streams\n"
        f"for number in {closed}: os.close(number)\n"
        "streams.open_descriptors()\n"
        "print([os.readlink(f'/proc/self/fd/{n}') for n in range(3)])\n"
        "print([os.get_inheritable(n) for n in range(3)])\n"
    )
    result = subprocess.run(
        [sys.executable, "-c", script], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    links, inherited = map(ast.literal_eval, result.stdout.splitlines())
    assert all(links[number] == os.devnull for number in closed)
    if 0 not in closed:
        assert links[0].startswith("pipe:")
    assert inherited == [True] * 3


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (MemoryError(), "no memory left"),
        (ImportError("/x.so: failed to map segment from shared object"), "no memory left"),
        (RuntimeError("can't start new thread"), "no memory left"),
        (OSError(12, "Cannot allocate memory"), "no memory left"),
        (OSError(28, "No space left on device", "/tmp/x"), "no room on the disk left"),
        (shutil.Error([("a", "b", "[Errno 28] No space left on device: 'b'")]), "TMPDIR="),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, Exception) else None,
)
def test_memory_or_disk_that_is_used_up_is_said(monkeypatch, capsys, error, words):
    def app(**_):
        raise error

    monkeypatch.setattr(cli, "app", app)
    assert cli._status() == errors.ResourceError.exit_code
    assert words in capsys.readouterr().err


@pytest.mark.parametrize(
    "error",
    [PermissionError(1, "Operation not permitted"), ImportError("no module x"), RuntimeError()],
    ids=lambda error: type(error).__name__,
)
def test_other_faults_stay_what_they_are(monkeypatch, error):
    def app(**_):
        raise error

    monkeypatch.setattr(cli, "app", app)
    with pytest.raises(type(error)):
        cli._status()


@pytest.mark.parametrize("words", [c.words for c in tree.read().all()], ids=" ".join)
def test_help_names_values_and_shows_no_types_of_python(words):
    shown = CliRunner().invoke(cli.app, [*words, "--help"], env={"COLUMNS": "120"}).output
    assert "--help" in shown
    assert not re.search(r"<(bool|str|int|float|path|list)\b", shown)
