"""How Kafka is fetched: once, as a whole, and with a word on what is missing."""

import pwd

import pytest

from tests.systems import gather

MVN = """#!/bin/sh
echo "$@" >> {log}
for word; do
    libs="${{word#-DoutputDirectory=}}"
    [ "$libs" = "$word" ] || {{ mkdir -p "$libs"; echo jar > "$libs/a.jar"; }}
done
[ -z "{complaint}" ] || {{ echo "{complaint}"; exit 1; }}
"""


@pytest.fixture
def maven(tmp_path, monkeypatch):
    """A function that puts a Maven on the PATH; and where it notes how it was called."""
    log = tmp_path / "log"
    programs = tmp_path / "bin"
    programs.mkdir()
    monkeypatch.setenv("PATH", f"{programs}:/usr/bin:/bin")
    monkeypatch.setenv("ZCTRACE_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv("SUDO_USER", raising=False)
    monkeypatch.setattr(gather, "_REMEDIES", {"mvn": "apt-get install maven"})

    def put(complaint=""):
        program = programs / "mvn"
        program.write_text(MVN.format(log=log, complaint=complaint))
        program.chmod(0o755)
        return log

    return put


def scratch(tmp_path, name):
    folder = tmp_path / name
    folder.mkdir()
    return folder


def test_the_pom_names_a_release():
    assert gather.version().split(".")[0] == "4"


def test_it_is_fetched_once(maven, tmp_path):
    log = maven()
    for name in ("first", "second"):
        libs = gather.jars(scratch(tmp_path, name))
        assert [path.name for path in libs.iterdir()] == ["a.jar"]
    assert libs == tmp_path / "cache" / "kafka" / gather.version() / "libs"
    (call,) = log.read_text().splitlines()
    assert "--settings" not in call


def test_it_is_fetched_again_if_the_pom_is_another(maven, tmp_path):
    log = maven()
    libs = gather.jars(scratch(tmp_path, "first"))
    (libs.parent / "pom.xml").write_text("<project/>")
    (libs / "old.jar").write_text("")
    libs = gather.jars(scratch(tmp_path, "second"))
    assert [path.name for path in libs.iterdir()] == ["a.jar"]
    assert len(log.read_text().splitlines()) == 2


def test_settings_are_of_whoever_called_sudo(maven, tmp_path, monkeypatch):
    log = maven()
    settings = scratch(tmp_path, ".m2") / "settings.xml"
    settings.write_text("<settings/>")
    user = pwd.getpwuid(0)
    monkeypatch.setenv("SUDO_USER", user.pw_name)
    home = pwd.struct_passwd((*user[:5], str(tmp_path), user.pw_shell))
    monkeypatch.setattr(gather.pwd, "getpwnam", {user.pw_name: home}.__getitem__)
    gather.jars(scratch(tmp_path, "scratch"))
    assert f"--settings {settings}" in log.read_text()


def test_without_maven_the_remedy_is_named(maven, monkeypatch, tmp_path):
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(gather.NotAvailableError, match="needs mvn: apt-get install maven"):
        gather.jars(scratch(tmp_path, "scratch"))


def test_without_a_network_nothing_is_kept(maven, tmp_path):
    maven("Unknown host")
    with pytest.raises(gather.NotAvailableError, match=r"Unknown host: connect to Maven") as it:
        gather.jars(scratch(tmp_path, "scratch"))
    assert "settings.xml" in str(it.value)
    assert list((tmp_path / "cache").glob("**/*.jar")) == []
    maven()
    assert gather.jars(scratch(tmp_path, "again")).is_dir()
