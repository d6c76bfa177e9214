"""What Maven is asked for, and what becomes of its answers; no network, no Maven."""

import os
import pwd
import re

import pytest

from tests.conftest import walked_by_everybody
from tests.systems import gather
from zctrace import trust
from zctrace.workloads.jvm import maven, netty
from zctrace.workloads.prepared import NotPreparedError

PROJECT = "<dependency><version>{}</version></dependency>"
MVN = """#!/bin/sh
echo "$@" >> {log}
for word; do
    case "$word" in -DoutputDirectory=*) folder="${{word#*=}}" ;; esac
done
mkdir -p "$folder"
echo code > "$folder/a.jar"
{ending}
"""


@pytest.fixture
def project(tmp_path):
    file = tmp_path / "pom.xml"
    file.write_text(PROJECT.format("1.2"))
    return file


@pytest.fixture
def install(tmp_path, monkeypatch):
    """A function that puts a Maven on the PATH; returns where it notes how it was called."""
    log, programs = tmp_path / "log", tmp_path / "bin"
    programs.mkdir()
    monkeypatch.setenv("PATH", f"{programs}:/usr/bin:/bin")
    monkeypatch.delenv("SUDO_UID", raising=False)

    def put(ending=""):
        program = programs / "mvn"
        program.write_text(MVN.format(log=log, ending=ending.replace("{log}", str(log))))
        program.chmod(0o755)
        return log

    return put


@pytest.mark.parametrize(("pom", "first"), [(netty._POM, "4"), (gather.POM, "4")])
def test_the_version_is_the_project_file_s(pom, first):
    assert re.fullmatch(rf"{first}\.\d+\.\d+(\.Final)?", maven.version(pom))


def test_another_project_file_is_another_folder(project, tmp_path):
    one = maven.archives(project, "it", tmp_path)
    project.write_text(PROJECT.format("1.2") + "<!-- with more -->")
    other = maven.archives(project, "it", tmp_path)
    assert one != other
    assert {one.parent, other.parent} == {tmp_path / "it"}
    assert one.name.startswith("1.2-")


def test_what_is_fetched_is_added_to(project, tmp_path, install):
    log, folder = install(), tmp_path / "cache" / "it"
    maven.fetch(project, folder, "It", lambda filled: (filled / "b").write_text("more"))
    assert sorted(path.name for path in folder.iterdir()) == ["a.jar", "b"]
    (called,) = log.read_text().splitlines()
    assert re.search(r"--file \S+/pom.xml dependency:copy-dependencies", called)


CALLER = 61235
SWAP = 'rm -r "$folder"; ln -s "$(dirname {secret})" "$folder"'
"""Of the whole folder, for one with what only root can read."""


@pytest.fixture
def sudo(monkeypatch, tmp_path):
    """Root, called by a user who may look into the folders of this test."""
    if os.geteuid():
        pytest.skip("only root can act as somebody else")
    monkeypatch.setenv("SUDO_UID", str(CALLER))
    monkeypatch.setenv("SUDO_GID", str(CALLER))
    user = pwd.struct_passwd(("caller", "x", CALLER, CALLER, "", str(tmp_path), "/bin/sh"))
    known = {CALLER: user}.__getitem__
    monkeypatch.setattr(trust.pwd, "getpwuid", known)
    monkeypatch.setattr(trust.os, "getgrouplist", lambda name, gid: [gid])
    walked_by_everybody(tmp_path)


def test_what_maven_fetches_runs_as_whoever_called_sudo(project, tmp_path, install, sudo):
    log = install('echo "$HOME" $(id -u) $(id -G) >> {log}; id -u > "$folder/b.jar"')
    log.write_text("")
    log.chmod(0o666)
    project.chmod(0o600)  # as in root's home
    maven.fetch(project, tmp_path / "cache" / "it", "It")
    assert log.read_text().splitlines()[-1] == f"{tmp_path} {CALLER} {CALLER}"
    fetched = tmp_path / "cache" / "it"
    assert (fetched / "b.jar").read_text() == f"{CALLER}\n"
    assert {path.stat().st_uid for path in (fetched, *fetched.iterdir())} == {0}


@pytest.mark.parametrize(
    "trick", ['ln -s {secret} "$folder/b.jar"', 'mkfifo "$folder/b.jar"', SWAP]
)
def test_root_takes_files_alone_from_what_the_caller_fetched(
    project, tmp_path, install, sudo, trick
):
    secret = tmp_path / "only-root" / "secret"
    secret.parent.mkdir()
    secret.parent.chmod(0o755)
    secret.write_text("secret")
    secret.chmod(0o600)
    log = install(trick.format(secret=secret))
    log.write_text("")
    log.chmod(0o666)
    with pytest.raises(OSError, match=r"symbolic links|is no file|Permission denied"):
        maven.fetch(project, tmp_path / "cache" / "it", "It")
    assert [*(tmp_path / "cache").iterdir()] == []


@pytest.mark.parametrize(
    ("ending", "reason"),
    [
        (
            "echo [INFO] so; echo '[ERROR] no such luck'; exit 1",
            "fetch It: [ERROR] no such luck:",
        ),
        ("echo no Java >&2; exit 1", "Maven could not fetch It: no Java: connect to Maven"),
        ("exec sleep 60", "Maven did not fetch It in 0.2 s: connect to Maven"),
    ],
)
def test_what_is_not_fetched_whole_is_not_kept(
    project, tmp_path, install, monkeypatch, ending, reason
):
    install(ending)
    if "sleep" in ending:
        monkeypatch.setattr(maven, "_SECONDS", 0.2)
    with pytest.raises(NotPreparedError, match=re.escape(reason)) as caught:
        maven.fetch(project, tmp_path / "cache" / "it", "It")
    assert "settings.xml" in str(caught.value)
    assert [*(tmp_path / "cache").iterdir()] == []
    install()
    maven.fetch(project, tmp_path / "cache" / "it", "It")
    assert (tmp_path / "cache" / "it" / "a.jar").exists()


def test_without_maven_the_remedy_is_named(project, tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(NotPreparedError, match=r"^It is not here, .*apt-get install maven$"):
        maven.fetch(project, tmp_path / "it", "It")
    assert maven.why_not("It")
