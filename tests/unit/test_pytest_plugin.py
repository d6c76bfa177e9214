"""The fixture, in a pytest of its own."""

import os
import subprocess
import sys
import tomllib

import pytest

from tests.conftest import HERE
from tests.links import link
from tests.unit.collectors import collecting
from tests.unit.test_sessions import recorded
from zctrace.evidence import session_protocol

ROOT = HERE.parent
TESTS = """
def test_first(zctrace):
    with zctrace.window() as window:
        pass
    assert window.delivered_bytes > 16 << 20

def test_second(zctrace):
    with zctrace.window() as window:
        pass
    assert window.copies < 0.01

def test_without():
    pass
"""


@pytest.fixture
def run(tmp_path):
    """Run these tests in a process of its own, with no collector but the one named."""
    (tmp_path / "test_it.py").write_text(TESTS)

    def ran(*arguments, plugin=("-p", "zctrace.pytest_plugin"), path=None, python_path=()):
        environment = {
            "PATH": str(tmp_path),  # where there is no sudo
            "PYTHONPATH": os.pathsep.join([str(link()), *map(str, python_path)]),
            "PYTHONDONTWRITEBYTECODE": "1",
            **({session_protocol.SOCKET: str(path)} if path else {}),
        }
        # Whoever runs these may be root, with a kernel that can be probed.
        (tmp_path / "sitecustomize.py").write_text("import os\nos.geteuid = lambda: 1000\n")
        environment["PYTHONPATH"] += os.pathsep + str(tmp_path)
        return subprocess.run(
            [sys.executable, "-m", "pytest", "-rA", "--color=no", *plugin, "-c", os.devnull,
             "-p", "no:cacheprovider", "--rootdir", str(tmp_path), *arguments, "test_it.py"],
            cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=120,
        )  # fmt: skip

    return ran


def test_below_serve(run, tmp_path):
    with collecting(tmp_path / "s", recorded()) as collector:
        result = run(path=tmp_path / "s")
    assert result.returncode == 1
    assert "1 failed, 2 passed" in result.stdout
    assert "<Window: not zero-copy: 2.00 copies per byte delivered" in result.stdout
    assert len(collector.subjects) == 2


def test_without_a_collector_they_are_skipped_and_say_why(run):
    result = run()
    assert result.returncode == 0
    assert "1 passed, 2 skipped" in result.stdout
    text = " ".join(result.stdout.split())
    assert (
        "zctrace: counting needs a collector that is root (try: sudo zctrace serve -- "
        "pytest …): there is no sudo here"
    ) in text


def test_required(run):
    result = run("--zctrace=require")
    assert result.returncode == 1
    assert "1 passed, 2 errors" in result.stdout
    assert "zctrace: counting needs a collector that is root" in result.stdout
    assert "Traceback" not in result.stdout


def test_switched_off(run, tmp_path):
    with collecting(tmp_path / "s", recorded()) as collector:
        result = run("--zctrace=off", path=tmp_path / "s")
    assert "1 passed, 2 skipped" in result.stdout
    assert "--zctrace=off" in result.stdout.split("short test summary")[1]
    assert collector.subjects == []


def test_a_collector_that_is_gone_is_no_reason_to_skip(run, tmp_path):
    result = run(path=tmp_path / "nobody")
    assert result.returncode == 1
    assert "2 failed, 1 passed" in result.stdout
    assert "SessionError: there is no collector at" in result.stdout


@pytest.mark.parametrize("plugin", [(), ("-p", "zctrace.pytest_plugin")], ids=str)
def test_installed(run, tmp_path, plugin):
    """By its entry point it is there without being named, and named it is there once."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    points = project["entry-points"]["pytest11"]
    folder = tmp_path / "installed" / "zctrace-0.1.0.dist-info"
    folder.mkdir(parents=True)
    (folder / "METADATA").write_text("Metadata-Version: 2.1\nName: zctrace\nVersion: 0.1.0\n")
    (folder / "entry_points.txt").write_text(
        "[pytest11]\n" + "".join(f"{name} = {module}\n" for name, module in points.items())
    )
    result = run("--zctrace=off", plugin=plugin, python_path=[tmp_path / "installed"])
    assert result.returncode == 0, result.stderr
    assert "1 passed, 2 skipped" in result.stdout
