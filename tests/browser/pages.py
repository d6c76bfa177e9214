"""Pages of every kind, from what was recorded."""

from tests.conftest import recorded_evidence
from zctrace.analysis import runs
from zctrace.reports.html import page

LINES = ("5.10", "6.1", "7.3", "6.1-e1000", "7.3-e1000")
JAVA = ("6.1-java", "6.1-netty")


def _runs(*lines):
    return page.page(runs.judge([recorded_evidence(line) for line in lines]))


PAGES = {"run": lambda: _runs(*LINES), "java": lambda: _runs(*JAVA)}
"""Several kernels and devices; copies in user memory and long names."""
