"""The pytest plugin: a fixture that measures a part of a test, and a mark that limits a test.

::

    def test_download_is_zero_copy(zctrace):
        with zctrace.window() as window:
            serve_file(…)
        assert window.copies < 0.01

    @pytest.mark.max_copies(0.01)
    def test_upload_is_zero_copy():
        receive_file(…)

Everything else is imported when the first test is measured.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from typing import TYPE_CHECKING, NamedTuple

import pytest

if TYPE_CHECKING:
    from zctrace.session.api import Session, Window


AUTO, REQUIRE, OFF = "auto", "require", "off"
_MARK, _LIMIT, _FIXTURE = "max_copies", "zctrace_max_copies", "zctrace"

_NAMED = 2
"""So many calls are named at the beginning of a line."""


class Measured(NamedTuple):
    """A test, what it copied for each byte, and what is said of that; empty: it has kept it."""

    test: str
    copies: float | None
    sentence: str
    failure: str


_SESSION: pytest.StashKey[Session] = pytest.StashKey()
_NO_SESSION: pytest.StashKey[str] = pytest.StashKey()
_MEASURED: pytest.StashKey[list[Measured]] = pytest.StashKey()
_UNMEASURED: pytest.StashKey[list[str]] = pytest.StashKey()


def pytest_addoption(parser: pytest.Parser) -> None:
    group = parser.getgroup("zctrace", "counting what the CPU copies")
    group.addoption(
        "--zctrace",
        choices=(AUTO, REQUIRE, OFF),
        default=AUTO,
        help="tests that count copies: auto skips them, with the reason, where nothing can "
        "count; require fails them there; off skips them always",
    )
    group.addoption(
        "--max-copies",
        type=float,
        metavar="COPIES",
        help="copies per byte that each test may make, as by the mark max_copies; tests that "
        "move less than 64 KiB are not limited by it",
    )
    parser.addini(_LIMIT, "the default of --max-copies", default="")


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line(
        "markers",
        f"{_MARK}(copies): how often the CPU may copy each byte that the test delivers or "
        "receives",
    )
    config.stash[_MEASURED] = []
    config.stash[_UNMEASURED] = []


def _session(config: pytest.Config) -> Session:
    """The collector that all tests use; skips, or fails, where there can be none."""
    wanted = config.getoption("--zctrace")
    if wanted == OFF:
        pytest.skip("--zctrace=off")
    if _SESSION not in config.stash and _NO_SESSION not in config.stash:
        from zctrace.errors import ZctraceError
        from zctrace.session.api import Session

        try:
            config.stash[_SESSION] = Session()
        except ZctraceError as error:
            # What to do first: where lines are cut, the end is missing.
            hint = f" (try: {error.hint})" if error.hint else ""
            reason = f"zctrace: {error.what}{hint}{error.why and f': {error.why}'}"
            config.stash[_NO_SESSION] = reason
    if _NO_SESSION in config.stash:
        if wanted == REQUIRE:
            pytest.fail(config.stash[_NO_SESSION], pytrace=False)
        pytest.skip(config.stash[_NO_SESSION])
    return config.stash[_SESSION]


@pytest.fixture(scope="session")
def zctrace(request: pytest.FixtureRequest) -> Session:
    """Windows in which copies are counted: a ``tracer.Session``.

    Only where no collector can be had is a test skipped, or failed with
    ``--zctrace=require``; one that is lost later fails the test.
    """
    return _session(request.config)


def pytest_unconfigure(config: pytest.Config) -> None:
    if _SESSION in config.stash:
        config.stash[_SESSION].close()


@pytest.hookimpl(wrapper=True)
def pytest_runtest_call(item: pytest.Item) -> Iterator[None]:
    """Measure the whole of a test that has a limit."""
    limit, is_marked = _limit(item)
    if limit is None:
        return (yield)
    try:
        window = _session(item.config).window()
    except pytest.skip.Exception as skipped:
        # A default limit must not skip the tests of a machine that cannot count.
        if is_marked:
            raise
        item.config.stash[_UNMEASURED].append(str(skipped.msg))
        return (yield)
    try:
        with window:
            result = yield
    finally:
        item.config.stash[_SESSION].take_measured()  # this one
    if failure := _judged(item, window, limit, is_marked=is_marked):
        pytest.fail(failure, pytrace=False)
    return result


def _limit(item: pytest.Item) -> tuple[float | None, bool]:
    """How many copies a test may make, and whether its own mark says so."""
    mark = item.get_closest_marker(_MARK)
    measures_itself = _FIXTURE in getattr(item, "fixturenames", ())
    if mark is None:
        given = item.config.getoption("--max-copies")
        default = item.config.getini(_LIMIT) if given is None else given
        if measures_itself or default == "":
            return None, False
        return _number(default), False
    if measures_itself:
        pytest.fail(
            f"the mark {_MARK} and the fixture {_FIXTURE} in one test: a collector counts one "
            "window at a time",
            pytrace=False,
        )
    if len(mark.args) != 1 or mark.kwargs:
        pytest.fail(f"{_MARK} has one number, as in {_MARK}(0.01)", pytrace=False)
    return _number(mark.args[0]), True


def _number(value: object) -> float:
    try:
        number = float(value)  # type: ignore[arg-type]
    except (TypeError, ValueError):
        number = -1
    if not 0 <= number < float("inf"):
        pytest.fail(f"{_MARK}: {value!r} is no number of copies per byte", pytrace=False)
    return number


def _judged(item: pytest.Item, window: Window, limit: float, *, is_marked: bool) -> str:
    """Why the test has not kept its limit, in one line; empty if it has."""
    from zctrace.analysis import limits, sentences
    from zctrace.analysis.border import LITTLE
    from zctrace.errors import LimitError

    found = window.answer
    little = found.basis[1] < LITTLE
    copied = (found.copied_bytes or 0) + found.unassigned + found.within_bytes
    certain = not (found.failed or found.doubts)
    if little and copied < LITTLE and certain and not is_marked:
        return ""
    failure = ""
    if found.failed:
        failure = f"self-test failed: {found.failed[0].name}: {found.failed[0].detail}"
    elif little:
        failure = (
            f"it moved only {found.basis[1]} B, and {copied} B were copied: below {LITTLE} B "
            f"there is no copies per byte{(found.doubts and f'; {found.doubts[0]}') or ''}"
        )
    else:
        try:
            limits.require(found, limit)
        except LimitError as error:
            who = [sentences.called(line.name) for line in found.calls if line.copied_bytes]
            # First who copied: where lines are cut, the end is missing.
            by = f"copied by {', '.join(who[:_NAMED])}: " if who else ""
            failure = by + "; ".join(filter(None, (error.what, error.why)))
    _note(item, window, failure)
    return failure


def _note(item: pytest.Item, window: Window, failure: str = "") -> None:
    """For JUnit's file, and for the summary."""
    found = window.answer
    item.user_properties += [
        ("zctrace_copies", found.copies),
        ("zctrace_verdict", window.sentence),
    ]
    one = Measured(item.nodeid, found.copies, window.sentence, failure)
    item.config.stash[_MEASURED].append(one)


@pytest.hookimpl(trylast=True)
def pytest_runtest_teardown(item: pytest.Item) -> None:
    """Windows that a test has opened by itself, with the fixture."""
    if _SESSION in item.config.stash:
        for window in item.config.stash[_SESSION].take_measured():
            _note(item, window)


def pytest_terminal_summary(
    terminalreporter: pytest.TerminalReporter, config: pytest.Config
) -> None:
    """Tests with a limit for all that were not measured: they have shown nothing."""
    if unmeasured := config.stash[_UNMEASURED]:
        terminalreporter.write_line(
            f"zctrace: --max-copies has not limited {len(unmeasured)} tests: {unmeasured[0]}"
        )


def pytest_sessionfinish(session: pytest.Session) -> None:
    """The summary of a workflow's step, where GitHub reads one."""
    measured = session.config.stash[_MEASURED]
    if measured:
        from zctrace.errors import OutputError
        from zctrace.reports import markdown, step_summary

        try:
            step_summary.append(markdown.of_tests(measured))
        except OutputError as error:
            # The tests' own outcome is worth more.
            warnings.warn(f"zctrace: {error.what}", stacklevel=1)
