"""The pytest plugin: a fixture that measures what a test does.

::

    def test_download_is_zero_copy(zctrace):
        with zctrace.window() as window:
            serve_file(…)
        assert window.copies < 0.01

Everything else is imported when the first test asks for the fixture.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from zctrace.session.api import Session


AUTO, REQUIRE, OFF = "auto", "require", "off"


def pytest_addoption(parser: pytest.Parser) -> None:
    group = parser.getgroup("zctrace", "counting what the CPU copies")
    group.addoption(
        "--zctrace",
        choices=(AUTO, REQUIRE, OFF),
        default=AUTO,
        help="tests that count copies: auto skips them, with the reason, where nothing can "
        "count; require fails them there; off skips them always",
    )


@pytest.fixture(scope="session")
def zctrace(request: pytest.FixtureRequest) -> Iterator[Session]:
    """Windows in which copies are counted: a ``tracer.Session``.

    Only where no collector can be had is a test skipped, or failed with
    ``--zctrace=require``; one that is lost later fails the test.
    """
    wanted = request.config.getoption("--zctrace")
    if wanted == OFF:
        pytest.skip("--zctrace=off")
    from zctrace.errors import ZctraceError
    from zctrace.session.api import Session

    try:
        session = Session()
    except ZctraceError as error:
        # What to do first: where lines are cut, the end is missing.
        hint = f" (try: {error.hint})" if error.hint else ""
        reason = f"zctrace: {error.what}{hint}{error.why and f': {error.why}'}"
        if wanted == REQUIRE:
            pytest.fail(reason, pytrace=False)
        pytest.skip(reason)
    with session:
        yield session
