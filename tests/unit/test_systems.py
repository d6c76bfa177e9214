"""How Kafka is had: fetched once, and with a word on what is missing."""

import pytest

from tests.systems import gather
from zctrace.workloads.jvm import maven
from zctrace.workloads.prepared import NotPreparedError


@pytest.fixture
def fetched(tmp_path, monkeypatch):
    """The folders that were asked for; nothing is fetched. Where the cache is, is ours."""
    folders = []

    def fetch(project, folder, what):
        assert (project, what) == (gather.POM, f"Kafka {gather.version()}")
        folders.append(folder)
        folder.mkdir(parents=True)

    monkeypatch.setenv("ZCTRACE_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(maven, "fetch", fetch)
    monkeypatch.setattr(gather, "_COMPILER", tmp_path / "javac")
    (tmp_path / "javac").touch()
    return folders


def test_it_is_fetched_once(fetched, tmp_path):
    assert gather.jars() == gather.jars()
    assert fetched == [maven.archives(gather.POM, "kafka", tmp_path / "cache")]


def test_without_java_the_remedy_is_named(fetched, tmp_path):
    (tmp_path / "javac").unlink()
    with pytest.raises(gather.NotAvailableError, match="apt-get install openjdk-"):
        gather.jars()
    assert fetched == []


def test_what_maven_says_is_passed_on(fetched, monkeypatch):
    def fail(*_):
        raise NotPreparedError("no network")

    monkeypatch.setattr(maven, "fetch", fail)
    with pytest.raises(gather.NotAvailableError, match="no network"):
        gather.jars()
