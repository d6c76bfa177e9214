"""Machines that are not as usual, on one kernel. More of them: ``make test-kernels``."""

import pytest

from tests.kernel_lines import __main__ as kernel_lines
from tests.kernel_lines.judge import Word
from zctrace.machine import kernels


@pytest.mark.parametrize(
    ("altered", "word", "why"),
    [
        ("cgroup-v1", Word.EXACT, ""),
        ("no-kcore", Word.EXACT, ""),
        ("no-btf", Word.REFUSED, "does not describe its file structures"),
    ],
)
def test_a_machine_without_what_others_have(live, altered, word, why):
    """These go on from a saved machine, which those with boot options cannot."""
    found = kernel_lines.traced(kernels.resolve("6.1", print).release, altered)
    assert found.word is word, found.why
    assert why in found.why
