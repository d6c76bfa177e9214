"""Lines of /proc/self/mountinfo."""

from pathlib import Path

from zctrace.collect import disk
from zctrace.collect.mounts import Mount, mounts, parse


def test_a_line():
    (mount,) = parse(
        [b"36 35 98:3 /mnt1 /mnt2 rw,noatime master:1 shared:2 - ext3 /dev/root rw,errors=x"]
    )
    assert mount == Mount(
        98 << 20 | 3, "/mnt1", Path("/mnt2"), "ext3", "/dev/root", ("rw", "errors=x")
    )


def test_names_with_blanks_and_of_any_language():
    line = r"1 2 0:5 /a\134b /mnt/my\040für\011x rw - tmpfs a\040b rw".encode()
    (mount,) = parse([line])
    assert (mount.root, mount.source) == (r"/a\b", "a b")
    assert mount.point == Path("/mnt/my für\tx")


def test_without_a_source():
    (mount,) = parse([b"1 2 0:5 / /mnt rw - tmpfs  rw"])
    assert (mount.source, mount.options) == ("", ("rw",))


def test_here():
    """The kernel's own lines; the root is what everything is relative to."""
    there = {mount.point: mount for mount in mounts()}
    assert there[Path("/proc")].file_system == "proc"
    assert disk.mounted(Path("/proc/self/status")) == (there[Path("/proc")].source, "proc")
