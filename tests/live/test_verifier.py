"""Every program, on every kernel: how much of it the verifier walks."""

import pytest

from tests.live import verifier


@pytest.mark.parametrize("line", ["5.10", "6.16", "7.3"])
def test_the_verifier_walks_a_tenth_of_its_limit_at_most(live, in_guest, line):
    """The oldest and the newest, and 6.16, which walks more of a loop than the others do."""
    answer = in_guest(line, "verifier_guest.py")
    assert answer.keys() == set(verifier.LARGEST)
    for mode, programs in answer.items():
        for name, walked in programs.items():
            print(line, mode, name, walked)
            assert isinstance(walked, int), (mode, name, walked)
            assert walked <= verifier.LIMIT // 10, (mode, name)
