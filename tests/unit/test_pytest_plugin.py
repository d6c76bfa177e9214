"""The fixture, in a pytest of its own."""

import dataclasses
import os
import subprocess
import sys
import tomllib
from xml.etree import ElementTree

import pytest

from tests.conftest import HERE
from tests.links import link
from tests.unit.collectors import altered, collecting
from tests.unit.test_sessions import recorded
from zctrace.evidence import session_protocol
from zctrace.evidence.account import Account

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

    def ran(
        *arguments, plugin=("-p", "zctrace.pytest_plugin"), path=None, python_path=(), **more
    ):
        environment = {
            **more,
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


TEN = """
import pytest

@pytest.mark.max_copies(0.01)
@pytest.mark.parametrize("number", range(10))
def test_path(number):
    pass
"""
ON, OFF = "nginx, sendfile on", "nginx, sendfile off"


@pytest.fixture
def ten(run, tmp_path):
    """Ten tests with a limit, of which one is answered with copies."""
    (tmp_path / "test_it.py").write_text(TEN)
    answers = [recorded(OFF if number == 6 else ON) for number in range(10)]

    def ran(*arguments, **more):
        with collecting(tmp_path / "s", answers) as collector:
            return collector, run(*arguments, path=tmp_path / "s", **more)

    return ran


def test_of_ten_tests_the_one_that_copies_is_red_and_says_who(ten):
    collector, result = ten()
    assert result.returncode == 1
    assert "1 failed, 9 passed" in result.stdout
    assert len(collector.subjects) == 10
    (line,) = [line for line in result.stdout.splitlines() if line.startswith("FAILED")]
    assert line == (
        "FAILED test_it.py::test_path[6] - Failed: copied by writev(2), pread64(2): 2 ..."
    )
    # Where lines are not cut, as in CI:
    assert (
        "copied by writev(2), pread64(2): 2 copies per byte delivered; 0.01 are allowed; not "
        "zero-copy: 2.00 copies per byte delivered: 1.00 by writev(2), 1.00 by pread64(2)"
    ) in result.stdout.splitlines()


def test_junit_and_github_have_what_was_measured(ten, tmp_path):
    summary = tmp_path / "summary.md"
    summary.write_text("what another step said\n")
    ten("--junitxml", str(tmp_path / "junit.xml"), GITHUB_STEP_SUMMARY=str(summary))
    cases = ElementTree.parse(tmp_path / "junit.xml").iter("testcase")
    properties = [
        {found.get("name"): found.get("value") for found in case.iter("property")}
        for case in cases
    ]
    assert len(properties) == 10
    assert float(properties[6]["zctrace_copies"]) == pytest.approx(2, abs=0.001)
    assert properties[6]["zctrace_verdict"].startswith("not zero-copy: 2.00")
    assert float(properties[0]["zctrace_copies"]) < 0.001
    lines = summary.read_text().splitlines()
    assert lines[0] == "what another step said"
    assert sum(line.startswith("| test\\_it.py::test\\_path\\[") for line in lines) == 10
    (red,) = [line for line in lines if "❌" in line]
    assert "1.00 by pread64(2)" in red


DEFAULT = """
import pytest

def test_without_a_mark():
    pass

def test_that_measures_itself(zctrace):
    with zctrace.window():
        pass

@pytest.mark.max_copies(3)
def test_with_a_limit_of_its_own():
    pass
"""


@pytest.mark.parametrize("how", ["option", "ini"])
def test_a_limit_for_all_tests(run, tmp_path, how):
    (tmp_path / "test_it.py").write_text(DEFAULT)
    given = ["--max-copies", "0.5"] if how == "option" else ["-o", "zctrace_max_copies=0.5"]
    with collecting(tmp_path / "s", recorded(OFF)) as collector:
        result = run(*given, path=tmp_path / "s")
    assert "1 failed, 2 passed" in result.stdout
    assert "FAILED test_it.py::test_without_a_mark" in result.stdout
    assert len(collector.subjects) == 3


def test_a_limit_for_all_tests_skips_none_of_them(run, tmp_path):
    """Where nothing can count; a test with a mark of its own is skipped there."""
    (tmp_path / "test_it.py").write_text(DEFAULT)
    result = run("--max-copies", "0.5")
    assert "1 passed, 2 skipped" in result.stdout
    # And it is said that it has shown nothing.
    assert "zctrace: --max-copies has not limited 1 tests: zctrace: counting needs" in (
        result.stdout
    )
    result = run("--max-copies", "0.5", "--zctrace=require")
    assert "2 failed, 1 error" in result.stdout


LITTLE = """
import pytest

def test_without_a_mark():
    pass

@pytest.mark.max_copies(1)
def test_with_one():
    pass
"""


def test_a_test_that_moves_hardly_anything(run, tmp_path):
    """Its mark says that it moves bytes: it has not shown that it keeps a limit."""
    (tmp_path / "test_it.py").write_text(LITTLE)
    evidence = recorded(ON)  # that copied a few bytes
    trace = dataclasses.replace(evidence.trace, account=Account())
    with collecting(tmp_path / "s", dataclasses.replace(evidence, trace=trace)):
        result = run("--max-copies", "0.01", path=tmp_path / "s")
    assert "1 failed, 1 passed" in result.stdout
    assert "test_with_one - Failed: it moved only " in result.stdout


@pytest.mark.parametrize(
    ("doubt", "said"),
    [
        ({"lost": {"call": 3}}, "some copies may be missing"),
        ({"outside": 32 << 20}, "33554432 B could not be attributed"),
    ],
)
def test_a_doubt_is_red(run, tmp_path, doubt, said):
    (tmp_path / "test_it.py").write_text(LITTLE)
    with collecting(tmp_path / "s", altered(recorded(ON), **doubt)):
        result = run("-k", "with_one", path=tmp_path / "s")
    assert "1 failed" in result.stdout
    assert said in result.stdout


@pytest.mark.parametrize(
    ("mark", "said"),
    [
        ("max_copies", "max_copies has one number"),
        ("max_copies(1, 2)", "max_copies has one number"),
        ("max_copies('x')", "'x' is no number of copies per byte"),
        ("max_copies(-1)", "-1 is no number"),
        ("max_copies(float('nan'))", "nan is no number"),
    ],
)
def test_a_mark_that_says_nothing(run, tmp_path, mark, said):
    (tmp_path / "test_it.py").write_text(
        f"import pytest\n@pytest.mark.{mark}\ndef test_it():\n    pass\n"
    )
    with collecting(tmp_path / "s", recorded(ON)):
        result = run(path=tmp_path / "s")
    assert "1 failed" in result.stdout
    assert said in result.stdout


def test_a_test_whose_flows_were_not_seen_is_red(run, tmp_path):
    """It seems to have moved little: what was copied for it says otherwise."""
    (tmp_path / "test_it.py").write_text("def test_without_a_mark():\n    pass\n")
    evidence = recorded(OFF)
    trace = dataclasses.replace(evidence.trace, account=Account())
    with collecting(tmp_path / "s", dataclasses.replace(evidence, trace=trace)):
        result = run("--max-copies", "0.01", path=tmp_path / "s")
    assert "1 failed" in result.stdout
    assert "B were copied: below 65536 B" in result.stdout


def test_a_mark_and_the_fixture(run, tmp_path):
    (tmp_path / "test_it.py").write_text(
        "import pytest\n@pytest.mark.max_copies(1)\ndef test_it(zctrace):\n    pass\n"
    )
    with collecting(tmp_path / "s", recorded(ON)):
        result = run(path=tmp_path / "s")
    assert "one window at a time" in result.stdout


def test_a_test_that_fails_by_itself_says_its_own_reason(run, tmp_path):
    (tmp_path / "test_it.py").write_text(
        "import pytest\n@pytest.mark.max_copies(1)\ndef test_it():\n    assert 1 == 2\n"
    )
    summary = tmp_path / "summary"
    with collecting(tmp_path / "s", recorded(OFF)):
        result = run(path=tmp_path / "s", GITHUB_STEP_SUMMARY=str(summary))
    assert "assert 1 == 2" in result.stdout
    assert not summary.exists()  # it has not been judged


def test_a_summary_that_cannot_be_written_ends_nothing(ten, tmp_path):
    _, result = ten(GITHUB_STEP_SUMMARY=str(tmp_path / "no" / "summary"))
    assert "1 failed, 9 passed" in result.stdout
    assert "could not be written" in result.stdout + result.stderr
    assert "INTERNALERROR" not in result.stdout + result.stderr
