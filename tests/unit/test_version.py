"""The version names the commit that a file or a figure comes from."""

import os
import subprocess
import sys

import pytest

from tests.conftest import HERE
from zctrace import _version
from zctrace.machine import staging

ROOT = HERE.parent


@pytest.fixture
def repository(tmp_path):
    """A function that runs git in a new repository with one commit, and gives its words."""
    home = {"HOME": str(tmp_path), "GIT_CONFIG_NOSYSTEM": "1", "GIT_CONFIG_GLOBAL": os.devnull}
    who = ("-c", "user.name=a", "-c", "user.email=a@b.c")

    def git(*words):
        result = subprocess.run(
            ["git", "-C", tmp_path, *who, *words],
            env={**os.environ, **home},
            check=True,
            capture_output=True,
            text=True,
        )
        return result.stdout.strip()

    git("init", "--quiet")
    (tmp_path / "file").write_text("one")
    git("add", "file")
    git("commit", "--quiet", "-m", "one")
    return git


def name(git):
    return git("rev-parse", "--short=7", "HEAD")


def test_a_commit_is_named_and_numbered(repository, tmp_path):
    first = f"{_version.RELEASE}.dev1+g{name(repository)}"
    assert _version.of_repository(tmp_path) == first
    repository("commit", "--quiet", "--allow-empty", "-m", "two")
    second = f"{_version.RELEASE}.dev2+g{name(repository)}"
    assert _version.of_repository(tmp_path) == second != first


def test_a_change_that_is_in_no_commit_is_told(repository, tmp_path):
    (tmp_path / "file").write_text("two")
    version = _version.of_repository(tmp_path)
    assert version == f"{_version.RELEASE}.dev1+g{name(repository)}.dirty"


def test_the_tagged_commit_is_the_release(repository, tmp_path):
    repository("tag", f"v{_version.RELEASE}")
    assert _version.of_repository(tmp_path) == _version.RELEASE
    (tmp_path / "file").write_text("two")
    changed = f"{_version.RELEASE}.dev1+g{name(repository)}.dirty"
    assert _version.of_repository(tmp_path) == changed
    repository("commit", "--quiet", "-a", "-m", "two")
    after = f"{_version.RELEASE}.dev2+g{name(repository)}"
    assert _version.of_repository(tmp_path) == after


def test_a_folder_in_somebody_else_s_repository_is_none_of_its_commits(repository, tmp_path):
    (tmp_path / "inside").mkdir()
    assert _version.of_repository(tmp_path / "inside") == f"{_version.RELEASE}.dev0"


def test_a_hook_of_another_repository_changes_nothing(repository, tmp_path, monkeypatch):
    monkeypatch.setenv("GIT_DIR", str(ROOT / ".git"))
    version = _version.of_repository(tmp_path)
    monkeypatch.delenv("GIT_DIR")
    assert version == f"{_version.RELEASE}.dev1+g{name(repository)}"


def test_without_git_there_is_no_name(repository, tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    assert _version.of_repository(tmp_path) == f"{_version.RELEASE}.dev0"


def test_what_is_staged_has_the_same_version_and_asks_nobody(tmp_path):
    code = staging.stage(tmp_path)
    result = subprocess.run(
        [sys.executable, "-S", "-c", "import zctrace; print(zctrace.__version__)"],
        env={"PYTHONPATH": str(code), "PATH": str(tmp_path)},
        capture_output=True,
        text=True,
        check=True,
    )
    assert result.stdout == f"{_version.version()}\n"


def test_no_import_asks_git():
    """Only who wants to know the version pays for it."""
    code = (
        "import subprocess\n"
        "def refused(*a, **k): raise AssertionError(a)\n"
        "subprocess.run = refused\n"
        "import zctrace.cli, zctrace.collect.describe, zctrace.reports.html.page\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
