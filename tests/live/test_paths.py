"""Paths on which bytes are copied by no iterator of the program's own: exact, or left open."""

import functools
import json
import shutil
import sys
import tempfile
from pathlib import Path

import pytest

from tests.live.conftest import HERE, zctrace
from tests.live.path_sizes import (
    FRAME,
    FUSE,
    MEMORY,
    MEMORY_WRITTEN,
    MESSAGE,
    MESSAGES,
    SECTORS,
)
from zctrace.machine import staging


@functools.cache
def seen_on(line):
    """By path: what its window has seen."""
    with tempfile.TemporaryDirectory(dir="/opt") as name:
        folder = Path(name)
        folder.chmod(0o755)
        code = staging.stage(folder)
        for script in ("paths_guest.py", "path_sizes.py"):
            shutil.copy(HERE / script, folder)
        result = zctrace(
            *("serve", "--kernel", line, "--user", "root", "--"),
            *("env", f"PYTHONPATH={code}", "PYTHONDONTWRITEBYTECODE=1"),
            *(sys.executable, folder / "paths_guest.py"),
        )
    lines = [text for text in result.stdout.splitlines() if text.startswith('{"path"')]
    return {found.pop("path"): found for found in map(json.loads, lines)} | {
        "": result.stdout + result.stderr
    }


@pytest.fixture
def seen(kernel):
    def look(path):
        found = seen_on(kernel)
        assert path in found, found[""]
        return found[path]

    return look


EXACT = {
    "splice_small_messages": ({"k2k": MESSAGE * MESSAGES}, 0),
    "read_other_memory": ({"k2u": MEMORY, "k2k": MEMORY}, 0),
    "write_other_memory": ({"u2k": MEMORY_WRITTEN, "k2k": MEMORY_WRITTEN}, 0),
    "fuse_daemon": ({"k2k": FUSE}, 0),
    "fuse_client": ({"k2u": FUSE}, FUSE),
    "loop_direct": ({}, SECTORS),
    "memory_disk_written": ({"k2k": SECTORS}, 0),
    "memory_disk_read": ({"k2k": SECTORS}, 0),
    "address_xdp": ({"k2k": FRAME}, 0),
}
"""By path: bytes copied, by direction; and those of which nothing tells for whom."""


@pytest.mark.parametrize("path", EXACT)
def test_every_byte_is_counted_once(seen, path):
    found = seen(path)
    assert "error" not in found, found["error"]
    assert (found["copied"], found["unassigned"]) == EXACT[path], found
    assert (found["doubts"], found["failed"]) == ([], [])


@pytest.mark.parametrize(
    "path", [name for name, (copied, _) in EXACT.items() if "k2k" in copied]
)
def test_why_the_kernel_copied_is_said_in_words(seen, path):
    (why,) = seen(path)["reasons"]
    assert not why.startswith("copied by")


def test_a_driver_that_comes_while_it_is_counted_leaves_the_answer_open(seen):
    found = seen("memory_disk_too_late")
    assert "error" not in found, found["error"]
    assert any("brd: loaded after the probes were attached" in why for why in found["doubts"])


def test_of_what_programs_do_all_day_nothing_is_anybody_else_s(seen):
    """Nor is what another process has the kernel read to become a program."""
    found = seen("ordinary")
    assert "error" not in found, found["error"]
    assert (found["unassigned"], found["doubts"], found["failed"]) == (0, [], [])
    assert found["copied"] == {"k2u": FUSE, "u2k": FUSE, "k2k": FUSE}


def test_calls_are_found_although_somebody_else_has_probes_on_them(kernel, in_guest):
    """Another zctrace, say. A call that is not found would be a silent zero."""
    found = in_guest(kernel, "foreign_guest.py")
    assert len(found["before"]) > 50
    assert found["hidden"] == len(found["before"])
    assert found["while"] == found["before"]
    # What was found like this is not kept for the next time.
    assert not found["untouched"]
