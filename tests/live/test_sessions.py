"""Programs that measure themselves: pytest with the fixture, as nobody, in a guest.

On one kernel: windows are the collector's, and its figures are tried on others elsewhere.
"""

import os
import re
import shutil
import sys
import tempfile
from contextlib import contextmanager
from pathlib import Path
from xml.etree import ElementTree

import pytest

from tests.live import ten_tests
from tests.live.conftest import HERE, zctrace
from zctrace.machine import staging


@contextmanager
def a_project(tests):
    """A folder with these tests, and what runs ``zctrace serve`` with pytest around them."""
    with tempfile.TemporaryDirectory(dir="/opt") as name:
        folder = Path(name)
        folder.chmod(0o755)
        code = staging.stage(folder)
        shutil.copy(HERE / tests, folder)

        def run(options=(), pytest_options=(), **others):
            return zctrace(
                *("serve", "--kernel", "6.1", "--user", "nobody", *options, "--"),
                *("env", f"PYTHONPATH={code}", "PYTHONDONTWRITEBYTECODE=1"),
                *(sys.executable, "-P", "-m", "pytest", "-rA", "--color=no"),
                *("-p", "zctrace.pytest_plugin", "-p", "no:cacheprovider", "-c", os.devnull),
                *("--rootdir", folder, "--zctrace=require", "--noconftest", *pytest_options),
                folder / tests,
                **others,
            )

        yield folder, run


@pytest.fixture(scope="module")
def served(live):
    """What became of ``zctrace serve`` around the tests beside this file."""
    with a_project("sessions_guest.py") as (_, run):
        yield run()


@pytest.fixture(scope="module")
def ten(live):
    """What became of ten tests with a limit, and what they have left here."""
    with a_project("ten_tests.py") as (folder, run):
        folder.chmod(0o777)
        junit, summary = folder / "junit.xml", folder / "summary.md"
        environment = {**os.environ, "GITHUB_STEP_SUMMARY": str(summary)}
        result = run(("--copy-out", junit), ("--junitxml", junit), env=environment)
        assert junit.exists(), result.stdout + result.stderr
        yield result, ElementTree.parse(junit), summary.read_text()


def test_of_ten_tests_one_has_lost_its_path(ten):
    result, _, _ = ten
    assert result.returncode == 1
    lines = [line for line in result.stdout.splitlines() if line.startswith("FAILED")]
    assert len(lines) == 1, result.stdout + result.stderr
    # The end of the line is cut.
    assert f"::test_download[{ten_tests.LOST}] - Failed: copied" in lines[0]
    assert "9 passed" in result.stdout
    (reason,) = [x for x in result.stdout.splitlines() if x.startswith("copied by ")]
    assert "2.00 copies per byte delivered" in reason
    assert "1.00 by read(2)" in reason
    assert "1.00 by sendto(2)" in reason


def test_files_of_a_virtual_machine_come_out_of_it(ten):
    _, junit, summary = ten
    copies = [
        float(found.get("value"))
        for found in junit.iter("property")
        if found.get("name") == "zctrace_copies"
    ]
    assert copies == [2 if n == ten_tests.LOST else 0 for n in range(10)]
    assert summary.count("❌") == 1


def test_all_of_them_pass_but_the_last(served):
    lines = re.findall(r"^(PASSED|FAILED|ERROR) \S*::([\w\[\]]+)", served.stdout, re.M)
    verdicts = {name: word for word, name in lines}
    assert verdicts == {
        "test_nobody_has_no_rights": "PASSED",
        "test_nothing": "PASSED",
        "test_written_to_a_file_and_sent_to_oneself": "PASSED",
        "test_sendfile": "PASSED",
        "test_a_child": "PASSED",
        "test_an_exception_and_a_window_in_a_window": "PASSED",
        "test_a_filter_that_keeps_the_marker_from_the_kernel[none]": "PASSED",
        "test_a_filter_that_keeps_the_marker_from_the_kernel[half]": "PASSED",
        "test_a_process_that_dies_in_a_window": "PASSED",
        "test_what_was_started_in_a_window_may_outlive_it": "PASSED",
        "test_what_outlives_a_window_is_counted_in_it_alone[server]": "PASSED",
        "test_what_outlives_a_window_is_counted_in_it_alone[daemon]": "PASSED",
        "test_a_thread_that_outlives_a_window_is_part_of_the_next": "PASSED",
        "test_that_fails": "FAILED",
    }, served.stdout + served.stderr


def test_the_status_is_the_command_s(served):
    assert served.returncode == 1


def test_a_failure_says_who_copied(served):
    assert "Window: not zero-copy: " in served.stdout


def test_nothing_is_added_to_the_output(served):
    assert served.stdout.startswith("=")
    assert served.stdout.rstrip().endswith("=")
