"""Paths on which bytes are copied by no iterator of the program's own: exact, or left open."""

import functools
import json
import shutil
import sys
import tempfile
from pathlib import Path

import pytest

from tests.conftest import LIVE_KERNELS
from tests.live.conftest import HERE, zctrace
from tests.live.path_sizes import (
    COPIED_UP,
    FRAME,
    FUSE,
    MEMORY,
    MEMORY_WRITTEN,
    MESSAGE,
    MESSAGES,
    PAGES,
    PRINTED,
    QUEUED,
    SECTORS,
    SENT,
)
from zctrace.machine import kernels, staging

FSRM = "fsrm"


@functools.cache
def seen_on(line, altered=None):
    """By path: what its window has seen; on a guest that is altered so."""
    with tempfile.TemporaryDirectory(dir="/opt") as name:
        folder = Path(name)
        folder.chmod(0o755)
        code = staging.stage(folder)
        for script in ("paths_guest.py", "path_sizes.py", "plain_paths.py"):
            shutil.copy(HERE / script, folder)
        result = zctrace(
            *("serve", "--kernel", line, "--user", "root", "--"),
            *("env", f"PYTHONPATH={code}", "PYTHONDONTWRITEBYTECODE=1"),
            *(sys.executable, folder / "paths_guest.py"),
            altered=altered,
        )
    lines = [text for text in result.stdout.splitlines() if text.startswith('{"path"')]
    return {found.pop("path"): found for found in map(json.loads, lines)} | {
        "": result.stdout + result.stderr
    }


@pytest.fixture(params=[(line, None) for line in LIVE_KERNELS] + [("7.3", FSRM)])
def seen(request, live):
    """On two kernels; and on a processor on which user copies are inlined."""
    line, altered = request.param
    kernels.resolve(line, print)

    def look(path):
        found = seen_on(line, altered)
        assert path in found, found[""]
        return found[path]

    look.at_call_sites = altered == FSRM
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
    "posix_messages": ({"u2k": QUEUED, "k2u": QUEUED}, 0),
    "system_v_messages": ({"u2k": QUEUED, "k2u": QUEUED}, 0),
    "other_memory_by_call": ({"k2u": MEMORY}, 0),
    "pages_by_userfaultfd": ({"u2k": PAGES * 4096}, 0),
    "copied_up": ({"k2k": COPIED_UP}, 0),
    "sent_from_memory": ({}, 0),
    "sent_from_a_loop_device": ({}, 0),
    "sent_from_proc": ({"k2k": PRINTED}, 0),
    "made_up_and_thrown_away": ({}, 0),
}
"""By path: bytes copied, by direction; and those of which nothing tells for whom."""
OF_KERNEL_THREADS = {"loop_direct"}
"""Copied outside of the program's cgroup, where no breakpoint is; the answer is open all the
same."""


@pytest.mark.parametrize("path", EXACT)
def test_every_byte_is_counted_once(seen, path):
    found = seen(path)
    assert "error" not in found, found["error"]
    copied, unassigned = EXACT[path]
    if path in OF_KERNEL_THREADS and not seen.at_call_sites:
        unassigned = 0
    assert (found["copied"], found["unassigned"]) == (copied, unassigned), found
    assert (found["doubts"], found["failed"]) == ([], [])


@pytest.mark.parametrize(
    "path", [name for name, (copied, _) in EXACT.items() if "k2k" in copied]
)
def test_why_the_kernel_copied_is_said_in_words(seen, path):
    (why,) = seen(path)["reasons"]
    assert not why.startswith("copied by")


OPEN = {
    "fuse_daemon": 0,
    "fuse_client": 0,
    "loop_direct": SECTORS,
    "memory_disk_written": 0,
    "memory_disk_read": 0,
    "sent_from_a_loop_device": SENT,
}
"""By path: bytes of which it stays open whether they were copied; of all others none."""


@pytest.mark.parametrize("path", EXACT)
def test_what_nothing_explains_is_said(seen, path):
    found, many = seen(path), OPEN.get(path, 0)
    assert (found["unexplained"], bool(found["why"])) == (many, bool(many)), found
    if many:
        assert "unknown" in found["sentence"]
        assert "loop device" in found["sentence"]


def test_a_driver_that_comes_while_it_is_counted_leaves_the_answer_open(seen):
    found = seen("memory_disk_too_late")
    assert "error" not in found, found["error"]
    late = "module brd was loaded after the probes were attached"
    assert any(late in why for why in found["doubts"])


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
