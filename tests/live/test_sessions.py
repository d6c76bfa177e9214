"""Programs that measure themselves: pytest with the fixture, as nobody, in a guest.

On one kernel: windows are the collector's, and its figures are tried on others elsewhere.
"""

import os
import re
import shutil
import sys
import tempfile
from pathlib import Path

import pytest

from tests.live.conftest import HERE, zctrace
from zctrace.machine import staging


@pytest.fixture(scope="module")
def served(live):
    """What became of ``zctrace serve`` around the tests beside this file."""
    with tempfile.TemporaryDirectory(dir="/opt") as name:
        folder = Path(name)
        folder.chmod(0o755)
        code = staging.stage(folder)
        shutil.copy(HERE / "sessions_guest.py", folder)
        yield zctrace(
            *("serve", "--kernel", "6.1", "--user", "nobody", "--"),
            *("env", f"PYTHONPATH={code}", "PYTHONDONTWRITEBYTECODE=1", sys.executable, "-P"),
            *("-m", "pytest", "-rA", "--color=no", "-p", "zctrace.pytest_plugin"),
            *("-p", "no:cacheprovider", "-c", os.devnull, "--rootdir", folder),
            *("--zctrace=require", "--noconftest", folder / "sessions_guest.py"),
        )


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
