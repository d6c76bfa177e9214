import pytest

from zctrace.errors import UsageError
from zctrace.sizes import human_size, parse_size


@pytest.mark.parametrize(
    ("text", "size"),
    [("1", 1), ("4095", 4095), ("1K", 1024), ("64k", 65536), ("1M", 1 << 20), ("2G", 2 << 30),
     ("1MiB", 1 << 20), (" 7 ", 7)],
)  # fmt: skip
def test_sizes(text, size):
    assert parse_size(text, "--size") == size


@pytest.mark.parametrize("text", ["0", "-1", "", "K", "1.5M", "1T", "one", "0x10", "1 M x"])
def test_no_sizes(text):
    with pytest.raises(UsageError, match="--size"):
        parse_size(text, "--size")


@pytest.mark.parametrize(
    ("size", "text"), [(1, "1 B"), (1024, "1 KiB"), (1 << 20, "1 MiB"), (1000003, "1000003 B")]
)
def test_human_sizes_are_exact(size, text):
    assert human_size(size) == text
