"""What the documents promise is there."""

import re

import pytest
from typer.testing import CliRunner

from tests.conftest import HERE
from zctrace import cli, errors
from zctrace.analysis import columns

ROOT = HERE.parent
README = (ROOT / "README.md").read_text()
DOCUMENTS = [README, *(path.read_text() for path in (ROOT / "docs").glob("*.md"))]


def test_every_exit_code_is_documented():
    table = README.split("Exit codes:")[1].split("## ")[0]
    documented = {int(n) for row in re.findall(r"^\| ([\d, ]+) \|", table, re.M)
                  for n in row.split(",")}  # fmt: skip
    codes = {kind.exit_code for kind in errors.ZctraceError.__subclasses__()}
    assert documented == codes | {0, 1, errors.INTERRUPTED, errors.TERMINATED, 141}


def test_every_column_is_documented():
    table = README.split("## The CSV")[1].split("## ")[0]
    documented = set(re.findall(r"`(\w+)`", table))
    assert set(columns.COLUMNS) <= documented


@pytest.mark.parametrize(
    ("command", "least"),
    [("run", 11), ("trace", 8), ("check", 6), ("serve", 5), ("compare", 3)],
)
def test_every_option_is_documented(command, least):
    text = CliRunner().invoke(cli.app, [command, "--help"], env={"COLUMNS": "200"}).stdout
    options = set(re.findall(r"--[a-z-]+", text))
    options -= {"--help", "--verbose", "--quiet", "--duration", "--pid"}
    commands = README.split("## Commands")[1].split("## ")[0]
    commands = commands.split(f"zctrace {command} ")[1].split("zctrace ")[0]
    assert len(options) >= least
    assert {option for option in options if option not in commands} == set()


@pytest.mark.parametrize("text", DOCUMENTS)
def test_named_files_exist(text):
    named = re.findall(r"`((?:docs|probes|workloads|tracer)/[\w./]*)`", text)
    assert [path for path in named if not (ROOT / path).exists()] == []


def test_the_changelog_knows_the_version():
    from zctrace._version import RELEASE

    assert f"## {RELEASE}" in (ROOT / "CHANGELOG.md").read_text()
