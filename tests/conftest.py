"""What all tests share: recorded kernels, recorded evidence, and when live tests run."""

import functools
import json
import os
import tempfile
from pathlib import Path

import pytest

from zctrace.evidence.schema import Evidence
from zctrace.kernel.facts import KernelFacts

HERE = Path(__file__).parent
LIVE_KERNELS = ("6.1", "7.3")
"""Those that everything is tested on; what counts copies also on the others."""
KERNELS = ("5.10", "6.1", "6.12", "7.3")
LONGEST_FIRST = (
    *("test_strategies", "test_programs", "test_host", "test_processors", "test_rings"),
    *("test_operations", "test_paths", "test_beside", "test_modules", "test_kills"),
    *("test_sessions", "test_sabotage"),
)
"""Files of tests that boot guests, in the order in which workers are to take them."""


def pytest_collection_modifyitems(config, items):
    for item in items:
        if "live" in item.path.parts:
            item.add_marker(pytest.mark.live)
        if "browser" in item.path.parts:
            item.add_marker(pytest.mark.browser)
        if "systems" in item.path.parts:
            item.add_marker(pytest.mark.systems)
    if hasattr(config, "workerinput"):  # one of several workers, which end together so
        items.sort(key=_turn)


def _turn(item):
    """Those without a guest come last: they fill what is left."""
    if not item.get_closest_marker("live"):
        return len(LONGEST_FIRST) + 1
    name = item.path.stem
    return LONGEST_FIRST.index(name) if name in LONGEST_FIRST else len(LONGEST_FIRST)


def _cannot_run_live():
    from zctrace import packages
    from zctrace.machine import places, qemu

    if os.geteuid() != 0:
        return "live tests need root: sudo make test"
    for name in places.MODULES:
        if not places.has_module(name):
            return f"live tests need {name}: {packages.remedy(name)}"
    for what, remedy in qemu.missing():
        return f"live tests need {what}: {remedy}"
    return None


def or_skip(reason):
    """Skip for that reason; or fail, where nothing may be skipped."""
    if os.environ.get("ZCTRACE_REQUIRE_LIVE") == "1":
        pytest.fail(reason)
    pytest.skip(reason)


@pytest.fixture(scope="session")
def live():
    """Skip without what live tests need; fail where they must not be skipped."""
    if reason := _cannot_run_live():
        or_skip(reason)


def recorded_kernel(line):
    recorded = json.loads((HERE / "kernels" / f"linux-{line}.json").read_text())
    return KernelFacts.from_json(recorded["kernel"])


@functools.cache
def recorded_evidence(line):
    """Read once, and shared by all tests: they alter copies."""
    return Evidence.from_json(
        json.loads((HERE / "evidence" / f"linux-{line}.json").read_text())
    )


@pytest.fixture(params=LIVE_KERNELS)
def line(request):
    """A kernel line that was recorded."""
    return request.param


@pytest.fixture(params=KERNELS)
def facts(request):
    return recorded_kernel(request.param)


@pytest.fixture
def evidence(line):
    return recorded_evidence(line)


@pytest.fixture(scope="session", autouse=True)
def shared_evidence_stays_as_it_was_recorded():
    """A test that changed it would decide what others see."""
    yield
    for path in (HERE / "evidence").glob("linux-*.json"):
        line = path.stem.removeprefix("linux-")
        assert recorded_evidence(line) == recorded_evidence.__wrapped__(line), path.name


def walked_by_everybody(folder):
    """Other users reach ``folder``, of pytest's temporary ones."""
    for part in (folder, *folder.parents):
        if part == Path(tempfile.gettempdir()):
            return
        part.chmod(part.stat().st_mode | 0o011)
