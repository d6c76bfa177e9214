"""What the tests of pages share: a browser."""

import shutil

import pytest

from tests.browser.chromium import Chromium
from tests.conftest import or_skip


@pytest.fixture(scope="module")
def chromium():
    """Skip without a browser; fail where that must not be skipped."""
    program = shutil.which("chromium")
    if not program:
        or_skip("browser tests need chromium: apt-get install chromium")
    with Chromium(program) as browser:
        yield browser
