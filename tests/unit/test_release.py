"""The man page and the completions have every command and every option that the program has."""

import re
import shutil
import subprocess

import pytest
from typer.testing import CliRunner

from release import completions, manual, tree
from zctrace import cli
from zctrace.workloads.catalogue import STRATEGIES

COMMANDS = (
    "", "run", "trace", "check", "serve", "top", "metrics", "strategies", "plan", "doctor",
    "report", "compare", "example", "kernels", "kernels fetch", "kernels rm",
)  # fmt: skip
TREE = tree.read()
MANUAL, BASH, ZSH, FISH = (
    make(TREE) for make in (manual.page, completions.bash, completions.zsh, completions.fish)
)


def shown(command):
    """The options that a command's help has, long and short."""
    arguments = [*command.split(), "--help"]
    text = CliRunner().invoke(cli.app, arguments, env={"COLUMNS": "200"}).stdout
    names = set()
    for row in re.findall(r"(?m)^│ (?:\*)? *(-\S.*?)  ", text):
        names |= set(re.findall(r"(?<![\w-])--?[a-z][a-z-]*", row))
    for row in re.findall(r"(?m)^│ (?:\*)? *--\S+ +(-[a-z]) ", text):
        names.add(row)
    return names


def section(text, start, end):
    found = re.search(f"(?ms){start}(.*?){end}", text)
    assert found, start
    return found[1]


def in_manual(command):
    start = rf"^\.SS zctrace {command}$" if command else r"^\.SH DESCRIPTION$"
    text = section(MANUAL, start, r"^\.S[SH]").replace(r"\-", "-")
    return set(re.findall(r"\\fB(-\S+?)\\fR", text))


def in_bash(command):
    script = BASH
    offered = section(script, r"\$cur == -\*", "return")
    return set(section(offered, rf'^ *"{command}"\) .*?-W "', '"').split())


def in_zsh(command):
    function = "_".join(["_zctrace", *command.split()])
    text = section(ZSH, rf"^{function}\(\)", r"^}")
    return set(re.findall(r"'(?:\*|\([^)]*\))(-[\w-]+)\[", text))


def in_fish(command):
    words = command.split()
    names = set()
    for line in FISH.splitlines():
        condition = re.search(r"-n (?:'(.*?)'|(\S+))", line)
        if not condition:
            continue
        seen = (condition[1] or "").split("; and not")[0]
        if re.findall(r"from (\w+)", seen) != words:
            continue
        names |= {f"--{long}" for long in re.findall(r" -l (\S+)", line)}
        names |= {f"-{short}" for short in re.findall(r" -s (\S+)", line)}
    return names


def test_these_are_the_commands():
    assert {" ".join(command.words) for command in TREE.all()} == set(COMMANDS)


@pytest.mark.parametrize("command", COMMANDS)
@pytest.mark.parametrize("place", [in_manual, in_bash, in_zsh, in_fish])
def test_every_option_is_there_and_none_that_is_hidden(command, place):
    wanted = shown(command)
    assert "--help" in wanted
    assert place(command) == wanted


@pytest.mark.parametrize("text", [MANUAL, BASH])
def test_what_is_for_tests_alone_is_not_told(text):
    assert "sabotage" not in text


def test_the_manual_has_every_status_and_its_meaning():
    text = section(MANUAL, r"^\.SH EXIT STATUS$", r"^\.SH")
    statuses = {int(code) for code in re.findall(r"(?m)^\.B (\d+)$", text)}
    assert statuses == {*range(13), 129, 130, 143}
    assert r"The self\-tests failed" in text


def test_the_manual_formats_without_a_warning(tmp_path):
    if not shutil.which("groff"):
        pytest.skip("groff is not installed")
    page = tmp_path / "zctrace.1"
    page.write_text(MANUAL)
    result = subprocess.run(
        ["groff", "-man", "-Tutf8", "-ww", "-z", page], capture_output=True, text=True
    )
    assert (result.returncode, result.stderr) == (0, "")


def bash(tmp_path, *words):
    """What bash offers for the last of ``words``."""
    script = tmp_path / "zctrace"
    script.write_text(BASH)
    code = (
        'source "$1"; shift; COMP_WORDS=("$@"); COMP_CWORD=$(($# - 1)); _zctrace; '
        'printf "%s\\n" "${COMPREPLY[@]}"'
    )
    result = subprocess.run(
        ["bash", "--norc", "-uc", code, "bash", script, *words],
        cwd=tmp_path,
        capture_output=True,
        text=True,
    )
    assert result.stderr == ""
    return set(result.stdout.split())


@pytest.mark.parametrize(
    ("words", "offered"),
    [
        (["ru"], {"run"}),
        (["kernels", ""], {"fetch", "rm"}),
        (["run", "--mech"], {"--mechanism"}),
        (["run", "--mechanism", ""], {"auto", "both", "breakpoint", "callsite"}),
        (["run", "--mechanism", "=", "b"], {"both", "breakpoint"}),
        (["run", "--size", "run", "--cache", "w"], {"warm"}),
        (["run", "sendf"], {"sendfile", "sendfile-file"}),
        (["run", "--size", ""], set()),
        (["report", "resu"], {"result.json"}),
        (["report", "--html", "resu"], {"result.json"}),
        (["trace", "-d", "3", "--no-f"], {"--no-follow"}),
        (["trace", "--", "ls", "--no-f"], set()),
        (["trace", "ls", "--no-f"], set()),
    ],
)
def test_bash_offers(tmp_path, words, offered):
    (tmp_path / "result.json").touch()
    assert bash(tmp_path, "zctrace", *words) == offered


def test_bash_offers_every_strategy(tmp_path):
    assert bash(tmp_path, "zctrace", "run", "") == {strategy.name for strategy in STRATEGIES}


@pytest.mark.parametrize(("shell", "text"), [("zsh", ZSH), ("fish", FISH)])
def test_other_shells_read_it(tmp_path, shell, text):
    if not shutil.which(shell):
        pytest.skip(f"{shell} is not installed")
    script = tmp_path / "script"
    script.write_text(text)
    result = subprocess.run([shell, "-n", script], capture_output=True, text=True)
    assert (result.returncode, result.stderr) == (0, "")


def test_fish_offers(tmp_path):
    if not shutil.which("fish"):
        pytest.skip("fish is not installed")
    script = tmp_path / "script"
    script.write_text(FISH)
    code = f"source {script}; complete -C 'zctrace run --mechanism '; complete -C 'zctrace ker'"
    result = subprocess.run(
        ["fish", "--no-config", "-c", code],
        env={"HOME": str(tmp_path), "PATH": "/usr/bin:/bin"},
        capture_output=True,
        text=True,
    )
    first = {line.split("\t")[0] for line in result.stdout.splitlines()}
    assert first == {"auto", "both", "breakpoint", "callsite", "kernels"}, result.stderr
